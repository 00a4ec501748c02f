//! Evaluate on examples written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use arrow::array::AsArray;
use codepair_evaluate::Evaluate;
use codepair_runtime::{Config, column, integer_column, read_output, testing, text_column};
use codepair_schemas::rows::Example;

#[test]
fn bm25_ranks_the_test_split_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse("name = \"t\"\n", &folder.path().join("c.toml"), &[]).unwrap();
    let example = |ordinal: u64, split: &str, text: &str, code: &str| Example {
        id: format!("e{ordinal}"),
        ordinal,
        text: text.into(),
        code: code.into(),
        kind: "original".into(),
        split: split.into(),
        ..Example::default()
    };
    let examples = [
        example(0, "train", "open the file", "def open_file(): pass"),
        example(1, "test", "open the file", "def read_socket(): pass"),
        example(2, "test", "read the socket", "def open_file(): pass"),
        example(3, "test", "sort the list", "def sort_list(): pass"),
    ];
    testing::on_each_store(folder.path(), |store| {
        testing::publish(store, "prepare", |attempt| attempt.write_rows(examples.clone())).unwrap();
        let manifest = testing::run::<Evaluate>(store, &config, Some("bm25.search"), &["examples"]).unwrap();
        // The right code of the first two queries shares no word with them: it ties with the third's and comes last.
        let rankings = read_output(store, &manifest, "rankings", &[]).unwrap();
        assert_eq!(integer_column(&rankings[0], "rank").unwrap(), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
        assert_eq!(integer_column(&rankings[0], "candidates").unwrap(), [3; 9]);
        let relevant = column(&rankings[0], "relevant").unwrap().as_boolean().iter().flatten().collect::<Vec<_>>();
        assert_eq!(relevant, [false, false, true, false, false, true, true, false, false]);
        assert_eq!(manifest.rows("predictions"), 0);
        manifest
    });
}

/// Nobody can look for a function with nothing, but it can be found.
#[test]
fn rows_without_a_text_are_candidates_and_no_queries() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse("name = \"t\"\n", &folder.path().join("c.toml"), &[]).unwrap();
    let example = |ordinal: u64, text: &str, code: &str| Example {
        id: format!("e{ordinal}"),
        ordinal,
        text: text.into(),
        code: code.into(),
        kind: "original".into(),
        split: "test".into(),
        ..Example::default()
    };
    let examples = [
        example(0, "", "def open_file(file): open(file)"),
        example(1, " \n", "def sort_list(): pass"),
        example(2, "open the file", "def open_it(): pass"),
    ];
    let store = codepair_runtime::Store::memory();
    testing::publish(&store, "prepare", |attempt| attempt.write_rows(examples)).unwrap();
    let manifest = testing::run::<Evaluate>(&store, &config, Some("bm25.search"), &["examples"]).unwrap();
    let rankings = read_output(&store, &manifest, "rankings", &[]).unwrap();
    let column =
        |name| text_column(&rankings[0], name).unwrap().iter().flatten().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        (column("query_id"), column("candidate_id")),
        (vec!["e2".to_owned(); 3], vec!["e0".into(), "e2".into(), "e1".into()])
    );
}
