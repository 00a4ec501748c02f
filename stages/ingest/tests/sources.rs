//! Every kind of source, on files written by the test; and the shared data's counts, where it is there.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use codepair_runtime::{ExitStatus, exit_status, read_output};
use support::{column, ingest, write};

fn gz(content: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
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

fn parquet(columns: &[(&str, &[&str])]) -> Vec<u8> {
    let columns =
        columns.iter().map(|(name, values)| (*name, Arc::new(StringArray::from(values.to_vec())) as ArrayRef));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

const MODULE: &str = "def f(a):\n    \"\"\"Say it again.\"\"\"\n    b = a\n    return b\n";

#[test]
fn trees_are_read_out_of_archives() {
    let folder = tempfile::tempdir().unwrap();
    let files = [("pkg/b.py", MODULE), ("pkg/tests/t.py", MODULE), ("pkg/a.txt", "no"), ("pkg/a.py", MODULE)];
    write(folder.path(), "one.zip", zip(&files));
    write(folder.path(), "many/alpha-1.2-py3.whl", zip(&files));
    write(folder.path(), "many/beta-3.tar.gz", gz(&tar(&files)));
    write(folder.path(), "many/plain.py", MODULE);
    let one = ingest(folder.path(), "kind = \"source_tree\"\npath = \"one.zip\"\nlicence = \"MIT\"").unwrap();
    assert_eq!(column(&one, "functions", "path"), ["pkg/a.py", "pkg/b.py"]);
    assert_eq!(column(&one, "functions", "url"), ["one.zip/pkg/a.py#L1-L4", "one.zip/pkg/b.py#L1-L4"]);
    assert_eq!(column(&one, "functions", "repo"), ["one", "one"]);
    assert_eq!(column(&one, "functions", "licence"), ["MIT", "MIT"]);
    let many = ingest(folder.path(), "kind = \"source_tree\"\npath = \"many\"\narchives = true").unwrap();
    assert_eq!(column(&many, "functions", "repo"), ["alpha", "alpha", "beta", "beta", ""]);
    let (alpha, beta) = ("alpha-1.2-py3.whl", "beta-3.tar.gz");
    // What says nothing else has the source's own name.
    assert_eq!(column(&many, "functions", "origin"), [alpha, alpha, beta, beta, "s"]);
    assert_eq!(column(&many, "functions", "group"), ["alpha", "alpha", "beta", "beta", "plain.py"]);
    let without = ingest(folder.path(), "kind = \"source_tree\"\npath = \"many\"").unwrap();
    assert_eq!(column(&without, "functions", "path"), ["plain.py"]);
}

#[test]
fn functions_are_chosen_by_the_rules_of_codesearchnet() {
    let folder = tempfile::tempdir().unwrap();
    let function = |name: &str, docstring: &str, lines: usize| {
        let body = "    x = 1\n".repeat(lines - 1);
        format!("def {name}(a):\n    \"\"\"{docstring}\n\n    More words of a second paragraph.\n    \"\"\"\n{body}\n")
    };
    let module = [
        function("fine", "Say it again.", 3),
        function("short", "Say it again.", 2),
        function("terse", "Say it.", 3),
        function("test_it", "Say it again.", 3),
        function("__str__", "Say it again.", 3),
        "def bare(a):\n    b = a\n    return b\n".to_owned(),
        function("latest", "Say it again.", 3),
    ];
    write(folder.path(), "tree/a.py", module.concat());
    let ingest =
        |more: &str| ingest(folder.path(), &format!("kind = \"source_tree\"\npath = \"tree\"\n{more}")).unwrap();
    let read = ingest("");
    assert_eq!(column(&read, "functions", "name"), ["fine", "bare", "latest"]);
    assert_eq!(column(&read, "rejected", "reason"), ["short_code", "short_docstring", "test", "boilerplate"]);
    assert_eq!(column(&read, "rejected", "detail"), ["short", "terse", "test_it", "__str__"]);
    let all = ingest("tests = true\nboilerplate = true\nminimum_lines = 0\nminimum_docstring_words = 0");
    assert_eq!(column(&all, "functions", "name").len(), 7);
}

#[test]
fn a_tree_holds_several_languages() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tree/a.go", "package a\n\n// F adds one up.\nfunc F(a int) int {\n\ta++\n\treturn a\n}\n");
    write(folder.path(), "tree/b.py", MODULE);
    write(
        folder.path(),
        "tree/c.js",
        "// Says it again.\nfunction g(a) {\n  const b = a;\n  return b;\n}\nfunction h( {\n",
    );
    write(folder.path(), "tree/d.txt", "nothing");
    let table = "kind = \"source_tree\"\npath = \"tree\"\nlanguages = [\"go\", \"python\", \"javascript\"]";
    let read = ingest(folder.path(), table).unwrap();
    assert_eq!(column(&read, "functions", "language"), ["go", "python", "javascript"]);
    assert_eq!(column(&read, "functions", "docstring"), ["F adds one up.", "Say it again.", "Says it again."]);
    let python = ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"").unwrap();
    assert_eq!(column(&python, "functions", "name"), ["f"]);
    let error =
        ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"\nlanguages = [\"cobol\"]").err().unwrap();
    assert!(format!("{error:#}").contains("cobol"), "{error:#}");
}

