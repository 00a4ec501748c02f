//! The first hour with one's own data: a config for it, its run, what it can be asked, and what goes wrong.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use support::{Pipeline, Ran, SHORT, own_rows};

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
    let help = pipeline.plain(&["--help"]).ok().out;
    assert!(help.contains("codepair init PATH") && help.contains("Write a first config"), "{help}");
    let said = pipeline.plain(&["init", "project"]).ok().out;
    for part in [
        "120 rows to learn from in 30 files, most of them python",
        "read as source_tree",
        "next: codepair plan\n",
        "codepair run",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let config = std::fs::read_to_string(pipeline.path("codepair.toml")).unwrap();
    assert!(config.contains("[ingest.project]\nkind = \"source_tree\"\npath = \"project\""), "{config}");
    // What somebody changed is not overwritten.
    pipeline.write("codepair.toml", format!("{config}\n# mine\n"));
    pipeline.plain(&["init", "project"]).fails(2, &["codepair.toml is there already", "--output"]);
    pipeline.plain(&[&["plan"][..], &SHORT].concat()).ok();
    let ran = pipeline.plain(&[&["run"][..], &SHORT].concat()).ok();
    assert!(ran.out.starts_with("report: ") && ran.out.trim().ends_with("report.html"), "{ran:?}");
    for query in ["how to add two prices", "join words", "scale angles"] {
        let found = pipeline.plain(&["search", query]).ok();
        assert!(found.out.starts_with("5 of ") && found.out.contains("src/tool/part"), "{found:?}");
    }
    // "Nothing to do" names the report as well.
    let again = pipeline.plain(&[&["run"][..], &SHORT].concat()).ok();
    assert!(again.err.contains("nothing to do") && again.out == ran.out, "{again:?}");
}

#[test]
fn rows_of_ones_own_are_learned_from_and_two_runs_compared() {
    let pipeline = Pipeline::own_rows(400);
    let said = pipeline.plain(&["init", "rows.jsonl"]).ok().out;
    assert!(said.contains("columns = { code = \"answer\", text = \"question\" }"), "{said}");
    let short = |epochs: &str| {
        let set = format!("train.search.epochs={epochs}");
        pipeline.plain(&["run", "--json", "--set", "train.generate.epochs=1", "--set", &set]).ok().json()
    };
    let first = short("2");
    assert!(first["steps"].as_array().unwrap().iter().all(|step| step["state"] == "done"), "{first:#}");
    assert!(first["report"].as_str().unwrap().ends_with("report.html"));
    pipeline.plain(&["generate", "How do I add two prices?"]).ok();
    let second = short("5");
    let state = |name: &str| {
        let steps = second["steps"].as_array().unwrap().iter();
        steps.filter(|step| step["step"] == name).map(|step| step["state"].as_str().unwrap().to_owned()).next().unwrap()
    };
    assert_eq!((state("prepare").as_str(), state("train:search").as_str()), ("fresh", "done"));
    // What has nothing to do is the newest run's.
    assert_eq!(short("5")["run"], second["run"]);
    let listed = runs(&pipeline);
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["changed"], serde_json::json!(["train.search.epochs: 2 → 5"]));
    assert_eq!(listed[1]["changed"], serde_json::json!(["the first run"]));
    for run in &listed {
        assert_eq!(
            (run["state"].as_str(), scores(run)),
            (Some("done"), vec!["bm25 mrr".into(), "generate bleu".into(), "search mrr".into()])
        );
    }
    let table = pipeline.plain(&["runs"]).ok().out;
    assert!(table.contains("train.search.epochs: 2 → 5") && table.contains("the first run"), "{table}");

    // An interrupted experiment hides nothing.
    let ids: Vec<&str> = listed.iter().map(|run| run["run"].as_str().unwrap()).collect();
    let broken = [
        "run",
        "--set",
        "prepare.filters.no=\"1 / (length(code) - length(code)) > 1\"",
        "--set",
        "train.search.epochs=5",
    ];
    let failed = pipeline.plain(&broken);
    let last = failed.err.lines().last().unwrap().to_owned();
    failed.fails(2, &["prepare failed", "prepare.filters.no", "Divide by zero"]);
    assert!(last.contains("the run failed: 7 of 7 steps were not made"), "{last}");
    let status = pipeline.plain(&["status"]).ok().out;
    let short_id = &ids[0][ids[0].len() - 8..];
    for part in ["prepare", "failed", "Divide by zero", &format!("codepair status --run {short_id}")] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    assert_eq!(runs(&pipeline)[0]["state"], "failed");
    for asked in [
        &["search", "add two prices"][..],
        &["sql", "--format", "json", "select count(*) as n from scores"],
        &["generate", "add"],
    ] {
        let answer = pipeline.plain(asked).ok();
        assert!(answer.err.contains("the newest run,") && answer.err.contains(short_id), "{answer:?}");
    }
    // Another run is chosen by its digits; what would change nothing is refused.
    let old = &ids[1][ids[1].len() - 8..];
    let epochs = |run: &str| {
        let query = "select max(epoch) as n from training_steps where model = 'search'";
        pipeline.plain(&["sql", "--run", run, "--format", "json", query]).ok().json()[0]["n"].as_u64().unwrap()
    };
    assert_eq!((epochs(old), epochs(short_id)), (2, 5));
    pipeline.plain(&["status", "--run", "zzzz"]).fails(3, &["there is no such run", old]);
    for command in [&["search", "x"][..], &["status"], &["sql", "select 1"], &["runs"], &["gc"]] {
        let ran = pipeline.plain(&[command, &["--set", "train.search.epochs=9"]].concat());
        ran.fails(2, &["--set train.search.epochs=9 would change nothing here"]);
    }
    the_store_moves(&pipeline, short_id);
}

