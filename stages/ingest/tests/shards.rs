//! A source divided among processes gives the bytes that one process writes.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use std::path::Path;

use codepair_ingest::Ingest;
use codepair_runtime::{Config, ExitStatus, Manifest, Request, Shard, Store, exit_status, run_shard, run_stage};

/// Files of several sizes, with rows that are equal in all but their file, a damaged row in each and one file without a good one.
fn write_files(folder: &Path) {
    std::fs::create_dir_all(folder.join("rows")).unwrap();
    for file in 0..7usize {
        let row = |n: usize| {
            let code = format!("def f{}(a):\\n    return a + {}", n % 5, n % 5);
            format!("{{\"code\": \"{code}\", \"doc\": \"Add {}.\"}}\n", n % 5)
        };
        let rows: String = (0..(file + 1) * 6).map(row).collect();
        std::fs::write(folder.join(format!("rows/{file}.jsonl")), format!("{rows}{{\"code\": 7}}\n")).unwrap();
    }
    std::fs::write(folder.join("rows/8.jsonl"), "{\n").unwrap();
    std::fs::create_dir_all(folder.join("tree")).unwrap();
    for module in ["a", "b", "c"] {
        let code = format!("def {module}(x):\n    \"\"\"Say {module} at some length.\"\"\"\n    return x + 1\n");
        std::fs::write(folder.join(format!("tree/{module}.py")), code.repeat(3)).unwrap();
    }
}

fn config(folder: &Path) -> Config {
    let text = "name = \"t\"\n[store]\nurl = \"file://own\"\n[ingest.rows]\nkind = \"jsonl\"\npath = \"rows\"\n\
                columns = { code = \"code\", docstring = \"doc\" }\nsplit = \"train\"\n[ingest.tree]\nkind = \"source_tree\"\n\
                path = \"tree\"\nminimum_lines = 2\nshares = { validation = 0.0, test = 0.0 }\n";
    Config::parse(text, &folder.join("c.toml"), &[]).unwrap()
}

fn shard(store: &Store, config: &Config, shard: &str) -> anyhow::Result<Option<Manifest>> {
    run_shard::<Ingest>(store, config, &Request::default(), shard.parse::<Shard>().unwrap())
}

#[test]
fn shards_are_put_together_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let config = config(folder.path());
    let whole = run_stage::<Ingest>(&Store::memory(), &config, &Request::default()).unwrap();
    assert!(whole.rows("functions") > 150 && whole.rows("rejected") >= 8, "{:?}", whole.outputs);
    for of in [2, 3, 5, 16] {
        let store = Store::memory();
        for index in (2..=of).rev() {
            assert!(shard(&store, &config, &format!("{index}/{of}")).unwrap().is_none());
        }
        // One that is there is not made again.
        assert!(shard(&store, &config, &format!("2/{of}")).unwrap().is_none());
        let made = shard(&store, &config, &format!("1/{of}")).unwrap().unwrap();
        assert_eq!((made.digest.as_str(), &made.rejected), (whole.digest.as_str(), &whole.rejected), "{of} shards");
        assert_eq!(made.notes, whole.notes);
        let left = store.list("artifacts").unwrap();
        let is_left =
            |path: &str| path.contains("shard-") || !path.contains(&made.attempt) && !path.ends_with("manifest.json");
        assert!(!left.iter().any(|(path, _)| is_left(path)), "{left:?}");
        assert_eq!(shard(&store, &config, &format!("2/{of}")).unwrap().unwrap().attempt, made.attempt);
    }
}

/// One of another number of shards, or one twice, is no part of the artifact.
#[test]
fn what_is_missing_or_double_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let (config, store) = (config(folder.path()), Store::memory());
    assert!(shard(&store, &config, "1/2").unwrap().is_none() && shard(&store, &config, "2/3").unwrap().is_none());
    let record = store
        .list("artifacts")
        .unwrap()
        .into_iter()
        .map(|(path, _)| path)
        .find(|path| path.ends_with("shard-1-of-2.json"));
    let record = record.unwrap();
    store.put(&record.replace("shard-1", "shard-2"), store.get(&record).unwrap()).unwrap();
    let error = shard(&store, &config, "2/2").unwrap_err();
    assert_eq!(exit_status(&error), ExitStatus::MissingInput);
    assert!(error.to_string().contains("shard-2-of-2.json is no shard 2/2 of ingest"), "{error}");
    assert!(!store.list("artifacts").unwrap().iter().any(|(path, _)| path.ends_with("manifest.json")));
}

#[test]
fn a_source_without_a_usable_row_is_told_when_all_is_there() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    for file in 0..7 {
        std::fs::write(folder.path().join(format!("rows/{file}.jsonl")), "{\"code\": 7, \"doc\": 7}\n").unwrap();
    }
    let (config, store) = (config(folder.path()), Store::memory());
    assert!(shard(&store, &config, "1/2").unwrap().is_none());
    let error = shard(&store, &config, "2/2").unwrap_err().to_string();
    assert!(error.contains("[ingest.rows]: 8 files hold no usable row; 0.jsonl:1: wrong_fields"), "{error}");
}
