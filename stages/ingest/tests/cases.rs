//! Real files that went wrong, as small inputs that the test writes.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use std::io::Write;

use codepair_runtime::{ExitStatus, exit_status};
use support::{column, ingest, write};

fn utf16(text: &str) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

fn marked(text: &str) -> Vec<u8> {
    ["\u{feff}", text].concat().into_bytes()
}

fn line(n: usize) -> String {
    let row = serde_json::json!({ "code": format!("def f{n}(a):\n    return a + {n}"), "doc": format!("Add {n}, a numéro.") });
    format!("{row}\n")
}

const JSONL: &str = "kind = \"jsonl\"\npath = \"in\"\ncolumns = { code = \"code\", docstring = \"doc\" }";
const CSV: &str = "kind = \"csv\"\npath = \"in\"\ncolumns = { code = \"code\", docstring = \"doc\" }";
const PARALLEL: &str = "kind = \"parallel_text\"\npath = \"in\"\nsource = \"fr\"\ntarget = \"en\"";

#[test]
fn a_byte_order_mark_is_no_text() {
    let rows = line(1) + &line(2);
    let csv = "code,doc\ndef f(a): return a,\"Say, numéro.\"\n";
    for encode in [marked as fn(&str) -> Vec<u8>, utf16, |text| text.as_bytes().to_vec()] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "in/a.jsonl", encode(&rows));
        write(folder.path(), "in/b.csv", encode(csv));
        write(folder.path(), "in/train.fr", encode("bonjour le monde\nau revoir\n"));
        write(folder.path(), "in/train.en", encode("hello world\ngoodbye\n"));
        let found = ingest(folder.path(), JSONL).unwrap();
        assert_eq!(column(&found, "functions", "docstring"), ["Add 1, a numéro.", "Add 2, a numéro."]);
        assert_eq!(column(&ingest(folder.path(), CSV).unwrap(), "functions", "docstring"), ["Say, numéro."]);
        let pairs = ingest(folder.path(), PARALLEL).unwrap();
        assert_eq!(column(&pairs, "pairs", "text"), ["bonjour le monde", "au revoir"]);
        write(
            folder.path(),
            "tree/a.py",
            encode("def f(a):\n    \"\"\"Say it again.\"\"\"\n    b = 'é'\n    return b\n"),
        );
        let tree = ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"").unwrap();
        assert_eq!(column(&tree, "functions", "code"), ["def f(a):\n    b = 'é'\n    return b"]);
    }
}

#[test]
fn bytes_of_other_encodings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = line(1).into_bytes();
    rows.extend(b"{\"code\": \"def g(): return 1\", \"doc\": \"caf\xe9\"}\n");
    write(folder.path(), "in/a.jsonl", &rows);
    write(folder.path(), "in/b.csv", b"code,doc\ndef f(a): return a,caf\xe9\ndef g(a): return a,tea\n");
    for (table, place) in [(JSONL, "a.jsonl:2"), (CSV, "b.csv:2")] {
        let found = ingest(folder.path(), table).unwrap();
        assert_eq!(column(&found, "functions", "code").len(), 1);
        assert_eq!(column(&found, "rejected", "id"), [place]);
        let detail = column(&found, "rejected", "detail");
        assert!(detail[0].contains("byte 0xe9"), "{detail:?}");
    }
    write(folder.path(), "in/train.fr", b"caf\xe9\n");
    write(folder.path(), "in/train.en", b"coffee\n");
    let error = ingest(folder.path(), PARALLEL).unwrap_err();
    assert!(
        format!("{error:#}").contains("train.fr: it is no UTF-8") && format!("{error:#}").contains("iconv"),
        "{error:#}"
    );
    let declared =
        b"# -*- coding: latin-1 -*-\ndef f(a):\n    \"\"\"Say caf\xe9 again.\"\"\"\n    b = a\n    return b\n";
    write(folder.path(), "tree/a.py", declared);
    let tree = ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"").unwrap();
    assert_eq!(column(&tree, "functions", "docstring"), ["Say café again."]);
}

