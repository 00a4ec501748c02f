//! From the stages' descriptions to a plan: fingerprints, and why each step would run. Knows no stage.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use codepair_runtime::{
    Config, Description, Manifest, Plan, PlannedStep, Store, config_error, difference, fingerprint, newest_generation,
    newest_plan,
};
use codepair_schemas::STAGES;
use serde::Serialize;

use crate::arguments::Selection;
use crate::binaries::{self, describe};

/// A plan, and what is to be done of it.
pub(crate) struct Prospect {
    /// Every step.
    pub(crate) plan: Plan,
    /// Of each step, in the plan's order.
    pub(crate) verdicts: Vec<Verdict>,
    /// The plan says the same as the newest one in the store.
    pub(crate) unchanged: bool,
}

/// Whether a step runs, and why.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) step: String,
    pub(crate) fingerprint: String,
    /// Its artifact is there.
    pub(crate) fresh: bool,
    /// It is to run now: not fresh, and selected.
    pub(crate) run: bool,
    pub(crate) reason: String,
    /// What it would cost, of steps that can say so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) forecast: Vec<serde_json::Value>,
}

/// Plans a pipeline.
pub(crate) fn prospect(config: &Config, sets: &[String], store: &Store, selection: &Selection) -> Result<Prospect> {
    let descriptions = describe_all(config, sets)?;
    let newest = newest_plan(store, config.name())?;
    let known: Vec<String> = descriptions.iter().flat_map(names).collect();
    for name in selection.only.iter().chain(&selection.from).chain(&selection.until).chain(&selection.force) {
        if !known.iter().any(|step| selects(name, step)) {
            return Err(config_error(format!("there is no step {name}; there are {}", known.join(", "))));
        }
    }
    let mut steps: Vec<PlannedStep> = Vec::new();
    let mut verdicts: Vec<Verdict> = Vec::new();
    for description in &descriptions {
        for (name, step) in names(description).into_iter().zip(&description.steps) {
            let mut upstream = BTreeMap::new();
            for input in &step.inputs {
                let producer = steps.iter().find(|s| s.name == input.step).with_context(|| {
                    format!("{name} reads {} of {}, which is no earlier step", input.dataset, input.step)
                })?;
                upstream.insert(producer.name.clone(), producer.fingerprint.clone());
            }
            let of = |generation| fingerprint(&name, description.revision, step, &upstream, generation);
            let forced = selection.force.iter().any(|force| selects(force, &name));
            let generation = newest_generation(store, &name, of)? + u32::from(forced);
            let planned = PlannedStep {
                fingerprint: of(generation),
                stage: description.stage.clone(),
                revision: description.revision,
                generation,
                upstream,
                description: step.clone(),
                name,
            };
            let fresh = Manifest::find(store, &planned.name, &planned.fingerprint)?.is_some();
            let reason = if fresh {
                "fresh".to_owned()
            } else if forced {
                "forced".to_owned()
            } else {
                reason(&planned, newest.as_ref(), &verdicts)
            };
            verdicts.push(Verdict {
                step: planned.name.clone(),
                fingerprint: planned.fingerprint.clone(),
                fresh,
                run: !fresh,
                reason,
                forecast: Vec::new(),
            });
            steps.push(planned);
        }
    }
    select(&mut verdicts, &steps, selection);
    let plan = Plan {
        format: 1,
        run: uuid::Uuid::now_v7().to_string(),
        pipeline: config.name().to_owned(),
        created_at: jiff::Timestamp::now(),
        tables: STAGES.iter().map(|stage| (stage.name.to_owned(), config.raw(stage.name))).collect(),
        steps,
    };
    let unchanged = newest.is_some_and(|newest| {
        let prints = |plan: &Plan| plan.steps.iter().map(|s| s.fingerprint.clone()).collect::<Vec<_>>();
        newest.tables == plan.tables && prints(&newest) == prints(&plan)
    });
    Ok(Prospect { plan, verdicts, unchanged })
}

