//! The first hour with one's own data: a config for it, its run, what it can be asked, and what goes wrong.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use support::{Pipeline, SHORT, Transcript, own_rows};

/// A project of some modules with documented functions, and its tests.
fn project(pipeline: &Pipeline) {
    let lines = own_rows(120);
    let function = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (question, code) = (row["question"].as_str().unwrap(), row["answer"].as_str().unwrap());
        let (head, body) = code.split_once('\n').unwrap();
        format!("{head}\n    \"\"\"{}\"\"\"\n{body}\n\n", question.replace("How do I ", "Say how to "))
    };
    let functions: Vec<String> = lines.lines().map(function).collect();
    for (at, chunk) in functions.chunks(4).enumerate() {
        pipeline.write(&format!("project/src/tool/part{at}.py"), chunk.concat());
    }
    pipeline.write("project/tests/test_part.py", "def test_it():\n    assert True\n");
    pipeline.write("project/README.md", "A project.");
}

/// The newest run, as `codepair runs --json` has it.
fn runs(pipeline: &Pipeline) -> Vec<serde_json::Value> {
    pipeline.plain(&["runs", "--json"]).ok().json().as_array().unwrap().clone()
}

fn scores(run: &serde_json::Value) -> Vec<String> {
    let scores = run["scores"].as_array().unwrap().iter();
    scores.map(|s| format!("{} {}", s["model"].as_str().unwrap(), s["metric"].as_str().unwrap())).collect()
}

#[test]
fn a_project_is_searched_without_reading_anything() {
    let pipeline = Pipeline::written("");
    std::fs::remove_file(pipeline.path("pipeline.toml")).unwrap();
    project(&pipeline);
    let mut read = Transcript::of(&pipeline);
    read.codepair(&["--help"]).ok();
    read.codepair(&["init", "project"]).ok();
    let config = std::fs::read_to_string(pipeline.path("codepair.toml")).unwrap();
    assert!(config.contains("[ingest.project]\nkind = \"source_tree\"\npath = \"project\""), "{config}");
    // What somebody changed is not overwritten.
    pipeline.write("codepair.toml", format!("{config}\n# mine\n"));
    read.codepair(&["init", "project"]).fails(2, &[]);
    read.codepair(&[&["plan"][..], &SHORT].concat()).ok();
    let ran = read.codepair(&[&["run"][..], &SHORT].concat()).ok();
    assert!(ran.out.starts_with("report: ") && ran.out.trim().ends_with("report.html"), "{ran:?}");
    for query in ["how to add two prices", "join words", "scale angles"] {
        let found = read.codepair(&["search", query]).ok();
        assert!(found.out.starts_with("5 of ") && found.out.contains("src/tool/part"), "{found:?}");
    }
    // "Nothing to do" names the report as well.
    assert_eq!(read.codepair(&[&["run"][..], &SHORT].concat()).ok().out, ran.out);
    insta::assert_snapshot!("a_project", read.text());
}