#[test]
fn stray_quotes_and_tabs_of_csv() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..900)
        .map(|n| format!("def f{n}(a): return a + {n},{}Add {n}.\n", if n == 700 { "\"" } else { "" }))
        .collect();
    write(folder.path(), "in/a.csv", format!("code,doc\n{rows}"));
    write(folder.path(), "in/b.tsv", "code\tdoc\ndef g(a, b): return a\tTake a, not b.\n");
    let found = ingest(folder.path(), CSV).unwrap();
    let docs = column(&found, "functions", "docstring");
    assert_eq!(docs.len(), 900);
    assert!(docs.iter().all(|doc| doc.lines().count() == 1) && docs.contains(&"Take a, not b.".to_owned()));
    assert_eq!(column(&found, "rejected", "id"), ["a.csv:702"]);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "in/a.csv", "code,doc\n\"def f(a): return \\\"x\\\"\",\"Say x.\"\n");
    assert!(ingest(folder.path(), CSV).is_err());
    let escaped = ingest(folder.path(), &format!("{CSV}\nescape = \"\\\\\"")).unwrap();
    assert_eq!(column(&escaped, "functions", "code"), ["def f(a): return \"x\""]);
}

#[test]
fn a_line_that_is_too_long_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{{\"code\": \"{}\"}}\n", "x".repeat(70 << 20));
    write(folder.path(), "in/a.jsonl", [line(1), long.clone(), line(2), line(3)].concat());
    write(folder.path(), "in/b.jsonl", [line(4), long.trim_end().to_owned()].concat());
    let found = ingest(folder.path(), JSONL).unwrap();
    assert_eq!(column(&found, "functions", "docstring").len(), 4);
    assert_eq!(column(&found, "rejected", "id"), ["a.jsonl:2", "b.jsonl:2"]);
    assert_eq!(column(&found, "rejected", "reason"), ["too_large", "too_large"]);
}

#[test]
fn a_gigabyte_out_of_a_megabyte_has_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![b' '; 1 << 20];
    (0..1024).for_each(|_| packed.write_all(&block).unwrap());
    let bomb = packed.finish().unwrap();
    assert!(bomb.len() < 8 << 20);
    write(folder.path(), "a.json.gz", &bomb);
    let array = JSONL.replace("\"in\"", "\"a.json.gz\"");
    let error = ingest(folder.path(), &array).unwrap_err();
    assert!(format!("{error:#}").contains("is no JSON array: it does not begin with ["), "{error:#}");
    // What has to be in memory as a whole.
    write(folder.path(), "cosqa/code_idx_map.txt.gz", &bomb);
    let error = ingest(folder.path(), "kind = \"cosqa\"\npath = \"cosqa\"").unwrap_err();
    assert!(format!("{error:#}").contains("more than 256 MiB unpacked"), "{error:#}");
    assert_eq!(exit_status(&error), ExitStatus::MissingInput);
    // Of lines it is one that is too long, and of a quoted field a record.
    write(folder.path(), "in/a.jsonl.gz", &bomb);
    write(folder.path(), "in/b.jsonl", line(1));
    let found = ingest(folder.path(), JSONL).unwrap();
    assert_eq!(column(&found, "rejected", "reason"), ["too_large"]);
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak: u64 = peak
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap()
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap();
    assert!(peak < 1 << 20, "{peak} kB");
}