#[test]
fn a_cut_archive_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = gz(&tar(&[("a.py", &MODULE.repeat(300))]));
    write(folder.path(), "cut.tar.gz", &whole[..whole.len() - 9]);
    let error = ingest(folder.path(), "kind = \"source_tree\"\npath = \"cut.tar.gz\"").err().unwrap();
    assert_eq!(exit_status(&error), ExitStatus::MissingInput);
    assert!(format!("{error:#}").contains("cut.tar.gz is cut off or damaged"), "{error:#}");
}

#[test]
fn a_checkout_says_where_it_is_from() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tree/a.py", MODULE);
    write(folder.path(), "tree/untracked.py", MODULE);
    let tree = folder.path().join("tree");
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.arg("-C").arg(&tree).args(["-c", "user.name=t", "-c", "user.email=t@example.org"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["remote", "add", "origin", "git@example.org:owner/name.git"]);
    git(&["add", "a.py"]);
    git(&["commit", "--quiet", "--message", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let read = ingest(folder.path(), "kind = \"source_tree\"\npath = \"tree\"").unwrap();
    let url = format!("https://example.org/owner/name/blob/{commit}/a.py#L1-L4");
    assert_eq!(column(&read, "functions", "url"), [url]);
    assert_eq!(column(&read, "functions", "repo"), ["owner/name"]);
    assert_eq!(column(&read, "functions", "origin"), [format!("https://example.org/owner/name@{commit}")]);
}

#[test]
fn columns_are_mapped_from_parquet_csv_and_jsonl() {
    let folder = tempfile::tempdir().unwrap();
    let columns = "columns = { code = \"body\", docstring = \"doc\", name = \"n\", split = \"part\", licence = \"l\" }";
    let cells = [MODULE, "Say it.", "f", "dev", "MIT"];
    let named: Vec<(&str, &[&str])> =
        ["body", "doc", "n", "part", "l"].into_iter().zip(cells.each_ref().map(std::slice::from_ref)).collect();
    write(folder.path(), "rows.parquet", parquet(&named));
    let quoted = MODULE.replace('"', "\"\"");
    write(
        folder.path(),
        "rows.tsv",
        format!("n\tdoc\tbody\tpart\tl\nf\tSay it.\t\"{quoted}\"\tdev\tMIT\nshort\trow\n"),
    );
    let object: serde_json::Map<_, _> =
        named.iter().map(|(name, cell)| ((*name).to_owned(), serde_json::Value::from(cell[0]))).collect();
    write(folder.path(), "rows.jsonl", format!("{}\n", serde_json::Value::from(object)));
    for (file, more) in [("rows.parquet", ""), ("rows.tsv", "delimiter = \"\\t\""), ("rows.jsonl", "")] {
        let kind = if file.ends_with("tsv") { "csv" } else { file.rsplit('.').next().unwrap() };
        let read = ingest(folder.path(), &format!("kind = \"{kind}\"\npath = \"{file}\"\n{columns}\n{more}")).unwrap();
        assert_eq!(column(&read, "functions", "code"), ["def f(a):\n    b = a\n    return b"], "{file}");
        let row = ["docstring", "name", "split", "licence"].map(|name| column(&read, "functions", name).remove(0));
        assert_eq!(row, ["Say it.", "f", "validation", "MIT"], "{file}");
        assert_eq!(column(&read, "functions", "origin"), [file]);
        let rejected = if kind == "csv" { vec!["rows.tsv:7"] } else { Vec::new() };
        assert_eq!(column(&read, "rejected", "id"), rejected);
    }
}

#[test]
fn queries_are_mapped_and_nulls_are_empty() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"q": "how to read a file", "where": "owner/name", "part": "train"}"#,
        r#"{"q": "without a place", "where": null, "part": "test"}"#,
        r#"{"q": " ", "where": "w", "part": "train"}"#,
        r#"{"where": "w", "part": "train"}"#,
    ];
    write(folder.path(), "asked.jsonl", lines.join("\n"));
    let columns = "columns = { query = \"q\", context = \"where\", split = \"part\" }";
    let read = ingest(folder.path(), &format!("kind = \"jsonl\"\npath = \"asked.jsonl\"\n{columns}")).unwrap();
    assert_eq!(column(&read, "queries", "text"), ["how to read a file", "without a place"]);
    assert_eq!(column(&read, "queries", "context"), ["owner/name", ""]);
    assert_eq!(column(&read, "queries", "split"), ["train", "test"]);
    assert_eq!(column(&read, "queries", "origin"), ["asked.jsonl", "asked.jsonl"]);
    assert_eq!(column(&read, "rejected", "reason"), ["empty_text", "wrong_fields"]);

    write(folder.path(), "go.jsonl", "{\"c\": \"func f() {}\", \"d\": null, \"from\": \"there\"}\n");
    let columns = "columns = { code = \"c\", docstring = \"d\", origin = \"from\" }\nlanguage = \"go\"";
    let read = ingest(folder.path(), &format!("kind = \"jsonl\"\npath = \"go.jsonl\"\n{columns}")).unwrap();
    let row = ["language", "docstring", "origin"].map(|name| column(&read, "functions", name).remove(0));
    assert_eq!(row, ["go", "", "there"]);
    for wrong in [
        "query = \"q\", code = \"c\"",
        "query = \"q\", path = \"p\"",
        "code = \"c\"",
        "context = \"w\", code = \"c\", docstring = \"d\"",
    ] {
        let table = format!("kind = \"jsonl\"\npath = \"go.jsonl\"\ncolumns = {{ {wrong} }}");
        let told = ingest(folder.path(), &table).err().unwrap();
        assert!(format!("{told:#}").contains("columns need code and docstring"), "{told:#}");
    }
}

