//! Generators divided among processes give the bytes that one process writes, pay once, and keep to one limit.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]
#![allow(dead_code, reason = "the server can do more than is wanted here")]

mod server;

use std::process::Command;
use std::time::Duration;

use codepair_runtime::{Config, Manifest, Request, Shard, Store, run_shard, run_stage, testing};
use codepair_schemas::rows::{Function, Problem, Query};
use codepair_synth::Synth;
use server::{Act, INPUT_TOKENS, OUTPUT_TOKENS, Server};

const ROWS: usize = 60;

struct Setup {
    folder: tempfile::TempDir,
    store: Store,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prompt.txt"), "Say it otherwise. {{ text }}").unwrap();
        let store = Store::local(&folder.path().join("store")).unwrap();
        let function = |n: usize| Function {
            id: format!("f{n}"),
            source: "s".into(),
            ordinal: n as u64,
            language: "python".into(),
            // The same is asked about several rows.
            docstring: format!("Task {}.", n / 2),
            code: format!("def f{n}(value):\n    total = value + {n}\n    return total if total < {n} else value"),
            split: if n % 9 == 8 { "test" } else { "train" }.into(),
            ..Function::default()
        };
        let query = |n: usize| Query {
            id: format!("q{n}"),
            source: "s".into(),
            ordinal: n as u64,
            text: format!("Task {n}?"),
            split: "test".into(),
            ..Query::default()
        };
        testing::publish(&store, "ingest", |attempt| {
            attempt.write_rows((0..ROWS).map(function))?;
            attempt.write_rows::<Problem>([])?;
            attempt.write_rows((0..5).map(query))
        })
        .unwrap();
        Self { folder, store }
    }

    fn config(&self, tables: &str) -> String {
        format!("name = \"t\"\n[store]\nurl = \"file://{}/store\"\n{tables}\n", self.folder.path().display())
    }

    fn parsed(&self, tables: &str) -> Config {
        Config::parse(&self.config(tables), &self.folder.path().join("c.toml"), &[]).unwrap()
    }

    /// All shards at once.
    fn all_shards(&self, config: &Config, of: u32) -> Manifest {
        let made: Vec<Option<Manifest>> = std::thread::scope(|scope| {
            let shard = |index| scope.spawn(move || self.shard(config, Shard { index, of }).unwrap());
            let shards: Vec<_> = (1..=of).map(shard).collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).collect()
        });
        made.into_iter().flatten().next().expect("the last one puts them together")
    }

    fn shard(&self, config: &Config, shard: Shard) -> anyhow::Result<Option<Manifest>> {
        self.shard_of(config, shard, &inputs())
    }

    fn shard_of(&self, config: &Config, shard: Shard, inputs: &[(String, String)]) -> anyhow::Result<Option<Manifest>> {
        run_shard::<Synth>(&self.store, config, &Request { given: inputs, ..Request::default() }, shard)
    }
}

/// Of all files but those of `requests`.
fn digests(made: &Manifest) -> Vec<(&str, &str)> {
    let files = made.outputs.iter().filter(|output| output.dataset != "requests");
    files.map(|output| (output.name(), output.sha256.as_str())).collect()
}

fn inputs() -> Vec<(String, String)> {
    ["functions", "problems", "queries"].map(|name| (name.to_owned(), "test".to_owned())).into()
}

fn tables(server: &Server) -> String {
    let url = server.url();
    format!(
        "[synth.edits]\nkind = \"offline\"\n[synth.words]\nkind = \"mined\"\nby = \"bm25\"\nnegatives = 2\nrange_min = 1\n\
         [synth.llm]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\nprompt = \"prompt.txt\"\nanswer_tokens = 20\n\
         [synth.vectors]\nkind = \"embed\"\nbase_url = \"{url}\"\nmodel = \"m\"\nbatch = 4\nmax_tokens = 100000\n"
    )
}

/// One generator that may spend so many dollars, and the rest of its table.
fn limited(server: &Server, max_cost: f64, rest: &str) -> String {
    format!(
        "[synth.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\nprompt = \"prompt.txt\"\nanswer_tokens = 20\n\
         price = {{ input = 1000.0, output = 1000.0 }}\nmax_cost = {max_cost:?}\n{rest}",
        server.url()
    )
}

#[test]
fn shards_are_put_together_to_the_same_bytes() {
    let (setup, server) = (Setup::new(), Server::start(Duration::ZERO, |_, _| Act::Answer));
    let config = setup.parsed(&tables(&server));
    let request = Request { given: &inputs(), ..Request::default() };
    let whole = run_stage::<Synth>(&setup.store, &config, &request).unwrap();
    assert!(whole.rows("synthetic_pairs") > 150 && whole.rows("embeddings") > 100 && whole.rows("requests") > 40);
    let asked = server.served();
    for of in [2, 3] {
        // Of the same address, which is part of what an answer is known by.
        let setup = Setup::new();
        let (config, before) = (setup.parsed(&tables(&server)), server.served());
        let made = setup.all_shards(&config, of);
        assert_eq!(server.served() - before, asked, "nothing is paid for twice");
        // Each sending has an identity of its own, that `requests` hold.
        assert_eq!(digests(&made), digests(&whole), "{of} shards");
        assert_eq!((made.rows("requests"), &made.rejected), (whole.rows("requests"), &whole.rejected));
        for count in ["answered", "input_tokens", "output_tokens", "cost_dollars"] {
            assert_eq!(made.notes["llm"][count], whole.notes["llm"][count], "{count}");
        }
        // With what one process was answered all is the same.
        let second = Setup::new();
        for (path, _) in setup.store.list("ledger").unwrap().into_iter().filter(|(path, _)| path.ends_with(".parquet"))
        {
            second.store.put(&path, setup.store.get(&path).unwrap()).unwrap();
        }
        let config = second.parsed(&tables(&server));
        let request = Request { given: &inputs(), ..Request::default() };
        let alone = run_stage::<Synth>(&second.store, &config, &request).unwrap();
        assert_eq!((alone.digest, server.served() - before), (made.digest, asked));
    }
}

