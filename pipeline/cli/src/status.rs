//! `codepair status` and `codepair logs`.

use anyhow::Result;
use codepair_runtime::{ExitStatus, Manifest, Plan, Runs, advice, config_error, input_error, short_run};
use serde_json::json;

use crate::arguments::{Arguments, LogsOptions, StatusOptions};
use crate::launch::log;
use crate::state::{Standing, State, of_run, standings};
use crate::table::{Table, print};

/// Prints how each step of a run stands.
pub(crate) fn status(arguments: &Arguments, options: &StatusOptions) -> Result<ExitStatus> {
    let runs = arguments.pipeline.runs(&options.run)?;
    let plan = runs.newest()?;
    let standings = standings(&runs.store, &plan)?;
    if options.json {
        let step = |(step, standing): (&codepair_runtime::PlannedStep, &Standing)| {
            json!({
                "step": step.name, "fingerprint": step.fingerprint, "state": standing.state.name(), "why": standing.why,
                "manifest": standing.manifest,
            })
        };
        let steps: Vec<_> = plan.steps.iter().zip(&standings).map(step).collect();
        let state = of_run(&standings).name();
        let store = runs.store.url();
        let answer =
            json!({ "pipeline": plan.pipeline, "run": plan.run, "state": state, "store": store, "steps": steps });
        print(&serde_json::to_string_pretty(&answer)?);
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&["step", "fingerprint", "state", "rows", "rejected", "seconds", "peak MB", "finished"]);
    for (step, standing) in plan.steps.iter().zip(&standings) {
        let cells = standing.manifest.as_ref().map_or_else(Default::default, cells);
        let first = [step.name.as_str(), &step.fingerprint[..12], standing.state.name()];
        table.row(&first.into_iter().chain(cells.iter().map(String::as_str)).collect::<Vec<_>>());
    }
    let run = short_run(&plan.run);
    print(&format!("{} in {}, run {run} of {:.0}\n\n{table}", plan.pipeline, runs.store.url(), plan.created_at));
    let told = plan.steps.iter().zip(&standings).filter(|(_, standing)| !standing.why.is_empty());
    told.for_each(|(step, standing)| print(&format!("{}: {}", step.name, standing.why)));
    if of_run(&standings) > State::Incomplete
        && let Some(whole) = newest_whole(&runs, &plan)?
    {
        let (run, made) = (short_run(&whole.run), whole.created_at);
        print(&format!(
            "the newest run that is whole is {run} of {made:.0}: {}",
            advice(&format!("codepair status --run {run}"))
        ));
    }
    Ok(ExitStatus::Done)
}

/// The newest run before this one that has all of its artifacts.
fn newest_whole(runs: &Runs, plan: &Plan) -> Result<Option<Plan>> {
    for earlier in runs.plans() {
        let earlier = earlier?;
        if earlier.run != plan.run && of_run(&standings(&runs.store, &earlier)?) <= State::Incomplete {
            return Ok(Some(earlier));
        }
    }
    Ok(None)
}

fn cells(manifest: &Manifest) -> [String; 5] {
    let rows: u64 = manifest.outputs.iter().filter_map(|output| output.rows).sum();
    let rejected: u64 = manifest.rejected.values().sum();
    let memory = manifest.peak_memory_bytes / 1_000_000;
    [
        rows.to_string(),
        rejected.to_string(),
        format!("{:.1}", manifest.seconds()),
        memory.to_string(),
        format!("{:.0}", manifest.ended_at),
    ]
}

/// Prints a step's log of the newest run that ran it, as far as it is there.
pub(crate) fn logs(arguments: &Arguments, options: &LogsOptions) -> Result<ExitStatus> {
    let runs = arguments.pipeline.runs(&options.run)?;
    let (newest, step) = (runs.newest()?, &options.step);
    let known: Vec<&str> = newest.steps.iter().map(|s| s.name.as_str()).collect();
    for plan in runs.plans() {
        let plan = plan?;
        if let Some(text) = log::read(&runs.store, &plan.pipeline, &plan.run, step)? {
            if plan.run != newest.run {
                let (newest, run) = (short_run(&newest.run), short_run(&plan.run));
                tracing::info!("the newest run, {newest}, has no log of {step}; this is that of the run {run}");
            }
            print(&text);
            return Ok(ExitStatus::Done);
        }
    }
    if known.contains(&step.as_str()) {
        let pipeline = &newest.pipeline;
        return Err(input_error(format!("{step} has no log: it ran in no run of {pipeline} that is there")));
    }
    Err(config_error(format!("there is no step {step}; there are {}", known.join(", "))))
}