#[test]
fn rows_of_ones_own_are_learned_from_and_two_runs_compared() {
    let pipeline = Pipeline::own_rows(400);
    let mut read = Transcript::of(&pipeline);
    read.codepair(&["init", "rows.jsonl"]).ok();
    let epochs = |epochs: &str| format!("train.search.epochs={epochs}");
    let [few, more] = [epochs("2"), epochs("5")];
    let short = |set| ["run", "--set", "train.generate.epochs=1", "--set", set];
    read.codepair(&short(&few)).ok();
    read.codepair(&short(&more)).ok();
    // What has nothing to do is the newest run's.
    let third = pipeline.plain(&[&short(&more)[..], &["--json"]].concat()).ok().json();
    let steps = third["steps"].as_array().unwrap();
    assert!(steps.len() == 13 && steps.iter().all(|step| step["state"] == "fresh"), "{third:#}");
    assert!(third["report"].as_str().unwrap().ends_with("report.html"));
    let listed = runs(&pipeline);
    assert_eq!((listed.len(), &listed[0]["run"]), (2, &third["run"]));
    assert_eq!(listed[0]["changed"], serde_json::json!(["train.search.epochs: 2 → 5"]));
    assert_eq!(listed[1]["changed"], serde_json::json!(["the first run"]));
    for run in &listed {
        assert_eq!(
            (run["state"].as_str(), scores(run)),
            (Some("done"), vec!["generate bleu".into(), "bm25 mrr".into(), "search mrr".into()])
        );
    }
    assert!(read.codepair(&["generate", "How do I add two prices?"]).ok().out.len() > 1);
    read.codepair(&["runs"]).ok();
    insta::assert_snapshot!("rows_of_ones_own", read.text());

    // A failed experiment hides nothing.
    let mut read = Transcript::of(&pipeline);
    let ids: Vec<&str> = listed.iter().map(|run| run["run"].as_str().unwrap()).collect();
    let broken = [
        "run",
        "--set",
        "prepare.filters.no=\"1 / (length(code) - length(code)) > 1\"",
        "--set",
        "train.search.epochs=5",
    ];
    read.codepair(&broken).fails(2, &[]);
    let status = read.codepair(&["status"]).ok().out;
    let short_id = &ids[0][ids[0].len() - 8..];
    assert!(status.contains(&format!("codepair status --run {short_id}")), "{status}");
    assert_eq!(runs(&pipeline)[0]["state"], "failed");
    for asked in [
        &["search", "add two prices"][..],
        &["sql", "--format", "json", "select count(*) as n from scores"],
        &["generate", "add"],
    ] {
        let answer = read.codepair(asked).ok();
        assert!(answer.err.contains("the newest run,") && answer.err.contains(short_id), "{answer:?}");
    }
    // Another run is chosen by its digits; what would change nothing is refused.
    let old = &ids[1][ids[1].len() - 8..];
    let epochs = |run: &str| {
        let query = "select max(epoch) as n from training_steps where model = 'search'";
        pipeline.plain(&["sql", "--run", run, "--format", "json", query]).ok().json()[0]["n"].as_u64().unwrap()
    };
    assert_eq!((epochs(old), epochs(short_id)), (2, 5));
    read.codepair(&["status", "--run", "zzzz"]).fails(3, &[old]);
    for command in [&["search", "x"][..], &["status"], &["sql", "select 1"], &["runs"], &["gc"]] {
        read.codepair(&[command, &["--set", "train.search.epochs=9"]].concat()).fails(2, &[]);
    }
    insta::assert_snapshot!("a_failed_run", read.text());
    the_store_moves(&pipeline, short_id);
}

/// A store on another machine: a folder elsewhere, without the rows.
fn the_store_moves(pipeline: &Pipeline, run: &str) {
    let there = Pipeline::written("");
    std::fs::rename(pipeline.path(".codepair"), there.path(".codepair")).unwrap();
    std::fs::copy(pipeline.path("codepair.toml"), there.path("codepair.toml")).unwrap();
    let mut read = Transcript::of(&there);
    read.codepair(&["search", "add two prices"]).ok();
    let epochs = ["--set", "train.search.epochs=5", "--set", "train.generate.epochs=1"];
    let plan = read.codepair(&[&["plan"][..], &epochs].concat()).ok();
    assert!(!plan.out.contains("run  "), "{plan:?}");
    insta::assert_snapshot!("a_store_elsewhere", read.text());
    // A damaged artifact is named, with what makes it anew; an older run is no substitute.
    let mut read = Transcript::of(&there);
    let artifacts = there.path(".codepair/artifacts");
    for folder in std::fs::read_dir(artifacts.join("prepare")).unwrap() {
        std::fs::write(folder.unwrap().path().join("manifest.json"), "{").unwrap();
    }
    read.codepair(&["search", "x"]).fails(3, &[]);
    // Whoever asks for something else need not wait for it.
    let other = read.codepair(&["sql", "--run", run, "--format", "json", "select count(*) as n from pairs"]).ok();
    assert!(other.out.contains("400"), "{other:?}");
    read.codepair(&["status", "--run", run]).ok();
    read.codepair(&[&["run", "--only", "report"][..], &epochs].concat()).fails(3, &[]);
    insta::assert_snapshot!("a_damaged_store", read.text());
}

