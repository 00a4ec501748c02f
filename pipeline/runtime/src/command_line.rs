//! What the command lines of all binaries share: which pipeline, and how the process ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Command, Parser};

use crate::{Config, ExitStatus, Plan, Store, exit_status, input_error, newest_plan, telemetry};

/// Which pipeline, with which values.
#[derive(Clone, Debug, Args)]
pub struct PipelineOptions {
    /// The pipeline's TOML file [default: $CODEPAIR_CONFIG, then configs/quickstart.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one value of the config, such as train.attention.epochs=8; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl PipelineOptions {
    /// The config that they name.
    ///
    /// # Errors
    /// Exit 2: it is missing or wrong.
    pub fn config(&self) -> Result<Config> {
        Config::load(self.config.as_deref(), &self.set)
    }

    /// The config and its store.
    ///
    /// # Errors
    /// As [`Self::config`] and [`Store::open`].
    pub fn open(&self) -> Result<(Config, Store)> {
        let config = self.config()?;
        let folder = config.path().parent().map(Path::to_owned).unwrap_or_default();
        let store = Store::open(&config.store_url()?, &folder)?;
        Ok((config, store))
    }

    /// The store and the pipeline's newest plan in it.
    ///
    /// # Errors
    /// As [`Self::open`]; exit 3: there is no plan.
    pub fn newest_plan(&self) -> Result<(Store, Plan)> {
        let (config, store) = self.open()?;
        let (name, path) = (config.name(), config.path().display());
        let plan = newest_plan(&store, name)?.ok_or_else(|| {
            let url = store.url();
            input_error(format!("the pipeline {name:?} has never run in {url}; run: codepair run --config {path}"))
        })?;
        Ok((store, plan))
    }
}

/// The `main` of a binary: reads the command line, starts logging, runs, and gives the documented exit code.
pub fn run_binary<A: Parser>(run: impl FnOnce(&A) -> Result<ExitStatus>) -> ExitCode {
    run_command(A::command(), run)
}

/// An error's words. What they advise to run is of the pipeline that was asked for, which need not be the default one.
fn addressed(words: String, given: &[String]) -> String {
    let config = given.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--config")? {
        "" => given.get(at + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    });
    match config {
        Some(config) if words.contains("codepair run") && !words.contains("--config") => {
            format!("{words} (with --config {config})")
        }
        _ => words,
    }
}

/// As [`run_binary`], of a command that was given more than its type says.
pub(crate) fn run_command<A: Parser>(command: Command, run: impl FnOnce(&A) -> Result<ExitStatus>) -> ExitCode {
    let arguments = match command.try_get_matches().and_then(|matches| A::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe, as of `--help | head`, is no error.
            let _ = error.print();
            return if error.use_stderr() { ExitStatus::WrongConfig.into() } else { ExitCode::SUCCESS };
        }
    };
    telemetry::start();
    let status = run(&arguments).unwrap_or_else(|error| {
        let given: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        tracing::error!("{}", addressed(format!("{error:#}"), &given));
        exit_status(&error)
    });
    status.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_of_the_pipeline_that_was_asked_for() {
        let given = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let advice = || "a is damaged; make it anew with: codepair run --force a".to_owned();
        for words in [&["codepair", "sql", "--config", "c.toml", "q"][..], &["codepair", "--config=c.toml"]] {
            assert!(addressed(advice(), &given(words)).ends_with("--force a (with --config c.toml)"));
        }
        assert_eq!(addressed(advice(), &given(&["codepair", "run"])), advice());
        assert_eq!(addressed("no".to_owned(), &given(&["codepair", "--config", "c"])), "no");
    }
}
