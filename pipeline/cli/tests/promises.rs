//! What is promised of artifacts and runs, by the real binaries.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use std::process::Command;

use support::{Pipeline, Ran, binary};

const JSONL: &str =
    "[ingest.own]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\ncolumns = { code = \"source\", docstring = \"doc\" }\n";

/// Functions with documentation, each of its own file.
fn rows(count: usize) -> String {
    let row = |n: usize| {
        serde_json::json!({
            "source": format!("def f{n}(a, b):\n    return a * {n} + b"), "doc": format!("Multiply by the number {n} and add."),
        })
        .to_string()
    };
    (0..count).map(|n| row(n) + "\n").collect()
}

fn pipeline(more: &str) -> Pipeline {
    let pipeline = Pipeline::written(&format!("{JSONL}{more}"));
    pipeline.write("rows.jsonl", rows(40));
    pipeline
}

/// The id of the newest run.
fn run_of(pipeline: &Pipeline) -> String {
    let mut plans = pipeline.stored("runs").into_iter().filter(|path| path.ends_with("plan.json"));
    plans.next_back().unwrap().rsplit('/').nth(1).unwrap().to_owned()
}

fn fresh(pipeline: &Pipeline) -> Vec<String> {
    let plan = pipeline.codepair(&["plan", "--json"]).ok().json();
    let fresh = plan.as_array().unwrap().iter().filter(|step| step["fresh"] == true);
    fresh.map(|step| step["step"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_step_makes_what_its_run_planned_or_nothing() {
    let pipeline = pipeline("");
    pipeline.codepair(&["run", "--until", "ingest"]).ok();
    let run = run_of(&pipeline);
    let synth = |more: &[&str]| pipeline.run("codepair-synth", &[&["--plan", run.as_str()], more].concat());
    synth(&["--set", "synth.edits.kind=offline"]).fails(3, &["no longer what the run", "synth.edits", "codepair run"]);
    assert!(pipeline.stored("artifacts/synth").is_empty());
    synth(&[]).ok();
    pipeline.run("codepair-synth", &["--plan", "none"]).fails(3, &["no run none"]);
    // A source that changes while the run goes on.
    std::fs::remove_dir_all(pipeline.path("store/artifacts/ingest")).unwrap();
    pipeline.write("rows.jsonl", rows(41));
    pipeline
        .run("codepair-ingest", &["--plan", &run])
        .fails(3, &["no longer what the run", "the content of the source own changed"]);
    assert!(pipeline.stored("artifacts/ingest").is_empty());
}

#[test]
fn a_run_that_lacks_an_artifact_in_the_end_has_failed() {
    let pipeline = pipeline("");
    let binaries = pipeline.path("bin");
    std::fs::create_dir(&binaries).unwrap();
    for name in [
        "codepair",
        "codepair-ingest",
        "codepair-synth",
        "codepair-prepare",
        "codepair-tokenize",
        "codepair-train",
        "codepair-evaluate",
        "codepair-score",
        "codepair-report",
    ] {
        std::fs::copy(binary(name), binaries.join(name)).unwrap();
    }
    // A stage that describes itself well, says that all went well, and makes nothing.
    let real = binaries.join("real-synth");
    std::fs::rename(binaries.join("codepair-synth"), &real).unwrap();
    let script = format!("#!/bin/sh\ncase \"$*\" in *--describe*) exec {} \"$@\";; esac\nexit 0\n", real.display());
    pipeline.write("bin/codepair-synth", script);
    use std::os::unix::fs::PermissionsExt as _;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(binaries.join("codepair-synth"), executable).unwrap();
    let ran: Ran = Command::new(binaries.join("codepair"))
        .args(["run", "--until", "synth", "--config"])
        .arg(pipeline.path("pipeline.toml"))
        .output()
        .unwrap()
        .into();
    ran.fails(1, &["synth failed", "its artifact", "is not there"]);
}

#[test]
fn queries_never_answer_from_a_damaged_store() {
    let pipeline = pipeline("");
    pipeline.codepair(&["run", "--until", "ingest"]).ok();
    let query = ["sql", "--format", "csv", "select * from functions order by ordinal"];
    let right = pipeline.codepair(&query).ok().out;
    assert_eq!(right.lines().filter(|line| line.contains("Multiply")).count(), 40);
    let part = pipeline.stored("artifacts/ingest").into_iter().find(|path| path.contains("functions")).unwrap();
    let whole = std::fs::read(&part).unwrap();
    let step = (whole.len() / 40).max(1);
    for at in (0..whole.len()).step_by(step) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&part, flipped).unwrap();
        pipeline.codepair(&query).fails(3, &["damaged", "--force ingest"]);
    }
    std::fs::write(&part, &whole[..whole.len() - 9]).unwrap();
    pipeline.codepair(&query).fails(3, &["damaged"]);
    std::fs::remove_file(&part).unwrap();
    pipeline.codepair(&query).fails(3, &["missing", "--force ingest"]);
    // Of a table that is not read nothing is said.
    assert_eq!(pipeline.number("select count(*) from sources"), 1.0);
    pipeline.codepair(&["verify"]).fails(3, &["functions/part-00000.parquet", "missing"]);
    pipeline.codepair(&["verify", "nothing"]).fails(2, &["there is no step nothing"]);
    std::fs::write(&part, &whole).unwrap();
    assert!(pipeline.codepair(&["verify", "ingest"]).ok().out.contains("whole"));
}

#[test]
fn long_answers_stream_and_tables_have_a_limit() {
    let pipeline = pipeline("");
    pipeline.codepair(&["run", "--until", "ingest"]).ok();
    let many = "select a.code, b.code as other, c.docstring, repeat(c.code, 40) as more from functions a, functions b, functions c";
    pipeline.codepair(&["sql", many]).fails(1, &["larger than a table of 64 MiB", "--format csv"]);
    let streamed = pipeline.codepair(&["sql", "--format", "csv", many]).ok();
    assert!(streamed.out.len() > 64 << 20);
    let sort = format!("select row_number() over (order by more) as n, more from ({many}) order by more desc limit 3");
    let small = pipeline.codepair(&["sql", "--memory-limit", "1MiB", &sort]);
    small.fails(1, &["needs more memory than it may have", "--memory-limit"]);
}

#[test]
fn what_force_would_replace_stays_until_it_is_replaced() {
    let more = "[prepare.tokenizers.search]\nvocabulary = 300\ncut = \"words\"\n";
    let pipeline = pipeline(more);
    pipeline.codepair(&["run", "--until", "prepare"]).ok();
    let before = fresh(&pipeline);
    assert_eq!(before, ["ingest", "synth", "prepare"]);
    // What only the step itself finds out.
    let forced = ["run", "--until", "prepare", "--force", "prepare"];
    pipeline
        .codepair(&[&forced[..], &["--set", "prepare.filters.no=\"1 / (length(code) - length(code)) > 1\""]].concat())
        .fails(2, &["prepare failed", "prepare.filters.no", "Divide by zero", "a case"]);
    assert_eq!(fresh(&pipeline), before);
    pipeline.codepair(&["run", "--until", "prepare"]).ok();
    assert!(pipeline.codepair(&forced).ok().err.contains("prepare | "));
    assert_eq!(fresh(&pipeline), before);
    let superseded = pipeline.stored("artifacts/prepare").iter().filter(|p| p.ends_with("superseded.json")).count();
    assert_eq!(superseded, 1);
}

#[test]
fn a_machine_that_sees_only_the_store_goes_on() {
    let pipeline = pipeline("");
    pipeline.codepair(&["run", "--until", "synth"]).ok();
    std::fs::remove_file(pipeline.path("rows.jsonl")).unwrap();
    let plan = pipeline.codepair(&["plan"]).ok();
    assert!(plan.err.contains("going by the newest plan"), "{plan:#?}");
    pipeline.codepair(&["run", "--only", "synth", "--set", "synth.edits.kind=offline"]).ok();
    assert!(pipeline.number("select count(*) from synthetic_pairs") > 0.0);
    // What would have to be made of the sources cannot be.
    pipeline.codepair(&["plan", "--set", "ingest.own.shares.test=0.5"]).fails(3, &["rows.jsonl does not exist"]);
}

#[test]
fn fingerprints_may_be_given_as_they_are_printed() {
    let pipeline = pipeline("");
    pipeline.codepair(&["run", "--until", "ingest"]).ok();
    let plan = pipeline.codepair(&["plan", "--json"]).ok().json();
    let whole = plan[0]["fingerprint"].as_str().unwrap();
    // One dataset of the step is enough.
    pipeline.run("codepair-synth", &["--input", &format!("functions={}", &whole[..12])]).ok();
    pipeline
        .run("codepair-synth", &["--input", "functions=0123"])
        .fails(3, &["no artifact whose fingerprint begins with \"0123\"", whole]);
}

#[test]
fn logs_stay_json_under_run() {
    let pipeline = pipeline("");
    let ran: Ran = Command::new(binary("codepair"))
        .args(["run", "--until", "synth", "--config"])
        .arg(pipeline.path("pipeline.toml"))
        .env("CODEPAIR_LOG_FORMAT", "json")
        .output()
        .unwrap()
        .into();
    let ran = ran.ok();
    let lines: Vec<serde_json::Value> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["step"] == "synth" && line["level"] == "INFO"), "{lines:#?}");
    assert!(pipeline.codepair(&["logs", "ingest"]).ok().out.contains("ingest begins"));
}