#[test]
fn links_to_files_are_read_and_links_to_folders_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "blobs/9f8e", line(1));
    std::fs::create_dir_all(folder.path().join("in/data")).unwrap();
    std::os::unix::fs::symlink("../../blobs/9f8e", folder.path().join("in/data/train.jsonl")).unwrap();
    std::os::unix::fs::symlink("..", folder.path().join("in/data/loop")).unwrap();
    let found = ingest(folder.path(), JSONL).unwrap();
    assert_eq!(column(&found, "functions", "docstring").len(), 1);
    std::fs::remove_file(folder.path().join("blobs/9f8e")).unwrap();
    let error = ingest(folder.path(), JSONL).unwrap_err();
    assert!(format!("{error:#}").contains("a link to what is not there"), "{error:#}");
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        writer.start_file(*name, stored).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        writer.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn archives_serve_for_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    let texts =
        [("m/test.en", "bye\n"), ("m/test.fr", "salut\n"), ("m/train.fr", "un\ndeux\n"), ("m/train.en", "one\ntwo\n")];
    let apple = [&texts[..], &[("__MACOSX/m/._train.fr", "x"), ("m/._train.fr", "y"), ("m/.DS_Store", "z")]].concat();
    for (name, content) in &apple {
        write(folder.path(), &format!("in/{name}"), content);
    }
    write(folder.path(), "all.zip", zip(&apple));
    write(folder.path(), "all.tar", tar(&apple));
    let plain = ingest(folder.path(), PARALLEL).unwrap();
    assert_eq!(column(&plain, "pairs", "text"), ["salut", "un", "deux"]);
    for archive in ["all.zip", "all.tar"] {
        let found = ingest(folder.path(), &PARALLEL.replace("\"in\"", &format!("{archive:?}"))).unwrap();
        let mut rows: Vec<_> =
            column(&found, "pairs", "text").into_iter().zip(column(&found, "pairs", "code")).collect();
        rows.sort();
        assert_eq!(rows, [("deux", "two"), ("salut", "bye"), ("un", "one")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
    write(folder.path(), "alone.zip", zip(&texts[..3]));
    let error = ingest(folder.path(), &PARALLEL.replace("\"in\"", "\"alone.zip\"")).unwrap_err();
    assert!(format!("{error:#}").contains("has no counterpart m/train.en"), "{error:#}");
    // Rows in an archive, and one in a folder.
    write(folder.path(), "rows.zip", zip(&[("d/a.jsonl", &line(1)), ("d/._a.jsonl", "\0\0"), ("d/b.txt", "no")]));
    write(folder.path(), "many/rows.zip", zip(&[("a.jsonl", &line(2))]));
    for path in ["rows.zip", "many"] {
        let found = ingest(folder.path(), &JSONL.replace("\"in\"", &format!("{path:?}"))).unwrap();
        assert_eq!(column(&found, "functions", "code").len(), 1, "{path}");
    }
    let excluded = ingest(folder.path(), &JSONL.replace("\"in\"", "\"many\"\nexclude = [\"*.zip\"]"));
    assert!(format!("{:#}", excluded.unwrap_err()).contains("holds no file that fits"));
}

#[test]
fn what_nobody_can_unpack_is_named_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "in/a.jsonl", line(1));
    write(folder.path(), "in/b.jsonl.xz", b"\xfd7zXZ\0rubbish");
    // An entry that says it is packed by bzip2, which is method 12, in both of its headers.
    let mut archive = zip(&[("c.jsonl", &line(2)), ("d.jsonl", &line(3))]);
    for magic in [b"PK\x03\x04", b"PK\x01\x02"] {
        let at = archive.windows(4).position(|bytes| bytes == magic).unwrap();
        archive[at + if magic[2] == 3 { 8 } else { 10 }] = 12;
    }
    write(folder.path(), "in/e.zip", archive);
    write(folder.path(), "in/f.jsonl.zst", zstd::encode_all(line(4).as_bytes(), 1).unwrap());
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(line(5).len() as u64);
    tar.append_data(&mut header, "g.jsonl", line(5).as_bytes()).unwrap();
    write(folder.path(), "in/g.tar.zst", zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap());
    write(folder.path(), "in/h.tar.xz", b"\xfd7zXZ\0rubbish");
    let found = ingest(folder.path(), JSONL).unwrap();
    assert_eq!(column(&found, "functions", "docstring"), [1, 3, 4, 5].map(|n| format!("Add {n}, a numéro.")));
    assert_eq!(column(&found, "rejected", "reason"), ["unreadable"; 3]);
    assert_eq!(column(&found, "rejected", "id"), ["b.jsonl.xz", "e.zip/c.jsonl", "h.tar.xz"]);
    assert!(column(&found, "rejected", "detail")[0].contains("xz"));
}

