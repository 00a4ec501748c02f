//! `runs/<name>/<uuidv7>/plan.json`: what a run means to make, by fingerprint, before anything runs.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Config, Step, Store, difference, fingerprint, input_error};

/// The version of the format that is written.
pub const PLAN_FORMAT: u32 = 1;

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
    /// Each stage's table of the config, as it was written: `${VARIABLES}` stay unexpanded, for they may be secrets.
    pub tables: BTreeMap<String, Value>,
    /// The SHA-256 of each table in which variables were expanded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expanded: BTreeMap<String, String>,
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

impl PlannedStep {
    /// The identity that the step would have if it were described like this, read the same and were of the same generation.
    #[must_use]
    pub fn fingerprint_of(&self, revision: u32, description: &Step) -> String {
        fingerprint(&self.name, revision, description, &self.upstream, self.generation)
    }

    /// In what another description of the step differs, what it reads aside: `train.a.epochs: 5 → 8`.
    #[must_use]
    pub fn differences(&self, revision: u32, description: &Step) -> Vec<String> {
        let mut found = difference(&self.description.config, &description.config);
        if self.revision != revision {
            found.push(format!("revision of {}: {} → {revision}", self.stage, self.revision));
        }
        let changed = |source: &&String| {
            let old = self.description.sources.get(*source);
            old.is_some_and(|old| *old != description.sources[*source])
        };
        let sources = description.sources.keys().filter(changed);
        found.extend(sources.map(|source| format!("the content of the source {source} changed")));
        found
    }
}

impl Plan {
    /// Reads the plan of a run.
    ///
    /// # Errors
    /// Exit 3: there is none, or it is damaged.
    pub fn load(store: &Store, pipeline: &str, run: &str) -> Result<Self> {
        find_plan(store, pipeline, run)?
            .ok_or_else(|| input_error(format!("{} has no run {run} of the pipeline {pipeline:?}", store.url())))
    }

    /// A step by name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&PlannedStep> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Whether it was made with a config's table of a stage.
    #[must_use]
    pub fn is_of(&self, config: &Config, stage: &str) -> bool {
        let written = self.tables.get(stage).unwrap_or(&Value::Null);
        *written == config.raw(stage) && self.expanded.get(stage) == config.expanded(stage).as_ref()
    }

    /// The stages of these steps and of all that they read, directly or not.
    #[must_use]
    pub fn upstream_stages(&self, steps: &[&str]) -> Vec<String> {
        let mut stages = Vec::new();
        let mut open: Vec<&str> = steps.to_vec();
        while let Some(name) = open.pop() {
            if let Some(step) = self.step(name)
                && !stages.contains(&step.stage)
            {
                stages.push(step.stage.clone());
                open.extend(step.upstream.keys().map(String::as_str));
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
        if let Some(plan) = find_plan(store, pipeline, &run)? {
            return Ok(Some(plan));
        }
    }
    Ok(None)
}

pub(crate) fn find_plan(store: &Store, pipeline: &str, run: &str) -> Result<Option<Plan>> {
    let path = format!("{}/plan.json", run_folder(pipeline, run));
    let Some(bytes) = store.find(&path)? else { return Ok(None) };
    let place = format!("{}/{path}", store.url());
    let damaged = || format!("{place} is damaged; delete {}, and the plan before it counts", run_folder(pipeline, run));
    parse_format(&bytes, PLAN_FORMAT, &place, damaged).map(Some)
}

/// Reads a JSON object that names its `format`; what a newer codepair wrote is not called damaged.
///
/// # Errors
/// Exit 3: as `damaged` says, or of a newer format than `known`.
pub(crate) fn parse_format<T: DeserializeOwned>(
    bytes: &[u8],
    known: u32,
    place: &str,
    damaged: impl Fn() -> String,
) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    if let Ok(Versioned { format }) = serde_json::from_slice(bytes)
        && format > known
    {
        return Err(input_error(format!(
            "{place} was written by a newer codepair (format {format}, and {known} is the newest that this one knows)"
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| input_error(format!("{} ({error})", damaged())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Later versions read the plans of an old store: a change of this text needs a new format.
    #[test]
    fn the_format_is_frozen() {
        let step = Step {
            model: Some("a".into()),
            config: serde_json::json!({ "train": { "a": { "epochs": 8 } } }),
            inputs: vec![crate::Input::new("examples", "prepare")],
            schemas: BTreeMap::from([("training_steps".into(), 1)]),
            ..Step::default()
        };
        let plan = Plan {
            format: PLAN_FORMAT,
            run: "01".into(),
            pipeline: "p".into(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            tables: BTreeMap::from([("train".into(), serde_json::json!({ "a": { "epochs": 8 } }))]),
            expanded: BTreeMap::from([("synth".into(), "aa".into())]),
            steps: vec![PlannedStep {
                name: "train:a".into(),
                stage: "train".into(),
                revision: 1,
                fingerprint: "f1".into(),
                generation: 0,
                upstream: BTreeMap::from([("prepare".into(), "f0".into())]),
                description: step,
            }],
        };
        let text = serde_json::to_string_pretty(&plan).unwrap();
        insta::assert_snapshot!(text);
        let store = Store::memory();
        store.put("runs/p/01/plan.json", text).unwrap();
        assert_eq!(newest_plan(&store, "p").unwrap().unwrap().steps[0].fingerprint, "f1");
        assert!(Plan::load(&store, "p", "02").unwrap_err().to_string().contains("no run 02"));
        store.put("runs/p/03/plan.json", r#"{"format": 7}"#).unwrap();
        assert!(newest_plan(&store, "p").unwrap_err().to_string().contains("newer codepair"));
    }
}