/// A store on another machine: a folder elsewhere, without the rows.
fn the_store_moves(pipeline: &Pipeline, run: &str) {
    let there = Pipeline::written("");
    std::fs::rename(pipeline.path(".codepair"), there.path(".codepair")).unwrap();
    std::fs::copy(pipeline.path("codepair.toml"), there.path("codepair.toml")).unwrap();
    assert!(there.plain(&["search", "add two prices"]).ok().out.contains("5 of "));
    let plan = there.plain(&["plan", "--set", "train.search.epochs=5", "--set", "train.generate.epochs=1"]).ok();
    assert!(plan.err.contains("rows.jsonl does not exist; going by the newest plan"), "{plan:?}");
    assert!(!plan.out.contains("run  "), "{plan:?}");
    // A damaged artifact is named, with what makes it anew; an older run is no substitute.
    let artifacts = there.path(".codepair/artifacts");
    for folder in std::fs::read_dir(artifacts.join("prepare")).unwrap() {
        std::fs::write(folder.unwrap().path().join("manifest.json"), "{").unwrap();
    }
    let search = there.plain(&["search", "x"]);
    search.fails(3, &["manifest.json is damaged", "codepair run"]);
    // Whoever asks for something else need not wait for it.
    let other = there.plain(&["sql", "--run", run, "--format", "json", "select count(*) as n from pairs"]).ok();
    assert!(other.out.contains("400") && other.err.contains("its datasets are left out"), "{other:?}");
    assert!(there.plain(&["status", "--run", run]).ok().out.contains("manifest.json is damaged"));
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

/// What is typed, the exit code, what the error names, and what is typed once its advice is followed.
type Mistake<'a> = (&'a [&'a str], i32, &'a [&'a str], &'a [&'a str]);

const MISTAKES: &[Mistake] = &[
    (
        &["plan", "--set", "train.nbow.epcohs=2"],
        2,
        &["`epcohs` in [train.nbow]", "`epochs`"],
        &["plan", "--set", "train.nbow.epochs=2"],
    ),
    (
        &["plan", "--set", "train.nobw.epochs=2"],
        2,
        &["train.nobw", "[train.nbow]?"],
        &["plan", "--set", "train.nbow.epochs=2"],
    ),
    (
        &["plan", "--set", "train.nbow.epochs=many"],
        2,
        &["train.nbow.epochs", "expected a whole number"],
        &["plan", "--set", "train.nbow.epochs=3"],
    ),
    (
        &["plan", "--set", "train.nbow.learning_rate=0"],
        2,
        &["train.nbow.learning_rate", "above 0"],
        &["plan", "--set", "train.nbow.learning_rate=0.1"],
    ),
    (
        &["plan", "--set", "train.nbow.model.kind=nbwo"],
        2,
        &["train.nbow.model.kind", "`nbow`?"],
        &["plan", "--set", "train.nbow.model.kind=nbow"],
    ),
    (
        &["plan", "--set", "train.nbow.source.tokenizer=serach"],
        2,
        &["[prepare.tokenizers.serach]", "there are search"],
        &["plan", "--set", "train.nbow.source.tokenizer=search"],
    ),
    (
        &["plan", "--set", "train.nbow.source.column=question"],
        2,
        &["unknown value `question`", "text, code"],
        &["plan", "--set", "train.nbow.source.column=text"],
    ),
    (
        &["plan", "--set", "train.nbow.negatives=[\"mined\"]"],
        2,
        &["train.nbow.negatives", "no [synth.NAME]"],
        &["plan", "--set", "train.nbow.negatives=[\"mined\"]", "--set", "synth.m.kind=mined"],
    ),
    (
        &["plan", "--set", "prepare.tokenizers.search.fields=[\"text\"]"],
        2,
        &["does not read code", "add it to its fields"],
        &["plan", "--set", "prepare.tokenizers.search.fields=[\"text\", \"code\"]"],
    ),
    (
        &["plan", "--set", "prepare.filters.long=\"lenght(code) > 9\""],
        2,
        &["prepare.filters.long", "lenght"],
        &["plan", "--set", "prepare.filters.long=\"length(code) > 9\""],
    ),
    (
        &["plan", "--set", "prepare.filters.old=\"codes > 'a'\""],
        2,
        &["prepare.filters.old", "codes", "code"],
        &["plan", "--set", "prepare.filters.old=\"code > 'a'\""],
    ),
    (
        &["plan", "--set", "prepare.filters.some=\"uuid() > 'a'\""],
        2,
        &["prepare.filters.some", "uuid()", "the next time"],
        &["plan", "--set", "prepare.filters.some=\"id > 'a'\""],
    ),
    (
        &["plan", "--set", "ingest.rows.columns.code=anwser"],
        2,
        &["[ingest.rows]", "\"anwser\"", "did you mean \"answer\"?"],
        &["plan", "--set", "ingest.rows.columns.code=answer"],
    ),
    (
        &["plan", "--set", "ingest.rows.path=row.jsonl"],
        3,
        &["[ingest.rows]", "row.jsonl does not exist"],
        &["plan", "--set", "ingest.rows.path=rows.jsonl"],
    ),
    (
        &["plan", "--set", "ingest.rows.shares.test=1.5"],
        2,
        &["[ingest.rows]", "at most 1"],
        &["plan", "--set", "ingest.rows.shares.test=0.2"],
    ),
    (
        &["plan", "--set", "synth.m.kind=mined", "--set", "synth.m.by=vectors"],
        2,
        &["synth.m.by", "there are bm25"],
        &["plan", "--set", "synth.m.kind=mined", "--set", "synth.m.by=bm25"],
    ),
    (
        &["plan", "--set", "resources.train.threds=2"],
        2,
        &["`threds` in [resources.train]", "`threads`?"],
        &["plan", "--set", "resources.train.threads=2"],
    ),
    (
        &["plan", "--set", "resources.train.threads=0"],
        2,
        &["resources.train.threads", "at least 1"],
        &["plan", "--set", "resources.train.threads=1"],
    ),
    (
        &["plan", "--set", "resources.train.device=gpu"],
        2,
        &["resources.train.device", "cpu and cuda"],
        &["plan", "--set", "resources.train.device=cpu"],
    ),
    (
        &["plan", "--set", "resources.synth.memory_limit=1GiB"],
        2,
        &["resources.synth.memory_limit", "it reads threads"],
        &["plan", "--set", "resources.prepare.memory_limit=1GiB"],
    ),
    (
        &["plan", "--set", "evaluate.baselines=[\"bm52\"]"],
        2,
        &["evaluate.baselines[0]", "`bm25`?"],
        &["plan", "--set", "evaluate.baselines=[\"bm25\"]"],
    ),
    (&["plan", "--only", "trian"], 2, &["there is no step trian", "train:nbow"], &["plan", "--only", "train:nbow"]),
    (
        &["run", "--until", "ingest", "--force", "nbow"],
        2,
        &["there is no step nbow", "train:nbow"],
        &["run", "--until", "ingest"],
    ),
    (&["search", " "], 2, &["the text is empty"], &[]),
    (&["generate", ""], 2, &["the text is empty"], &[]),
    (&["search", "x"], 3, &["codepair run --config"], &[]),
    (&["schema", "exampels"], 2, &["no dataset exampels", "examples"], &["schema", "examples"]),
];

#[test]
fn mistakes_are_found_before_anything_is_done() {
    let pipeline = Pipeline::written(CONFIG);
    pipeline.write("rows.jsonl", own_rows(60));
    for (typed, code, words, mended) in MISTAKES {
        let ran: Ran = pipeline.codepair(typed);
        assert_eq!(ran.code, *code, "{typed:?}: {ran:#?}");
        for word in *words {
            assert!(ran.err.contains(word), "{word:?} is not in what {typed:?} said: {ran:#?}");
        }
        assert!(pipeline.stored("artifacts").is_empty(), "{typed:?} made something");
        if !mended.is_empty() && mended[0] != "run" {
            pipeline.codepair(mended).ok();
        }
    }
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