/// Of one file without any repository or path every row is a group of its own, and all splits have rows.
#[test]
fn the_simplest_own_data_can_be_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "in/a.jsonl", (0..200).map(line).collect::<String>());
    let splits = |table: &str| {
        let found = ingest(folder.path(), table).unwrap();
        let all = column(&found, "functions", "split");
        ["train", "validation", "test"].map(|split| all.iter().filter(|own| *own == split).count())
    };
    let counts = splits(JSONL);
    assert!(counts.iter().all(|count| *count > 5) && counts.iter().sum::<usize>() == 200, "{counts:?}");
    assert_eq!(splits(&format!("{JSONL}\nsplit = \"train\"")), [200, 0, 0]);
    let error = ingest(folder.path(), &format!("{JSONL}\nsplit_by = \"file\"")).unwrap_err();
    assert!(format!("{error:#}").contains("divide rows and not files, with split_by = \"row\""), "{error:#}");
    assert_eq!(exit_status(&error), ExitStatus::MissingInput);
    for shares in ["{ test = 1.5 }", "{ test = -0.1 }", "{ validation = 0.6, test = 0.6 }"] {
        let error = ingest(folder.path(), &format!("{JSONL}\nshares = {shares}")).unwrap_err();
        assert_eq!(exit_status(&error), ExitStatus::WrongConfig);
    }
    write(folder.path(), "named/train-00000-of-00001.jsonl", line(1) + &line(2));
    write(folder.path(), "named/test-00000-of-00001.jsonl", line(3));
    let named = ingest(folder.path(), &JSONL.replace("\"in\"", "\"named\"")).unwrap();
    assert_eq!(column(&named, "functions", "split"), ["test", "train", "train"]);
    // Where nothing is named for validation, a share of the training rows is.
    write(folder.path(), "two/train-00000-of-00001.jsonl", (0..200).map(line).collect::<String>());
    write(folder.path(), "two/test-00000-of-00001.jsonl", (200..240).map(line).collect::<String>());
    let two = JSONL.replace("\"in\"", "\"two\"");
    let [train, validation, test] = splits(&two);
    assert!(validation > 5 && train + validation == 200 && test == 40, "{train} {validation} {test}");
    // In archives as well, and of one file alone where it is named for tests.
    let text = |from: usize, to: usize| (from..to).map(line).collect::<String>();
    write(folder.path(), "two.zip", zip(&[("train.jsonl", &text(0, 200)), ("test.jsonl", &text(200, 240))]));
    let [train, validation, test] = splits(&JSONL.replace("\"in\"", "\"two.zip\""));
    assert!(validation > 5 && train + validation == 200 && test == 40, "{train} {validation} {test}");
    write(folder.path(), "alone/test.jsonl", text(0, 20));
    assert_eq!(splits(&JSONL.replace("\"in\"", "\"alone\"")), [0, 0, 20]);
    // Who says how to divide is obeyed.
    assert_ne!(splits(&format!("{two}\nsplit_by = \"row\""))[2], 40);
}

