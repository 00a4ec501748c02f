//! Synth on functions and problems written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use codepair_runtime::{Config, Store, read_output, testing, text_column};
use codepair_schemas::rows::{Function, Problem};
use codepair_synth::Synth;

fn function(ordinal: u64, split: &str, docstring: &str, code: &str) -> Function {
    Function {
        id: format!("f{ordinal}"),
        ordinal,
        source: "s".into(),
        docstring: docstring.into(),
        code: code.into(),
        group: "g".into(),
        split: split.into(),
        ..Function::default()
    }
}

fn inputs(store: &Store) {
    let total = "def total(items):\n    out = 0\n    for item in items:\n        if item > 0:\n            out = out + item\n    return out";
    testing::publish(store, "ingest", |attempt| {
        attempt.write_rows([
            function(0, "train", "Sum the items.", total),
            function(1, "train", "Return one of the items.", "def one(items):\n    return items[0]"),
            function(2, "test", "Sum all items.", total),
            function(3, "train", "", total),
        ])?;
        attempt.write_rows::<Problem>([])
    })
    .unwrap();
}

#[test]
fn pairs_come_from_documented_rows_outside_test() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        Config::parse("name = \"t\"\n[synth.e]\nkind = \"offline\"\n", &folder.path().join("c.toml"), &[]).unwrap();
    testing::on_each_store(folder.path(), |store| {
        inputs(store);
        let manifest = testing::run::<Synth>(store, &config, None, &["functions", "problems"]).unwrap();
        let mut rows = Vec::new();
        for batch in read_output(store, &manifest, "synthetic_pairs", &[]).unwrap() {
            let text = |name: &str, row: usize| text_column(&batch, name).unwrap().value(row).to_owned();
            rows.extend(
                (0..batch.num_rows())
                    .map(|r| (text("parent_id", r), text("kind", r), text("edit", r), text("code", r))),
            );
        }
        let kinds: Vec<_> = rows.iter().map(|r| (r.0.as_str(), r.1.as_str())).collect();
        assert_eq!(kinds, [("f0", "positive"), ("f0", "negative"), ("f0", "negative"), ("f1", "negative")]);
        assert_eq!((rows[0].2.as_str(), rows[2].2.as_str()), ("rename_locals", "nearest"));
        assert!(rows[0].3.starts_with("def total(items):") && !rows[0].3.contains("out"), "{}", rows[0].3);
        assert_eq!(rows[2].3, "def one(items):\n    return items[0]");
        assert_eq!(manifest.rejected.get("no_positive_edit"), Some(&1));
        manifest
    });
}