#[test]
fn codesearchnet_comes_in_all_its_formats() {
    let folder = tempfile::tempdir().unwrap();
    let row = |repo: &str, language: &str, split: &str| {
        serde_json::json!({
            "repo": repo, "path": "p", "func_name": "f", "language": language, "code": MODULE, "original_string": MODULE,
            "docstring": "Say.", "partition": split, "url": "u", "sha": "", "code_tokens": ["def"], "docstring_tokens": []
        })
    };
    let lines = |rows: &[serde_json::Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let name =
        |language: &str, split: &str| format!("csn/{language}/final/jsonl/{split}/{language}_{split}_0.jsonl.gz");
    write(folder.path(), &name("python", "valid"), gz(lines(&[row("a", "python", "valid")]).as_bytes()));
    write(folder.path(), &name("ruby", "train"), gz(lines(&[row("b", "ruby", "train")]).as_bytes()));
    let hugging_face: [(&str, &[&str]); 8] = [
        ("repository_name", &["c"]),
        ("func_path_in_repository", &["p"]),
        ("func_name", &["f"]),
        ("language", &["python"]),
        ("func_code_string", &[MODULE]),
        ("func_documentation_string", &["Say."]),
        ("split_name", &["validation"]),
        ("func_code_url", &["u"]),
    ];
    write(folder.path(), "csn/python/train-00000-of-00001.parquet", parquet(&hugging_face));
    let definition = serde_json::json!([{
        "nwo": "d", "sha": "", "path": "p", "language": "python", "identifier": "f", "docstring": "", "function": MODULE,
        "url": "u", "function_tokens": ["def"], "argument_list": "", "parameters": "(a)"
    }]);
    let pickled = serde_pickle::to_vec(&definition, serde_pickle::SerOptions::default()).unwrap();
    write(folder.path(), "csn/python_dedupe_definitions_v2.pkl", pickled);
    write(folder.path(), "csn/queries.csv", "query\nsay it\n\"a, b\"\n");
    write(
        folder.path(),
        "csn/annotationStore.csv",
        "Language,Query,GitHubUrl,Relevance,Notes\nGo,say it,u,2,\nPHP,x,u,?,\n",
    );
    let all = "kind = \"codesearchnet\"\npath = \"csn\"\nlanguages = [\"python\", \"ruby\"]\ndefinitions = true";
    let read = ingest(folder.path(), all).unwrap();
    assert_eq!(column(&read, "functions", "repo"), ["a", "c", "d", "b"]);
    assert_eq!(column(&read, "functions", "split"), ["validation", "validation", "corpus", "train"]);
    let code = column(&read, "functions", "code");
    assert!(code[..3].iter().all(|code| code == "def f(a):\n    b = a\n    return b"), "{code:?}");
    // Another language's code has no docstring in it, whatever it looks like.
    assert_eq!(code[3], MODULE.trim_end());
    assert_eq!(column(&read, "queries", "text"), ["say it", "a, b"]);
    assert_eq!(column(&read, "judgments", "language"), ["go"]);
    assert_eq!(column(&read, "rejected", "detail"), ["relevance \"?\" is no number"]);
    let python = ingest(folder.path(), "kind = \"codesearchnet\"\npath = \"csn\"").unwrap();
    assert_eq!(column(&python, "functions", "repo"), ["a", "c"]);
    assert_eq!(column(&python, "judgments", "origin"), ["CodeSearchNet, github.com/github/CodeSearchNet"]);
    // The project's own repository knows of the annotations, and not of the data that lie beside them.
    std::process::Command::new("git")
        .arg("-C")
        .arg(folder.path().join("csn"))
        .args(["init", "--quiet"])
        .output()
        .unwrap();
    let again = ingest(folder.path(), "kind = \"codesearchnet\"\npath = \"csn\"").unwrap();
    assert_eq!(again.1.digest, python.1.digest);
}

#[test]
fn the_zips_of_a_folder_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let row = |repo: &str, language: &str| {
        serde_json::json!({
            "repo": repo, "path": "p", "func_name": "f", "language": language, "code": "x", "docstring": "Say.",
            "partition": "train", "url": "u"
        })
    };
    for (language, repo) in [("go", "a"), ("php", "b")] {
        let name = format!("{language}/final/jsonl/train/{language}_train_0.jsonl.gz");
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(&gz(format!("{}\n", row(repo, language)).as_bytes())).unwrap();
        write(folder.path(), &format!("csn/{language}.zip"), writer.finish().unwrap().into_inner());
    }
    let read =
        ingest(folder.path(), "kind = \"codesearchnet\"\npath = \"csn\"\nlanguages = [\"go\", \"php\"]").unwrap();
    assert_eq!(column(&read, "functions", "repo"), ["a", "b"]);
}

