//! Two thousand requests to a server that breaks in every way: each answered or rejected with its reason, each paid once.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod server;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codepair_runtime::{
    Config, ExitStatus, Manifest, Store, exit_status, read_output, run_stage, testing, text_column,
};
use codepair_schemas::rows::{Function, Problem, Request};
use codepair_synth::Synth;
use server::{Act, INPUT_TOKENS, OUTPUT_TOKENS, Server};

const REQUESTS: usize = 2000;
const CONCURRENCY: usize = 16;

/// A config and a store with rows to ask about, in a folder.
struct Setup {
    folder: tempfile::TempDir,
    store: Store,
    inputs: Vec<(String, String)>,
}

impl Setup {
    fn new(rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prompt.txt"), "Say it otherwise. {{ text }}").unwrap();
        let store = Store::local(&folder.path().join("store")).unwrap();
        let problem = |task: usize| Problem {
            id: format!("p{task}"),
            source: "p".into(),
            ordinal: task as u64,
            text: format!("Task {task}."),
            code: if task.is_multiple_of(2) { format!("task = {task}") } else { "x = y".into() },
            split: "train".into(),
            ..Problem::default()
        };
        testing::publish(&store, "ingest", |attempt| {
            attempt.write_rows::<Function>([])?;
            attempt.write_rows((0..rows).map(problem))
        })
        .unwrap();
        let inputs = ["functions", "problems"].map(|name| (name.to_owned(), "test".to_owned())).into();
        Self { folder, store, inputs }
    }

    fn config(&self, url: &str, more: &str) -> String {
        format!(
            "name = \"t\"\n[store]\nurl = \"file://{}/store\"\n[synth.llm]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n\
             prompt = \"prompt.txt\"\nanswer_tokens = 20\nconcurrency = {CONCURRENCY}\ntimeout_seconds = 2.0\n{more}\n",
            self.folder.path().display()
        )
    }

    fn run(&self, url: &str, more: &str) -> anyhow::Result<Manifest> {
        let config = Config::parse(&self.config(url, more), &self.folder.path().join("c.toml"), &[]).unwrap();
        run_stage::<Synth>(
            &self.store,
            &config,
            &codepair_runtime::Request { given: &self.inputs, ..Default::default() },
        )
    }

    /// The stage's binary, so that it can be killed.
    fn spawn(&self, url: &str, more: &str) -> Child {
        self.spawn_as("c.toml", url, more)
    }

