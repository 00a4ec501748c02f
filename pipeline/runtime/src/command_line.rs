//! What the command lines of all binaries share: which pipeline, and how the process ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Command, Parser};

use crate::{Config, ExitStatus, RunOption, Runs, Store, cache_folder, config_error, exit_status, telemetry};

/// Which pipeline, with which values.
#[derive(Clone, Debug, Args)]
pub struct PipelineOptions {
    /// The pipeline's TOML file [default: $CODEPAIR_CONFIG, codepair.toml, configs/quickstart.toml].
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

    /// The runs that may be asked. What they made says their plans, so of the config only the names of pipeline and store count.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Runs::new`]. Exit 2: an override that would change nothing.
    pub fn runs(&self, chosen: &RunOption) -> Result<Runs> {
        self.refuse_sets(&["name", "store"])?;
        let (config, store) = self.open()?;
        Runs::new(store, config, chosen)
    }

    /// That no value is overridden, of a command that reads no config.
    ///
    /// # Errors
    /// Exit 2: one is.
    pub fn refuse_all_sets(&self) -> Result<()> {
        match self.set.first() {
            None => Ok(()),
            Some(set) => Err(config_error(format!("--set {set} would change nothing here: it is for plan and run"))),
        }
    }

    /// That no value is overridden but those in the tables `read`.
    ///
    /// # Errors
    /// Exit 2: one is.
    pub fn refuse_sets(&self, read: &[&str]) -> Result<()> {
        let is_ignored = |set: &&String| {
            let key = set.split(['.', '=']).next().unwrap_or_default().trim();
            !read.contains(&key)
        };
        match self.set.iter().find(is_ignored) {
            None => Ok(()),
            Some(set) => Err(config_error(format!(
                "--set {set} would change nothing here: this shows what runs made, whatever the config says by now; codepair runs \
                 lists them, and --run chooses one"
            ))),
        }
    }
}

/// The `main` of a binary: reads the command line, starts logging, runs, and gives the documented exit code.
pub fn run_binary<A: Parser>(run: impl FnOnce(&A) -> Result<ExitStatus>) -> ExitCode {
    run_command(A::command(), run)
}

/// The commands that an error may advise, of which each wants the config that this one was given.
const ADVISED: [&str; 8] = ["run", "plan", "runs", "status", "sql", "logs", "verify", "gc"];

/// A word as a shell takes it.
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:=@%,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Words that advise a command, with the config that this one was given.
#[must_use]
pub fn advice(words: &str) -> String {
    let given: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    addressed(words, &given)
}

/// An error's words. What they advise to run is of the pipeline that was asked for, which need not be the default one.
fn addressed(words: &str, given: &[String]) -> String {
    let config = given.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--config")? {
        "" => given.get(at + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    });
    let Some(config) = config else { return words.to_owned() };
    let config = quoted(config);
    let mut parts = words.split("codepair ");
    let mut addressed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        addressed.push_str("codepair ");
        let end = part.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(part.len());
        let (command, rest) = part.split_at(end);
        addressed.push_str(command);
        if ADVISED.contains(&command) && !rest.split(['\n', ';']).next().unwrap_or_default().contains("--config") {
            addressed.push_str(&format!(" --config {config}"));
        }
        addressed.push_str(rest);
    }
    addressed
}

/// What to do where a disk is full; nothing where none is.
fn full_disk(error: &anyhow::Error) -> String {
    let is_full = |error: &(dyn std::error::Error + 'static)| {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    };
    // Some libraries keep the words of an error alone.
    let says_so = || format!("{error:#}").contains("No space left on device");
    if !error.chain().any(is_full) && !says_so() {
        return String::new();
    }
    let said = format!("{error:#}");
    let place = |folder: &std::path::Path| said.contains(&*folder.to_string_lossy());
    if said.contains("cannot write file://") {
        return "; the store's disk is full: codepair gc shows what is left over in it, and store.url names another place"
            .to_owned();
    }
    let (temporary, cache) = (std::env::temp_dir(), cache_folder());
    if place(&cache) {
        return format!("; the disk of the cache {} is full: CODEPAIR_CACHE names another folder", cache.display());
    }
    format!("; the disk of temporary files, {}, is full: TMPDIR names another folder", temporary.display())
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
        tracing::error!("{}", advice(&format!("{error:#}{}", full_disk(&error))));
        exit_status(&error)
    });
    status.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_what_to_do() {
        let full = anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::StorageFull)).context("while sorting");
        assert!(full_disk(&full).contains("TMPDIR names another folder"), "{}", full_disk(&full));
        let store = anyhow::anyhow!("cannot write file:///s/a: No space left on device (os error 28)");
        assert!(full_disk(&store).starts_with("; the store's disk is full: codepair gc"));
        assert_eq!(full_disk(&std::io::Error::from(std::io::ErrorKind::NotFound).into()), "");
    }

    #[test]
    fn advice_is_of_the_pipeline_that_was_asked_for() {
        let given = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let advice =
            "a is damaged; make it anew with: codepair run --force a; codepair runs lists them, as the codepair of old";
        for words in [&["codepair", "sql", "--config", "c.toml", "q"][..], &["codepair", "--config=c.toml"]] {
            let said = addressed(advice, &given(words));
            assert!(
                said.contains("with: codepair run --config c.toml --force a; codepair runs --config c.toml lists"),
                "{said}"
            );
            assert!(said.ends_with("as the codepair of old"), "{said}");
        }
        assert_eq!(addressed(advice, &given(&["codepair", "run"])), advice);
        let whole = "run: codepair run --config d.toml";
        assert_eq!(addressed(whole, &given(&["codepair", "--config", "c"])), whole);
        let spaced = addressed("codepair plan", &given(&["codepair", "--config", "my c.toml"]));
        assert_eq!(spaced, "codepair plan --config 'my c.toml'");
    }
}
