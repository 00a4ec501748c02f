//! Which artifacts a step reads: those named by `--input`, else those of a plan.

use std::sync::Arc;

use anyhow::Result;

use crate::{Config, Input, InputRecord, Manifest, Plan, Step, Store, config_error, input_error, newest_plan};

/// A dataset that a step reads, found.
#[derive(Clone, Debug)]
pub struct ResolvedInput {
    /// The dataset, or the kind of listed files.
    pub dataset: String,
    /// The artifact that holds it.
    pub manifest: Arc<Manifest>,
}

/// The plan by which a step finds what it reads.
pub(crate) enum Planned<'a> {
    /// That of the run that launched it.
    Run(&'a Plan),
    /// The newest of the pipeline.
    Newest,
}

/// Finds the inputs of a step: what `--input DATASET=FINGERPRINT` names, the rest by the plan. Their own inputs must hold what
/// they were made from.
///
/// # Errors
/// Exit 2 for a dataset that the step does not read. Exit 3: one is not there, there is no plan, or it was made with another
/// config upstream.
pub(crate) fn resolve(
    store: &Store,
    config: &Config,
    step: &str,
    description: &Step,
    given: &[(String, String)],
    planned: &Planned,
) -> Result<Vec<ResolvedInput>> {
    let inputs = &description.inputs;
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
    // A fingerprint names a step's whole artifact, whichever of its datasets it is given for.
    let fingerprints = |input: &Input| -> Vec<&str> {
        let same_step = |dataset: &String| inputs.iter().any(|i| i.dataset == *dataset && i.step == input.step);
        given.iter().filter(|(dataset, _)| same_step(dataset)).map(|(_, print)| print.as_str()).collect()
    };
    let is_given = |input: &Input| !fingerprints(input).is_empty();
    let newest = match planned {
        Planned::Newest if !inputs.iter().all(is_given) => Some(newest(store, config, step, inputs, is_given)?),
        _ => None,
    };
    let plan = match planned {
        Planned::Run(plan) => Some(*plan),
        Planned::Newest => newest.as_ref(),
    };
    let mut found: Vec<ResolvedInput> = Vec::new();
    for input in inputs {
        let known = found.iter().find(|known| known.manifest.step == input.step);
        let manifest = match (known, fingerprints(input).as_slice()) {
            (Some(known), _) => Arc::clone(&known.manifest),
            (None, []) => Arc::new(by_plan(store, step, input, plan)?),
            // Several are given for a dataset of several steps, such as scores.
            (None, several) => Arc::new(named(store, input, several)?),
        };
        found.push(ResolvedInput { dataset: input.dataset.clone(), manifest });
    }
    let mut checked = std::collections::BTreeSet::new();
    for input in &found {
        if checked.insert(&input.manifest.step) {
            input.manifest.check_inputs(store)?;
        }
    }
    Ok(found)
}

fn by_plan(store: &Store, step: &str, input: &Input, plan: Option<&Plan>) -> Result<Manifest> {
    let upstream = plan.and_then(|plan| plan.step(&input.step));
    let found = match upstream {
        Some(upstream) => Manifest::find(store, &input.step, &upstream.fingerprint)?,
        None => None,
    };
    found.ok_or_else(|| missing(step, input))
}

fn named(store: &Store, input: &Input, fingerprints: &[&str]) -> Result<Manifest> {
    let mut last = None;
    for fingerprint in fingerprints {
        match Manifest::find_short(store, &input.step, fingerprint) {
            Ok(manifest) => return Ok(manifest),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| missing(&input.step, input)))
}

/// The newest plan of the pipeline, whose config of what is upstream must be the config's.
fn newest(
    store: &Store,
    config: &Config,
    step: &str,
    inputs: &[Input],
    is_given: impl Fn(&Input) -> bool,
) -> Result<Plan> {
    let stage = step.split(':').next().unwrap_or(step);
    let advice = format!("run: codepair run --config {} --until {stage}", config.path().display());
    let Some(plan) = newest_plan(store, config.name())? else {
        return Err(input_error(format!(
            "{step} reads {} of {}, and the store {} has no plan of the pipeline {:?}; {advice}",
            inputs[0].dataset,
            inputs[0].step,
            store.url(),
            config.name()
        )));
    };
    let wanted: Vec<&str> = inputs.iter().filter(|input| !is_given(input)).map(|input| input.step.as_str()).collect();
    for upstream in plan.upstream_stages(&wanted) {
        if !plan.is_of(config, &upstream) {
            return Err(input_error(format!("the newest plan was made with another [{upstream}]; {advice}")));
        }
    }
    Ok(plan)
}

fn missing(step: &str, input: &Input) -> anyhow::Error {
    let producer = &input.step;
    input_error(format!(
        "{step} reads {} of {producer}, which is not there; run: codepair run --only {producer}",
        input.dataset
    ))
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