#[test]
fn vectors_of_all_rows_are_in_no_shard() {
    let setup = Setup::new();
    let server = Server::start(Duration::ZERO, |_, _| Act::Answer);
    let config = setup.parsed(&format!("{}[synth.hard]\nkind = \"mined\"\nby = \"vectors\"\n", tables(&server)));
    let error = setup.shard(&config, Shard { index: 1, of: 2 }).unwrap_err();
    assert_eq!(codepair_runtime::exit_status(&error), codepair_runtime::ExitStatus::WrongConfig);
    assert!(format!("{error:#}").contains("run it without --shard"), "{error:#}");
}

/// Processes that ask at once share what may be spent, and do not wait for each other.
#[test]
fn shards_divide_what_may_be_spent() {
    let (setup, server) = (Setup::new(), Server::start(Duration::from_millis(20), |_, _| Act::Answer));
    let table = limited(&server, 1.5, "partial = true\nconcurrency = 2\n");
    std::fs::write(setup.folder.path().join("c.toml"), setup.config(&table)).unwrap();
    let began = std::time::Instant::now();
    let shards: Vec<_> = (1..=3)
        .map(|index| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_codepair-synth"));
            command.arg("--config").arg(setup.folder.path().join("c.toml")).args(["--shard", &format!("{index}/3")]);
            for (dataset, fingerprint) in &inputs()[..2] {
                command.arg("--input").arg(format!("{dataset}={fingerprint}"));
            }
            command.spawn().unwrap()
        })
        .collect();
    for mut shard in shards {
        assert!(shard.wait().unwrap().success());
    }
    assert!(began.elapsed() < Duration::from_secs(40), "they hold the lease together");
    let charges: usize = server.charges().values().sum();
    assert!(server.charges().values().all(|charged| *charged == 1), "{:?}", server.charges());
    let dollars = charges as f64 * (INPUT_TOKENS + OUTPUT_TOKENS) as f64 / 1000.0;
    assert!(dollars > 0.3 && dollars <= 1.5, "{dollars}");
    let made =
        setup.store.list("artifacts/synth").unwrap().into_iter().find(|(path, _)| path.ends_with("manifest.json"));
    let made: serde_json::Value = serde_json::from_slice(&setup.store.get(&made.unwrap().0).unwrap()).unwrap();
    assert!((made["notes"]["llm"]["cost_dollars"].as_f64().unwrap() - dollars).abs() < 1e-9);
    assert!(made["incomplete"].as_str().unwrap().contains("over_budget"), "{}", made["incomplete"]);
}

/// A shard that is run again, before or after others, has the same share as before: all together never pass the limit.
#[test]
fn a_shard_that_is_run_again_gets_no_second_share() {
    let (setup, server) = (Setup::new(), Server::start(Duration::ZERO, |_, _| Act::Answer));
    let table = limited(&server, 1.2, "concurrency = 1\n");
    let config = setup.parsed(&table);
    let spent = || server.charges().values().sum::<usize>() as f64 * (INPUT_TOKENS + OUTPUT_TOKENS) as f64 / 1000.0;
    let mut after_first = 0.0;
    for round in 0..4 {
        for index in 1..=2 {
            // Without `partial` it ends in an error that says to run it again.
            let error = setup.shard_of(&config, Shard { index, of: 2 }, &inputs()[..2]).unwrap_err();
            assert!(format!("{error:#}").contains("the budget is spent"), "{error:#}");
        }
        if round == 0 {
            after_first = spent();
        }
    }
    assert!(after_first > 0.5 && spent() <= 1.2, "{after_first} {}", spent());
    assert!((spent() - after_first).abs() < 1e-9, "nothing more in {} than in {after_first}", spent());
}

/// What others spent between two shards is theirs to miss: all together never pass the limit.
#[test]
fn who_asks_between_two_shards_leaves_less() {
    let (setup, server) = (Setup::new(), Server::start(Duration::ZERO, |_, _| Act::Answer));
    let table = limited(&server, 1.2, "concurrency = 1\n");
    let config = setup.parsed(&table);
    let given = &inputs()[..2];
    assert!(setup.shard_of(&config, Shard { index: 1, of: 2 }, given).is_err());
    assert!(run_stage::<Synth>(&setup.store, &config, &Request { given, ..Request::default() }).is_err());
    assert!(setup.shard_of(&config, Shard { index: 2, of: 2 }, given).is_err());
    let dollars = server.charges().values().sum::<usize>() as f64 * (INPUT_TOKENS + OUTPUT_TOKENS) as f64 / 1000.0;
    assert!(dollars > 0.7 && dollars <= 1.2, "{dollars}");
}
