//! Hard negatives by words and by vectors, on functions written by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]
#![allow(dead_code, reason = "the server can do more than is wanted here")]

mod server;

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use codepair_runtime::{Config, ExitStatus, Manifest, Store, column, exit_status, read_output, testing, text_column};
use codepair_schemas::rows::{Function, Problem, Query};
use codepair_synth::Synth;
use server::{Act, Server};

/// Texts and codes of single letters, so that what is near to what can be read off.
const ROWS: [(&str, &str, &str); 7] = [
    ("train", "a b", "a b"),
    ("train", "", "a b b"),
    ("train", "a c", "a c c"),
    ("train", "", "a b"),
    ("test", "a b c", "a b c"),
    ("train", "d", "d"),
    ("train", "a b", "a a b"),
];

fn run(table: &str) -> (Store, anyhow::Result<Manifest>) {
    let store = Store::memory();
    let row = |(ordinal, (split, text, code)): (usize, &(&str, &str, &str))| Function {
        id: format!("f{ordinal}"),
        ordinal: ordinal as u64,
        source: "s".into(),
        docstring: (*text).into(),
        code: (*code).into(),
        split: (*split).into(),
        ..Function::default()
    };
    let query = Query {
        id: "q".into(),
        source: "s".into(),
        text: "a".into(),
        context: "h h".into(),
        split: "train".into(),
        ..Query::default()
    };
    testing::publish(&store, "ingest", |attempt| {
        attempt.write_rows(ROWS.iter().enumerate().map(row))?;
        attempt.write_rows::<Problem>([])?;
        attempt.write_rows([query])
    })
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = format!("name = \"t\"\n{table}");
    let config = Config::parse(&text, &folder.path().join("c.toml"), &[]).unwrap();
    let inputs: &[&str] = if table.contains("kind = \"embed\"") {
        &["functions", "problems", "queries"]
    } else {
        &["functions", "problems"]
    };
    let manifest = testing::run::<Synth>(&store, &config, None, inputs);
    (store, manifest)
}

fn columns(store: &Store, manifest: &Manifest, dataset: &str, names: [&str; 2]) -> Vec<(String, String)> {
    let batches = read_output(store, manifest, dataset, &[]).unwrap();
    let of = |name: &str| -> Vec<String> {
        let values =
            |batch| text_column(batch, name).unwrap().iter().map(|v| v.unwrap().to_owned()).collect::<Vec<_>>();
        batches.iter().flat_map(values).collect()
    };
    of(names[0]).into_iter().zip(of(names[1])).collect()
}

fn pairs(mined: &[(&str, &str)]) -> Vec<(String, String)> {
    mined.iter().map(|(one, two)| (one.to_string(), two.to_string())).collect()
}

#[test]
fn negatives_are_mined_by_words() {
    let table = "[synth.hard]\nkind = \"mined\"\nnegatives = 2\nrelative_margin = 0.0\n";
    let (store, manifest) = run(table);
    let manifest = manifest.unwrap();
    // The codes of both rows with the text "a b" are its positives. "a b b" scores above one of them, for b is rarer than a;
    // of "a c" the code with a twice is the nearest. Nothing shares a word with "d".
    let found = columns(&store, &manifest, "synthetic_pairs", ["parent_id", "code"]);
    assert_eq!(found, pairs(&[("f0", "a c c"), ("f2", "a a b"), ("f2", "a b"), ("f6", "a c c")]));
    assert_eq!(manifest.rejected.get("no_negative"), Some(&1));
    let kinds = columns(&store, &manifest, "synthetic_pairs", ["kind", "edit"]);
    assert!(kinds.iter().all(|kind| *kind == ("negative".to_owned(), "mined".to_owned())));
}

#[test]
fn negatives_are_mined_by_vectors_of_a_server() {
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    let table = format!(
        "[synth.v]\nkind = \"embed\"\nbase_url = \"{}\"\nmodel = \"m\"\nbatch = 2\nwith_context = true\n\
         [synth.hard]\nkind = \"mined\"\nby = \"v\"\nnegatives = 1\nrelative_margin = 0.01\n",
        server.url()
    );
    let (store, manifest) = run(&table);
    let manifest = manifest.unwrap();
    // Seven rows have seven codes and five texts, and there is a query: thirteen texts, two a request. Those of the test row are
    // embedded too, for it is searched.
    assert_eq!((manifest.rows("embeddings"), manifest.rows("requests"), server.served()), (13, 7, 7));
    let fields = columns(&store, &manifest, "embeddings", ["id", "field"]);
    assert_eq!(fields[..3], pairs(&[("f0", "text"), ("f0", "code"), ("f1", "code")]));
    assert_eq!(fields[12], ("q".to_owned(), "text".to_owned()));
    let batches = read_output(&store, &manifest, "embeddings", &[]).unwrap();
    let vectors = column(&batches[0], "vector").unwrap().as_list::<i32>();
    let vector = |row: usize| vectors.value(row).as_primitive::<Float32Type>().values().to_vec();
    let half = 0.5f32.sqrt();
    assert_eq!(vector(0), [half, half, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    // The query's context stands before its text: one a, two h, of length √5.
    assert!((vector(12)[0] - 0.2f32.sqrt()).abs() < 1e-6 && (vector(12)[7] - 0.8f32.sqrt()).abs() < 1e-6);
    // Cosines of "a b": its own codes 1 and 0.95, so at most 0.94 is far enough; "a b b" has 0.949, "a c c" 0.316.
    // Of "a c": its own 0.949; "a b" 0.5, "a a b" 0.632. Of "d": all others 0.
    let mined = columns(&store, &manifest, "synthetic_pairs", ["parent_id", "code"]);
    assert_eq!(mined, pairs(&[("f0", "a c c"), ("f2", "a a b"), ("f5", "a b"), ("f6", "a c c")]));
    let parameters = columns(&store, &manifest, "synthetic_pairs", ["parent_id", "parameters"]);
    assert!(parameters[0].1.contains("\"rank\":2"), "{parameters:?}");
}

#[test]
fn vectors_that_nobody_makes_are_named() {
    let (_, manifest) = run("[synth.hard]\nkind = \"mined\"\nby = \"nobody\"\n");
    let error = manifest.err().unwrap();
    assert!(exit_status(&error) == ExitStatus::WrongConfig && format!("{error:#}").contains("nobody"), "{error:#}");
    let model = "[synth.v]\nkind = \"embed\"\nmodel = \"nbow@0123456789abcdef0123456789abcdef\"\n";
    let error = run(model).1.err().unwrap();
    assert!(exit_status(&error) == ExitStatus::MissingInput && format!("{error:#}").contains("nbow@"), "{error:#}");
}
