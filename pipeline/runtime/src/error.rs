//! Expected errors and the exit codes they lead to.

use std::process::ExitCode;

/// An error that the user can mend; anything else is a failed stage.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command or the config is wrong: exit 2.
    #[error("{0}")]
    Config(String),
    /// An input is missing, stale or damaged: exit 3.
    #[error("{0}")]
    Input(String),
}

/// The documented exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: done, or nothing to do.
    Done,
    /// 1: a stage failed.
    Failed,
    /// 2: the command or the config is wrong.
    WrongConfig,
    /// 3: an input is missing or stale.
    MissingInput,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// An error that ends in exit code 2.
pub fn config_error(message: impl Into<String>) -> anyhow::Error {
    Failure::Config(message.into()).into()
}

/// An error that ends in exit code 3.
pub fn input_error(message: impl Into<String>) -> anyhow::Error {
    Failure::Input(message.into()).into()
}

/// The exit code an error leads to.
#[must_use]
pub fn exit_status(error: &anyhow::Error) -> ExitStatus {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Config(_)) => ExitStatus::WrongConfig,
        Some(Failure::Input(_)) => ExitStatus::MissingInput,
        None => ExitStatus::Failed,
    }
}