#[test]
fn plans_hold_no_values_of_variables() {
    let pipeline = Pipeline::written(&JSONL.replace("rows.jsonl", "${CODEPAIR_TEST_KEY}.jsonl"));
    pipeline.write("sk-test.jsonl", rows(40));
    pipeline.codepair(&["run", "--until", "ingest"]).ok();
    for path in pipeline.stored("runs").iter().filter(|path| path.ends_with("plan.json")) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("${CODEPAIR_TEST_KEY}") && !text.contains("sk-test"), "{text}");
    }
    pipeline.codepair(&["plan", "--set", "store.url=s3://key:secret@bucket"]).fails(2, &["name or a password", "AWS_"]);
}

/// What a selection leaves out is not forced, and one that leaves out all is a mistake.
#[test]
fn selections_that_contradict_themselves_are_refused() {
    let pipeline = pipeline("");
    for (arguments, words) in [
        (&["run", "--only", "prepare", "--force", "ingest"][..], "--force ingest: it is left out"),
        (&["run", "--until", "ingest", "--force", "prepare"], "--force prepare: it is left out"),
        (&["run", "--from", "prepare", "--until", "ingest"], "leave no step"),
    ] {
        let ran = pipeline.codepair(arguments);
        assert!(ran.code == 2 && ran.err.contains(words), "{ran:?}");
    }
    assert!(pipeline.stored("runs").is_empty());
}