/// A record of several lines that has a field too few is one record: its lines of code are none.
#[test]
fn a_record_of_code_with_a_field_too_few_is_one_rejected_row() {
    let folder = tempfile::tempdir().unwrap();
    let code = "\"def f(x):\n    y = x\n    return x, y\n\"";
    write(folder.path(), "in/a.csv", format!("code,doc\n{code}\ndef g(a): return a,Give it.\n{code},Give both.\n"));
    let found = ingest(folder.path(), CSV).unwrap();
    assert_eq!(column(&found, "functions", "docstring"), ["Give it.", "Give both."]);
    assert_eq!(column(&found, "rejected", "id"), ["a.csv:2"]);
    // So is one that is malformed otherwise: no piece of it becomes a row.
    let code =
        |name: &str| format!("\"def {name}(t):\n    a, b = t\n    for i, x in b:\n        print(a)\n    return a\"");
    let rows = [
        b"code,doc\n".to_vec(),
        code("f").into_bytes(),
        b",caf\xe9\n".to_vec(),
        code("g").into_bytes(),
        b",Give it.\n".to_vec(),
    ];
    let strays = format!("code,doc\n\"a \"stray\" one\",{}\n{},Give it.\n", code("h"), code("k"));
    for content in [rows.concat(), strays.into_bytes()] {
        write(folder.path(), "in/a.csv", content);
        let found = ingest(folder.path(), CSV).unwrap();
        assert_eq!(column(&found, "functions", "docstring"), ["Give it."]);
        assert_eq!(column(&found, "rejected", "id"), ["a.csv:2"]);
    }
}

#[test]
fn fields_within_others_can_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let row = |n: usize| serde_json::json!({ "doc": format!("Add {n}."), "meta": { "code": format!("def f(a): return a + {n}"), "repo": "o/n" }});
    write(folder.path(), "in/a.jsonl", (0..3).map(|n| format!("{}\n", row(n))).collect::<String>());
    write(folder.path(), "array.json", serde_json::json!([row(0), row(1), row(2)]).to_string());
    let nested = JSONL.replace("code = \"code\"", "code = \"meta.code\", repo = \"meta.repo\"");
    for table in [nested.clone(), nested.replace("\"in\"", "\"array.json\"")] {
        let found = ingest(folder.path(), &table).unwrap();
        assert_eq!(column(&found, "functions", "repo"), ["o/n"; 3]);
        assert_eq!(column(&found, "functions", "code")[1], "def f(a): return a + 1");
    }
}

/// Names that are no UTF-8 are shown with the bytes they have, and are two where they are two.
#[test]
fn names_that_are_no_text_are_told_apart() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("in/pkg")).unwrap();
    for (name, n) in [(&b"in/a\xe9.jsonl"[..], 1), (b"in/a\xe8.jsonl", 2)] {
        std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), line(n) + "no row\n").unwrap();
    }
    let found = ingest(folder.path(), JSONL).unwrap();
    assert_eq!(column(&found, "functions", "code").len(), 2);
    assert_eq!(column(&found, "rejected", "id"), ["a%E8.jsonl:2", "a%E9.jsonl:2"]);
    // In a checkout as well.
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(
        tree.join(std::ffi::OsStr::from_bytes(b"caf\xe9.py")),
        "def f(a):\n    \"\"\"Say it once again.\"\"\"\n    b = a\n    return b\n",
    )
    .unwrap();
    for arguments in
        [&["init", "-q"][..], &["add", "-A"], &["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "first"]]
    {
        assert!(std::process::Command::new("git").arg("-C").arg(&tree).args(arguments).status().unwrap().success());
    }
    let found = ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"").unwrap();
    assert_eq!(column(&found, "functions", "path"), ["caf%E9.py"]);
}

#[test]
fn one_checkout_or_archive_is_divided_by_files() {
    let folder = tempfile::tempdir().unwrap();
    let module = |n: usize| format!("def f{n}(a):\n    \"\"\"Say it {n} times.\"\"\"\n    b = a * {n}\n    return b\n");
    for n in 0..60 {
        write(folder.path(), &format!("tree/pkg/m{n}.py"), module(n));
    }
    let found = ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"").unwrap();
    let splits: std::collections::BTreeSet<String> = column(&found, "functions", "split").into_iter().collect();
    assert_eq!(splits.len(), 3);
    assert_eq!(column(&found, "functions", "group")[0], "pkg/m0.py");
    let whole = ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"\nsplit_by = \"module\"").unwrap_err();
    assert!(format!("{whole:#}").contains("rows with \"row\""), "{whole:#}");
}

