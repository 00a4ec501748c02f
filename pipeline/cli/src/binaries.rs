//! Finding the stage binaries: beside `codepair`, else on the path.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use codepair_runtime::{Config, Description, Failure, PROGRESS_LINES, ProgressLine, config_error, input_error};
use serde::de::DeserializeOwned;

use crate::step_bar::StepBar;

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
    answer(stage, command(stage, config, sets)?.arg("--describe"))
}

/// Asks a stage for the JSON schema of its table.
pub(crate) fn keys(stage: &str) -> Result<serde_json::Value> {
    answer(stage, Command::new(binary(stage)?).arg("--keys"))
}

/// Asks what a place holds, and how it can be read.
pub(crate) fn look<T: DeserializeOwned>(path: &str, columns: &[(&str, &Option<String>)]) -> Result<T> {
    let mut command = Command::new(binary("look")?);
    for (option, column) in columns {
        if let Some(column) = column {
            command.arg(format!("{option}={column}"));
        }
    }
    answer("look", command.arg("--").arg(path))
}

/// Asks a step what it would cost, given the fingerprints of what it reads by dataset.
pub(crate) fn forecast(
    stage: &str,
    config: &Config,
    sets: &[String],
    inputs: &[(String, String)],
) -> Result<Vec<serde_json::Value>> {
    let mut command = command(stage, config, sets)?;
    for (dataset, fingerprint) in inputs {
        command.arg("--input").arg(format!("{dataset}={fingerprint}"));
    }
    answer(stage, command.arg("--forecast"))
}

/// The JSON that a stage answers, or its error. What it says meanwhile is shown: it may have to download what it is to describe.
fn answer<T: DeserializeOwned>(stage: &str, command: &mut Command) -> Result<T> {
    command.env(PROGRESS_LINES, "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start codepair-{stage}"))?;
    let errors = child.stderr.take().context("the standard error of a child is piped")?;
    let (output, said) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| listen(stage, errors));
        (child.wait_with_output(), listener.join().unwrap_or_default())
    });
    let output = output?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).with_context(|| format!("the answer of codepair-{stage}"));
    }
    let message = error_of(&said);
    Err(match output.status.code() {
        Some(2) => Failure::Config(message).into(),
        Some(3) => input_error(message),
        _ => anyhow::anyhow!("codepair-{stage}: {message}"),
    })
}

/// Shows progress and warnings of a stage that is asked something; returns its log.
fn listen(stage: &str, errors: impl Read) -> String {
    let mut bar: Option<StepBar> = None;
    let mut log = String::new();
    for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if let Some(progress) = ProgressLine::parse(&line) {
            if bar.is_none() {
                bar = StepBar::begin(stage);
            }
            bar.iter().for_each(|bar| bar.advance(progress.clone()));
            continue;
        }
        match level_and_message(&line) {
            (Some("WARN"), message) => tracing::warn!("{stage}: {message}"),
            (Some("INFO"), message) if bar.is_none() => tracing::info!("{stage}: {message}"),
            _ => {}
        }
        log.push_str(&line);
        log.push('\n');
    }
    log
}

/// A log line's level and message, of either format; other output, such as a panic's, has no level.
pub(crate) fn level_and_message(line: &str) -> (Option<&'static str>, String) {
    let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(line)
        && let (Some(level), Some(message)) = (json["level"].as_str(), json["fields"]["message"].as_str())
    {
        return (levels.into_iter().find(|l| *l == level), message.to_owned());
    }
    // Human lines are `TIME  LEVEL message`.
    let mut words = line.trim_start().splitn(2, char::is_whitespace);
    let rest = words.nth(1).unwrap_or_default().trim_start();
    let level = levels.into_iter().find(|level| rest.starts_with(level));
    match level {
        Some(level) => (Some(level), rest[level.len()..].trim_start().to_owned()),
        None => (None, line.to_owned()),
    }
}

/// The last error that a stage logged; or how it panicked.
pub(crate) fn error_of(log: &str) -> String {
    let error = |line: &str| Some(level_and_message(line)).filter(|(level, _)| *level == Some("ERROR")).map(|(_, m)| m);
    let last = log.lines().rev().enumerate().find_map(|(at, line)| Some((at, error(line)?)));
    // An error may have lines of its own.
    let last = last.map(|(at, message)| {
        let count = log.lines().count();
        let more = log.lines().skip(count - at).take_while(|line| level_and_message(line).0.is_none());
        more.fold(message, |message, line| format!("{message}\n{line}"))
    });
    let panic = || log.lines().find(|line| line.contains(" panicked at ")).map(str::to_owned);
    last.or_else(panic).or_else(|| log.lines().last().map(str::to_owned)).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_in_both_formats() {
        let human = "2026-01-01T00:00:00Z  INFO begins ERROR no\n2026-01-01T00:00:01Z ERROR it broke\nbye";
        assert_eq!(error_of(human), "it broke\nbye");
        let json = r#"{"timestamp":"t","level":"ERROR","fields":{"message":"it broke"},"target":"x"}"#;
        assert_eq!(error_of(json), "it broke");
        assert_eq!(error_of("thread 'main' panicked at a.rs:1:1:\noh\nnote"), "thread 'main' panicked at a.rs:1:1:");
        assert_eq!(level_and_message("2026-01-01T00:00:00Z  WARN  careful"), (Some("WARN"), "careful".to_owned()));
    }
}