#[test]
fn a_table_without_code_is_no_function() {
    let folder = tempfile::tempdir().unwrap();
    let columns: [(&str, &[&str]); 3] =
        [("language", &["python"]), ("func_documentation_string", &["Say."]), ("split_name", &["train"])];
    write(folder.path(), "csn/python/train.parquet", parquet(&columns));
    let error = ingest(folder.path(), "kind = \"codesearchnet\"\npath = \"csn\"").err().unwrap();
    assert!(format!("{error:#}").contains("func_code_string is missing"), "{error:#}");
}

#[test]
fn cosqas_files_are_told_apart_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |label: f64| {
        serde_json::json!([{"idx": "i", "doc": "say it", "code": MODULE, "label": label, "retrieval_idx": 7}])
            .to_string()
    };
    write(folder.path(), "cosqa-retrieval/code_idx_map.txt", serde_json::json!({ MODULE: 7 }).to_string());
    write(folder.path(), "cosqa-retrieval/cosqa-retrieval-train-19604.json", rows(0.0));
    write(folder.path(), "cosqa-retrieval/cosqa-retrieval-test-500.json", rows(1.0));
    write(folder.path(), "cosqa-retrieval/cosqa-dev.json", rows(0.0));
    let read = ingest(folder.path(), "kind = \"cosqa\"\npath = \"cosqa-retrieval\"").unwrap();
    // Nobody is tested on queries to train with.
    assert_eq!((column(&read, "queries", "split"), read.1.rows("judgments")), (vec!["test".to_owned()], 1));
    assert_eq!(column(&read, "pairs", "split"), ["validation", "train"]);
    assert_eq!(
        (column(&read, "functions", "split"), column(&read, "functions", "url")),
        (vec!["corpus".to_owned()], vec!["cosqa:7".to_owned()])
    );
}

