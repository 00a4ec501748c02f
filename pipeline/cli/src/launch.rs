//! Executors: how the steps of a plan are run. One file an executor.

pub(crate) mod beat;
pub(crate) mod local;
pub(crate) mod log;

use codepair_runtime::{Config, ExitStatus, Plan, Store};

/// What an executor is given.
pub(crate) struct Launch<'a> {
    pub(crate) config: &'a Config,
    pub(crate) sets: &'a [String],
    pub(crate) store: &'a Store,
    pub(crate) plan: &'a Plan,
    /// The steps to run, by position in the plan.
    pub(crate) steps: Vec<usize>,
    /// How many may run side by side.
    pub(crate) jobs: usize,
}

/// How a step ended.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Ended {
    pub(crate) step: String,
    /// Nothing where it never began, because a step that it needs failed or the run was interrupted.
    pub(crate) exit: Option<i32>,
    pub(crate) message: String,
    pub(crate) seconds: f64,
}

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.exit == Some(0)
    }
}

/// The worst of how steps ended.
pub(crate) fn overall(ended: &[Ended]) -> ExitStatus {
    let failed: Vec<i32> = ended.iter().filter_map(|e| e.exit).filter(|code| *code != 0).collect();
    match failed.first() {
        None if ended.iter().all(Ended::succeeded) => ExitStatus::Done,
        Some(2) => ExitStatus::WrongConfig,
        Some(3) => ExitStatus::MissingInput,
        _ => ExitStatus::Failed,
    }
}
