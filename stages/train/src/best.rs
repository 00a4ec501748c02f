//! What says which epoch is the best, where that is not the validation loss.

use anyhow::{Result, ensure};
use burn::tensor::backend::Backend;
use codepair_metrics::{Better, GENERATION, Generated, Metric, Ranked, SEARCH, all};
use codepair_model::{Decoding, Encoder, Generator, Model, Pair, Role, Task};
use codepair_search::{dot, rank_of};
use codepair_tokenizer::{Special, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::data::Examples;

/// Rows decoded at once.
const BATCH_ROWS: usize = 64;

/// A metric of `score`, over some rows of the validation split: what a generator writes greedily, or what is found among the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BestBy {
    /// Its name, such as `bleu` or `mrr`.
    pub metric: String,
    /// So many rows, spread evenly over the validation split.
    #[serde(default = "rows")]
    pub rows: u64,
}

fn rows() -> u64 {
    500
}

/// What a trained model writes, and by which tokenizer.
#[derive(Clone, Copy)]
pub(crate) struct Writing<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) special: Special,
    /// Tokens at most.
    pub(crate) length: usize,
}

impl BestBy {
    /// # Errors
    /// The key, and why its value cannot be.
    pub(crate) fn check(&self, task: Task) -> Result<(), String> {
        if self.rows < 2 {
            return Err("rows must be at least 2".to_owned());
        }
        let known = match task {
            Task::Generation => names(GENERATION),
            Task::Search => names(SEARCH),
        };
        if known.contains(&self.metric.as_str()) {
            return Ok(());
        }
        Err(format!("metric = {:?} is none of {}", self.metric, known.join(", ")))
    }

    /// The score of a model, and the same so that less is better.
    ///
    /// # Errors
    /// An example cannot be read, or the rows give no score.
    pub(crate) fn score<B: Backend>(
        &self,
        model: &Model<B>,
        validation: &Examples,
        writing: Writing,
        device: &B::Device,
    ) -> Result<(f64, f64)> {
        let count = self.rows.min(validation.len());
        let pairs = (0..count).map(|row| Ok(validation.get(row * validation.len() / count.max(1), 0, None)?.pair));
        let pairs = pairs.collect::<Result<Vec<Pair>>>()?;
        let found = match model {
            Model::Generator(model) => of(GENERATION, &self.metric, &written(model, &pairs, writing, device)?),
            Model::Encoder(model) => of(SEARCH, &self.metric, &ranked(model, &pairs, device)),
        };
        let (score, better) = found.unwrap_or((f64::NAN, Better::Neither));
        ensure!(score.is_finite(), "the {count} rows of the validation split give no {}", self.metric);
        Ok((score, if better == Better::Higher { -score } else { score }))
    }
}

/// The names of the metrics by which one model is better than another.
fn names<T>(list: &'static [&'static [Metric<T>]]) -> Vec<&'static str> {
    all(list).filter(|metric| metric.better != Better::Neither).map(|metric| metric.name).collect()
}

fn of<T>(list: &'static [&'static [Metric<T>]], name: &str, samples: &[T]) -> Option<(f64, Better)> {
    let metric = all(list).find(|metric| metric.name == name)?;
    Some((metric.score(samples)?, metric.better))
}

/// What a generator writes for each source.
fn written<B: Backend>(
    model: &Generator<B>,
    pairs: &[Pair],
    writing: Writing,
    device: &B::Device,
) -> Result<Vec<Generated>> {
    let mut all = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(BATCH_ROWS) {
        let sources: Vec<Vec<u32>> = chunk.iter().map(|pair| pair.source.clone()).collect();
        let decoded = model.greedy(&sources, Decoding { special: writing.special, length: writing.length }, device);
        let framed: Vec<Pair> = chunk.iter().map(|pair| pair.clone().framed(writing.special)).collect();
        let forced = model.teacher_forced(&framed, device);
        for ((pair, decoded), (tokens_right, tokens)) in chunk.iter().zip(decoded).zip(forced) {
            let (reference, prediction) =
                (writing.tokenizer.decode(&pair.target)?, writing.tokenizer.decode(&decoded.tokens)?);
            all.push(Generated { reference, prediction, tokens_right, tokens, attention: None });
        }
    }
    Ok(all)
}

/// The rank of each source's own target among all, ties counted against it.
fn ranked<B: Backend>(model: &Encoder<B>, pairs: &[Pair], device: &B::Device) -> Vec<Ranked> {
    let sources: Vec<&[u32]> = pairs.iter().map(|pair| pair.source.as_slice()).collect();
    let targets: Vec<&[u32]> = pairs.iter().map(|pair| pair.target.as_slice()).collect();
    let queries = model.encoded(Role::Query, &sources, device);
    let documents = model.encoded(Role::Document, &targets, device);
    let rank = |(row, query): (usize, &Vec<f32>)| {
        let scores: Vec<f32> = documents.iter().map(|document| dot(query, document)).collect();
        Ranked { rank: rank_of(&scores, row), candidates: scores.len() }
    };
    queries.iter().enumerate().map(rank).collect()
}
