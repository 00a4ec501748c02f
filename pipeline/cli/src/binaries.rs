//! Finding the stage binaries: beside `codepair`, else on the path.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use codepair_runtime::{Config, Description, Failure, config_error, input_error};

/// The binary `codepair-NAME`.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let file = format!("codepair-{name}");
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(&file)));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|folder| folder.join(&file)).collect::<Vec<_>>();
    beside.into_iter().chain(on_path).find(|path| path.is_file()).ok_or_else(|| {
        config_error(format!("{file} is neither beside codepair nor on the path; build it: cargo build --release"))
    })
}

/// A command of a stage binary with the config and overrides that `codepair` itself was given.
pub(crate) fn command(name: &str, config: &Config, sets: &[String]) -> Result<Command> {
    let mut command = Command::new(binary(name)?);
    command.arg("--config").arg(config.path());
    for set in sets {
        command.arg("--set").arg(set);
    }
    Ok(command)
}

/// Asks a stage for its steps.
pub(crate) fn describe(stage: &str, config: &Config, sets: &[String]) -> Result<Description> {
    let output = command(stage, config, sets)?.arg("--describe").output()?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).with_context(|| format!("codepair-{stage} --describe"));
    }
    let message = error_of(&String::from_utf8_lossy(&output.stderr));
    Err(match output.status.code() {
        Some(2) => Failure::Config(message).into(),
        Some(3) => input_error(message),
        _ => anyhow::anyhow!("codepair-{stage} --describe: {message}"),
    })
}

/// The last error that a stage logged, without the log's own columns; or how it panicked.
pub(crate) fn error_of(log: &str) -> String {
    let last = log.lines().rev().find_map(|line| line.split_once("ERROR").map(|(_, message)| message.trim()));
    let panic = || log.lines().find(|line| line.contains(" panicked at "));
    last.or_else(panic).or_else(|| log.lines().last()).unwrap_or("no message").to_owned()
}
