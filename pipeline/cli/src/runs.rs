//! `codepair runs`: what each run changed, how it ended, and the scores side by side.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use codepair_metrics::headline;
use codepair_runtime::{
    ExitStatus, Manifest, Plan, RunOption, Store, float_column, read_output, short_run, text_column,
};
use serde_json::{Value, json};

use crate::arguments::{Arguments, RunsOptions};
use crate::state::{Standing, State, of_run, standings};
use crate::table::{Table, print};

/// A score that stands for a model.
#[derive(Clone)]
struct Score {
    benchmark: String,
    model: String,
    metric: String,
    value: f64,
}

impl Score {
    /// `nbow mrr 0.398`; with the benchmark behind the model where the metric stands for several.
    fn shown(&self, all: &[Self]) -> String {
        let is_alone = all.iter().all(|other| other.metric != self.metric || other.benchmark == self.benchmark);
        let of = if is_alone { String::new() } else { format!(".{}", self.benchmark) };
        format!("{}{of} {} {}", self.model, self.metric, rounded(self.value))
    }
}

/// Prints the newest runs, the newest first.
pub(crate) fn runs(arguments: &Arguments, options: &RunsOptions) -> Result<ExitStatus> {
    let runs = arguments.pipeline.runs(&RunOption::default())?;
    let newest = runs.newest()?;
    // One more than is shown, to say what the last one changed.
    let plans = runs.plans().take(options.last.saturating_add(1)).collect::<Result<Vec<_>>>()?;
    let mut table = Table::new(&["run", "made", "state", "steps", "what changed", "scores"]);
    let mut listed = Vec::new();
    let mut known = BTreeMap::new();
    for (at, plan) in plans.iter().enumerate().take(options.last) {
        let standings = standings(&runs.store, plan)?;
        let changed =
            plans.get(at + 1).map_or_else(|| vec!["the first run".to_owned()], |before| changes(before, plan));
        let scores = scores(&runs.store, &standings, &mut known);
        let state = match of_run(&standings) {
            // As of `--until`, or of one that was interrupted.
            State::Missing => "partial",
            state => state.name(),
        };
        let there = standings.iter().filter(|s| s.state <= State::Incomplete).count();
        let shown: Vec<String> = scores.iter().map(|score| score.shown(&scores)).collect();
        table.row(&[
            short_run(&plan.run),
            &format!("{:.0}", plan.created_at),
            state,
            &format!("{there}/{}", plan.steps.len()),
            &changed.join("; "),
            &shown.join(", "),
        ]);
        let scores: Vec<Value> = scores
            .iter()
            .map(|s| json!({ "benchmark": s.benchmark, "model": s.model, "metric": s.metric, "value": s.value }))
            .collect();
        listed.push(json!({
            "run": plan.run, "made": plan.created_at, "state": state, "steps": plan.steps.len(), "steps_there": there,
            "changed": changed, "scores": scores,
        }));
    }
    if options.json {
        print(&serde_json::to_string_pretty(&listed)?);
    } else {
        print(&format!("{} in {}\n\n{table}", newest.pipeline, runs.store.url()));
    }
    Ok(ExitStatus::Done)
}

/// Three digits of a share, such as MRR; two behind the point of what goes up to 100, as BLEU does.
fn rounded(value: f64) -> String {
    if value.abs() < 1.0 { format!("{value:.3}") } else { format!("{value:.2}") }
}

/// What a run was asked for that the one before was not.
fn changes(before: &Plan, plan: &Plan) -> Vec<String> {
    let mut changes: Vec<String> = Vec::new();
    for step in &plan.steps {
        let Some(old) = before.step(&step.name) else {
            changes.push(format!("new: {}", step.name));
            continue;
        };
        for difference in old.differences(step.revision, &step.description) {
            if !changes.contains(&difference) {
                changes.push(difference);
            }
        }
        if step.generation > old.generation {
            changes.push(format!("{} forced", step.name));
        }
    }
    let names: BTreeSet<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    let gone = before.steps.iter().filter(|step| !names.contains(step.name.as_str()));
    changes.extend(gone.map(|step| format!("without {}", step.name)));
    if changes.is_empty() {
        changes.push("the same again".to_owned());
    }
    changes
}

/// The headline score of each model on each benchmark; `known` holds those of artifacts that were read before.
fn scores(store: &Store, standings: &[Standing], known: &mut BTreeMap<String, Vec<Score>>) -> Vec<Score> {
    let mut found = Vec::new();
    for manifest in standings.iter().filter_map(|standing| standing.manifest.as_ref()) {
        if manifest.files("scores").next().is_none() {
            continue;
        }
        let scores = known.entry(manifest.fingerprint.clone()).or_insert_with(|| {
            read(store, manifest).unwrap_or_else(|error| {
                tracing::warn!("{error:#}");
                Vec::new()
            })
        });
        found.extend(scores.iter().cloned());
    }
    found
}

fn read(store: &Store, manifest: &Manifest) -> Result<Vec<Score>> {
    let mut found: Vec<Score> = Vec::new();
    let columns = &["benchmark", "model", "task", "decoding", "metric", "bucket", "value"];
    for batch in read_output(store, manifest, "scores", columns)? {
        let texts = |name| text_column(&batch, name);
        let (benchmarks, models) = (texts("benchmark")?, texts("model")?);
        let (tasks, decodings) = (texts("task")?, texts("decoding")?);
        let (metrics, buckets, values) = (texts("metric")?, texts("bucket")?, float_column(&batch, "value")?);
        for row in 0..batch.num_rows() {
            let stands = headline(tasks.value(row)) == Some(metrics.value(row)) && buckets.value(row) == "all";
            // Of two decodings the beam's is the one to compare.
            if stands && matches!(decodings.value(row), "beam" | "exact") {
                found.push(Score {
                    benchmark: benchmarks.value(row).to_owned(),
                    model: models.value(row).to_owned(),
                    metric: metrics.value(row).to_owned(),
                    value: values.value(row),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_short() {
        assert_eq!([rounded(0.398_12), rounded(3.2149), rounded(0.0)], ["0.398", "3.21", "0.000"]);
    }
}
