//! The comparison tables and the plot of scores by input length.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use codepair_metrics::{Better, GENERATION, SEARCH, all, better, headline};
use codepair_runtime::{Context, float_column, integer_column, text_column};
use serde::Serialize;
use serde_json::Value;

use crate::plots;

/// A model with its scores on a benchmark by `decoding metric`.
#[derive(Serialize)]
pub(super) struct Model {
    name: String,
    kind: String,
    parameters: Option<u64>,
    training_seconds: Option<f64>,
    rows: u64,
    scores: BTreeMap<String, f64>,
    /// The ends of each score's interval.
    intervals: BTreeMap<String, [f64; 2]>,
    fingerprint: String,
}

/// A column of a comparison table: whatever metric a model has.
#[derive(Serialize)]
pub(super) struct ScoreColumn {
    key: String,
    label: String,
    /// The best value, where it is known which values are better.
    best: Option<f64>,
}

/// All metrics of the models, in the order of their lists; what a random ranking would reach is no column.
pub(super) fn score_columns(models: &[Model]) -> Vec<ScoreColumn> {
    let scores = || models.iter().flat_map(|model| &model.scores);
    let keys: BTreeSet<&String> = scores().map(|(key, _)| key).filter(|key| !key.ends_with("_of_random")).collect();
    let column = |key: &String| {
        let values = || scores().filter(|(other, _)| *other == key).map(|(_, value)| *value);
        // Where all are the same none is the best.
        let differ = values().reduce(f64::min) != values().reduce(f64::max);
        let values = values().filter(|_| differ);
        let best = match better(metric_of(key)) {
            Some(Better::Higher) => values.reduce(f64::max),
            Some(Better::Lower) => values.reduce(f64::min),
            Some(Better::Neither) | None => None,
        };
        ScoreColumn { key: key.clone(), label: key.trim_start_matches("exact ").replace('_', " "), best }
    };
    let mut columns: Vec<ScoreColumn> = keys.into_iter().map(column).collect();
    columns.sort_by_key(|column| place(metric_of(&column.key)));
    columns
}

/// `mrr` of `exact mrr`.
fn metric_of(key: &str) -> &str {
    key.rsplit(' ').next().unwrap_or(key)
}

/// Where a metric stands in the lists of them; after all where it is in none.
fn place(metric: &str) -> usize {
    let names = all(SEARCH).map(|metric| metric.name).chain(all(GENERATION).map(|metric| metric.name));
    names.into_iter().position(|name| name == metric).unwrap_or(usize::MAX)
}

/// The rows of one model's `scores` on one benchmark.
pub(super) struct Scores {
    pub(super) benchmark: String,
    pub(super) model: String,
    pub(super) task: String,
    pub(super) protocol: String,
    rows: Vec<ScoreRow>,
}

struct ScoreRow {
    decoding: String,
    metric: String,
    bucket: String,
    value: f64,
    interval: [f64; 2],
    count: u64,
    signature: String,
}

impl Scores {
    /// All of them, by benchmark and model.
    pub(super) fn read(context: &Context) -> Result<Vec<Self>> {
        let mut found: BTreeMap<(String, String), Self> = BTreeMap::new();
        for batch in context.read("scores", &[])? {
            let texts = |name| text_column(&batch, name);
            let (benchmarks, models, tasks) = (texts("benchmark")?, texts("model")?, texts("task")?);
            let (decodings, metrics, protocols) = (texts("decoding")?, texts("metric")?, texts("protocol")?);
            let (buckets, signatures) = (texts("bucket")?, texts("signature")?);
            let numbers = |name| float_column(&batch, name);
            let (values, lows, highs) = (numbers("value")?, numbers("low")?, numbers("high")?);
            for (row, count) in integer_column(&batch, "count")?.into_iter().enumerate() {
                let key = (benchmarks.value(row).to_owned(), models.value(row).to_owned());
                let scores = found.entry(key.clone()).or_insert_with(|| Self {
                    benchmark: key.0,
                    model: key.1,
                    task: tasks.value(row).to_owned(),
                    protocol: protocols.value(row).to_owned(),
                    rows: Vec::new(),
                });
                scores.rows.push(ScoreRow {
                    decoding: decodings.value(row).to_owned(),
                    metric: metrics.value(row).to_owned(),
                    bucket: buckets.value(row).to_owned(),
                    value: values.value(row),
                    interval: [lows.value(row), highs.value(row)],
                    count,
                    signature: signatures.value(row).to_owned(),
                });
            }
        }
        Ok(found.into_values().collect())
    }

