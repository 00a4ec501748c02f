//! `runs/<name>/<uuidv7>/plan.json`: what a run means to make, by fingerprint, before anything runs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Step, Store};

/// A whole pipeline, every step with its fingerprint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this format.
    pub format: u32,
    /// The run's id, a UUID v7: later runs sort after earlier ones.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// Each stage's table of the config, as it was written.
    pub tables: BTreeMap<String, Value>,
    /// The steps, each after those it reads.
    pub steps: Vec<PlannedStep>,
}

/// A step of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedStep {
    /// `train:attention`.
    pub name: String,
    /// `train`.
    pub stage: String,
    /// The stage's revision.
    pub revision: u32,
    /// Identity of the artifact it makes.
    pub fingerprint: String,
    /// How often `--force` raised it.
    pub generation: u32,
    /// Fingerprints of the steps it reads.
    pub upstream: BTreeMap<String, String>,
    /// What the stage said of it.
    pub description: Step,
}

impl Plan {
    /// A step by name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&PlannedStep> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The stages that a step reads, directly or not.
    #[must_use]
    pub fn upstream_stages(&self, step: &str) -> Vec<String> {
        let mut stages = Vec::new();
        let mut open: Vec<&String> = self.step(step).into_iter().flat_map(|s| s.upstream.keys()).collect();
        while let Some(name) = open.pop() {
            if let Some(step) = self.step(name)
                && !stages.contains(&step.stage)
            {
                stages.push(step.stage.clone());
                open.extend(step.upstream.keys());
            }
        }
        stages
    }
}

/// The folder of a run.
#[must_use]
pub fn run_folder(pipeline: &str, run: &str) -> String {
    format!("runs/{pipeline}/{run}")
}

/// The ids of a pipeline's runs, newest first.
///
/// # Errors
/// The store cannot be read.
pub fn plans(store: &Store, pipeline: &str) -> Result<Vec<String>> {
    let mut runs = store.folders(&format!("runs/{pipeline}"))?;
    runs.reverse();
    Ok(runs)
}

/// The newest plan of a pipeline.
///
/// # Errors
/// The store cannot be read, or the plan is damaged.
pub fn newest_plan(store: &Store, pipeline: &str) -> Result<Option<Plan>> {
    for run in plans(store, pipeline)? {
        let path = format!("{}/plan.json", run_folder(pipeline, &run));
        if let Some(bytes) = store.find(&path)? {
            return serde_json::from_slice(&bytes).with_context(|| format!("{path} is damaged")).map(Some);
        }
    }
    Ok(None)
}
