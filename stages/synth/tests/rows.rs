//! Which rows are asked for, and what a row more or an impossible one costs the others.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]
#![allow(dead_code, reason = "the server can do more than is wanted here")]

mod server;

use std::collections::BTreeSet;
use std::time::Duration;

use codepair_runtime::{Config, Manifest, Request, Store, read_output, run_stage, testing, text_column};
use codepair_schemas::rows::{Function, Problem, Query};
use codepair_synth::Synth;
use server::{Act, LONGEST, Server};

/// A store that outlives several runs, and their requests.
struct Setup {
    folder: tempfile::TempDir,
    store: Store,
}

impl Setup {
    fn new(prompt: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prompt.txt"), prompt).unwrap();
        let store = Store::local(&folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    fn run(&self, table: &str, functions: Vec<Function>, queries: Vec<Query>) -> anyhow::Result<Manifest> {
        let mut inputs = vec!["functions", "problems"];
        let has_queries = table.contains("rows = \"queries\"") || table.contains("kind = \"embed\"");
        inputs.extend(has_queries.then_some("queries"));
        let fingerprint = format!("{}-{}", functions.len(), queries.len());
        let published = testing::publish_as(&fingerprint, &self.store, "ingest", |attempt| {
            attempt.write_rows(functions)?;
            attempt.write_rows::<Problem>([])?;
            attempt.write_rows(queries)
        });
        if let Err(error) = published {
            assert_eq!(error.to_string(), "ingest was published before");
        }
        let text = format!("name = \"t\"\n[store]\nurl = \"file:///nowhere\"\n{table}\n");
        let config = Config::parse(&text, &self.folder.path().join("c.toml"), &[]).unwrap();
        let inputs: Vec<_> = inputs.into_iter().map(|name| (name.to_owned(), fingerprint.clone())).collect();
        run_stage::<Synth>(&self.store, &config, &Request { given: &inputs, ..Request::default() })
    }

    fn column(&self, manifest: &Manifest, dataset: &str, name: &str) -> Vec<String> {
        let batches = read_output(&self.store, manifest, dataset, &[]).unwrap();
        let texts = batches.iter().flat_map(|batch| text_column(batch, name).unwrap().iter().flatten());
        texts.map(str::to_owned).collect()
    }
}

fn function(ordinal: u64, docstring: &str, code: String) -> Function {
    let id = format!("f{ordinal}");
    let (source, language, split) = ("s".into(), "python".into(), "train".into());
    Function { id, source, ordinal, language, split, docstring: docstring.into(), code, ..Function::default() }
}

fn codes(rows: u64) -> Vec<Function> {
    (0..rows).map(|n| function(n, "", format!("def f{n}(a):\n    return a + {n}"))).collect()
}

const EMBED: &str = "kind = \"embed\"\nmodel = \"m\"\nfields = [\"code\"]\nbatch = 8";

#[test]
fn a_text_that_is_refused_costs_its_neighbours_nothing() {
    let setup = Setup::new("");
    let server = Server::start(Duration::ZERO, |_, _| Act::Answer);
    let mut rows = codes(40);
    rows[20].code = format!("x = \"{}\"", "y".repeat(LONGEST));
    let table = format!("[synth.v]\n{EMBED}\nbase_url = \"{}\"\nmax_tokens = 100000\npartial = true", server.url());
    let manifest = setup.run(&table, rows.clone(), Vec::new()).unwrap();
    assert_eq!(setup.column(&manifest, "embeddings", "id").len(), 39);
    // Where nothing more may be spent, nothing more is asked, and what was paid for is there.
    let (served, spent) = (server.served(), manifest.notes["v"]["alone"]["input_tokens"].as_u64().unwrap());
    let spare = table.replace("max_tokens = 100000", &format!("max_tokens = {spent}"));
    rows.push(function(40, "", "def g():\n    return 0".to_owned()));
    let again = setup.run(&spare, rows, Vec::new()).unwrap();
    assert_eq!(server.served(), served);
    assert!((32..40).contains(&setup.column(&again, "embeddings", "id").len()));
    assert!(setup.column(&again, "rejected", "reason").contains(&"over_budget".to_owned()));
    assert_eq!(setup.column(&manifest, "rejected", "id"), ["f20"]);
    assert_eq!(setup.column(&manifest, "rejected", "reason"), ["request_refused"]);
    let detail = setup.column(&manifest, "rejected", "detail").remove(0);
    assert!(detail.contains("a text is too long") && detail.contains("(request "), "{detail}");
    let requests: BTreeSet<String> = setup.column(&manifest, "requests", "request").into_iter().collect();
    assert!(setup.column(&manifest, "embeddings", "request").iter().all(|request| requests.contains(request)));
}

/// A server that refuses all texts of one request does not refuse everything; one that refuses everything does.
#[test]
fn a_row_that_is_refused_altogether_stops_nothing() {
    let long = |name: &str| format!("{name} {}", "y".repeat(LONGEST));
    let setup = Setup::new("");
    let server = Server::start(Duration::ZERO, |_, _| Act::Answer);
    let table =
        format!("[synth.v]\n{}\nbase_url = \"{}\"", EMBED.replace("[\"code\"]", "[\"text\", \"code\"]"), server.url());
    let mut rows: Vec<Function> =
        (0..40).map(|n| function(n, "Say it.", format!("def f{n}(a):\n    return a + {n}"))).collect();
    rows[20] = function(20, &long("words"), long("code"));
    let manifest = setup.run(&table, rows, Vec::new()).unwrap();
    assert_eq!(setup.column(&manifest, "embeddings", "id").len(), 78);
    assert_eq!(setup.column(&manifest, "rejected", "id"), ["f20", "f20"]);
    let all: Vec<Function> = (0..41).map(|n| function(n, "", long(&format!("code{n}")))).collect();
    let error = format!("{:#}", setup.run(&table, all, Vec::new()).unwrap_err());
    assert!(error.contains("refuses every request"), "{error}");
}

#[test]
fn a_row_more_asks_again_for_its_neighbours_alone() {
    let setup = Setup::new("");
    let server = Server::start(Duration::ZERO, |_, _| Act::Answer);
    let table = format!("[synth.v]\n{EMBED}\nbase_url = \"{}\"", server.url());
    setup.run(&table, codes(200), Vec::new()).unwrap();
    let first = server.served();
    assert!((25..100).contains(&first), "{first}");
    let mut rows = codes(201);
    let more = rows.pop().unwrap();
    rows.insert(3, more);
    (0..).zip(&mut rows).for_each(|(ordinal, row)| row.ordinal = ordinal);
    setup.run(&table, rows, Vec::new()).unwrap();
    let again = server.served() - first;
    assert!((1..first / 2).contains(&again), "{again} of {first}");
}

#[test]
fn what_nobody_documented_gets_a_text() {
    let setup = Setup::new("What does it do? {{ code }}");
    let server = Server::start(Duration::ZERO, |_, _| Act::Answer);
    let table = format!(
        "[synth.q]\nkind = \"openai\"\nmodel = \"m\"\nprompt = \"prompt.txt\"\nbase_url = \"{}\"",
        server.url()
    );
    let rows = vec![
        function(0, "Says so.", "def f():\n    # Task 1\n    return 1".to_owned()),
        function(1, "", "def g():\n    # Task 2\n    return 2".to_owned()),
    ];
    for (which, expected) in [("undocumented", vec!["f1"]), ("all", vec!["f0", "f1"]), ("documented", vec!["f0"])] {
        let manifest = setup.run(&format!("{table}\nrows = {which:?}"), rows.clone(), Vec::new()).unwrap();
        assert_eq!(setup.column(&manifest, "synthetic_pairs", "parent_id"), expected, "{which}");
    }
    let wrong = setup.run(&format!("{table}\nrows = \"all\"\nanswers = \"code\""), rows, Vec::new()).unwrap_err();
    assert!(format!("{wrong:#}").contains("needs rows with a text"), "{wrong:#}");
}

#[test]
fn queries_of_the_training_split_get_a_code() {
    let setup = Setup::new("Write it, in {{ context }}: {{ text }}");
    let server = Server::start(Duration::ZERO, |_, _| Act::Answer);
    let table = format!(
        "[synth.q]\nkind = \"openai\"\nmodel = \"m\"\nprompt = \"prompt.txt\"\nrows = \"queries\"\nbase_url = \"{}\"",
        server.url()
    );
    let query = |ordinal: u64, split: &str| Query {
        id: format!("q{ordinal}"),
        source: "s".into(),
        ordinal,
        text: format!("Task {ordinal}"),
        context: "owner/name".into(),
        split: split.into(),
        ..Query::default()
    };
    let queries = vec![query(0, "train"), query(1, "test"), query(2, "validation"), query(3, "train")];
    let wrong = setup.run(&table, Vec::new(), queries.clone()).unwrap_err();
    assert!(format!("{wrong:#}").contains("answers = \"code\""), "{wrong:#}");
    let manifest = setup.run(&format!("{table}\nanswers = \"code\""), Vec::new(), queries).unwrap();
    // The server's answers are no Python.
    assert_eq!(setup.column(&manifest, "rejected", "id"), ["q0", "q3"]);
    assert_eq!(setup.column(&manifest, "rejected", "reason"), ["syntax_error", "syntax_error"]);
    assert!(setup.column(&manifest, "requests", "payload")[0].contains("in owner/name: Task"));
    assert_eq!(server.charges().len(), 2);
}