    pub(super) fn signatures(&self) -> BTreeMap<String, String> {
        let name = |row: &ScoreRow| format!("{}: {} ({})", self.benchmark, row.metric, row.decoding);
        self.rows.iter().map(|row| (name(row), row.signature.clone())).collect()
    }

    /// BLEU by input length, of generators.
    pub(super) fn length_plot(&self) -> Result<Option<String>> {
        let order = |bucket: &str| bucket.split('-').next().and_then(|n| n.parse::<u32>().ok());
        let mut bars: Vec<(u32, &str, &str, f64, u64)> = Vec::new();
        for row in self.rows.iter().filter(|row| row.metric == "bleu") {
            if let Some(first) = order(&row.bucket) {
                bars.push((first, &row.bucket, &row.decoding, row.value, row.count));
            }
        }
        if bars.is_empty() {
            return Ok(None);
        }
        bars.sort_by(|a, b| (a.0, a.2).cmp(&(b.0, b.2)));
        plots::bars(&bars.iter().map(|b| (b.1, b.2, b.3, b.4)).collect::<Vec<_>>()).map(Some)
    }

    pub(super) fn into_model(self, context: &Context) -> Model {
        let trained = context.inputs("training_steps").find(|m| m.step == format!("train:{}", self.model));
        let note = |key: &str| trained.and_then(|m| m.notes.get(key)).cloned();
        let kind = trained.map_or_else(
            || "no training".to_owned(),
            |m| m.config["train"][&self.model]["model"]["kind"].as_str().unwrap_or_default().to_owned(),
        );
        let all = || self.rows.iter().filter(|row| row.bucket == "all");
        let key = |row: &ScoreRow| format!("{} {}", row.decoding, row.metric);
        Model {
            kind,
            parameters: note("parameters").as_ref().and_then(Value::as_u64),
            training_seconds: note("training_seconds").as_ref().and_then(Value::as_f64),
            rows: self.rows.iter().map(|row| row.count).max().unwrap_or(0),
            scores: all().map(|row| (key(row), row.value)).collect(),
            intervals: all().map(|row| (key(row), row.interval)).collect(),
            fingerprint: self.evaluation(context),
            name: self.model,
        }
    }

    /// The fingerprint of the step that evaluated the model.
    pub(super) fn evaluation(&self, context: &Context) -> String {
        let step = format!("evaluate:{}.{}", self.model, self.benchmark);
        let found = context.all_inputs().iter().find(|input| input.manifest.step == step);
        found.map_or_else(String::new, |input| input.manifest.fingerprint.clone())
    }
}

/// The comparisons of two models that are more than chance, or not, by the metric that stands for their task.
#[derive(Serialize)]
pub(super) struct Difference {
    benchmark: String,
    model: String,
    other: String,
    /// `beam bleu`.
    by: String,
    difference: f64,
    interval: [f64; 2],
    p_value: f64,
    rows: u64,
}

pub(super) fn differences(context: &Context) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    for batch in context.read("comparisons", &[])? {
        let texts = |name| text_column(&batch, name);
        let (benchmarks, models, others) = (texts("benchmark")?, texts("model")?, texts("other")?);
        let (tasks, decodings, metrics) = (texts("task")?, texts("decoding")?, texts("metric")?);
        let numbers = |name| float_column(&batch, name);
        let (differences, p_values) = (numbers("difference")?, numbers("p_value")?);
        let (lows, highs) = (numbers("low")?, numbers("high")?);
        for (row, rows) in integer_column(&batch, "count")?.into_iter().enumerate() {
            // Of two decodings the beam's is the one to compare.
            let stands = headline(tasks.value(row)) == Some(metrics.value(row));
            if stands && matches!(decodings.value(row), "beam" | "exact") {
                found.push(Difference {
                    benchmark: benchmarks.value(row).to_owned(),
                    model: models.value(row).to_owned(),
                    other: others.value(row).to_owned(),
                    by: format!("{} {}", decodings.value(row), metrics.value(row))
                        .trim_start_matches("exact ")
                        .to_owned(),
                    difference: differences.value(row),
                    interval: [lows.value(row), highs.value(row)],
                    p_value: p_values.value(row),
                    rows,
                });
            }
        }
    }
    Ok(found)
}
