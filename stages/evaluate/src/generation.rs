//! Generation: what a model writes for each test row, greedily and by beam search.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use burn::tensor::backend::Backend;
use codepair_metrics::{GENERATION, Generated, all, same, sentence_bleu};
use codepair_model::{Decoded, Pair, Trained};
use codepair_runtime::{Context, Progress};
use codepair_schemas::rows::{Attention, Prediction, Ranking, Score};
use rayon::prelude::*;

use crate::{Evaluate, Example};

/// Rows decoded at once.
const BATCH_ROWS: usize = 32;

/// One test row, as the model sees it.
struct Row<'a> {
    example: &'a Example,
    pair: Pair,
    source: &'a str,
    reference: &'a str,
    /// Right tokens and all tokens under teacher forcing.
    forced: (u64, u64),
}

/// What was written for the rows by one way of decoding.
struct Written {
    decoding: &'static str,
    texts: Vec<String>,
    decoded: Vec<Decoded>,
}

/// Scores a generator.
pub(crate) fn evaluate<B: Backend>(
    context: &mut Context,
    config: &Evaluate,
    trained: &Trained<B>,
    examples: &[Example],
    device: &B::Device,
) -> Result<()> {
    let model = trained.generator()?;
    let rows = rows(config, trained, examples, device)?;
    let name = &trained.card.name;
    let progress = Progress::new(&format!("generating with {name}"), "rows", 2 * rows.len() as u64);
    let chunks: Vec<Vec<Vec<u32>>> =
        rows.chunks(BATCH_ROWS).map(|chunk| chunk.iter().map(|row| row.pair.source.clone()).collect()).collect();
    let decode = |by: &(dyn Fn(&[Vec<u32>]) -> Vec<Decoded> + Sync)| -> Vec<Decoded> {
        let decoded = chunks.par_iter().map(|sources| {
            let decoded = by(sources);
            progress.add(sources.len() as u64);
            decoded
        });
        decoded.flatten().collect()
    };
    let greedily = decode(&|sources| model.greedy(sources, trained.decoding(), device));
    let by_beam = decode(&|sources| model.beam(sources, config.beam_width, trained.decoding(), device));
    let written = [write("beam", trained, &rows, by_beam)?, write("greedy", trained, &rows, greedily)?];
    let mut scores: Vec<Score> = written.iter().flat_map(|w| scores(name, &rows, w, config)).collect();
    scores.sort_by(|a, b| (&a.decoding, &a.metric, &a.bucket).cmp(&(&b.decoding, &b.metric, &b.bucket)));
    let predictions: Vec<Prediction> = written.iter().flat_map(|w| predictions(name, &rows, w)).collect();
    let attention = attention(trained, &rows[..config.attention_rows.min(rows.len())], &written[1]);
    context.attempt.write_rows(scores)?;
    context.attempt.write_rows(predictions)?;
    context.attempt.write_rows(attention)?;
    context.attempt.write_rows::<Ranking>([])
}

/// The test rows with their tokens; those beyond `generate_rows` are left out.
fn rows<'a, B: Backend>(
    config: &Evaluate,
    trained: &Trained<B>,
    examples: &'a [Example],
    device: &B::Device,
) -> Result<Vec<Row<'a>>> {
    let (source, target) = (trained.card.source.column, trained.card.target.column);
    let mut rows = Vec::new();
    let has_both = |e: &&Example| [source, target].iter().all(|column| !e.column(*column).trim().is_empty());
    for example in examples.iter().filter(has_both).take(config.generate_rows.unwrap_or(usize::MAX)) {
        let pair =
            Pair { source: trained.read(example.column(source))?, target: trained.candidate(example.column(target))? };
        let (source, reference) = (example.column(source), example.column(target));
        rows.push(Row { example, pair: pair.framed(trained.card.special), source, reference, forced: (0, 0) });
    }
    for chunk in rows.chunks_mut(BATCH_ROWS) {
        let pairs: Vec<Pair> = chunk.iter().map(|row| row.pair.clone()).collect();
        for (row, forced) in chunk.iter_mut().zip(trained.generator()?.teacher_forced(&pairs, device)) {
            row.forced = forced;
        }
    }
    Ok(rows)
}

