//! How the steps of a run stand.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Manifest, Plan, Store, run_folder};

use crate::launch::{Ended, beat};

/// How a step of a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Its artifact is there.
    Done,
    /// So it is, and says that something is left open.
    Incomplete,
    /// It is being made.
    Running,
    /// It was tried, and ended without.
    Failed,
    /// Nobody tried it, or was interrupted.
    Missing,
    /// What should say it cannot be read.
    Damaged,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Incomplete => "incomplete",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Missing => "missing",
            Self::Damaged => "damaged",
        }
    }
}

/// A step's state, and what there is of it.
pub(crate) struct Standing {
    pub(crate) state: State,
    pub(crate) manifest: Option<Manifest>,
    /// Why it failed or is damaged; otherwise empty.
    pub(crate) why: String,
}

/// How all steps of a plan stand, in its order.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn standings(store: &Store, plan: &Plan) -> Result<Vec<Standing>> {
    let failures = failures(store, plan)?;
    let running = beat::of(store, &plan.pipeline, &plan.run)?.map(|beat| beat.steps).unwrap_or_default();
    Ok(plan
        .steps
        .iter()
        .map(|step| {
            let state = |state, why: &str| Standing { state, manifest: None, why: why.to_owned() };
            match Manifest::find(store, &step.name, &step.fingerprint) {
                Ok(Some(manifest)) => Standing {
                    state: if manifest.incomplete.is_some() { State::Incomplete } else { State::Done },
                    manifest: Some(manifest),
                    why: String::new(),
                },
                Err(error) => state(State::Damaged, &format!("{error:#}")),
                Ok(None) if running.contains(&step.name) => state(State::Running, ""),
                Ok(None) => match failures.get(&step.name) {
                    Some(failure) if failure.exit.is_some() => state(State::Failed, &failure.message),
                    _ => state(State::Missing, ""),
                },
            }
        })
        .collect())
}

/// How the steps of a run ended that did not succeed, by name.
fn failures(store: &Store, plan: &Plan) -> Result<BTreeMap<String, Ended>> {
    let found = store.find(&failures_path(&plan.pipeline, &plan.run))?;
    let ended: Vec<Ended> = found.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    Ok(ended.into_iter().map(|ended| (ended.step.clone(), ended)).collect())
}

/// Where a run keeps how its steps failed.
pub(crate) fn failures_path(pipeline: &str, run: &str) -> String {
    format!("{}/failures.json", run_folder(pipeline, run))
}

/// How a run stands as a whole: done where all is there, else as the step does that says most.
pub(crate) fn of_run(standings: &[Standing]) -> State {
    let states = || standings.iter().map(|standing| standing.state);
    // What goes on is not failed yet, and what failed left others untried.
    let worst = [State::Running, State::Damaged, State::Failed, State::Missing, State::Incomplete];
    worst.into_iter().find(|state| states().any(|own| own == *state)).unwrap_or(State::Done)
}
