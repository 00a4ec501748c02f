//! From the stages' descriptions to a plan: fingerprints, and why each step would run. Knows no stage.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use codepair_runtime::{
    Config, Description, ExitStatus, Input, Manifest, PLAN_FORMAT, Plan, PlannedStep, Step, Store, config_error,
    exit_status, fingerprint, newest_generation, newest_plan,
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
    let all = |names: &[String]| names.iter().flat_map(|name| unfolded(name, config)).collect::<Vec<_>>();
    let selection = &Selection { only: all(&selection.only), force: all(&selection.force), ..selection.clone() };
    let newest = newest_plan(store, config.name())?;
    let descriptions = describe_all(config, sets, selection, newest.as_ref())?;
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
            let before = || steps.iter().map(|step| step.name.as_str());
            let inputs = step.inputs.iter().flat_map(|input| input.resolved(before())).collect();
            let step = &Step { inputs, ..step.clone() };
            for input in &step.inputs {
                let producer = steps.iter().find(|s| s.name == input.step).ok_or_else(|| no_producer(&name, input))?;
                upstream.insert(producer.name.clone(), producer.fingerprint.clone());
            }
            let of = |generation| fingerprint(&name, description.revision, step, &upstream, generation);
            let forced = selection.force.iter().any(|force| selects(force, &name));
            let mut generation = newest_generation(store, &name, of)?;
            let there = Manifest::find(store, &name, &of(generation));
            // What a run left open the next one goes on with, where the step is to run at all.
            let incomplete = there.as_ref().ok().and_then(|there| there.as_ref()?.incomplete.clone());
            let goes_on = incomplete.is_some() && may_run(selection, &name);
            if forced || goes_on {
                generation += 1;
            }
            let planned = PlannedStep {
                fingerprint: of(generation),
                stage: description.stage.clone(),
                revision: description.revision,
                generation,
                upstream,
                description: step.clone(),
                name,
            };
            let fresh = !forced && !goes_on && there?.is_some();
            let reason = match (&incomplete, fresh) {
                (Some(open), true) => format!("fresh, but incomplete: {open}"),
                (None, true) => "fresh".to_owned(),
                _ if forced => "forced".to_owned(),
                (Some(open), false) => format!("incomplete: {open}"),
                (None, false) => reason(&planned, newest.as_ref(), &verdicts),
            };
            let own = config.variations("train").iter().find(|one| planned.name == format!("train:{}", one.name));
            let reason = own.map_or(reason.clone(), |own| format!("{reason} ({})", own.all_settings()));
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
    select(&mut verdicts, &steps, selection)?;
    let plan = Plan {
        format: PLAN_FORMAT,
        run: uuid::Uuid::now_v7().to_string(),
        pipeline: config.name().to_owned(),
        created_at: jiff::Timestamp::now(),
        tables: STAGES.iter().map(|stage| (stage.name.to_owned(), config.raw(stage.name))).collect(),
        expanded: STAGES.iter().filter_map(|s| Some((s.name.to_owned(), config.expanded(s.name)?))).collect(),
        steps,
    };
    let unchanged = newest.is_some_and(|newest| {
        let prints = |plan: &Plan| plan.steps.iter().map(|s| s.fingerprint.clone()).collect::<Vec<_>>();
        newest.tables == plan.tables && newest.expanded == plan.expanded && prints(&newest) == prints(&plan)
    });
    Ok(Prospect { plan, verdicts, unchanged })
}