#[test]
fn several_texts_of_a_code_are_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let row = |n: usize| serde_json::json!({ "q": format!("question {n}"), "a": format!("def f{}(): return {}", n / 4, n / 4), "n": n });
    write(folder.path(), "in/a.jsonl", (0..80).map(|n| format!("{}\n", row(n))).collect::<String>());
    let found = ingest(
        folder.path(),
        "kind = \"jsonl\"\npath = \"in\"\ncolumns = { text = \"q\", code = \"a\", url = \"n\", repo = \"none\" }",
    )
    .unwrap();
    assert_eq!(column(&found, "pairs", "text").len(), 80);
    assert_eq!(column(&found, "pairs", "url")[..2], ["0", "1"], "a number serves as a name");
    // Those of one code are of one split.
    let (codes, splits) = (column(&found, "pairs", "code"), column(&found, "pairs", "split"));
    let by_code: std::collections::BTreeSet<_> = codes.iter().zip(&splits).collect();
    assert_eq!(by_code.len(), 20);
    assert!(found.1.rows("functions") == 0 && found.1.rejected.is_empty());
}

#[test]
fn the_store_is_no_source_although_it_lies_in_one() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.jsonl", line(1));
    write(folder.path(), "own/runs/t/1/rows.jsonl", line(2));
    let found = ingest(folder.path(), &JSONL.replace("\"in\"", "\".\"")).unwrap();
    assert_eq!(column(&found, "functions", "docstring").len(), 1);
}

/// What is wrong with a file as a whole is said in its own words, and not of its rows.
#[test]
fn files_of_another_form_are_named() {
    let csv = |content: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "in/a.csv", content);
        format!("{:#}", ingest(folder.path(), CSV).unwrap_err())
    };
    let said = csv("code;doc\nx = 1;Say it.\n");
    assert!(
        said.contains("no such column, but code;doc; is it divided by another character? delimiter = \";\""),
        "{said}"
    );
    assert!(csv("source,doc\nx = 1,Say it.\n").contains("doc, source"));
    assert!(csv("code,doc,doc\nx = 1,Say it.,Or not.\n").contains("the header has 2 columns of that name"));
    assert!(csv("code,doc\rx = 1,Say it.\r").contains("its lines end in carriage returns alone"));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "in/a.parquet", "{\"code\": 1}\n");
    let table = "kind = \"parquet\"\npath = \"in\"\ncolumns = { code = \"code\", docstring = \"doc\" }";
    let error = format!("{:#}", ingest(folder.path(), table).unwrap_err());
    assert!(error.contains("a.parquet is no Parquet file: it begins with \"{\\\"co\""), "{error}");
    // As other systems write names.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "in/A.JSONL", line(1));
    write(folder.path(), "in/b.ndjson", line(2));
    assert_eq!(column(&ingest(folder.path(), JSONL).unwrap(), "functions", "id").len(), 2);
}

/// A value within a table of some kind is named by its own key.
#[test]
fn wrong_values_are_named_by_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "in/a.jsonl", line(1));
    for (table, said) in [
        (format!("{JSONL}\nshares = {{ test = \"many\" }}"), "ingest.s.shares.test: invalid type: string \"many\""),
        (format!("{JSONL}\nsplit = 3"), "ingest.s.split: "),
        (
            JSONL.replace("docstring = ", "docstrings = "),
            "unknown key `docstrings` in [ingest.s.columns]; did you mean `docstring`?",
        ),
        (JSONL.replace("\"jsonl\"", "\"jsnol\""), "ingest.s: unknown value `jsnol`; did you mean `jsonl`?"),
        (JSONL.replace("kind = \"jsonl\"", ""), "missing field `kind`"),
    ] {
        let error = format!("{:#}", ingest(folder.path(), &table).unwrap_err());
        assert!(error.contains(said), "{error}");
    }
}
