//! Generation: what a model writes for each test row, greedily and by beam search.

use anyhow::{Result, bail};
use burn::tensor::backend::Backend;
use codepair_model::{Decoded, Pair, Trained};
use codepair_runtime::{Context, Progress};
use codepair_schemas::rows::{Attention, Prediction, Ranking};
use rayon::prelude::*;

use crate::{Example, Generation, Run};

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
    signature: String,
    texts: Vec<String>,
    decoded: Vec<Decoded>,
}

/// Lets a generator write.
pub(crate) fn evaluate<B: Backend>(
    context: &mut Context,
    config: &Generation,
    run: &Run,
    trained: &Trained<B>,
    device: &B::Device,
) -> Result<()> {
    let model = trained.generator()?;
    let rows = rows(config, trained, run.examples, device)?;
    let progress = Progress::new(&format!("generating with {}", run.model), "rows", 2 * rows.len() as u64);
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
    let protocol = run.protocol(trained.card.source.column.name(), trained.card.target.column.name());
    let by_beam = write("beam", format!("beam {}", config.beam_width), trained, &rows, by_beam)?;
    let greedily = write("greedy", "greedy".to_owned(), trained, &rows, greedily)?;
    let predictions: Vec<Prediction> =
        [&by_beam, &greedily].into_iter().flat_map(|written| predictions(run, &protocol, &rows, written)).collect();
    let attention = attention(run, trained, &rows[..config.attention_rows.min(rows.len())], &greedily);
    context.attempt.write_rows(predictions)?;
    context.attempt.write_rows(attention)?;
    context.attempt.write_rows::<Ranking>([])
}

/// The rows with their tokens; those beyond `rows` are left out.
fn rows<'a, B: Backend>(
    config: &Generation,
    trained: &Trained<B>,
    examples: &'a [Example],
    device: &B::Device,
) -> Result<Vec<Row<'a>>> {
    let (source, target) = (trained.card.source.column, trained.card.target.column);
    let mut rows = Vec::new();
    let has_both = |e: &&Example| [source, target].iter().all(|column| !e.column(*column).trim().is_empty());
    for example in examples.iter().filter(has_both).take(config.rows.unwrap_or(usize::MAX)) {
        let (source, reference) = (example.column(source), example.column(target));
        let mut target = trained.target.encode(reference)?;
        let is_cut = target.len() > trained.card.target.max_tokens;
        target.truncate(trained.card.target.max_tokens);
        let mut pair = Pair { source: trained.read(source)?, target }.framed(trained.card.special);
        // A reference that goes on does not end there.
        if is_cut {
            pair.target.pop();
        }
        rows.push(Row { example, pair, source, reference, forced: (0, 0) });
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
    signature: String,
    trained: &Trained<B>,
    rows: &[Row<'_>],
    decoded: Vec<Decoded>,
) -> Result<Written> {
    if let Some(at) = decoded.iter().position(|decoded| decoded.log_probability.is_nan()) {
        let (model, row) = (&trained.card.name, &rows[at].example.id);
        bail!("{model} gives what it writes for the row {row} no number as its probability ({decoding})");
    }
    let texts = decoded.iter().map(|d| trained.target.decode(&d.tokens)).collect::<Result<Vec<_>, _>>()?;
    Ok(Written { decoding, signature, texts, decoded })
}

/// Entropy of attention weights, nats.
fn entropy(weights: &[f32]) -> f64 {
    -weights.iter().map(|&w| f64::from(w)).filter(|w| *w > 0.0).map(|w| w * w.ln()).sum::<f64>()
}

fn predictions(run: &Run, protocol: &str, rows: &[Row<'_>], written: &Written) -> Vec<Prediction> {
    let all = rows.iter().zip(&written.texts).zip(&written.decoded);
    all.map(|((row, text), decoded)| {
        let entropies = decoded.attention.iter().map(|weights| entropy(weights));
        let mean = entropies.sum::<f64>() / decoded.attention.len().max(1) as f64;
        Prediction {
            benchmark: run.benchmark.to_owned(),
            model: run.model.to_owned(),
            protocol: protocol.to_owned(),
            decoding: written.decoding.to_owned(),
            ordinal: row.example.ordinal,
            id: row.example.id.clone(),
            source: row.source.to_owned(),
            reference: row.reference.to_owned(),
            prediction: text.clone(),
            log_probability: decoded.log_probability,
            source_length: row.pair.source.len() as u32,
            tokens_right: row.forced.0,
            tokens: row.forced.1,
            attention_entropy: (!decoded.attention.is_empty()).then_some(mean),
            tokens_written: decoded.written as u64,
            signature: written.signature.clone(),
        }
    })
    .collect()
}

fn attention<B: Backend>(run: &Run, trained: &Trained<B>, rows: &[Row<'_>], greedy: &Written) -> Vec<Attention> {
    let mut found = Vec::new();
    for (row, decoded) in rows.iter().zip(&greedy.decoded) {
        for (position, weights) in decoded.attention.iter().enumerate() {
            let token = decoded.tokens.get(position).copied().unwrap_or(trained.card.special.end);
            let token = trained.target.token(token);
            for (source_position, (weight, source)) in weights.iter().zip(&row.pair.source).enumerate() {
                found.push(Attention {
                    benchmark: run.benchmark.to_owned(),
                    model: run.model.to_owned(),
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
