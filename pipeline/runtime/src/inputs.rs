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
    let newest_there = match planned {
        Planned::Newest => newest_plan(store, config.name())?,
        Planned::Run(_) => None,
    };
    let known = match planned {
        Planned::Run(plan) => Some(*plan),
        Planned::Newest => newest_there.as_ref(),
    };
    let inputs = &resolved(store, &description.inputs, given, known)?;
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
        Planned::Newest if !inputs.iter().all(is_given) => {
            Some(newest(newest_there, store, config, step, inputs, is_given)?)
        }
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

/// The inputs, those of all steps that write a dataset named one by one: by what is given for it, else by the plan.
fn resolved(store: &Store, inputs: &[Input], given: &[(String, String)], plan: Option<&Plan>) -> Result<Vec<Input>> {
    let mut all = Vec::new();
    for input in inputs {
        let prints: Vec<&str> =
            given.iter().filter(|(name, _)| *name == input.dataset).map(|(_, p)| p.as_str()).collect();
        if !input.step.is_empty() || prints.is_empty() {
            let steps = plan.iter().flat_map(|plan| &plan.steps).map(|step| step.name.as_str());
            let before = input.resolved(steps);
            // Without a plan it is what is given, and where nothing is the error says what it would be.
            let is_unknown = plan.is_none() && given.is_empty() && before.is_empty();
            all.extend(if is_unknown { first_writer(input) } else { before });
            continue;
        }
        let found = all.len();
        for step in steps_there(store, &input.dataset)? {
            if prints.iter().any(|print| Manifest::find_short(store, &step, print).is_ok()) {
                all.push(Input::new(input.dataset.clone(), step));
            }
        }
        if all.len() == found {
            return Err(input_error(format!(
                "--input {}={}: no step's artifact begins with that",
                input.dataset, prints[0]
            )));
        }
    }
    Ok(all)
}

fn first_writer(input: &Input) -> Vec<Input> {
    let writer = codepair_schemas::stage_of_dataset(&input.dataset).next();
    writer.map(|stage| Input::new(input.dataset.clone(), stage.name)).into_iter().collect()
}

/// The steps that write a dataset and have artifacts in the store.
fn steps_there(store: &Store, dataset: &str) -> Result<Vec<String>> {
    let folders = store.folders("artifacts")?;
    let of = |stage: &'static codepair_schemas::Stage| {
        folders.iter().filter_map(move |folder| match folder.strip_prefix(stage.name)? {
            "" => Some(stage.name.to_owned()),
            rest => Some(format!("{}:{}", stage.name, rest.strip_prefix('-')?)),
        })
    };
    Ok(codepair_schemas::stage_of_dataset(dataset).flat_map(of).collect())
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
    plan: Option<Plan>,
    store: &Store,
    config: &Config,
    step: &str,
    inputs: &[Input],
    is_given: impl Fn(&Input) -> bool,
) -> Result<Plan> {
    let stage = step.split(':').next().unwrap_or(step);
    let advice = format!("run: codepair run --config {} --until {stage}", config.path().display());
    let Some(plan) = plan else {
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
            let table = codepair_schemas::table_of(&upstream);
            return Err(input_error(format!("the newest plan was made with another [{table}]; {advice}")));
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