const CONFIG: &str = r#"
[ingest.rows]
kind = "jsonl"
path = "rows.jsonl"
columns = { text = "question", code = "answer" }

[prepare.tokenizers.search]
vocabulary = 300
cut = "words"

[train.nbow]
source = { column = "text", tokenizer = "search", max_tokens = 32 }
target = { column = "code", tokenizer = "search", max_tokens = 32 }
epochs = 1
model = { kind = "nbow" }
"#;

/// What is typed, its exit code, and what is typed once the error's advice is followed.
type Mistake<'a> = (&'a [&'a str], i32, &'a [&'a str]);

const MISTAKES: &[Mistake] = &[
    (&["plan", "--set", "train.nbow.epcohs=2"], 2, &["plan", "--set", "train.nbow.epochs=2"]),
    (&["plan", "--set", "train.nobw.epochs=2"], 2, &["plan", "--set", "train.nbow.epochs=2"]),
    (&["plan", "--set", "train.nbow.epochs=many"], 2, &["plan", "--set", "train.nbow.epochs=3"]),
    (&["plan", "--set", "train.nbow.learning_rate=0"], 2, &["plan", "--set", "train.nbow.learning_rate=0.1"]),
    (&["plan", "--set", "train.nbow.model.kind=nbwo"], 2, &["plan", "--set", "train.nbow.model.kind=nbow"]),
    (
        &["plan", "--set", "train.nbow.source.tokenizer=serach"],
        2,
        &["plan", "--set", "train.nbow.source.tokenizer=search"],
    ),
    (&["plan", "--set", "train.nbow.source.column=question"], 2, &["plan", "--set", "train.nbow.source.column=text"]),
    (
        &["plan", "--set", "train.nbow.negatives=[\"mined\"]"],
        2,
        &["plan", "--set", "train.nbow.negatives=[\"mined\"]", "--set", "synth.m.kind=mined"],
    ),
    (
        &["plan", "--set", "prepare.tokenizers.search.fields=[\"text\"]"],
        2,
        &["plan", "--set", "prepare.tokenizers.search.fields=[\"text\", \"code\"]"],
    ),
    (
        &["plan", "--set", "prepare.filters.long=\"lenght(code) > 9\""],
        2,
        &["plan", "--set", "prepare.filters.long=\"length(code) > 9\""],
    ),
    (
        &["plan", "--set", "prepare.filters.old=\"codes > 'a'\""],
        2,
        &["plan", "--set", "prepare.filters.old=\"code > 'a'\""],
    ),
    (
        &["plan", "--set", "prepare.filters.some=\"uuid() > 'a'\""],
        2,
        &["plan", "--set", "prepare.filters.some=\"id > 'a'\""],
    ),
    (&["plan", "--set", "ingest.rows.columns.code=anwser"], 2, &["plan", "--set", "ingest.rows.columns.code=answer"]),
    (&["plan", "--set", "ingest.rows.path=row.jsonl"], 3, &["plan", "--set", "ingest.rows.path=rows.jsonl"]),
    (&["plan", "--set", "ingest.rows.shares.test=1.5"], 2, &["plan", "--set", "ingest.rows.shares.test=0.2"]),
    (
        &["plan", "--set", "synth.m.kind=mined", "--set", "synth.m.by=vectors"],
        2,
        &["plan", "--set", "synth.m.kind=mined", "--set", "synth.m.by=bm25"],
    ),
    (&["plan", "--set", "resources.train.threds=2"], 2, &["plan", "--set", "resources.train.threads=2"]),
    (&["plan", "--set", "resources.train.threads=0"], 2, &["plan", "--set", "resources.train.threads=1"]),
    (&["plan", "--set", "resources.train.device=gpu"], 2, &["plan", "--set", "resources.train.device=cpu"]),
    (
        &["plan", "--set", "resources.synth.memory_limit=1GiB"],
        2,
        &["plan", "--set", "resources.prepare.memory_limit=1GiB"],
    ),
    (
        &["plan", "--set", "evaluate.search={kind=\"pairs\",baselines=[\"bm52\"]}"],
        2,
        &["plan", "--set", "evaluate.search={kind=\"pairs\",baselines=[\"bm25\"]}"],
    ),
    (
        &["plan", "--set", "evaluate.beam_width=8"],
        2,
        &["plan", "--set", "evaluate.generation={kind=\"generation\",beam_width=8}"],
    ),
    (&["plan", "--only", "trian"], 2, &["plan", "--only", "train:nbow"]),
    (&["run", "--until", "ingest", "--force", "nbow"], 2, &["run", "--until", "ingest"]),
    (&["search", " "], 2, &[]),
    (&["generate", ""], 2, &[]),
    (&["search", "x"], 3, &[]),
    (&["schema", "exampels"], 2, &["schema", "examples"]),
];

#[test]
fn mistakes_are_found_before_anything_is_done() {
    let pipeline = Pipeline::written(CONFIG);
    pipeline.write("rows.jsonl", own_rows(60));
    let mut read = Transcript::of(&pipeline);
    for (typed, code, mended) in MISTAKES {
        read.with_config(typed).fails(*code, &[]);
        assert!(pipeline.stored("artifacts").is_empty(), "{typed:?} made something");
        if !mended.is_empty() && mended[0] != "run" {
            pipeline.codepair(mended).ok();
        }
    }
    insta::assert_snapshot!("mistakes", read.text());
    pipeline.codepair(&["run", "--until", "ingest"]).ok();
    // A text that is typed as a number is a text all the same.
    pipeline.codepair(&["plan", "--set", "name=2024", "--set", "ingest.rows.licence=2024"]).ok();
    // What there is none of is a null, and not left out.
    let nulls = pipeline.sql("select cast(null as varchar) as nothing, 1 as one");
    assert_eq!(nulls, [serde_json::json!({ "nothing": null, "one": 1 })]);
    let before = pipeline.stored("");
    pipeline.codepair(&["gc"]).ok();
    assert_eq!(pipeline.stored(""), before, "gc without --delete writes nothing");
}

#[test]
fn a_missing_split_stops_the_run_before_anything_is_trained() {
    let pipeline = Pipeline::written(&CONFIG.replace("path =", "split = \"train\"\npath ="));
    pipeline.write("rows.jsonl", own_rows(60));
    let ran = pipeline.codepair(&["run"]);
    ran.fails(
        3,
        &[
            "no rows are in the splits validation and test (train 60, validation 0, test 0)",
            "shares",
            "train:nbow failed",
        ],
    );
    assert!(pipeline.stored("artifacts/train-nbow").is_empty());
    // Who trains nothing needs none.
    pipeline.codepair(&["run", "--until", "prepare", "--set", "train={}"]).ok();
    let whole = Pipeline::written(CONFIG);
    whole.write("rows.jsonl", own_rows(60));
    let said = whole.codepair(&["run", "--until", "prepare"]).ok().err;
    assert!(said.contains("rows: test ") && said.contains(" rows of ") && said.contains(" groups, train "), "{said}");
}

/// Who trains the same at the same time is told at once, and `status` says that it goes on.
#[test]
fn two_runs_of_one_training_are_told() {
    use std::io::{BufRead as _, BufReader};
    let endless = CONFIG.replace("epochs = 1", "epochs = 1000000\npatience = 1000000");
    let pipeline = Pipeline::written(&endless);
    pipeline.write("rows.jsonl", own_rows(200));
    let start = || {
        std::process::Command::new(support::binary("codepair"))
            .args(["run", "--until", "train", "--config"])
            .arg(pipeline.path("pipeline.toml"))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let end = |mut child: std::process::Child| {
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
    };
    let first = start();
    let is_training = || {
        let beats = pipeline.stored("runs").into_iter().filter(|path| path.ends_with("running.json"));
        beats.map(|path| std::fs::read_to_string(path).unwrap_or_default()).any(|beat| beat.contains("train:nbow"))
    };
    let since = std::time::Instant::now();
    while !is_training() && since.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(pipeline.codepair(&["status"]).ok().out.contains("running"));
    let mut second = start();
    let lines = BufReader::new(second.stderr.take().unwrap()).lines().map_while(Result::ok);
    let told = lines
        .take_while(|line| !line.contains("train:nbow begins"))
        .find(|line| line.contains("train:nbow is being made by the run"));
    end(second);
    end(first);
    assert!(told.unwrap().contains(" as well (process "));
    assert!(!is_training(), "a run that ended no longer says that it goes on");
    let mut read = Transcript::of(&pipeline);
    read.with_config(&["status"]).ok();
    read.with_config(&["search", "add two prices"]).fails(3, &[]);
    read.with_config(&["sql", "select split, count(*) > 0 as any from examples group by 1 order by 1"]).ok();
    read.with_config(&["plan"]).ok();
    insta::assert_snapshot!("an_interrupted_run", read.text());
}

/// The store's disk is full, and the one of temporary files: what is said, and that what it says helps.
#[test]
fn a_full_disk_is_named() {
    let pipeline = Pipeline::written(CONFIG);
    pipeline.write("rows.jsonl", own_rows(400));
    pipeline.write("tiny.toml", format!("name = \"test\"\n[store]\nurl = \"file://small\"\n{CONFIG}"));
    let mut read = Transcript::of(&pipeline);
    let run = ["run", "--until", "prepare", "--config"];
    let Some(store) = read.on_a_small_disk("small", "24k", &[&run[..], &["tiny.toml"]].concat()) else {
        println!("skipped: no test can mount a small disk here (unshare --user --mount)");
        return;
    };
    store.fails(1, &[]);
    let temporary = read.on_a_small_disk("temporary", "8k", &[&run[..], &["pipeline.toml"]].concat()).unwrap();
    temporary.fails(1, &[]);
    read.codepair(&["status", "--config", "pipeline.toml"]).ok();
    read.codepair(&[&run[..], &["pipeline.toml"]].concat()).ok();
    insta::assert_snapshot!("a_full_disk", read.text());
}

#[test]
fn colours_can_be_switched_off_and_shipped_configs_written() {
    let pipeline = Pipeline::written("");
    let said = pipeline.plain(&["init", "--from", "openai", "--output", "mine/openai.toml"]).ok().out;
    assert!(said.contains("next: codepair plan --config mine/openai.toml"), "{said}");
    assert!(pipeline.path("mine/prompts/query_for_code.txt").is_file());
    let plan = pipeline.plain(&["plan", "--config", "mine/openai.toml"]).ok();
    assert!(plan.out.contains("train:nbow"), "{plan:?}");
    pipeline.plain(&["init", "--from", "opnai"]).fails(2, &["there is no such config", "openai", "quickstart"]);
    pipeline
        .plain(&["init", "--from", "openai", "--text", "a"])
        .fails(2, &["'--from <NAME>' cannot be used with '--text"]);
    pipeline.plain(&["init", "nowhere"]).fails(3, &["nowhere does not exist"]);
    pipeline.write("notes/README.md", "none");
    pipeline.plain(&["init", "notes"]).fails(2, &["notes holds nothing that is known by its name", ".jsonl"]);
    pipeline.write("odd.csv", "a,b\none two,three four\n");
    pipeline
        .plain(&["init", "odd.csv"])
        .fails(2, &["has the columns a, b", "codepair init odd.csv --text COLUMN --code COLUMN"]);
    pipeline.plain(&["init", "odd.csv", "--text", "a", "--code", "c"]).fails(2, &["no column c; there are a, b"]);
    pipeline.plain(&["init", "empty.csv"]).fails(3, &["empty.csv does not exist"]);
    pipeline.write("empty.csv", "");
    pipeline.plain(&["init", "empty.csv"]).fails(3, &["has no rows that can be read"]);
    pipeline.plain(&["init", "a${X}"]).fails(2, &["${…} is a variable"]);
    pipeline.plain(&["init", "odd.csv", "--set", "a=b"]).fails(2, &["it is for plan and run"]);
    pipeline.plain(&["init", "--from", "quickstart", "--output", "my conf.toml"]).ok();
    let said = pipeline.plain(&["status", "--config", "my conf.toml"]);
    said.fails(3, &["has never run", "codepair run --config 'my conf.toml'"]);
}

/// Splits that somebody made themselves stay, and places that look like others are told from them.
#[test]
fn splits_of_ones_own_stay() {
    let pipeline = Pipeline::written("");
    let lines: Vec<String> = own_rows(120).lines().map(str::to_owned).collect();
    pipeline.write("named/train.jsonl", lines[..90].join("\n") + "\n");
    pipeline.write("named/test.jsonl", lines[90..].join("\n") + "\n");
    pipeline.plain(&["init", "named", "--output", "named.toml"]).ok();
    let config = std::fs::read_to_string(pipeline.path("named.toml")).unwrap();
    assert!(!config.contains("split_by") && !config.contains("shares"), "{config}");
    let counts = |config: &str| {
        pipeline.plain(&["run", "--until", "ingest", "--config", config]).ok();
        let query = "select split, count(*) as n from pairs group by 1 order by 1";
        pipeline.plain(&["sql", "--config", config, "--format", "json", query]).ok().json()
    };
    let named = counts("named.toml");
    assert_eq!(named[0], serde_json::json!({ "split": "test", "n": 30 }));
    assert_eq!(named[2]["n"].as_u64().unwrap() + named[1]["n"].as_u64().unwrap(), 90);
    // A column without validation.
    let with = |(at, line): (usize, &String)| {
        line.replacen('{', &format!("{{\"split\": \"{}\", ", if at < 90 { "train" } else { "test" }), 1) + "\n"
    };
    pipeline.write("column.jsonl", lines.iter().enumerate().map(with).collect::<String>());
    pipeline.plain(&["init", "column.jsonl", "--output", "column.toml"]).ok();
    let config = std::fs::read_to_string(pipeline.path("column.toml")).unwrap();
    assert!(config.contains("validation_of_training = true"), "{config}");
    let column = counts("column.toml");
    assert_eq!(column[0], serde_json::json!({ "split": "test", "n": 30 }));
    assert!(column[1]["split"] == "train" && column[2]["n"].as_u64().unwrap() > 3, "{column}");
    // Another mark between fields, names that nobody knows, and one with a line end in it.
    let csv = |line: &String| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("\"{}\";\"{}\";x\n", row["question"].as_str().unwrap(), row["answer"].as_str().unwrap())
    };
    let body: String = lines.iter().map(csv).collect();
    pipeline.write("semi.csv", format!("frage;\"ant\nwort\";c\n{body}"));
    let said = pipeline.plain(&["init", "semi.csv", "--output", "semi.toml"]).ok().out;
    assert!(said.contains("120 rows to learn from"), "{said}");
    let config = std::fs::read_to_string(pipeline.path("semi.toml")).unwrap();
    assert!(config.contains("delimiter = \";\"") && config.contains("text = \"frage\""), "{config}");
    pipeline.plain(&["plan", "--config", "semi.toml"]).ok();
}
