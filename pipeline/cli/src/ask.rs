//! `codepair sql`, `search` and `generate`: other binaries answer, this one only finds them.

use std::process::Command;

use anyhow::Result;
use codepair_runtime::{ExitStatus, config_error};

use crate::arguments::{Arguments, AskOptions, SqlOptions};
use crate::binaries::command;

/// Queries a run's datasets.
pub(crate) fn sql(arguments: &Arguments, options: &SqlOptions) -> Result<ExitStatus> {
    let mut command = command("sql", &arguments.pipeline.config()?, &arguments.pipeline.set)?;
    if let Some(run) = &options.run.run {
        command.arg("--run").arg(run);
    }
    if let Some(limit) = &options.memory_limit {
        command.arg("--memory-limit").arg(limit);
    }
    command.arg("--format").arg(&options.format).arg("--").arg(&options.query);
    hand_over(command)
}

/// Asks a search model.
pub(crate) fn search(arguments: &Arguments, options: &AskOptions) -> Result<ExitStatus> {
    ask(arguments, options, "search")
}

/// Asks a generator.
pub(crate) fn generate(arguments: &Arguments, options: &AskOptions) -> Result<ExitStatus> {
    ask(arguments, options, "generate")
}

fn ask(arguments: &Arguments, options: &AskOptions, task: &str) -> Result<ExitStatus> {
    let mut command = command("ask", &arguments.pipeline.config()?, &arguments.pipeline.set)?;
    if let Some(run) = &options.run.run {
        command.arg("--run").arg(run);
    }
    if let Some(model) = &options.model {
        command.arg("--model").arg(model);
    }
    command.arg(task).arg("--").arg(&options.text);
    hand_over(command)
}

fn hand_over(mut command: Command) -> Result<ExitStatus> {
    let status = command.status().map_err(|e| config_error(format!("{}: {e}", command.get_program().display())))?;
    Ok(match status.code() {
        Some(0) => ExitStatus::Done,
        Some(2) => ExitStatus::WrongConfig,
        Some(3) => ExitStatus::MissingInput,
        _ => ExitStatus::Failed,
    })
}
