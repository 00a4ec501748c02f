//! `codepair lineage`: what a dataset was made from, back to the sources.

use anyhow::Result;
use codepair_runtime::{ExitStatus, Plan, PlannedStep, config_error};
use codepair_schemas::is_written_by;
use serde_json::{Value, json};

use crate::arguments::{Arguments, LineageOptions};
use crate::table::print;

/// Prints the steps behind a dataset as a tree.
pub(crate) fn lineage(arguments: &Arguments, options: &LineageOptions) -> Result<ExitStatus> {
    let plan = arguments.pipeline.runs(&options.run)?.newest()?;
    let roots: Vec<&PlannedStep> =
        plan.steps.iter().filter(|step| is_written_by(&options.dataset, &step.name)).collect();
    if roots.is_empty() {
        return Err(config_error(format!(
            "no step of the run writes {}; codepair schema lists the datasets",
            options.dataset
        )));
    }
    if options.json {
        let tree: Vec<Value> = roots.into_iter().map(|root| as_json(&plan, root)).collect();
        print(&serde_json::to_string_pretty(&json!({ "dataset": options.dataset, "made_by": tree }))?);
        return Ok(ExitStatus::Done);
    }
    let mut text = format!("{}\n", options.dataset);
    for root in roots {
        draw(&plan, root, 1, &mut text);
    }
    print(&text);
    Ok(ExitStatus::Done)
}

fn upstream<'a>(plan: &'a Plan, step: &'a PlannedStep) -> impl Iterator<Item = &'a PlannedStep> {
    step.upstream.keys().filter_map(|name| plan.step(name))
}

fn draw(plan: &Plan, step: &PlannedStep, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    text.push_str(&format!("{indent}{} {}\n", step.name, &step.fingerprint[..12]));
    for (source, digest) in &step.description.sources {
        text.push_str(&format!("{indent}  source {source} {}\n", &digest[..12]));
    }
    for input in upstream(plan, step) {
        draw(plan, input, depth + 1, text);
    }
}

fn as_json(plan: &Plan, step: &PlannedStep) -> Value {
    json!({
        "step": step.name,
        "fingerprint": step.fingerprint,
        "config": step.description.overrides,
        "sources": step.description.sources,
        "made_from": upstream(plan, step).map(|input| as_json(plan, input)).collect::<Vec<_>>(),
    })
}
