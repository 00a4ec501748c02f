//! Which artifacts a step reads: those named by `--input`, else those of the newest plan.

use std::sync::Arc;

use anyhow::Result;

use crate::{Config, Input, InputRecord, Manifest, Step, Store, config_error, input_error, newest_plan};

/// A dataset that a step reads, found.
#[derive(Clone, Debug)]
pub struct ResolvedInput {
    /// The dataset, or the kind of listed files.
    pub dataset: String,
    /// The artifact that holds it.
    pub manifest: Arc<Manifest>,
}

/// Finds the inputs of a step by `--input DATASET=FINGERPRINT`.
///
/// # Errors
/// Exit 2 for a dataset the step does not read, exit 3 for one that is not there.
pub(crate) fn given(
    store: &Store,
    step: &str,
    inputs: &[Input],
    given: &[(String, String)],
) -> Result<Vec<ResolvedInput>> {
    for (dataset, _) in given {
        if !inputs.iter().any(|input| input.dataset == *dataset) {
            let known: std::collections::BTreeSet<&str> = inputs.iter().map(|i| i.dataset.as_str()).collect();
            let known: Vec<&str> = known.into_iter().collect();
            return Err(config_error(format!(
                "--input {dataset}: {step} does not read it; it reads {}",
                known.join(", ")
            )));
        }
    }
    inputs
        .iter()
        .map(|input| {
            for (_, fingerprint) in given.iter().filter(|(dataset, _)| *dataset == input.dataset) {
                if let Some(manifest) = Manifest::find(store, &input.step, fingerprint)? {
                    return Ok(ResolvedInput { dataset: input.dataset.clone(), manifest: Arc::new(manifest) });
                }
            }
            Err(missing(step, input))
        })
        .collect()
}

/// Finds the inputs of a step in the newest plan of the pipeline.
///
/// # Errors
/// Exit 3: there is no plan, the plan's config upstream differs, or an artifact is not there.
pub(crate) fn planned(store: &Store, config: &Config, step: &str, description: &Step) -> Result<Vec<ResolvedInput>> {
    if description.inputs.is_empty() {
        return Ok(Vec::new());
    }
    let stage = step.split(':').next().unwrap_or(step);
    let advice = format!("run: codepair run --config {} --until {stage}", config.path().display());
    let Some(plan) = newest_plan(store, config.name())? else {
        return Err(input_error(format!(
            "{step} reads {} of {}, and the store {} has no plan of the pipeline {:?}; {advice}",
            description.inputs[0].dataset,
            description.inputs[0].step,
            store.url(),
            config.name()
        )));
    };
    for upstream in plan.upstream_stages(step) {
        let planned = plan.tables.get(&upstream).unwrap_or(&serde_json::Value::Null);
        if *planned != config.raw(&upstream) {
            return Err(input_error(format!("the newest plan was made with another [{upstream}]; {advice}")));
        }
    }
    description
        .inputs
        .iter()
        .map(|input| {
            let found = match plan.step(&input.step) {
                Some(upstream) => Manifest::find(store, &input.step, &upstream.fingerprint)?,
                None => None,
            };
            let manifest = Arc::new(found.ok_or_else(|| missing(step, input))?);
            Ok(ResolvedInput { dataset: input.dataset.clone(), manifest })
        })
        .collect()
}

fn missing(step: &str, input: &Input) -> anyhow::Error {
    let producer = &input.step;
    input_error(format!(
        "{step} reads {} of {producer}, which is not there; run: codepair run --only {producer}",
        input.dataset
    ))
}

/// Checks every file of the inputs against its SHA-256.
///
/// # Errors
/// Exit 3: a file is missing or damaged.
pub fn verify(store: &Store, inputs: &[ResolvedInput]) -> Result<()> {
    for input in inputs {
        for output in input.manifest.files(&input.dataset) {
            input.manifest.read(store, output)?;
        }
    }
    Ok(())
}

/// The records of the inputs for the manifest, a step once.
pub(crate) fn records(inputs: &[ResolvedInput]) -> Vec<InputRecord> {
    let mut records: Vec<InputRecord> = inputs
        .iter()
        .map(|input| InputRecord {
            step: input.manifest.step.clone(),
            fingerprint: input.manifest.fingerprint.clone(),
            digest: input.manifest.digest.clone(),
        })
        .collect();
    records.sort_by(|a, b| a.step.cmp(&b.step));
    records.dedup();
    records
}
