//! The quickstart, cut down, by the real binaries.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use std::process::Command;

use support::{Pipeline, Ran, SHORT, binary, root};

/// A few packages of the standard library, one epoch, few rows to generate for.
const CUT: &[&str] = &[
    r#"ingest.stdlib.include=["json/**","email/**","http/**","urllib/**","calendar.py","collections/**","configparser.py","tarfile.py","argparse.py","ast.py"]"#,
    "train.attention.epochs=1",
    "train.attention.max_examples=64",
    "train.attention.target.max_tokens=32",
    "train.lstm.epochs=1",
    "train.lstm.max_examples=32",
    "train.lstm.target.max_tokens=32",
    "train.transformer.epochs=1",
    "train.transformer.max_examples=32",
    "train.transformer.target.max_tokens=32",
    "train.nbow.epochs=2",
    "evaluate.generation.rows=8",
];

fn cut(more: &[&str]) -> Pipeline {
    Pipeline::shipped("quickstart.toml", &[CUT, more].concat())
}

fn running(plan: &Ran) -> Vec<String> {
    let steps = plan.json();
    let run = steps.as_array().unwrap().iter().filter(|s| s["run"] == true);
    run.map(|s| s["step"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_pipeline_runs_and_reruns_only_what_changed() {
    let pipeline = cut(&[]);
    pipeline.codepair(&["run"]).ok();
    rows_are_all_accounted_for(&pipeline);
    scores_are_there(&pipeline);

    let again = pipeline.codepair(&["run"]).ok();
    assert!(again.err.contains("nothing to do"), "{again:#?}");
    let runs = pipeline.stored("runs").iter().filter(|path| path.ends_with("plan.json")).count();
    assert_eq!(runs, 1, "a run that changes nothing leaves no plan");

    let plan = pipeline.codepair(&["plan", "--json", "--set", "train.attention.epochs=2"]).ok();
    assert_eq!(running(&plan), ["train:attention", "evaluate:attention.generation", "score", "report"]);
    assert!(plan.out.contains("train.attention.epochs: 1 → 2"), "{}", plan.out);
    // A model depends on the tokenizers that it reads, and on no other.
    let planned = |set: &str| running(&pipeline.codepair(&["plan", "--json", "--set", set]).ok());
    assert_eq!(planned("prepare.tokenizers.more.vocabulary=300"), ["tokenize:more"]);
    let nbow = ["tokenize:search", "train:nbow", "evaluate:nbow.search", "score", "report"];
    assert_eq!(planned("prepare.tokenizers.search.vocabulary=300"), nbow);
    let only = pipeline.codepair(&["plan", "--json", "--force", "train:nbow", "--until", "train"]).ok();
    assert_eq!(running(&only), ["train:nbow"]);
    pipeline.codepair(&["plan", "--only", "trian"]).fails(2, &["there is no step trian", "train:nbow"]);

    commands_answer(&pipeline);
    the_readme_is_true(&pipeline);
    forced_steps_stay_forced(&pipeline);
    readers_nobody_here_wrote(&pipeline);

    let other = cut(&[
        "resources.prepare.threads=1",
        "resources.tokenize.threads=1",
        "resources.synth.threads=1",
        "resources.evaluate.threads=1",
    ]);
    other.codepair(&["run", "--jobs", "1"]).ok();
    let digests = pipeline.digests();
    assert_eq!(digests.len(), 17);
    let stripped =
        |pipeline: &Pipeline| pipeline.digests().into_iter().filter(|(step, _)| step != "report").collect::<Vec<_>>();
    assert_eq!(stripped(&other), stripped(&pipeline), "threads and jobs change no output");
}

fn rows_are_all_accounted_for(pipeline: &Pipeline) {
    let none = "select count(*) as n from sources where rows_read <> functions + problems + rejected";
    assert_eq!(pipeline.number(none), 0.0);
    let read = pipeline.number("select sum(rows_read) from sources");
    let written = pipeline.number(
        "select (select count(*) from functions) + (select count(*) from problems) + (select count(*) from rejected where stage = 'ingest')",
    );
    assert_eq!(read, written);
    let into_prepare = pipeline.number(
        "select (select count(*) from functions) + (select count(*) from problems) + (select count(*) from synthetic_pairs)",
    );
    let out_of_prepare = pipeline
        .number("select (select count(*) from examples) + (select count(*) from rejected where stage = 'prepare')");
    assert_eq!(into_prepare, out_of_prepare);
    assert_eq!(pipeline.number("select count(*) from problems"), 36.0);
    // Test rows are marked as duplicates and stay.
    let duplicates = "select (select count(*) from duplicates d left join examples e on d.id = e.id and e.split = 'test' where e.id is null) \
                      - (select count(*) from rejected where reason like '%_duplicate')";
    assert_eq!(pipeline.number(duplicates), 0.0);
    // Test rows are never read by synth, and a pair stays in its parent's split.
    let strayed = "select count(*) from synthetic_pairs p join functions f on p.parent_id = f.id where p.split <> f.split or f.split <> 'train'";
    assert_eq!(pipeline.number(strayed), 0.0);
    let edges = "select count(*) from duplicates where kind = 'near' and jaccard < 0.7";
    assert_eq!(pipeline.number(edges), 0.0);
    let text = pipeline.sql("select e.code as code, detokenize('code', t.code) as read from tokens_code t join examples e on e.id = t.id and e.ordinal = t.ordinal limit 20");
    assert_eq!(text.len(), 20);
    assert!(text.iter().all(|row| row["code"] == row["read"]), "{text:#?}");
    let other = "select count(*) from tokens_code t join examples e on e.id = t.id and e.ordinal = t.ordinal where tokenize('code', e.code) <> t.code";
    assert_eq!(pipeline.number(other), 0.0);
}

fn scores_are_there(pipeline: &Pipeline) {
    let score = |model: &str, metric: &str| {
        pipeline.number(&format!(
            "select value from scores where model = '{model}' and metric = '{metric}' and bucket = 'all' and decoding <> 'beam'"
        ))
    };
    // Nothing is learned in two epochs of a few hundred pairs, but words are shared: far better than random.
    let random = score("nbow", "mrr_of_random");
    let (nbow, bm25) = (score("nbow", "mrr"), score("bm25", "mrr"));
    assert!(nbow > 3.0 * random && bm25 > 5.0 * random, "nbow {nbow}, bm25 {bm25}, random {random}");
    assert!((0.0..100.0).contains(&score("attention", "bleu")));
    assert!(score("attention", "token_accuracy") > 0.0);
    assert_eq!(pipeline.number("select count(*) from predictions"), 48.0);
    // Three generators are three pairs, by two decodings and three metrics that have a better side; two search models one.
    assert_eq!(pipeline.number("select count(*) from comparisons where benchmark = 'generation'"), 18.0);
    assert_eq!(pipeline.number("select count(*) from comparisons where benchmark = 'search' and metric = 'mrr'"), 1.0);
    assert_eq!(pipeline.number("select count(*) from scores where not (low <= high)"), 0.0);
    let sums = "select count(*) from (select sum(weight) as w from attention group by model, ordinal, target_position) where abs(w - 1) > 1e-4";
    assert_eq!(pipeline.number(sums), 0.0);
    let ranked = "select count(distinct query_id) - (select count(*) from examples where split = 'test' and kind = 'original') from rankings where relevant and model = 'nbow'";
    assert_eq!(pipeline.number(ranked), 0.0);
    let pages: Vec<String> = pipeline.stored("artifacts/report");
    let page = std::fs::read_to_string(pages.iter().find(|p| p.ends_with("report.html")).unwrap()).unwrap();
    for part in ["nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp", "<svg", "attention_lstm", "bm25", "Rejected"] {
        assert!(page.contains(part), "the report lacks {part}");
    }
    // It stands alone: nothing is loaded from anywhere.
    for mark in ["src=\"http", "href=\"http", "url(http", "@import", "<script src", "<link"] {
        assert!(!page.contains(mark), "the report loads something: {mark}");
    }
}

fn commands_answer(pipeline: &Pipeline) {
    let found = pipeline.codepair(&["search", "parse a json document"]).ok();
    assert!(found.out.contains("by nbow") && found.out.contains(".py#L"), "{}", found.out);
    pipeline.codepair(&["generate", "return the name"]).ok();
    pipeline.codepair(&["search", "--model", "nobody", "x"]).fails(2, &["there is no model nobody", "nbow"]);
    let tree = pipeline.codepair(&["lineage", "scores"]).ok();
    for step in ["score", "evaluate:nbow.search", "train:nbow", "prepare", "synth", "source stdlib"] {
        assert!(tree.out.contains(step), "{}", tree.out);
    }
    assert!(pipeline.codepair(&["logs", "ingest"]).ok().out.contains("ingest done"));
    assert!(pipeline.codepair(&["schema", "examples"]).ok().out.contains("natural language, normalised"));
    let left = pipeline.codepair(&["gc"]).ok();
    assert!(
        left.out.contains("nothing is left over"),
        "what a finished training could go on from is gone: {}",
        left.out
    );
    assert!(pipeline.codepair(&["sql", "show tables"]).ok().out.contains("tokens_code"));
    let deep: String = (0..500).map(|n| format!(" or files = {n}")).collect();
    assert!(pipeline.number(&format!("select count(*) from sources where files = 1{deep}")) >= 1.0);
    pipeline.codepair(&["sql", "select nothing from functions"]).fails(2, &["nothing"]);
    pipeline.codepair(&["sql", "drop table functions"]).fails(2, &["DDL not supported"]);
}

/// Every command of the README: those for one's own rows are run on some, queries and questions are asked of the quickstart, runs
/// are planned, and recipes exist.
fn the_readme_is_true(pipeline: &Pipeline) {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let recipes = std::fs::read_to_string(root().join("justfile")).unwrap();
    let blocks = readme.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let own = Pipeline::own_rows(400);
    let mut checked = 0;
    for (block, line) in blocks
        .flat_map(|block| block.lines().map(move |line| (block, line)))
        .flat_map(|(block, line)| line.split(" && ").map(move |command| (block, command)))
    {
        let is_own = block.contains("codepair init");
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["target/release/codepair", "run"] if is_own => drop(own.plain(&[&["run"][..], &SHORT].concat()).ok()),
            ["target/release/codepair", arguments @ ..] if is_own => drop(own.plain(arguments).ok()),
            ["target/release/codepair", arguments @ ..] => {
                // It is the one that the pipeline has.
                let shipped = |word: &&&str| !matches!(**word, "--config" | "configs/quickstart.toml");
                let arguments: Vec<&str> = arguments.iter().filter(shipped).copied().collect();
                pipeline.codepair(&arguments).ok();
            }
            ["just", "sql", query] => assert!(!pipeline.sql(query).is_empty(), "{line}"),
            ["just", "run-pipeline", "configs/quickstart.toml", flags @ ..] => {
                drop(pipeline.codepair(&[&["plan"], flags].concat()).ok());
            }
            ["just", recipe, ..] => {
                assert!(
                    recipes
                        .lines()
                        .any(|r| r.starts_with(&format!("{recipe} ")) || r.starts_with(&format!("{recipe}:"))),
                    "{line}"
                );
            }
            ["cargo", "install", "--locked", "just"] => {}
            other => panic!("the README has a command that nothing checks: {other:?}"),
        }
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}

/// Splits a command line at spaces outside double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn forced_steps_stay_forced(pipeline: &Pipeline) {
    let before = pipeline.digests();
    pipeline.codepair(&["run", "--force", "evaluate:bm25.search"]).ok();
    assert!(pipeline.codepair(&["run"]).ok().err.contains("nothing to do"));
    assert_eq!(
        before,
        pipeline
            .digests()
            .into_iter()
            .zip(&before)
            .map(|(new, old)| if old.0 == "report" { old.clone() } else { new })
            .collect::<Vec<_>>()
    );
}

/// DuckDB and pyarrow open every Parquet file; skipped where neither is installed.
fn readers_nobody_here_wrote(pipeline: &Pipeline) {
    let python = std::env::var("CODEPAIR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let ran: Ran = Command::new(&python)
        .arg(root().join("bench/open_artifacts.py"))
        .arg(pipeline.path("store"))
        .output()
        .unwrap()
        .into();
    if ran.code == 77 {
        eprintln!("skipped: {}", ran.err.trim());
        return;
    }
    assert!(ran.ok().out.contains("files opened by DuckDB and pyarrow"));
}

/// Few kills here; `bench/kill_stages.py --kills 20` makes the full count.
#[test]
fn a_killed_stage_leaves_nothing_and_its_rerun_is_equal() {
    let ran: Ran = Command::new("python3")
        .arg(root().join("bench/kill_stages.py"))
        .args(["--kills", "2", "--codepair"])
        .arg(binary("codepair"))
        .output()
        .unwrap()
        .into();
    let ran = ran.ok();
    assert!(ran.out.contains("all digests equal"), "{ran:#?}");
}

/// Pairs mined out of the standard library, end to end, and what asking a server would cost.
#[test]
fn other_shipped_configs_work() {
    let include = r#"ingest.stdlib.include=["json/**","email/**","http/**","urllib/**","argparse.py"]"#;
    // Of so few packages none comes into validation.
    let cut = [include, "ingest.stdlib.split_by=\"file\""];
    let mining = Pipeline::shipped("mining.toml", &cut);
    mining.codepair(&["run", "--until", "prepare"]).ok();
    let kinds = "select count(*) from synthetic_pairs where kind = 'negative' and edit = 'mined' and code <> ''";
    assert!(mining.number(kinds) > 50.0);
    let own = "select count(*) from synthetic_pairs p join functions f on p.parent_id = f.id where p.code = f.code";
    assert_eq!(mining.number(own), 0.0);
    let asking = Pipeline::shipped("openai.toml", &cut);
    assert!(asking.codepair(&["plan"]).ok().out.contains("known when its inputs are there"));
    asking.codepair(&["run", "--until", "ingest"]).ok();
    let plan = asking.codepair(&["plan", "--json"]).ok().json();
    let forecast = &plan.as_array().unwrap().iter().find(|step| step["step"] == "synth").unwrap()["forecast"];
    let generators: Vec<&str> =
        forecast.as_array().unwrap().iter().map(|one| one["generator"].as_str().unwrap()).collect();
    assert_eq!(generators, ["paraphrases", "queries", "solutions", "wrong"]);
    assert!(forecast[0]["input_tokens"].as_u64().unwrap() > 1000 && forecast[0]["dollars"].as_f64().unwrap() > 0.0);
}

/// The processes that a process started and that have not ended.
fn children_of(parent: u32) -> Vec<u32> {
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything; the parent is the second field after it.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        after.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    let all = std::fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

/// Ctrl-C stops the children, and leaves no attempt behind.
#[test]
fn an_interrupted_run_stops_its_children() {
    let pipeline = cut(&["train.attention.epochs=50", "train.attention.max_examples=5000"]);
    pipeline.codepair(&["run", "--until", "prepare"]).ok();
    let mut child = Command::new(binary("codepair"))
        .args(["run", "--until", "train", "--config"])
        .arg(root().join("configs/quickstart.toml"))
        .args(CUT.iter().flat_map(|set| ["--set", set]))
        .args(["--set", "train.attention.epochs=50", "--set", "train.attention.max_examples=5000", "--set"])
        .arg(format!("store.url=file://{}/store", pipeline.folder.path().display()))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(4));
    let children = children_of(child.id());
    assert!(!children.is_empty());
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(children.iter().all(|id| !std::path::Path::new(&format!("/proc/{id}")).exists()), "{children:?} live on");
    let left = pipeline.stored("artifacts/train-attention");
    assert!(left.iter().all(|path| path.contains("/checkpoints/")), "{left:#?}");
    assert!(pipeline.stored("runs").iter().any(|path| path.ends_with("failures.json")));
}