    fn spawn_as(&self, config: &str, url: &str, more: &str) -> Child {
        let path = self.folder.path().join(config);
        std::fs::write(&path, self.config(url, more)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_codepair-synth"));
        command.arg("--config").arg(&path).stderr(Stdio::null());
        for (dataset, fingerprint) in &self.inputs {
            command.arg("--input").arg(format!("{dataset}={fingerprint}"));
        }
        command.spawn().unwrap()
    }

    /// Kills a run so long after the server has made its first batch.
    fn kill_once_a_batch_is_made(&self, server: &Server, more: &str, after: Duration) {
        let mut child = self.spawn(&server.url(), more);
        let began = Instant::now();
        while server.batches() == 0 {
            assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn reasons(&self, manifest: &Manifest) -> BTreeMap<String, usize> {
        let mut reasons = BTreeMap::new();
        for batch in read_output(&self.store, manifest, "rejected", &[]).unwrap() {
            for reason in text_column(&batch, "reason").unwrap().iter().flatten() {
                *reasons.entry(reason.to_owned()).or_default() += 1;
            }
        }
        reasons
    }
}

/// Every hundredth task is of each sort; most are answered at once.
fn plan(task: usize, attempt: usize) -> Act {
    match (task % 100, attempt) {
        (7, _) => Act::Fail(500),
        (9, _) => Act::Fail(400),
        (11, _) => Act::WrongSchema,
        (1, 0) => Act::LimitWithTime,
        (2, 0 | 1) => Act::Limit,
        (3, 0) => Act::Fail(503),
        (4, 0) if task < 400 => Act::Hang,
        (5, 0) => Act::Cut,
        (6, 0) => Act::BadJson,
        (8, 0) => Act::Drop,
        (10, 0) => Act::Fail(408),
        _ => Act::Answer,
    }
}

#[test]
fn every_request_is_answered_or_rejected_and_paid_once() {
    let setup = Setup::new(REQUESTS);
    let server = std::sync::Arc::new(Server::start(Duration::from_millis(2), plan));
    let refusing = std::sync::Arc::clone(&server);
    let breaker = std::thread::spawn(move || {
        while refusing.served() < 500 {
            std::thread::sleep(Duration::from_millis(2));
        }
        refusing.refuse_for(Duration::from_millis(300));
    });
    let manifest = setup.run(&server.url(), "retries = 4\npartial = true").unwrap();
    breaker.join().unwrap();
    let of_each = REQUESTS / 100;
    let expected = [("malformed_answer", of_each), ("request_failed", of_each), ("request_refused", of_each)]
        .map(|(a, b)| (a.to_owned(), b));
    assert_eq!(setup.reasons(&manifest), BTreeMap::from(expected));
    assert_eq!(manifest.rows("synthetic_pairs") as usize, REQUESTS - 3 * of_each);
    let charges = server.charges();
    // An answer of another form is asked for once more, and both are paid for.
    let expected = |task: usize| match task % 100 {
        7 | 9 => 0,
        11 => 2,
        _ => 1,
    };
    assert!(charges.iter().all(|(task, charged)| *charged == expected(*task)), "{charges:?}");
    assert!(manifest.incomplete.unwrap().contains("20 request_failed"));
    assert_eq!(charges.len(), REQUESTS);
    let faults = &manifest.notes["llm"]["faults"];
    for kind in ["rate limited", "timed out", "server error", "cut off", "malformed JSON"] {
        assert!(faults[kind].as_u64().unwrap() >= of_each as u64, "{kind}: {faults}");
    }
    assert!(faults["unreachable"].as_u64().is_some_and(|count| count > 0), "{faults}");
    // A changed parser, here other rows to keep, asks nothing again.
    let served = server.served();
    setup.run(&server.url(), "retries = 0\npairs = \"negative\"\nlimit = 7").unwrap();
    assert_eq!(server.served(), served);
    // Without `partial` what is open is an error, and nothing is published.
    let error = format!("{:#}", setup.run(&server.url(), "retries = 0\npairs = \"negative\"").unwrap_err());
    assert!(error.contains("20 request_failed") && error.contains("partial = true"), "{error}");
    // The ledger is a few files by now.
    assert!(setup.store.list("ledger").unwrap().len() < 16);
}

#[test]
fn kills_cost_at_most_what_was_in_flight() {
    let setup = Setup::new(REQUESTS);
    let server = Server::start(Duration::from_millis(10), |_, _| Act::Answer);
    for kill_at in [300, 800, 1300] {
        let mut child = setup.spawn(&server.url(), "");
        let began = Instant::now();
        while server.served() < kill_at {
            assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(setup.spawn(&server.url(), "").wait().unwrap().success());
    let charges = server.charges();
    let twice: usize = charges.values().map(|charged| charged - 1).sum();
    assert_eq!(charges.len(), REQUESTS);
    assert!(twice <= 3 * CONCURRENCY, "{twice} requests were paid again");
    let manifest = setup.run(&server.url(), "").unwrap();
    assert_eq!(manifest.rows("synthetic_pairs") as usize, REQUESTS);
}

const PRICE: &str = "price = { input = 1000.0, output = 3000.0 }";

fn cost(server: &Server) -> f64 {
    let charged: usize = server.charges().values().sum();
    charged as f64 * (INPUT_TOKENS as f64 * 1000.0 + OUTPUT_TOKENS as f64 * 3000.0) / 1e6
}

#[test]
fn spending_never_passes_the_limit() {
    let setup = Setup::new(200);
    let server = Server::start(Duration::from_millis(10), plan);
    let limited = format!("{PRICE}\nmax_cost = 10.0\nretries = 4\npartial = true");
    for kill_at in [20, 50, 70] {
        let mut child = setup.spawn(&server.url(), &limited);
        while server.served() < kill_at && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let stopped = setup.run(&server.url(), &limited).unwrap();
    assert!(cost(&server) > 0.5 && cost(&server) <= 10.0, "{}", cost(&server));
    let reasons = setup.reasons(&stopped);
    assert!(reasons["over_budget"] > 50, "{reasons:?}");
    let noted = stopped.notes["llm"]["cost_dollars"].as_f64().unwrap();
    assert!(noted >= cost(&server) - 1e-9 && noted <= 10.0, "{noted} {}", cost(&server));
    // More money goes on from there.
    let finished =
        setup.run(&server.url(), &format!("{PRICE}\nmax_cost = 1000.0\nretries = 4\npartial = true")).unwrap();
    assert_ne!(finished.fingerprint, stopped.fingerprint, "the next generation");
    assert!(!setup.reasons(&finished).contains_key("over_budget"));
    assert_eq!(finished.rows("synthetic_pairs"), 200 - 6);
    let charges = server.charges().into_iter();
    let twice: usize = charges.map(|(task, n)| n.saturating_sub(if task % 100 == 11 { 2 } else { 1 })).sum();
    assert!(twice <= 3 * CONCURRENCY, "{twice} requests were paid again");
}

#[test]
fn tokens_have_a_limit_too() {
    let setup = Setup::new(60);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    let manifest = setup.run(&server.url(), "max_tokens = 3000\npartial = true").unwrap();
    let spent: usize = server.charges().values().sum::<usize>() * (INPUT_TOKENS + OUTPUT_TOKENS) as usize;
    // Who does not fit waits for those under way, so all of it is used but for less than the worst case of one.
    assert!(spent > 2400 && spent <= 3000, "{spent}");
    assert!(setup.reasons(&manifest)["over_budget"] > 0);
}

#[test]
fn pairs_whose_code_is_not_found_first_are_rejected() {
    let setup = Setup::new(40);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    let consistent = "consistency = { by = \"bm25\" }";
    let manifest = setup.run(&server.url(), consistent).unwrap();
    // The answers are "query for task N", and only the codes of even tasks have the number.
    assert_eq!(manifest.rows("synthetic_pairs"), 20);
    assert_eq!(setup.reasons(&manifest)["inconsistent"], 20);
    let served = server.served();
    let lenient = setup.run(&server.url(), "consistency = { by = \"bm25\", rank = 20 }").unwrap();
    assert_eq!(setup.reasons(&lenient)["inconsistent"], 20, "twenty codes have the word task");
    let all = setup.run(&server.url(), "consistency = { by = \"bm25\", rank = 21 }").unwrap();
    assert_eq!(all.rows("synthetic_pairs"), 40);
    assert_eq!(server.served(), served, "a changed filter asks nothing again");
    let wrong = setup.run(&server.url(), "consistency = { by = \"nobody\" }").err().unwrap();
    assert_eq!(exit_status(&wrong), ExitStatus::WrongConfig);
}

const BATCHES: &str = "batches = true\npoll_seconds = 0.2\npartial = true";

#[test]
fn batches_are_asked_once_whatever_happens() {
    let setup = Setup::new(300);
    let server = Server::start(Duration::from_millis(1), |task, _| match task % 100 {
        7 => Act::Fail(400),
        9 => Act::Drop,
        _ => Act::Answer,
    });
    server.lose_a_batch();
    let mut child = setup.spawn(&server.url(), BATCHES);
    let began = Instant::now();
    while server.batches() == 0 {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    // Nobody has heard of the batch yet but for the mark in the ledger.
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = setup.spawn(&server.url(), BATCHES);
    let served = server.served();
    while server.served() < served + 2 {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let manifest = setup.run(&server.url(), BATCHES).unwrap();
    assert_eq!((server.batches(), manifest.rows("synthetic_pairs")), (1, 294));
    let expected = [("request_failed", 3), ("request_refused", 3)].map(|(a, b)| (a.to_owned(), b));
    assert_eq!(setup.reasons(&manifest), BTreeMap::from(expected));
    assert!(server.charges().values().all(|charged| *charged <= 1));
    assert_eq!(server.charges().values().sum::<usize>(), 294);
    // What had no answer is asked again in a batch of its own, when somebody wants it; the rest never.
    let again = setup.run(&server.url(), &format!("{BATCHES}\npairs = \"negative\"")).unwrap();
    assert_eq!((server.batches(), again.rows("synthetic_pairs")), (2, 294));
    assert_eq!(server.charges().values().sum::<usize>(), 294);
}

#[test]
fn batches_keep_to_the_budget() {
    let setup = Setup::new(60);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    let manifest = setup.run(&server.url(), &format!("{BATCHES}\nmax_tokens = 3000")).unwrap();
    let answered = manifest.rows("synthetic_pairs");
    assert!((40..60).contains(&answered), "{answered}: what a batch did not take is there for the next");
    assert_eq!(setup.reasons(&manifest)["over_budget"] as u64, 60 - answered);
    assert_eq!(server.charges().values().sum::<usize>() as u64, answered);
}

/// A line that cannot be read was paid for: it is kept, counts as the most it can have cost, and is not asked again.
#[test]
fn a_damaged_line_of_a_batch_counts_as_paid() {
    let setup = Setup::new(20);
    let server = Server::start(Duration::from_millis(1), |task, _| if task == 3 { Act::BadJson } else { Act::Answer });
    let manifest = setup.run(&server.url(), &format!("{BATCHES}\n{PRICE}\nattempts = 1")).unwrap();
    assert_eq!(setup.reasons(&manifest), BTreeMap::from([("malformed_answer".to_owned(), 1)]));
    let noted = manifest.notes["llm"]["cost_dollars"].as_f64().unwrap();
    assert!(noted > cost(&server) && server.charges().values().sum::<usize>() == 20, "{noted}");
    let again = setup.run(&server.url(), &format!("{BATCHES}\n{PRICE}\nattempts = 1\npairs = \"negative\"")).unwrap();
    assert_eq!((server.batches(), setup.reasons(&again)), (1, setup.reasons(&manifest)));
    assert_eq!(again.notes["llm"]["cost_dollars"].as_f64().unwrap(), noted);
}

/// A batch is paid for as a whole: what a run does not want of it is kept for one that does, by batch or not.
#[test]
fn all_of_a_batch_is_kept_whoever_collects_it() {
    let setup = Setup::new(60);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    setup.kill_once_a_batch_is_made(&server, BATCHES, Duration::ZERO);
    let few = setup.run(&server.url(), "limit = 10\npoll_seconds = 0.2").unwrap();
    assert_eq!((server.batches(), few.rows("synthetic_pairs")), (1, 10));
    let all = setup.run(&server.url(), "").unwrap();
    assert_eq!((server.batches(), all.rows("synthetic_pairs")), (1, 60));
    assert_eq!(server.charges().values().sum::<usize>(), 60, "each was paid once");
    let requests = read_output(&setup.store, &all, "requests", &[]).unwrap();
    let payloads: Vec<_> =
        requests.iter().flat_map(|batch| text_column(batch, "payload").unwrap().iter().flatten()).collect();
    assert!(payloads.len() == 60 && payloads.iter().all(|payload| payload.contains("Task ")));
}

/// When asking is hopeless, what is under way is still paid for, and kept.
#[test]
fn what_is_under_way_is_kept_when_the_credit_runs_out() {
    let setup = Setup::new(200);
    let has_credit = Arc::new(AtomicBool::new(false));
    let credit = Arc::clone(&has_credit);
    let plan = move |task, _| match task == 40 && !credit.load(Ordering::SeqCst) {
        true => Act::Fail(402),
        false => Act::Answer,
    };
    let server = Server::start(Duration::from_millis(30), plan);
    let error = setup.run(&server.url(), "").err().unwrap();
    assert!(format!("{error:#}").contains("402"), "{error:#}");
    let charged = server.charges().values().sum::<usize>();
    assert!((40..200).contains(&charged), "{charged}");
    has_credit.store(true, Ordering::SeqCst);
    let patient = setup.run(&server.url(), "").unwrap();
    assert_eq!(patient.rows("synthetic_pairs"), 200);
    assert!(server.charges().values().all(|charged| *charged <= 1), "nothing is paid twice");
}

/// Two runs that want the same answers: the second waits, and finds them.
#[test]
fn two_runs_at_once_pay_once_and_keep_to_one_limit() {
    let setup = Setup::new(300);
    let server = Server::start(Duration::from_millis(10), |_, _| Act::Answer);
    let limited = |pairs: &str| format!("{PRICE}\nmax_cost = 8.0\npartial = true\npairs = \"{pairs}\"");
    let mut first = setup.spawn_as("first.toml", &server.url(), &limited("positive"));
    let mut second = setup.spawn_as("second.toml", &server.url(), &limited("negative"));
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let charges = server.charges();
    assert!(charges.values().all(|charged| *charged <= 1), "{charges:?}");
    assert!(cost(&server) > 4.0 && cost(&server) <= 8.0, "{}", cost(&server));
}

#[test]
fn an_error_in_a_200_is_no_answer() {
    let setup = Setup::new(100);
    let plan = |task, tries| if task % 5 == 0 && tries == 0 { Act::ErrorBody } else { Act::Answer };
    let server = Server::start(Duration::from_millis(1), plan);
    let manifest = setup.run(&server.url(), "").unwrap();
    assert_eq!((manifest.rows("synthetic_pairs"), manifest.incomplete), (100, None));
    assert_eq!(manifest.notes["llm"]["faults"]["no answer"], 20);
    assert!(server.charges().values().all(|charged| *charged == 1));
}

/// A ledger of an older codepair may hold such errors as answers.
#[test]
fn errors_that_were_kept_as_answers_are_passed_over() {
    let setup = Setup::new(30);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    setup.run(&server.url(), "").unwrap();
    let files = setup.store.list("ledger").unwrap().into_iter().map(|(path, _)| path);
    let files: Vec<String> = files.filter(|path| path.ends_with(".parquet")).collect();
    let mut memory = Vec::new();
    for path in &files {
        let bytes = setup.store.get(path).unwrap();
        for batch in
            parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap()
        {
            let batch = batch.unwrap();
            let text = |name: &str, row: usize| text_column(&batch, name).unwrap().value(row).to_owned();
            for row in 0..batch.num_rows() {
                memory.push(Request {
                    request: text("request", row),
                    endpoint: text("endpoint", row),
                    payload: text("payload", row),
                    status: 200,
                    response: "{\"error\": {\"message\": \"slow down\"}}".to_owned(),
                    ..Request::default()
                });
            }
        }
    }
    memory.sort_by(|a, b| a.request.cmp(&b.request));
    setup.store.delete(&files).unwrap();
    testing::publish(&setup.store, "old", |attempt| attempt.write_rows(memory)).unwrap();
    let part =
        setup.store.list("artifacts/old").unwrap().into_iter().find(|(path, _)| path.ends_with(".parquet")).unwrap();
    setup.store.put("ledger/old.parquet", setup.store.get(&part.0).unwrap()).unwrap();
    let manifest = setup.run(&server.url(), "pairs = \"negative\"").unwrap();
    assert_eq!((manifest.rows("synthetic_pairs"), manifest.rejected.len()), (30, 0));
}

#[test]
fn a_server_that_answers_nothing_usable_is_stopped() {
    let setup = Setup::new(500);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::WrongSchema);
    let error = format!("{:#}", setup.run(&server.url(), "").unwrap_err());
    assert!(error.contains("answers nothing that can be used") && error.contains("has no answer"), "{error}");
    let charged: usize = server.charges().values().sum();
    assert!((40..120).contains(&charged), "{charged}");
}

#[test]
fn an_unusable_answer_is_asked_for_again_and_both_are_kept() {
    let setup = Setup::new(40);
    let server = Server::start(Duration::from_millis(1), |task, tries| {
        if task % 4 == 0 && tries == 0 { Act::WrongSchema } else { Act::Answer }
    });
    let manifest = setup.run(&server.url(), "attempts = 3").unwrap();
    assert_eq!((manifest.rows("synthetic_pairs"), manifest.rows("requests")), (40, 50));
    let requests = read_output(&setup.store, &manifest, "requests", &[]).unwrap();
    let seeds = requests.iter().flat_map(|batch| text_column(batch, "payload").unwrap().iter().flatten());
    assert_eq!(seeds.filter(|payload| payload.contains("\"seed\":1")).count(), 10, "another seed, another answer");
    let served = server.served();
    setup.run(&server.url(), "attempts = 3\npairs = \"negative\"").unwrap();
    assert_eq!(server.served(), served);
}

#[test]
fn a_batch_that_is_gone_stops_nothing() {
    let setup = Setup::new(40);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    setup.kill_once_a_batch_is_made(&server, BATCHES, Duration::from_millis(100));
    server.forget_batches();
    let manifest = setup.run(&server.url(), &format!("poll_seconds = 0.2\n{PRICE}\nmax_cost = 1000.0")).unwrap();
    assert_eq!(manifest.rows("synthetic_pairs"), 40);
    // What the batch may have cost is counted.
    let noted = manifest.notes["llm"]["cost_dollars"].as_f64().unwrap();
    assert!(noted > 2.0 * cost(&server), "{noted}");
    let again = setup.run(&server.url(), "pairs = \"negative\"").unwrap();
    assert_eq!(again.rows("synthetic_pairs"), 40);
    // A server that knows no batches says so, and a run without goes on.
    let other = Setup::new(40);
    let error = format!("{:#}", other.run(&server.url(), BATCHES).unwrap_err());
    assert!(error.contains("no such path") && error.contains("batches = false"), "{error}");
    assert_eq!(other.run(&server.url(), "").unwrap().rows("synthetic_pairs"), 40);
}

/// A further attempt that is refused leaves the answer that there is; one that fails in passing leaves the request open. Neither
/// is asked for ever.
#[test]
fn a_further_attempt_in_a_batch_ends() {
    for (status, expected) in [(400, "malformed_answer"), (500, "request_failed")] {
        let setup = Setup::new(30);
        let server = Server::start(Duration::from_millis(1), move |task, tries| match (task, tries) {
            (3, 0) => Act::WrongSchema,
            (3, _) => Act::Fail(status),
            _ => Act::Answer,
        });
        let batches = BATCHES.replace("partial = true", "attempts = 4");
        let ran = setup.run(&server.url(), &batches);
        assert_eq!(server.batches(), 2, "{status}");
        match ran {
            Ok(manifest) => assert_eq!(setup.reasons(&manifest), BTreeMap::from([(expected.to_owned(), 1)])),
            Err(error) => assert!(format!("{error:#}").contains(&format!("1 {expected}")), "{error:#}"),
        }
    }
}

/// Of a batch that is under way every request counts at its worst, for a run that wants none of them as well.
#[test]
fn a_batch_that_nobody_wants_any_more_counts() {
    let setup = Setup::new(40);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    let limited = format!("{BATCHES}\nmax_tokens = 14000");
    setup.kill_once_a_batch_is_made(&server, &limited, Duration::from_millis(100));
    let prompt = setup.folder.path().join("prompt.txt");
    let before = std::fs::read(&prompt).unwrap();
    std::fs::write(&prompt, "Say it yet otherwise. {{ text }}").unwrap();
    let other = setup.run(&server.url(), &limited).unwrap();
    assert!(other.rows("synthetic_pairs") < 30, "{}", other.rows("synthetic_pairs"));
    // Once somebody collects it, it counts as what it cost.
    std::fs::write(&prompt, before).unwrap();
    let own = setup.run(&server.url(), &limited).unwrap();
    assert_eq!(own.rows("synthetic_pairs"), 40);
    let noted =
        own.notes["llm"]["input_tokens"].as_u64().unwrap() + own.notes["llm"]["output_tokens"].as_u64().unwrap();
    assert_eq!(noted, server.charges().values().sum::<usize>() as u64 * (INPUT_TOKENS + OUTPUT_TOKENS));
}

/// Answers of no use in an earlier run give no hope: the next one stops as early.
#[test]
fn a_useless_server_is_stopped_in_every_run() {
    let server = Server::start(Duration::from_millis(1), |_, _| Act::WrongSchema);
    for more in ["", BATCHES] {
        let setup = Setup::new(300);
        let mut before: usize = server.charges().values().sum();
        for _ in 0..2 {
            let error = format!("{:#}", setup.run(&server.url(), more).unwrap_err());
            assert!(error.contains("answers nothing that can be used"), "{error}");
            let charged: usize = server.charges().values().sum();
            assert!(charged - before <= 300, "{charged} after {before}");
            before = charged;
        }
    }
    // Also where there are few rows, and where all have had their attempts.
    let few = Setup::new(5);
    for _ in 0..2 {
        let error = format!("{:#}", few.run(&server.url(), "").unwrap_err());
        assert!(error.contains("answers nothing that can be used"), "{error}");
    }
}

#[test]
fn a_download_that_broke_off_is_whole_although_the_server_begins_anew() {
    let setup = Setup::new(40);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    server.cut_a_file();
    let manifest = setup.run(&server.url(), BATCHES).unwrap();
    assert_eq!((server.batches(), manifest.rows("synthetic_pairs")), (1, 40));
}

#[test]
fn where_all_is_refused_nothing_is_published() {
    for more in ["", BATCHES] {
        let setup = Setup::new(7);
        let server = Server::start(Duration::from_millis(1), |_, _| Act::Fail(400));
        let error = format!("{:#}", setup.run(&server.url(), more).unwrap_err());
        assert!(error.contains("refuses every request") && error.contains("the server's own words"), "{more}: {error}");
    }
}

/// Ctrl-C: nothing more is sent, and what is under way is waited for and kept.
#[test]
fn an_interrupted_run_keeps_what_is_under_way() {
    let setup = Setup::new(200);
    let server = Server::start(Duration::from_millis(200), |_, _| Act::Answer);
    let mut child = setup.spawn(&server.url(), "");
    let began = Instant::now();
    while server.served() < 20 {
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(30));
    let charged: usize = server.charges().values().sum();
    assert!(charged < 100, "{charged}");
    assert!(setup.store.list("artifacts/synth").unwrap().is_empty());
    setup.run(&server.url(), "").unwrap();
    assert!(server.charges().values().all(|charged| *charged == 1), "what was under way was paid once");
}

#[test]
fn a_limit_counts_whatever_becomes_of_the_prompt() {
    let setup = Setup::new(60);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    let limited = "max_tokens = 3000\npartial = true";
    let first = setup.run(&server.url(), limited).unwrap();
    std::fs::write(setup.folder.path().join("prompt.txt"), "Say it yet otherwise. {{ text }}").unwrap();
    let second = setup.run(&server.url(), limited);
    let spent = server.charges().values().sum::<usize>() * (INPUT_TOKENS + OUTPUT_TOKENS) as usize;
    assert!(spent > 2400 && spent <= 3000, "{spent}");
    assert!(first.rows("synthetic_pairs") > 40 && second.unwrap().rows("synthetic_pairs") < 10);
}

#[test]
fn a_wrong_key_costs_nothing() {
    let setup = Setup::new(60);
    let is_right = Arc::new(AtomicBool::new(false));
    let right = Arc::clone(&is_right);
    let plan = move |_, _| if right.load(Ordering::SeqCst) { Act::Answer } else { Act::Fail(401) };
    let server = Server::start(Duration::from_millis(1), plan);
    let limited = format!("{PRICE}\nmax_cost = 100.0");
    for _ in 0..3 {
        assert!(format!("{:#}", setup.run(&server.url(), &limited).unwrap_err()).contains("401"));
    }
    is_right.store(true, Ordering::SeqCst);
    let manifest = setup.run(&server.url(), &limited).unwrap();
    let noted = manifest.notes["llm"]["cost_dollars"].as_f64().unwrap();
    assert!((noted - cost(&server)).abs() < 1e-9, "{noted} {}", cost(&server));
}

/// The key is nowhere but in the requests: not in the ledger, an artifact, a plan or a log.
#[test]
fn a_key_is_kept_nowhere() {
    let setup = Setup::new(10);
    let server = Server::start(Duration::from_millis(1), |task, tries| match (task, tries) {
        (1, 0) => Act::Fail(500),
        (2, _) => Act::Fail(400),
        _ => Act::Answer,
    });
    let secret = "sk-planted-0123456789";
    let config = setup.folder.path().join("c.toml");
    std::fs::write(&config, setup.config(&server.url(), "api_key_env = \"CODEPAIR_PLANTED\"")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_codepair-synth"));
    command.arg("--config").arg(&config).env("CODEPAIR_PLANTED", format!("{secret}\n")).env("RUST_LOG", "debug");
    for (dataset, fingerprint) in &setup.inputs {
        command.arg("--input").arg(format!("{dataset}={fingerprint}"));
    }
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert!(server.keys().iter().all(|key| key == &format!("Bearer {secret}")), "{:?}", server.keys());
    assert!(!String::from_utf8_lossy(&ran.stderr).contains(secret));
    let stored = setup.store.list("").unwrap();
    assert!(stored.len() > 5);
    for (path, _) in stored {
        let bytes = setup.store.get(&path).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{path}");
        if path.ends_with(".parquet") {
            let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            for batch in reader.build().unwrap() {
                assert!(!format!("{:?}", batch.unwrap()).contains(secret), "{path}");
            }
        }
    }
}

#[test]
fn costs_are_forecast_before_anything_is_asked() {
    let setup = Setup::new(50);
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Answer);
    let forecast = || -> serde_json::Value {
        std::fs::write(setup.folder.path().join("c.toml"), setup.config(&server.url(), PRICE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_codepair-synth"));
        command.arg("--config").arg(setup.folder.path().join("c.toml")).arg("--forecast");
        for (dataset, fingerprint) in &setup.inputs {
            command.arg("--input").arg(format!("{dataset}={fingerprint}"));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()[0].clone()
    };
    let before = forecast();
    assert_eq!((&before["requests"], &before["answered_before"]), (&50.into(), &0.into()));
    assert_eq!(before["output_tokens"], 50 * 20);
    let input = before["input_tokens"].as_f64().unwrap();
    // "Say it otherwise. Task 7." is 8 tokens, and the schema of the answer some sixty more.
    assert!(input > 50.0 * 40.0 && input < 50.0 * 100.0, "{before}");
    let dollars = (input * 1000.0 + 1000.0 * 3000.0) / 1e6;
    assert!((before["dollars"].as_f64().unwrap() - dollars).abs() < 1e-9, "{before}");
    assert_eq!(server.served(), 0);
    setup.run(&server.url(), PRICE).unwrap();
    let after = forecast();
    assert_eq!((&after["requests"], &after["answered_before"]), (&0.into(), &50.into()));
    assert!((after["dollars_before"].as_f64().unwrap() - cost(&server)).abs() < 1e-9, "{after}");
}

#[test]
fn what_is_hopeless_stops_in_the_servers_own_words() {
    let setup = Setup::new(50);
    let server =
        Server::start(Duration::from_millis(1), |task, _| if task < 20 { Act::Answer } else { Act::Fail(401) });
    let error = setup.run(&server.url(), "").err().unwrap();
    let words = format!("{error:#}");
    assert!(words.contains("401") && words.contains("the server's own words") && words.contains("is kept"), "{words}");
    // Something that the server does not take at all, such as a parameter it does not know.
    let server = Server::start(Duration::from_millis(1), |_, _| Act::Fail(422));
    let words = format!("{:#}", Setup::new(200).run(&server.url(), "").err().unwrap());
    assert!(words.contains("refuses every request") && words.contains("the server's own words"), "{words}");
    assert!(server.served() < 60, "{}", server.served());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = setup.run(&format!("http://{free}/v1"), "retries = 0").err().unwrap();
    assert!(format!("{error:#}").contains("(1 tries)"), "{error:#}");
}
