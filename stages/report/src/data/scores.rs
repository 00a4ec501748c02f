//! The comparison tables and the plot of scores by input length.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use codepair_metrics::{Better, GENERATION, SEARCH, all, better, headline};
use codepair_runtime::{Context, Variation, float_column, integer_column, text_column};
use serde::Serialize;
use serde_json::Value;

use crate::plots;

/// A model with its scores on a benchmark by `decoding metric`.
#[derive(Serialize)]
pub(super) struct Model {
    name: String,
    /// What it has of the lists of its table.
    settings: String,
    kind: String,
    parameters: Option<u64>,
    training_seconds: Option<f64>,
    rows: u64,
    scores: BTreeMap<String, f64>,
    /// The ends of each score's interval.
    intervals: BTreeMap<String, [f64; 2]>,
    fingerprint: String,
}

impl Model {
    /// Its name, and its MRR as a multiple of what a random ranking would reach.
    pub(super) fn over_chance(&self) -> Option<(String, f64)> {
        let of = |metric: &str| self.scores.get(&format!("exact {metric}"));
        Some((self.name.clone(), of("mrr")? / of("mrr_of_random")?))
    }
}

/// Models that differ in their seeds alone.
#[derive(Serialize)]
pub(super) struct Group {
    name: String,
    /// What they have in common of the lists of their table.
    settings: String,
    runs: usize,
    /// Mean and standard deviation of each score.
    scores: BTreeMap<String, [f64; 2]>,
}

/// The models of a table together that differ in their seeds alone, where there are several.
pub(super) fn groups(models: &[Model], variations: &[Variation]) -> Vec<Group> {
    let mut members: BTreeMap<(&str, String), Vec<&Model>> = BTreeMap::new();
    for variation in variations {
        let own = models.iter().find(|model| model.name == variation.name);
        members.entry((&variation.of, variation.settings())).or_default().extend(own);
    }
    let several = members.into_iter().filter(|(_, models)| models.len() > 1);
    let group = |((name, settings), models): ((&str, String), Vec<&Model>)| {
        let keys: BTreeSet<&String> = models.iter().flat_map(|model| model.scores.keys()).collect();
        let of = |key: &String| {
            let values: Vec<f64> = models.iter().filter_map(|model| model.scores.get(key)).copied().collect();
            (key.clone(), mean_and_deviation(&values))
        };
        Group { name: name.to_owned(), settings, runs: models.len(), scores: keys.into_iter().map(of).collect() }
    };
    several.map(group).collect()
}

/// Mean and standard deviation of a sample.
fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()]
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
        let variation = context.config.variations("train").iter().find(|variation| variation.name == self.model);
        Model {
            settings: variation.map_or_else(String::new, Variation::all_settings),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_put_together_and_nothing_else() {
        let model = |name: &str, mrr: f64| Model {
            name: name.to_owned(),
            settings: String::new(),
            kind: String::new(),
            parameters: None,
            training_seconds: None,
            rows: 1,
            scores: BTreeMap::from([("exact mrr".to_owned(), mrr)]),
            intervals: BTreeMap::new(),
            fingerprint: String::new(),
        };
        let text = "name = \"t\"\n[train.a]\nrate = [0.1, 0.2]\nseeds = [1, 2, 3]\n[train.b]\nrate = [1, 2]\n";
        let config = codepair_runtime::Config::parse(text, std::path::Path::new("c.toml"), &[]).unwrap();
        // Seeds change last: a-1 to a-3 are not of one rate.
        let names = ["a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "b-1", "b-2"];
        let models: Vec<Model> =
            names.iter().zip([1.0, 10.0, 2.0, 20.0, 3.0, 60.0, 5.0, 6.0]).map(|(name, mrr)| model(name, mrr)).collect();
        let found = groups(&models, config.variations("train"));
        let all: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.settings.as_str(), one.runs)).collect();
        assert_eq!(all, [("a", "rate = 0.1", 3), ("a", "rate = 0.2", 3)]);
        assert_eq!(found[0].scores["exact mrr"], [2.0, 1.0]);
        assert!((found[1].scores["exact mrr"][1] - 700f64.sqrt()).abs() < 1e-9);
    }
}
