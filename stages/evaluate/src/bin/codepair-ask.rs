//! `codepair-ask`: answers `codepair search` and `codepair generate` with a trained model.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use codepair_evaluate::{Example, examples};
use codepair_model::{Cpu, CpuDevice, ModelCard, Role, Task, Trained};
use codepair_runtime::{
    ExitStatus, Manifest, PipelineOptions, Plan, RunOption, Runs, Store, config_error, input_error, read_output,
    run_binary, text_column,
};
use codepair_schemas::Field;
use codepair_search::{dot, top_k};

/// How many candidates are shown.
const SHOWN: usize = 5;
const BEAM_WIDTH: usize = 4;

/// Asks a trained model of one of a pipeline's runs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    pipeline: PipelineOptions,
    #[command(flatten)]
    run: RunOption,
    /// The model [default: the first of the run that can do it].
    #[arg(long)]
    model: Option<String>,
    /// What to do with the text.
    task: AskedTask,
    /// What to look for, or what the code should do.
    text: String,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum AskedTask {
    Search,
    Generate,
}

fn main() -> ExitCode {
    run_binary(|arguments| {
        // A closed pipe is no error.
        let _ = writeln!(std::io::stdout(), "{}", answer(arguments)?);
        Ok(ExitStatus::Done)
    })
}

fn answer(arguments: &Arguments) -> Result<String> {
    if arguments.text.trim().is_empty() {
        return Err(config_error("the text is empty: say what to look for, or what the code should do"));
    }
    let runs = arguments.pipeline.runs(&arguments.run)?;
    let (what, task) = match arguments.task {
        AskedTask::Search => ("trained search model", Task::Search),
        AskedTask::Generate => ("trained generator", Task::Generation),
    };
    let named = arguments.model.as_deref();
    let has = |plan: &Plan| model_of(&runs.store, plan, named, task);
    let Some((plan, manifest)) =
        runs.newest_with(&named.map_or(what.to_owned(), |name| format!("model {name}, or it is no {what}")), has)?
    else {
        return Err(nothing(&runs, arguments, what));
    };
    let device = CpuDevice::default();
    let model = Trained::load(&runs.store, &manifest, &device)?;
    match arguments.task {
        AskedTask::Generate => generate(&model, &arguments.text, &device),
        AskedTask::Search => search(&runs.store, &plan, &model, &arguments.text, &device),
    }
}

/// The model of a run that was named, or the first that can do what is asked; nothing where it is not there yet, or what it
/// searches is not.
fn model_of(store: &Store, plan: &Plan, named: Option<&str>, task: Task) -> Result<Option<Manifest>> {
    if task == Task::Search {
        let Some(prepare) = plan.step("prepare") else { return Ok(None) };
        if Manifest::find(store, "prepare", &prepare.fingerprint)?.is_none() {
            return Ok(None);
        }
    }
    for step in plan.steps.iter().filter(|step| step.stage == "train") {
        if named.is_some() && step.description.model.as_deref() != named {
            continue;
        }
        let Some(manifest) = Manifest::find(store, &step.name, &step.fingerprint)? else { continue };
        if ModelCard::of(store, &manifest)?.model.task() == task {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// Why nobody answers: no run has a model of that name, or none that can do what is asked.
fn nothing(runs: &Runs, arguments: &Arguments, what: &str) -> anyhow::Error {
    let named = arguments.model.as_deref();
    let plan = match runs.newest() {
        Ok(plan) => plan,
        Err(error) => return error,
    };
    let known: Vec<&str> =
        plan.steps.iter().filter(|s| s.stage == "train").filter_map(|s| s.description.model.as_deref()).collect();
    match named {
        Some(name) if !known.contains(&name) => {
            config_error(format!("there is no model {name}; there are {}", known.join(", ")))
        }
        _ if arguments.run.run.is_some() => input_error(format!(
            "that run has no {what}; without --run the newest that has one answers: codepair runs lists them"
        )),
        Some(name) => input_error(format!("{name} is no {what} in any run; run: codepair run")),
        None if known.is_empty() => {
            config_error(format!("the config has no model, and no run has a {what}; [train.NAME] is one"))
        }
        None => input_error(format!("no run has a {what} yet; run: codepair run")),
    }
}

fn generate(model: &Trained<Cpu>, text: &str, device: &CpuDevice) -> Result<String> {
    let written = model.generator()?.beam(&[model.read(text)?], BEAM_WIDTH, model.decoding(), device);
    let tokens = written.first().map_or(&[][..], |written| &written.tokens);
    Ok(model.target.decode(tokens)?)
}

/// Searches the code of every original example, whatever its split, and of the functions that `prepare` leaves out because nobody
/// documented them.
fn search(store: &Store, plan: &Plan, model: &Trained<Cpu>, text: &str, device: &CpuDevice) -> Result<String> {
    let step = plan.step("prepare").context("the plan prepares nothing")?;
    let manifest = Manifest::find(store, "prepare", &step.fingerprint)?.context("prepare is not there")?;
    let batches = read_output(store, &manifest, "examples", Example::COLUMNS)?;
    let mut corpus: Vec<Example> = examples(batches.into_iter().map(Ok), |example| example.kind == "original")?;
    if model.card.target.column == Field::Code {
        corpus.extend(undocumented(store, plan, &manifest)?);
    }
    let vectors = model.documents(corpus.len(), |row, field| corpus[row].field(field), device)?;
    let query = model.vectors(Role::Query, &[text], device)?.remove(0);
    let scores = vectors.iter().map(|vector| dot(vector, &query));
    let mut answer = format!("{} of {} by {}\n", SHOWN.min(corpus.len()), corpus.len(), model.card.name);
    for hit in top_k(scores, SHOWN) {
        let found = &corpus[hit.candidate];
        answer.push_str(&format!("\n{:.3}  {}  {}\n", hit.score, found.name, found.url));
        found.text.lines().next().into_iter().for_each(|first| answer.push_str(&format!("       {first}\n")));
        for line in found.code.lines().take(4) {
            answer.push_str(&format!("       | {line}\n"));
        }
    }
    Ok(answer)
}

/// The functions without a text, that `prepare` rejected for nothing else.
fn undocumented(store: &Store, plan: &Plan, prepared: &Manifest) -> Result<Vec<Example>> {
    let mut left_out = HashSet::new();
    for batch in read_output(store, prepared, "rejected", &["id", "reason"])? {
        let (ids, reasons) = (text_column(&batch, "id")?, text_column(&batch, "reason")?);
        let without = (0..batch.num_rows()).filter(|row| reasons.value(*row) == "no_text");
        left_out.extend(without.map(|row| ids.value(row).to_owned()));
    }
    let step = plan.step("ingest").context("the plan ingests nothing")?;
    let Some(ingested) = Manifest::find(store, "ingest", &step.fingerprint)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for batch in read_output(store, &ingested, "functions", &["id", "name", "url", "code"])? {
        let column = |name| text_column(&batch, name);
        let (ids, names, urls, codes) = (column("id")?, column("name")?, column("url")?, column("code")?);
        found.extend((0..batch.num_rows()).filter(|row| left_out.contains(ids.value(*row))).map(|row| Example {
            id: ids.value(row).to_owned(),
            name: names.value(row).to_owned(),
            url: urls.value(row).to_owned(),
            code: codes.value(row).to_owned(),
            ..Example::default()
        }));
    }
    Ok(found)
}
