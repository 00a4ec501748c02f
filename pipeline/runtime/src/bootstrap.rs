//! The way every stage binary starts.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser};

use crate::command_line::run_command;
use crate::running::begin;
use crate::{ExitStatus, PipelineOptions, Request, Shard, Stage, describe, keys, run_shard, run_stage};

/// Options that all stage binaries share.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    pipeline: PipelineOptions,
    /// What stands behind the colon of the step, such as a model; needed where the stage has several steps.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Where to compute: cpu, or cuda where the binary was built with it.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Make what this run of the pipeline planned, or nothing: exit 3 where the config or a source is another by now.
    #[arg(long, value_name = "RUN")]
    plan: Option<String>,
    /// Read a dataset from this artifact instead of the plan's; the first digits will do; may be repeated.
    #[arg(long, value_name = "DATASET=FINGERPRINT", value_parser = parse_input)]
    input: Vec<(String, String)>,
    /// Make only the I-th of N shards, beside other processes; the last one puts them together.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Print the stage's steps, resolved config, source digests and inputs as JSON, and run nothing.
    #[arg(long)]
    describe: bool,
    /// Print the JSON schema of the stage's table of the config, and run nothing.
    #[arg(long)]
    keys: bool,
    /// Print what running it would cost, as JSON, and run nothing.
    #[arg(long)]
    forecast: bool,
}

fn parse_input(text: &str) -> Result<(String, String), String> {
    let (dataset, fingerprint) = text.split_once('=').ok_or("expected DATASET=FINGERPRINT")?;
    Ok((dataset.to_owned(), fingerprint.to_owned()))
}

/// The `main` of a stage binary.
pub fn main<S: Stage>() -> ExitCode {
    run_command(command(S::NAME), start::<S>)
}

/// The command line of a stage, with what the table of stages says it reads and writes.
fn command(stage: &str) -> clap::Command {
    let (inputs, outputs) =
        codepair_schemas::stage(stage).map(|entry| (entry.inputs, entry.outputs)).unwrap_or_default();
    let reads = if inputs.is_empty() { "the sources of its table".to_owned() } else { inputs.join(", ") };
    let command = Arguments::command().display_name(format!("codepair-{stage}"));
    command.about(format!(
        "The stage `{stage}` of a codepair pipeline. `codepair run` calls it; it also runs alone.\n\n\
         Reads:  {reads}\nWrites: {}",
        outputs.join(", ")
    ))
}

fn start<S: Stage>(arguments: &Arguments) -> Result<ExitStatus> {
    if arguments.keys {
        return answer(&keys::<S::Config>());
    }
    if arguments.describe {
        return answer(&describe::<S>(&arguments.pipeline.config()?)?);
    }
    let (config, store) = arguments.pipeline.open()?;
    let request = Request {
        model: arguments.model.as_deref(),
        plan: arguments.plan.as_deref(),
        given: &arguments.input,
        device: arguments.device.as_deref(),
    };
    if arguments.forecast {
        let (context, _) = begin::<S>(&store, &config, &describe::<S>(&config)?, &request)?;
        return answer(&S::forecast(&context, &config.section(S::NAME)?)?);
    }
    match arguments.shard.filter(|shard| !shard.is_all()) {
        Some(shard) => drop(run_shard::<S>(&store, &config, &request, shard)?),
        None => drop(run_stage::<S>(&store, &config, &request)?),
    }
    Ok(ExitStatus::Done)
}

/// Prints what was asked for instead of running.
#[allow(clippy::print_stdout, reason = "it is asked for")]
fn answer(value: &impl serde::Serialize) -> Result<ExitStatus> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(ExitStatus::Done)
}
