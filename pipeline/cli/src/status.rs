//! `codepair status` and `codepair logs`.

use anyhow::Result;
use codepair_runtime::{ExitStatus, Manifest, config_error, input_error, plans};
use serde_json::json;

use crate::arguments::{Arguments, Output};
use crate::launch::log;
use crate::table::{Table, print};

/// Prints how each step of the newest plan stands.
pub(crate) fn status(arguments: &Arguments, options: &Output) -> Result<ExitStatus> {
    let (store, plan) = arguments.pipeline.newest_plan()?;
    let mut table = Table::new(&["step", "fingerprint", "state", "rows", "rejected", "seconds", "peak MB", "finished"]);
    let mut steps = Vec::new();
    for step in &plan.steps {
        let found = Manifest::find(&store, &step.name, &step.fingerprint);
        let state = match &found {
            Ok(Some(manifest)) if manifest.incomplete.is_some() => "incomplete",
            Ok(Some(_)) => "done",
            Ok(None) => "missing",
            Err(error) => {
                tracing::warn!("{error:#}");
                "damaged"
            }
        };
        let manifest = found.ok().flatten();
        let cells = manifest.as_ref().map_or_else(Default::default, cells);
        let row: Vec<&str> = [step.name.as_str(), &step.fingerprint[..12], state]
            .into_iter()
            .chain(cells.iter().map(String::as_str))
            .collect();
        table.row(&row);
        steps.push(json!({ "step": step.name, "fingerprint": step.fingerprint, "state": state, "manifest": manifest }));
    }
    if options.json {
        let answer = json!({ "pipeline": plan.pipeline, "run": plan.run, "store": store.url(), "steps": steps });
        print(&serde_json::to_string_pretty(&answer)?);
    } else {
        print(&format!("{} in {}, run {} of {:.0}\n\n{table}", plan.pipeline, store.url(), plan.run, plan.created_at));
    }
    Ok(ExitStatus::Done)
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
pub(crate) fn logs(arguments: &Arguments, step: &str) -> Result<ExitStatus> {
    let (store, plan) = arguments.pipeline.newest_plan()?;
    if plan.step(step).is_none() {
        let known: Vec<&str> = plan.steps.iter().map(|s| s.name.as_str()).collect();
        return Err(config_error(format!("there is no step {step}; there are {}", known.join(", "))));
    }
    for run in plans(&store, &plan.pipeline)? {
        if let Some(text) = log::read(&store, &plan.pipeline, &run, step)? {
            if run != plan.run {
                tracing::info!("the newest run, {}, has no log of {step}; this is that of the run {run}", plan.run);
            }
            print(&text);
            return Ok(ExitStatus::Done);
        }
    }
    Err(input_error(format!("{step} has no log: it ran in no run of {} that is there", plan.pipeline)))
}
