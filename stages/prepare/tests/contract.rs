//! Prepare on rows written by the test: what becomes of each.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use std::collections::BTreeMap;

use codepair_prepare::Prepare;
use codepair_runtime::{Config, Manifest, Store, float_column, read_output, testing, text_column};
use codepair_schemas::rows::{Function, Problem, Request, SyntheticPair};

/// Twelve lines that differ in the lines of `changed`.
fn program(name: &str, changed: usize) -> String {
    let line = |n: usize| {
        if n < changed {
            format!("    {name}_{n} = {n}\n")
        } else {
            format!("    value_{n} = compute(value_{n}, {n})\n")
        }
    };
    format!("def f(x):\n{}", (0..12).map(line).collect::<String>())
}

fn function(ordinal: u64, id: &str, split: &str, docstring: &str, code: String) -> Function {
    Function {
        id: id.into(),
        ordinal,
        source: "s".into(),
        docstring: docstring.into(),
        code,
        split: split.into(),
        ..Function::default()
    }
}

const LEAK: &str = "Compute the checksum of a file in chunks of bytes.";

fn inputs(store: &Store) {
    let functions = [
        function(0, "plain", "train", "Train row.\n\nMore of it.", "def plain():\n    return 1".into()),
        function(1, "near", "train", "Near to the test row.", program("near", 1)),
        function(2, "tested", "test", "The test row.", program("tested", 0)),
        function(3, "exact", "train", "Same code.", "def plain():\n    return 1  \n".into()),
        function(4, "silent", "train", "", "def silent():\n    return 2".into()),
        function(5, "leak", "train", &format!("Do this: {LEAK}"), "def leak():\n    return 3".into()),
        function(6, "far", "train", "Far from it.", program("far", 9)),
        function(7, "held", "validation", "Held back.", "def held():\n    return 4".into()),
    ];
    let problem = |ordinal: u64, id: &str, split: &str, text: &str, code: &str| Problem {
        id: id.into(),
        ordinal,
        source: "p".into(),
        text: text.into(),
        code: code.into(),
        split: split.into(),
        ..Problem::default()
    };
    let pair = |ordinal: u64, id: &str, parent: &str, kind: &str, code: &str| SyntheticPair {
        id: id.into(),
        generator: "g".into(),
        ordinal,
        kind: kind.into(),
        edit: "e".into(),
        parent_id: parent.into(),
        parent_dataset: "functions".into(),
        source: "s".into(),
        text: "Train row.".into(),
        code: code.into(),
        split: "train".into(),
        ..SyntheticPair::default()
    };
    testing::publish(store, "ingest", |attempt| {
        attempt.write_rows(functions.clone())?;
        attempt.write_rows([
            problem(0, "task", "train", "Add two numbers.", "def add(a, b):\n    return a + b"),
            problem(1, "hidden", "test", LEAK, "def checksum(path):\n    pass"),
        ])
    })
    .unwrap();
    testing::publish(store, "synth", |attempt| {
        attempt.write_rows([
            pair(0, "child", "plain", "positive", "def plain():\n    return 0 + 1"),
            pair(1, "twin", "plain", "positive", "def plain():\n    return 0 + 1"),
            pair(2, "wrong", "plain", "negative", "def plain():\n    return 0 + 1"),
            pair(3, "orphan", "near", "positive", "def orphan():\n    return 5"),
        ])?;
        attempt.write_rows::<Request>([])
    })
    .unwrap();
}

fn reasons(store: &Store, manifest: &Manifest) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (dataset, column) in [("rejected", "reason"), ("examples", "kind")] {
        for batch in read_output(store, manifest, dataset, &[]).unwrap() {
            let (ids, values) = (text_column(&batch, "id").unwrap(), text_column(&batch, column).unwrap());
            found.extend((0..batch.num_rows()).map(|row| (ids.value(row).to_owned(), values.value(row).to_owned())));
        }
    }
    found
}

#[test]
fn every_row_is_kept_or_rejected_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    for threads in [1, 2, 16] {
        let text = format!(
            "name = \"t\"\n[prepare.tokenizers.code]\nvocabulary = 300\nfields = [\"code\"]\n[resources.prepare]\nthreads = {threads}\n"
        );
        let config = Config::parse(&text, &folder.path().join("c.toml"), &[]).unwrap();
        testing::on_each_store(&folder.path().join(threads.to_string()), |store| {
            inputs(store);
            let manifest =
                testing::run::<Prepare>(store, &config, None, &["functions", "problems", "synthetic_pairs"]).unwrap();
            let expected = [
                ("child", "positive"),
                ("exact", "exact_duplicate"),
                ("far", "original"),
                ("held", "original"),
                ("hidden", "evaluation_only"),
                ("leak", "contaminated"),
                ("near", "near_duplicate"),
                ("orphan", "parent_rejected"),
                ("plain", "original"),
                ("silent", "no_text"),
                ("task", "original"),
                ("tested", "original"),
                ("twin", "exact_duplicate"),
                ("wrong", "negative"),
            ];
            let expected: BTreeMap<String, String> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
            assert_eq!(reasons(store, &manifest), expected);
            let duplicates = read_output(store, &manifest, "duplicates", &[]).unwrap();
            let kept: Vec<_> = text_column(&duplicates[0], "kept_id").unwrap().iter().flatten().collect();
            assert_eq!(kept, ["tested", "plain", "child"]);
            let near = float_column(&duplicates[0], "jaccard").unwrap().value(0);
            assert!((0.7..1.0).contains(&near), "{near}");
            let texts = read_output(store, &manifest, "examples", &["text"]).unwrap();
            assert_eq!(text_column(&texts[0], "text").unwrap().value(0), "Train row.");
            manifest
        });
    }
}

#[test]
fn empty_inputs_give_empty_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse("name = \"t\"\n", &folder.path().join("c.toml"), &[]).unwrap();
    testing::on_each_store(folder.path(), |store| {
        testing::publish(store, "ingest", |attempt| {
            attempt.write_rows::<Function>([])?;
            attempt.write_rows::<Problem>([])
        })
        .unwrap();
        testing::publish(store, "synth", |attempt| attempt.write_rows::<SyntheticPair>([])).unwrap();
        let manifest =
            testing::run::<Prepare>(store, &config, None, &["functions", "problems", "synthetic_pairs"]).unwrap();
        assert_eq!(manifest.rows("examples") + manifest.rows("rejected"), 0);
        manifest
    });
}
