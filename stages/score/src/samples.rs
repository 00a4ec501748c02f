//! What each row of a benchmark adds to each metric, read from predictions and rankings one step at a time.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::array::{Array, AsArray, RecordBatch};
use codepair_metrics::{Better, GENERATION, Generated, Metric, Ranked, SEARCH, all};
use codepair_runtime::{Context, column, float_column, integer_column, read_output, text_column};
use rayon::prelude::*;

use crate::resampling::Value;

/// A metric over the rows of [`Samples`].
pub(crate) struct Column {
    pub(crate) metric: &'static str,
    pub(crate) signature: &'static str,
    pub(crate) better: Better,
    pub(crate) value: Value,
    /// What each row adds.
    pub(crate) sums: Vec<Vec<f64>>,
}

impl Column {
    /// What each row adds.
    pub(crate) fn rows(&self) -> Vec<&[f64]> {
        self.sums.iter().map(Vec::as_slice).collect()
    }
}

/// What a model made of a benchmark by one decoding; rows in the order of their ordinals.
pub(crate) struct Samples {
    pub(crate) benchmark: String,
    pub(crate) model: String,
    /// Which rows, what was read and what written or found.
    pub(crate) protocol: String,
    pub(crate) task: &'static str,
    pub(crate) decoding: String,
    /// How it was decoded.
    pub(crate) signature: String,
    ordinals: Vec<u64>,
    /// The range of source tokens of each row, where it has one.
    pub(crate) buckets: Vec<Option<&'static str>>,
    pub(crate) columns: Vec<Column>,
}

impl Samples {
    /// Whether both did the same with the same rows.
    pub(crate) fn is_comparable(&self, other: &Self) -> bool {
        let of = |one: &Self| [&one.benchmark, &one.decoding, &one.protocol].map(String::clone);
        of(self) == of(other) && self.ordinals == other.ordinals
    }
}

/// The samples of every step that wrote some, sorted by benchmark, model and decoding.
pub(crate) fn read(context: &Context) -> Result<Vec<Samples>> {
    let mut found = Vec::new();
    for manifest in context.inputs("predictions") {
        predictions(&read_output(&context.store, manifest, "predictions", &[])?, &mut found)?;
    }
    let columns = ["benchmark", "model", "protocol", "ordinal", "rank", "relevant", "candidates"];
    for manifest in context.inputs("rankings") {
        rankings(&read_output(&context.store, manifest, "rankings", &columns)?, &mut found)?;
    }
    found.sort_by(|a, b| (&a.benchmark, &a.model, &a.decoding).cmp(&(&b.benchmark, &b.model, &b.decoding)));
    Ok(found)
}

/// A row as a metric sees it.
struct Sampled<T> {
    ordinal: u64,
    bucket: Option<&'static str>,
    sample: T,
}

fn columns<T: Sync + 'static>(metrics: impl Iterator<Item = &'static Metric<T>>, rows: &[Sampled<T>]) -> Vec<Column> {
    let mut columns: Vec<Column> = metrics
        .map(|metric| Column {
            metric: metric.name,
            signature: metric.signature,
            better: metric.better,
            value: metric.value,
            sums: rows.par_iter().map(|row| (metric.sums)(&row.sample)).collect(),
        })
        .collect();
    columns.sort_by_key(|column| column.metric);
    columns
}

fn predictions(batches: &[RecordBatch], found: &mut Vec<Samples>) -> Result<()> {
    let mut all_rows: BTreeMap<[String; 5], Vec<Sampled<Generated>>> = BTreeMap::new();
    for batch in batches {
        let texts = |name| text_column(batch, name);
        let keys = ["benchmark", "model", "protocol", "decoding", "signature"].map(texts);
        let [benchmarks, models, protocols, decodings, signatures] = keys;
        let keys = [benchmarks?, models?, protocols?, decodings?, signatures?];
        let (references, predictions) = (texts("reference")?, texts("prediction")?);
        let numbers = |name| integer_column(batch, name);
        let (ordinals, lengths) = (numbers("ordinal")?, numbers("source_length")?);
        let (right, tokens, written) = (numbers("tokens_right")?, numbers("tokens")?, numbers("tokens_written")?);
        let entropies = float_column(batch, "attention_entropy")?;
        for row in 0..batch.num_rows() {
            let sample = Generated {
                reference: references.value(row).to_owned(),
                prediction: predictions.value(row).to_owned(),
                tokens_right: right[row],
                tokens: tokens[row],
                attention: entropies.is_valid(row).then(|| (entropies.value(row), written[row])),
            };
            let (ordinal, bucket) = (ordinals[row], Some(bucket(lengths[row])));
            let key = keys.map(|column| column.value(row).to_owned());
            all_rows.entry(key).or_default().push(Sampled { ordinal, bucket, sample });
        }
    }
    for ([benchmark, model, protocol, decoding, signature], rows) in all_rows {
        found.push(Samples {
            benchmark,
            model,
            protocol,
            task: "generation",
            decoding,
            signature,
            ordinals: rows.iter().map(|row| row.ordinal).collect(),
            buckets: rows.iter().map(|row| row.bucket).collect(),
            columns: columns(all(GENERATION), &rows),
        });
    }
    Ok(())
}

/// Of each query the row of the right candidate is enough.
fn rankings(batches: &[RecordBatch], found: &mut Vec<Samples>) -> Result<()> {
    let mut all_rows: BTreeMap<[String; 3], Vec<Sampled<Ranked>>> = BTreeMap::new();
    for batch in batches {
        let texts = |name| text_column(batch, name);
        let (benchmarks, models, protocols) = (texts("benchmark")?, texts("model")?, texts("protocol")?);
        let (ordinals, ranks) = (integer_column(batch, "ordinal")?, integer_column(batch, "rank")?);
        let candidates = integer_column(batch, "candidates")?;
        let relevant = column(batch, "relevant")?.as_boolean();
        for row in (0..batch.num_rows()).filter(|&row| relevant.value(row)) {
            let sample = Ranked { rank: ranks[row] as usize, candidates: candidates[row] as usize };
            let key = [benchmarks, models, protocols].map(|column| column.value(row).to_owned());
            all_rows.entry(key).or_default().push(Sampled { ordinal: ordinals[row], bucket: None, sample });
        }
    }
    for ([benchmark, model, protocol], rows) in all_rows {
        found.push(Samples {
            benchmark,
            model,
            protocol,
            task: "search",
            decoding: "exact".to_owned(),
            signature: String::new(),
            ordinals: rows.iter().map(|row| row.ordinal).collect(),
            buckets: rows.iter().map(|row| row.bucket).collect(),
            columns: columns(all(SEARCH), &rows),
        });
    }
    Ok(())
}

/// Ranges of source tokens.
fn bucket(length: u64) -> &'static str {
    match length {
        0..=8 => "1-8",
        9..=16 => "9-16",
        17..=32 => "17-32",
        _ => "33-",
    }
}