fn write<B: Backend>(
    decoding: &'static str,
    trained: &Trained<B>,
    rows: &[Row<'_>],
    decoded: Vec<Decoded>,
) -> Result<Written> {
    if let Some(at) = decoded.iter().position(|decoded| decoded.log_probability.is_nan()) {
        let (model, row) = (&trained.card.name, &rows[at].example.id);
        bail!("{model} gives what it writes for the row {row} no number as its probability ({decoding})");
    }
    let texts = decoded.iter().map(|d| trained.target.decode(&d.tokens)).collect::<Result<Vec<_>, _>>()?;
    Ok(Written { decoding, texts, decoded })
}

/// Every metric over all rows and over each bucket of input length.
fn scores(model: &str, rows: &[Row<'_>], written: &Written, config: &Evaluate) -> Vec<Score> {
    let mut buckets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        buckets.entry("all").or_default().push(at);
        buckets.entry(bucket(row.pair.source.len())).or_default().push(at);
    }
    let mut scores = Vec::new();
    for (bucket, members) in buckets {
        let samples: Vec<Generated> = members.iter().map(|&at| sample(&rows[at], &written.texts[at])).collect();
        let score = |metric: &str, signature: String, value: f64| Score {
            model: model.to_owned(),
            task: "generation".to_owned(),
            decoding: written.decoding.to_owned(),
            metric: metric.to_owned(),
            bucket: bucket.to_owned(),
            value,
            count: members.len() as u64,
            signature,
        };
        let beam = if written.decoding == "beam" { format!(", beam {}", config.beam_width) } else { String::new() };
        scores.extend(all(GENERATION).map(|m| score(m.name, format!("{}{beam}", m.signature), (m.score)(&samples))));
        if written.decoding == "greedy" {
            let entropies: Vec<f64> =
                members.iter().flat_map(|&at| written.decoded[at].attention.iter().map(|w| entropy(w))).collect();
            let mean = entropies.iter().sum::<f64>() / entropies.len().max(1) as f64;
            scores.push(score("attention_entropy", "nats, mean over written tokens".to_owned(), mean));
        }
    }
    scores
}

fn sample(row: &Row<'_>, prediction: &str) -> Generated {
    Generated {
        reference: row.reference.to_owned(),
        prediction: prediction.to_owned(),
        tokens_right: row.forced.0,
        tokens: row.forced.1,
    }
}

/// Ranges of source tokens.
fn bucket(length: usize) -> &'static str {
    match length {
        0..=8 => "1-8",
        9..=16 => "9-16",
        17..=32 => "17-32",
        _ => "33-",
    }
}

/// Entropy of attention weights, nats.
fn entropy(weights: &[f32]) -> f64 {
    -weights.iter().map(|&w| f64::from(w)).filter(|w| *w > 0.0).map(|w| w * w.ln()).sum::<f64>()
}

fn predictions(model: &str, rows: &[Row<'_>], written: &Written) -> Vec<Prediction> {
    let all = rows.iter().zip(&written.texts).zip(&written.decoded);
    all.map(|((row, text), decoded)| Prediction {
        model: model.to_owned(),
        decoding: written.decoding.to_owned(),
        ordinal: row.example.ordinal,
        id: row.example.id.clone(),
        source: row.source.to_owned(),
        reference: row.reference.to_owned(),
        prediction: text.clone(),
        log_probability: decoded.log_probability,
        source_length: row.pair.source.len() as u32,
        bleu: sentence_bleu(row.reference, text),
        exact: same(row.reference, text),
    })
    .collect()
}

fn attention<B: Backend>(trained: &Trained<B>, rows: &[Row<'_>], greedy: &Written) -> Vec<Attention> {
    let mut found = Vec::new();
    for (row, decoded) in rows.iter().zip(&greedy.decoded) {
        for (position, weights) in decoded.attention.iter().enumerate() {
            let token = decoded.tokens.get(position).map_or_else(|| "</s>".to_owned(), |t| trained.target.token(*t));
            for (source_position, (weight, source)) in weights.iter().zip(&row.pair.source).enumerate() {
                found.push(Attention {
                    model: trained.card.name.clone(),
                    ordinal: row.example.ordinal,
                    id: row.example.id.clone(),
                    target_position: position as u32,
                    target_token: token.clone(),
                    source_position: source_position as u32,
                    source_token: trained.source.token(*source),
                    weight: f64::from(*weight),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_that_of_shannon() {
        assert!((entropy(&[0.5, 0.5, 0.0]) - 2f64.ln()).abs() < 1e-9);
        assert_eq!(entropy(&[1.0]), 0.0);
    }
}
