//! Ingest on files written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use codepair_ingest::Ingest;
use codepair_runtime::{Config, Request, read_output, run_stage, testing, text_column};

fn column(batches: &[arrow::array::RecordBatch], name: &str) -> Vec<String> {
    let values = |batch| text_column(batch, name).unwrap().iter().map(|v| v.unwrap().to_owned()).collect::<Vec<_>>();
    batches.iter().flat_map(values).collect()
}

#[test]
fn sources_become_functions_and_problems() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "tree/pkg/a.py",
        "class A:\n    def m(self):\n        \"\"\"Say m.\"\"\"\n        return 'm'\n\n    def n(self):\n        pass\n",
    );
    write("tree/broken.py", "def f(:\n");
    write("tree/tests/t.py", "def t(): return 1\n");
    write(
        "mbpp.jsonl",
        concat!(
            "{\"text\": \"Add.\", \"code\": \"def add(a, b):\\r\\n    return a + b\", \"task_id\": 11, \"test_list\": [\"assert add(1, 2) == 3\"]}\n",
            "{\"text\": \"No.\", \"code\": \"x\", \"task_id\": 5000, \"test_list\": []}\n",
        ),
    );
    let text = "name = \"t\"\n[ingest.tree]\nkind = \"source_tree\"\npath = \"tree\"\nminimum_lines = 2\nminimum_docstring_words = 2\n[ingest.mbpp]\nkind = \"mbpp\"\npath = \"mbpp.jsonl\"\n";
    let config = Config::parse(text, &folder.path().join("c.toml"), &[]).unwrap();
    testing::on_each_store(folder.path(), |store| {
        let manifest = run_stage::<Ingest>(store, &config, &Request::default()).unwrap();
        let read = |dataset: &str| read_output(store, &manifest, dataset, &[]).unwrap();
        let functions = read("functions");
        assert_eq!(column(&functions, "name"), ["A.m"]);
        assert_eq!(column(&functions, "code"), ["def m(self):\n    return 'm'"]);
        assert_eq!(column(&functions, "docstring"), ["Say m."]);
        assert_eq!(column(&functions, "url"), ["pkg/a.py#L2-L4"]);
        assert_eq!(column(&functions, "group"), ["pkg"]);
        let problems = read("problems");
        assert_eq!(column(&problems, "code"), ["def add(a, b):\n    return a + b"]);
        assert_eq!(column(&problems, "split"), ["test"]);
        assert_eq!(column(&read("rejected"), "reason"), ["unknown_split", "syntax_error", "no_code"]);
        assert_eq!(column(&read("rejected"), "id"), ["mbpp.jsonl:2", "broken.py", "pkg/a.py#L6-L7"]);
        assert_eq!(manifest.rejected.values().sum::<u64>(), 3);
        manifest
    });
}

#[test]
fn the_fingerprint_counts_content_not_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str| {
        let text = format!("name = \"t\"\n[ingest.m]\nkind = \"mbpp\"\npath = \"{name}/mbpp.jsonl\"\n");
        Config::parse(&text, &folder.path().join("c.toml"), &[]).unwrap()
    };
    for (name, code) in [("one", "a"), ("two", "a"), ("three", "b")] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("mbpp.jsonl"), code).unwrap();
    }
    let step = |name: &str| codepair_runtime::describe::<Ingest>(&config(name)).unwrap().steps.remove(0);
    assert_eq!(step("one").sources, step("two").sources);
    assert_eq!(step("one").overrides, step("two").overrides);
    assert_ne!(step("one").sources, step("three").sources);
}