#[test]
fn sources_that_name_nothing_or_too_much_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["jsonl", "mbpp", "parquet"] {
        let error =
            ingest(folder.path(), &format!("kind = \"{kind}\"\ncolumns = {{ code = \"c\", docstring = \"d\" }}"));
        let error = error.or_else(|_| ingest(folder.path(), &format!("kind = \"{kind}\""))).err().unwrap();
        assert_eq!(exit_status(&error), ExitStatus::WrongConfig, "{error:#}");
    }
    write(folder.path(), "m/mbpp.jsonl", "{}\n");
    write(folder.path(), "m/sanitized-mbpp.json", "[]");
    let error = ingest(folder.path(), "kind = \"mbpp\"\npath = \"m\"").err().unwrap();
    assert!(format!("{error:#}").contains("holds both"), "{error:#}");
    write(folder.path(), "tree/large.py", "x = 1\n".repeat(400_000));
    write(folder.path(), "tree/small.py", MODULE);
    let read = ingest(
        folder.path(),
        "kind = \"source_tree\"\npath = \"tree\"\nminimum_lines = 0\nminimum_docstring_words = 0",
    )
    .unwrap();
    assert_eq!((read.1.rows("functions"), column(&read, "rejected", "reason")), (1, vec!["too_large".to_owned()]));
}

/// Lists in lists, deeper than an ordinary stack: an error, and no crash.
#[test]
fn a_pickle_that_nests_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let depth = 100_000;
    let nested = [b"]".repeat(depth), b"a".repeat(depth - 1), b".".to_vec()].concat();
    write(folder.path(), "python_dedupe_definitions_v2.pkl", nested);
    let table = "kind = \"codesearchnet\"\npath = \"python_dedupe_definitions_v2.pkl\"\ndefinitions = true";
    let error = ingest(folder.path(), table).err().unwrap();
    assert_eq!(exit_status(&error), ExitStatus::MissingInput, "{error:#}");
}

#[test]
fn a_pickle_that_calls_something_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // pickle.dumps of an object whose __reduce__ is os.system("true").
    write(folder.path(), "python_dedupe_definitions_v2.pkl", b"cos\nsystem\n(S'true'\ntR.");
    let table = "kind = \"codesearchnet\"\npath = \"python_dedupe_definitions_v2.pkl\"\ndefinitions = true";
    let error = ingest(folder.path(), table).err().unwrap();
    assert_eq!(exit_status(&error), ExitStatus::MissingInput);
}

#[test]
fn sanitized_mbpp_keeps_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let task = |id: u32| {
        serde_json::json!({ "source_file": "x", "task_id": id, "prompt": "Add.", "code": "a\r\nb", "test_imports": ["import math"],
            "test_list": ["assert 1"] })
    };
    write(
        folder.path(),
        "sanitized-mbpp.json",
        serde_json::json!([task(2), task(602), { "task_id": "x" }]).to_string(),
    );
    let read = ingest(folder.path(), "kind = \"mbpp\"\npath = \"sanitized-mbpp.json\"").unwrap();
    assert_eq!(column(&read, "problems", "split"), ["prompt", "train"]);
    assert_eq!(column(&read, "problems", "test_setup_code"), ["import math", "import math"]);
    assert_eq!(column(&read, "problems", "code"), ["a\nb", "a\nb"]);
    assert_eq!(column(&read, "problems", "licence"), ["CC-BY-4.0", "CC-BY-4.0"]);
    assert_eq!(column(&read, "rejected", "id"), ["sanitized-mbpp.json[2]"]);
}

#[test]
fn translations_are_aligned() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t/train.fr.gz", gz("un\ndeux\n\n".as_bytes()));
    write(folder.path(), "t/train.en.gz", gz("one\ntwo\nthree\n".as_bytes()));
    write(folder.path(), "t/val.fr", "trois\n");
    write(folder.path(), "t/val.en", "three\n");
    let table = "kind = \"parallel_text\"\npath = \"t\"\nsource = \"fr\"\ntarget = \"en\"";
    let read = ingest(folder.path(), table).unwrap();
    assert_eq!(column(&read, "pairs", "text"), ["un", "deux", "trois"]);
    assert_eq!(column(&read, "pairs", "code"), ["one", "two", "three"]);
    assert_eq!(column(&read, "pairs", "split"), ["train", "train", "validation"]);
    assert_eq!(column(&read, "rejected", "id"), ["train:3"]);
    write(folder.path(), "t/val.en", "three\nfour\n");
    let error = ingest(folder.path(), table).err().unwrap();
    assert!(format!("{error:#}").contains("val: 1 lines of fr and 2 of en"), "{error:#}");
    std::fs::remove_file(folder.path().join("t/val.en")).unwrap();
    let error = ingest(folder.path(), table).err().unwrap();
    assert!(format!("{error:#}").contains("val.fr has no counterpart val.en"), "{error:#}");
}

