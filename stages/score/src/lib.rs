//! Score: what the predictions and rankings of all models are worth. Pure: no model is loaded and nothing is decoded, so a new
//! metric costs seconds.

mod resampling;
mod samples;

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_metrics::{Better, GENERATION, SEARCH, all};
use codepair_runtime::{Config, Context, Input, Progress, Stage, Step, config_error, overrides};
use codepair_schemas::rows::{Comparison, Score as Row};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::resampling::Resampling;
use crate::samples::{Column, Samples};

/// How sure scores are.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scoring {
    /// Resamples of the rows for intervals, and exchanges for tests.
    pub resamples: usize,
    /// The share of resamples that an interval holds.
    pub confidence: f64,
    /// Of the resamples.
    pub seed: u64,
}

impl Default for Scoring {
    fn default() -> Self {
        Self { resamples: 1000, confidence: 0.95, seed: 0 }
    }
}

/// The stage.
pub struct Score;

impl Stage for Score {
    const NAME: &'static str = "score";
    type Config = Scoring;

    fn steps(config: &Scoring, _whole: &Config) -> Result<Vec<Step>> {
        if config.resamples < 100 || !(0.5..1.0).contains(&config.confidence) {
            return Err(config_error("score.resamples must be at least 100, and score.confidence from 0.5 to below 1"));
        }
        let value = serde_json::to_value(config)?;
        let changed = overrides(&value, &serde_json::to_value(Scoring::default())?);
        // A new metric is a reason to score again, so the fingerprint names them all.
        let metrics: BTreeMap<&str, &str> = all(GENERATION)
            .map(|metric| (metric.name, metric.signature))
            .chain(all(SEARCH).map(|metric| (metric.name, metric.signature)))
            .collect();
        Ok(vec![Step {
            config: json!({ "score": value, "metrics": metrics }),
            overrides: json!({ "score": changed, "metrics": metrics }),
            inputs: vec![Input::all("predictions"), Input::all("rankings")],
            ..Step::default()
        }])
    }

    fn run(context: &mut Context, config: &Scoring) -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(context.threads).build()?;
        let samples = pool.install(|| samples::read(context))?;
        let resampling = Resampling { times: config.resamples, confidence: config.confidence, seed: config.seed };
        let progress = Progress::new("scoring", "scores", samples.iter().map(|one| one.columns.len() as u64).sum());
        let scores = pool.install(|| {
            let scores = samples.par_iter().map(|one| {
                let scores = scores(one, &resampling);
                progress.add(one.columns.len() as u64);
                scores
            });
            scores.flatten().collect::<Vec<Row>>()
        });
        let comparisons = pool.install(|| comparisons(&samples, &resampling));
        context.attempt.write_rows(scores)?;
        context.attempt.write_rows(comparisons)
    }
}

/// Every metric over all rows and over each bucket of input length, sorted by metric and bucket.
fn scores(samples: &Samples, resampling: &Resampling) -> Vec<Row> {
    let mut buckets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, bucket) in samples.buckets.iter().enumerate() {
        buckets.entry("all").or_default().push(at);
        bucket.iter().for_each(|bucket| buckets.entry(bucket).or_default().push(at));
    }
    let mut found = Vec::new();
    for column in &samples.columns {
        for (bucket, members) in &buckets {
            let rows: Vec<&[f64]> = members.iter().map(|&at| column.sums[at].as_slice()).collect();
            let Some(value) = (column.value)(&resampling::sum(&rows)) else { continue };
            let (low, high) = resampling.interval(&resampling.values(&samples.benchmark, &rows, column.value));
            let signature = [column.signature, samples.signature.as_str()];
            found.push(Row {
                benchmark: samples.benchmark.clone(),
                model: samples.model.clone(),
                protocol: samples.protocol.clone(),
                task: samples.task.to_owned(),
                decoding: samples.decoding.clone(),
                metric: column.metric.to_owned(),
                bucket: (*bucket).to_owned(),
                value,
                low,
                high,
                count: members.len() as u64,
                signature: signature.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "),
            });
        }
    }
    found
}

/// Every two models that did the same benchmark by the same decoding on the same rows, by every metric that has a better side.
fn comparisons(samples: &[Samples], resampling: &Resampling) -> Vec<Comparison> {
    let mut pairs = Vec::new();
    for (at, one) in samples.iter().enumerate() {
        for other in &samples[at + 1..] {
            if one.is_comparable(other) {
                let columns = one.columns.iter().zip(&other.columns).filter(|(own, _)| own.better != Better::Neither);
                pairs.extend(columns.map(|columns| (one, other, columns)));
            }
        }
    }
    let compared = pairs.into_par_iter().filter_map(|(one, other, columns)| compare(one, other, columns, resampling));
    let mut found: Vec<Comparison> = compared.collect();
    let key =
        |row: &Comparison| [&row.benchmark, &row.decoding, &row.metric, &row.model, &row.other].map(String::clone);
    found.sort_by_cached_key(key);
    found
}

fn compare(
    one: &Samples,
    other: &Samples,
    (own, theirs): (&Column, &Column),
    resampling: &Resampling,
) -> Option<Comparison> {
    let (own_rows, their_rows) = (own.rows(), theirs.rows());
    let difference = (own.value)(&resampling::sum(&own_rows))? - (own.value)(&resampling::sum(&their_rows))?;
    // Both are resampled alike, so the differences are those of pairs.
    let own_values = resampling.values(&one.benchmark, &own_rows, own.value);
    let their_values = resampling.values(&one.benchmark, &their_rows, own.value);
    let differences: Vec<f64> = own_values.iter().zip(&their_values).map(|(own, their)| own - their).collect();
    let (low, high) = resampling.interval(&differences);
    Some(Comparison {
        benchmark: one.benchmark.clone(),
        model: one.model.clone(),
        other: other.model.clone(),
        task: one.task.to_owned(),
        decoding: one.decoding.clone(),
        metric: own.metric.to_owned(),
        difference,
        low,
        high,
        p_value: resampling.exchanged(&one.benchmark, [&own_rows, &their_rows], own.value, difference),
        count: own_rows.len() as u64,
        signature: resampling.signature(),
    })
}