/// Of a step that reads another which the config does not make: what is missing in it.
fn no_producer(name: &str, input: &Input) -> anyhow::Error {
    let (stage, of) = input.step.split_once(':').unwrap_or((&input.step, ""));
    let table = codepair_schemas::table_of(stage);
    let table = if of.is_empty() { table.to_owned() } else { format!("{table}.{of}") };
    config_error(format!("{name} reads {} of {}, and there is no [{table}]", input.dataset, input.step))
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

/// Asks all stages at once; they answer in a few milliseconds unless sources must be read. Stages with sources that are not to
/// run are as the newest plan has them, where it was made with the same table: their sources may have changed meanwhile, or
/// may not even be on this machine. So are others whose sources are not here, as long as their artifacts are.
fn describe_all(
    config: &Config,
    sets: &[String],
    selection: &Selection,
    newest: Option<&Plan>,
) -> Result<Vec<Description>> {
    let described = |stage: &str| -> Result<Description> {
        let known = newest.and_then(|plan| planned_before(plan, config, stage));
        match known {
            Some(known) if may_leave_out(selection, stage) => Ok(known),
            known => match (describe(stage, config, sets), known) {
                (Err(error), Some(known)) if exit_status(&error) == ExitStatus::MissingInput => {
                    let made = newest.map_or(String::new(), |plan| format!(" of {:.0}", plan.created_at));
                    tracing::warn!("{error:#}; going by the newest plan{made}, which was made with the same [{stage}]");
                    Ok(known)
                }
                (described, _) => described,
            },
        }
    };
    std::thread::scope(|scope| {
        let asked: Vec<_> = STAGES.iter().map(|stage| scope.spawn(|| described(stage.name))).collect();
        asked.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    })
}

/// What a plan says of a stage that reads sources, if it was made with the same table.
fn planned_before(plan: &Plan, config: &Config, stage: &str) -> Option<Description> {
    let steps: Vec<&PlannedStep> = plan.steps.iter().filter(|step| step.stage == stage).collect();
    let has_sources = steps.iter().any(|step| !step.description.sources.is_empty());
    let revision = steps.first()?.revision;
    let is_written = |(dataset, version): (&String, &u32)| {
        codepair_schemas::dataset(dataset).is_some_and(|now| now.version == *version)
    };
    let is_same = has_sources
        && plan.is_of(config, stage)
        && codepair_schemas::stage(stage)?.revision == revision
        && steps.iter().all(|step| step.description.schemas.iter().all(is_written));
    is_same.then(|| Description {
        stage: stage.to_owned(),
        revision,
        steps: steps.into_iter().map(|step| step.description.clone()).collect(),
    })
}

/// Whether the selection takes a step, if it is not fresh.
fn may_run(selection: &Selection, step: &str) -> bool {
    let stage = step.split(':').next().unwrap_or(step);
    let is_named = selection.only.is_empty() || selection.only.iter().any(|name| selects(name, step));
    is_named && !may_leave_out(selection, stage)
}

/// Whether the selection leaves out all steps of a stage.
fn may_leave_out(selection: &Selection, stage: &str) -> bool {
    let of_stage = |name: &String| name == stage || name.strip_prefix(stage).is_some_and(|rest| rest.starts_with(':'));
    let place = |name: &str| STAGES.iter().position(|s| name == s.name || name.starts_with(&format!("{}:", s.name)));
    let at = place(stage);
    let is_forced = selection.force.iter().any(of_stage);
    let is_outside = (!selection.only.is_empty() && !selection.only.iter().any(of_stage))
        || selection.from.as_ref().is_some_and(|from| at < place(from))
        || selection.until.as_ref().is_some_and(|until| place(until).is_some() && at > place(until));
    is_outside && !is_forced
}

fn names(description: &Description) -> Vec<String> {
    let stage = &description.stage;
    let name = |model: &Option<String>| model.as_ref().map_or_else(|| stage.clone(), |m| format!("{stage}:{m}"));
    description.steps.iter().map(|step| name(&step.model)).collect()
}

/// Whether a name on the command line means a step: `train` means all of `train:…`.
pub(crate) fn selects(name: &str, step: &str) -> bool {
    step == name || step.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
}

/// The steps that a name means: `train:lstm` all of `train:lstm-1`, `train:lstm-2`, …, where lists of one table make them, and
/// `evaluate:lstm.test` all of theirs.
fn unfolded(name: &str, config: &Config) -> Vec<String> {
    let Some((stage, model)) = name.split_once(':') else { return vec![name.to_owned()] };
    let (model, benchmark) = model.split_once('.').map_or((model, ""), |(model, rest)| (model, rest));
    let own = config.variations("train").iter().filter(|one| one.of == model);
    let dot = if benchmark.is_empty() { "" } else { "." };
    let names: Vec<String> = own.map(|one| format!("{stage}:{}{dot}{benchmark}", one.name)).collect();
    if names.is_empty() { vec![name.to_owned()] } else { names }
}

/// Why a step is not fresh, against the newest plan.
fn reason(step: &PlannedStep, newest: Option<&Plan>, verdicts: &[Verdict]) -> String {
    let Some(newest) = newest else { return "it never ran".to_owned() };
    let Some(old) = newest.step(&step.name) else { return "it is new in this pipeline".to_owned() };
    let mut reasons = old.differences(step.revision, &step.description);
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
///
/// # Errors
/// Exit 2: it leaves out all, or what it forces.
fn select(verdicts: &mut [Verdict], steps: &[PlannedStep], selection: &Selection) -> Result<()> {
    let mut taken: Vec<String> = Vec::new();
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
        if chosen {
            taken.push(verdict.step.clone());
        } else if verdict.run {
            verdict.run = false;
            verdict.reason = format!("left out ({})", verdict.reason);
        }
    }
    if taken.is_empty() {
        return Err(config_error("--only, --from and --until leave no step"));
    }
    match selection.force.iter().find(|force| !taken.iter().any(|step| selects(force, step))) {
        Some(force) => Err(config_error(format!(
            "--force {force}: it is left out by --only, --from or --until, which take {}",
            taken.join(", ")
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_all_that_its_lists_make() {
        let text = "name = \"t\"\n[train.a]\nseeds = [1, 2]\n[train.b-256]\nseed = 1\n[train.b]\nseed = 2\n";
        let config = Config::parse(text, std::path::Path::new("c.toml"), &[]).unwrap();
        let of = |name: &str| unfolded(name, &config);
        assert_eq!(of("train:a"), ["train:a-1", "train:a-2"]);
        assert_eq!(of("evaluate:a.test"), ["evaluate:a-1.test", "evaluate:a-2.test"]);
        for same in ["train", "train:a-1", "train:b", "train:b-256", "evaluate:bm25.test"] {
            assert_eq!(of(same), [same]);
        }
    }

    #[test]
    fn stages_outside_the_selection_are_left_out() {
        let none = || Selection { only: Vec::new(), from: None, until: None, force: Vec::new(), json: false };
        let left_out = |selection: &Selection| -> Vec<&str> {
            STAGES.iter().map(|stage| stage.name).filter(|stage| may_leave_out(selection, stage)).collect()
        };
        assert_eq!(left_out(&none()), [""; 0]);
        let only = Selection { only: vec!["train:a".into()], ..none() };
        assert_eq!(left_out(&only), ["ingest", "synth", "prepare", "tokenize", "evaluate", "score", "report"]);
        let range = Selection { from: Some("prepare".into()), until: Some("train".into()), ..none() };
        assert_eq!(left_out(&range), ["ingest", "synth", "evaluate", "score", "report"]);
        assert_eq!(
            left_out(&Selection { force: vec!["ingest".into()], ..range }),
            ["synth", "evaluate", "score", "report"]
        );
        assert_eq!(left_out(&Selection { until: Some("trian".into()), ..none() }), [""; 0]);
    }

    #[test]
    fn a_stage_names_all_its_steps() {
        assert!(selects("train", "train:a") && selects("train:a", "train:a") && selects("report", "report"));
        assert!(!selects("train:a", "train:ab") && !selects("tra", "train:a"));
    }
}