#[test]
fn rows_too_large_to_use_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let huge = format!("def f():\n    a = 1\n    return '{}'\n", "x".repeat(3 << 19));
    write(folder.path(), "t/a.py", format!("{huge}{MODULE}"));
    let read = ingest(folder.path(), "kind = \"source_tree\"\npath = \"t\"").unwrap();
    assert_eq!(column(&read, "functions", "name"), ["f"]);
    assert_eq!(column(&read, "rejected", "reason"), ["too_large"]);
}

/// The counts that the data's publishers and the repository's facts name.
#[test]
fn the_shared_data_has_its_counts() {
    let Some(data) = std::env::var_os("CODEPAIR_DATA") else {
        eprintln!("skipped: CODEPAIR_DATA names no folder");
        return;
    };
    let at = |name: &str| Path::new(&data).join(name).display().to_string();
    let rows = |table: &str| {
        let (store, manifest) = ingest(Path::new("."), table).unwrap();
        let counts = ["functions", "pairs", "problems", "queries", "judgments", "rejected"].map(|d| manifest.rows(d));
        ((store, manifest), counts)
    };
    let (codesearchnet, counts) = rows(&format!("kind = \"codesearchnet\"\npath = {:?}", at("codesearchnet")));
    assert_eq!(counts, [6_265, 0, 0, 99, 4_006, 2]);
    let splits = column(&codesearchnet, "functions", "split");
    let of = |split: &str| splits.iter().filter(|s| *s == split).count();
    assert_eq!((of("train"), of("validation"), of("test")), (5_008, 636, 621));
    let (languages, queries, urls) =
        (["language", "query", "url"].map(|name| column(&codesearchnet, "judgments", name))).into();
    let mut pairs: Vec<(&str, &str)> = languages
        .iter()
        .zip(queries.iter().zip(&urls))
        .filter(|(language, _)| *language == "python")
        .map(|(_, (query, url))| (query.as_str(), url.as_str()))
        .collect();
    assert_eq!(pairs.len(), 2_079);
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), 989);
    pairs.dedup_by_key(|(query, _)| *query);
    assert_eq!(pairs.len(), 99);

    let (mbpp, counts) = rows(&format!("kind = \"mbpp\"\npath = {:?}", at("mbpp/mbpp.jsonl")));
    assert_eq!(counts, [0, 0, 974, 0, 0, 0]);
    let splits = column(&mbpp, "problems", "split");
    let of = |split: &str| splits.iter().filter(|s| *s == split).count();
    assert_eq!((of("prompt"), of("test"), of("validation"), of("train")), (10, 500, 90, 374));
    assert!(column(&mbpp, "problems", "code").iter().all(|code| !code.contains('\r')));

    let (cosqa, counts) = rows(&format!("kind = \"cosqa\"\npath = {:?}", at("cosqa")));
    assert_eq!(counts, [6_265, 604, 0, 500, 500, 2]);
    let batches = read_output(&cosqa.0, &cosqa.1, "pairs", &["label"]).unwrap();
    let labels: Vec<f64> =
        batches.iter().flat_map(|b| b.column(0).as_primitive::<Float64Type>().values().to_vec()).collect();
    assert!(labels.iter().all(|label| [0.0, 1.0].contains(label)) && labels.contains(&0.0) && labels.contains(&1.0));

    let table = format!("kind = \"parallel_text\"\npath = {:?}\nsource = \"fr\"\ntarget = \"en\"", at("multi30k"));
    let (multi30k, counts) = rows(&table);
    assert_eq!(counts, [0, 31_014, 0, 0, 0, 0]);
    let splits = column(&multi30k, "pairs", "split");
    let of = |split: &str| splits.iter().filter(|s| *s == split).count();
    assert_eq!((of("train"), of("validation"), of("test")), (29_000, 1_014, 1_000));
}