/// Asks the steps that would run, and can say it, what they would cost. What reads something that is not there yet cannot.
pub(crate) fn forecast(config: &Config, sets: &[String], prospect: &mut Prospect) -> Result<()> {
    let steps = &prospect.plan.steps;
    let fresh: BTreeMap<String, String> =
        prospect.verdicts.iter().filter(|v| v.fresh).map(|v| (v.step.clone(), v.fingerprint.clone())).collect();
    for (verdict, step) in prospect.verdicts.iter_mut().zip(steps) {
        if !verdict.run || !step.description.forecasts {
            continue;
        }
        let inputs = &step.description.inputs;
        let given: Option<Vec<(String, String)>> =
            inputs.iter().map(|input| Some((input.dataset.clone(), fresh.get(&input.step)?.clone()))).collect();
        verdict.forecast = match given {
            Some(given) => binaries::forecast(&step.stage, config, sets, &given)?,
            None => vec![serde_json::json!({ "text": "what it costs is known when its inputs are there" })],
        };
    }
    Ok(())
}

/// Asks all stages at once; they answer in a few milliseconds unless sources must be read.
fn describe_all(config: &Config, sets: &[String]) -> Result<Vec<Description>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = STAGES.iter().map(|stage| scope.spawn(|| describe(stage.name, config, sets))).collect();
        asked.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    })
}

fn names(description: &Description) -> Vec<String> {
    let stage = &description.stage;
    let name = |model: &Option<String>| model.as_ref().map_or_else(|| stage.clone(), |m| format!("{stage}:{m}"));
    description.steps.iter().map(|step| name(&step.model)).collect()
}

/// Whether a name on the command line means a step: `train` means all of `train:…`.
fn selects(name: &str, step: &str) -> bool {
    step == name || step.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
}

/// Why a step is not fresh, against the newest plan.
fn reason(step: &PlannedStep, newest: Option<&Plan>, verdicts: &[Verdict]) -> String {
    let Some(newest) = newest else { return "it never ran".to_owned() };
    let Some(old) = newest.step(&step.name) else { return "it is new in this pipeline".to_owned() };
    let mut reasons = difference(&old.description.config, &step.description.config);
    if old.revision != step.revision {
        reasons.push(format!("revision of {}: {} → {}", step.stage, old.revision, step.revision));
    }
    for (source, digest) in &step.description.sources {
        if old.description.sources.get(source).is_some_and(|old| old != digest) {
            reasons.push(format!("the content of the source {source} changed"));
        }
    }
    let moved: BTreeSet<&String> =
        step.upstream.iter().filter(|(name, print)| old.upstream.get(*name) != Some(*print)).map(|(n, _)| n).collect();
    if !moved.is_empty() {
        let moved: Vec<&str> = moved.into_iter().map(String::as_str).collect();
        reasons.push(format!("other input: {}", moved.join(", ")));
    }
    if reasons.is_empty() {
        let waits = verdicts.iter().filter(|v| !v.fresh).any(|v| step.upstream.contains_key(&v.step));
        reasons.push(if waits { "its input is not there yet" } else { "it has not been completed" }.to_owned());
    }
    reasons.join("; ")
}

/// Marks as not to run what the selection leaves out.
fn select(verdicts: &mut [Verdict], steps: &[PlannedStep], selection: &Selection) {
    let position = |name: &String, last: bool| {
        let mut fitting = steps.iter().enumerate().filter(|(_, s)| selects(name, &s.name)).map(|(i, _)| i);
        if last { fitting.next_back() } else { fitting.next() }
    };
    let stage_at = |index: usize| STAGES.iter().position(|s| s.name == steps[index].stage).unwrap_or(0);
    let from = selection.from.as_ref().and_then(|name| position(name, false)).map_or(0, stage_at);
    let until = selection.until.as_ref().and_then(|name| position(name, true)).map_or(usize::MAX, stage_at);
    for (index, verdict) in verdicts.iter_mut().enumerate() {
        let stage = stage_at(index);
        let named = |list: &[String]| list.iter().any(|name| selects(name, &verdict.step));
        let within = |bound: &Option<String>, at: usize| {
            // A bound that names one model leaves its siblings out.
            bound.as_ref().is_none_or(|name| stage != at || selects(name, &verdict.step))
        };
        let chosen = (selection.only.is_empty() || named(&selection.only))
            && (from..=until).contains(&stage)
            && within(&selection.from, from)
            && within(&selection.until, until);
        if verdict.run && !chosen {
            verdict.run = false;
            verdict.reason = format!("left out ({})", verdict.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_names_all_its_steps() {
        assert!(selects("train", "train:a") && selects("train:a", "train:a") && selects("report", "report"));
        assert!(!selects("train:a", "train:ab") && !selects("tra", "train:a"));
    }
}
