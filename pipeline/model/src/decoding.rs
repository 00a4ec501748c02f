//! Greedy and beam search, and teacher forcing.

use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};

use crate::{AttentionLstm, Batch, Pair};
use codepair_tokenizer::{BEGIN, END};

/// What a generator wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Tokens, the end token left out.
    pub tokens: Vec<u32>,
    /// Sum of the tokens' log-probabilities, the end token's included, nats.
    pub log_probability: f64,
    /// Attention over the source for each token written, the end token included; greedy search only.
    pub attention: Vec<Vec<f32>>,
}

/// Writes the most probable token each time, for all sources at once, at most `length` tokens.
pub fn greedy<B: Backend>(
    model: &AttentionLstm<B>,
    sources: &[Vec<u32>],
    length: usize,
    device: &B::Device,
) -> Vec<Decoded> {
    let batch = read::<B>(sources, device);
    let (memory, mut state) = model.encode(batch.source, batch.source_mask);
    let mut decoded = vec![Decoded::default(); sources.len()];
    let mut done = vec![false; sources.len()];
    let mut tokens = vec![BEGIN; sources.len()];
    for _ in 0..length {
        let (log_probabilities, weights, next) = model.step(&memory, ids(&tokens, device), state);
        state = next;
        let best = log_probabilities.clone().argmax(1);
        let scores: Vec<f32> = floats(log_probabilities.gather(1, best.clone()).into_data());
        let best: Vec<i64> = best.into_data().iter::<i64>().collect();
        let width = weights.dims()[1];
        let weights: Vec<f32> = floats(weights.into_data());
        for row in 0..sources.len() {
            tokens[row] = best[row] as u32;
            if done[row] {
                continue;
            }
            decoded[row].log_probability += f64::from(scores[row]);
            let seen = sources[row].len().min(width);
            decoded[row].attention.push(weights[row * width..row * width + seen].to_vec());
            if tokens[row] == END {
                done[row] = true;
            } else {
                decoded[row].tokens.push(tokens[row]);
            }
        }
        if done.iter().all(|done| *done) {
            break;
        }
    }
    decoded
}

/// A hypothesis of the beam.
#[derive(Clone)]
struct Hypothesis {
    tokens: Vec<u32>,
    score: f64,
}

impl Hypothesis {
    /// Mean log-probability a token, the end token counted: without it short answers always win.
    fn normalised(&self) -> f64 {
        self.score / (self.tokens.len() + 1) as f64
    }
}

/// Beam search with `width` hypotheses; of the finished ones the best by mean log-probability a token is taken.
pub fn beam<B: Backend>(
    model: &AttentionLstm<B>,
    source: &[u32],
    width: usize,
    length: usize,
    device: &B::Device,
) -> Decoded {
    let batch = read::<B>(std::slice::from_ref(&source.to_vec()), device);
    let (memory, start) = model.encode(batch.source, batch.source_mask);
    let mut open = vec![Hypothesis { tokens: Vec::new(), score: 0.0 }];
    let mut state = start;
    let mut finished: Vec<Hypothesis> = Vec::new();
    for _ in 0..length {
        let last: Vec<u32> = open.iter().map(|h| h.tokens.last().copied().unwrap_or(BEGIN)).collect();
        let (log_probabilities, _, next) = model.step(&memory.clone().repeat(open.len()), ids(&last, device), state);
        let chosen = expand(&open, log_probabilities, width);
        let mut rows = Vec::new();
        let mut kept = Vec::new();
        for (row, token, score) in chosen {
            let mut tokens = open[row].tokens.clone();
            if token == END {
                finished.push(Hypothesis { tokens, score });
            } else {
                tokens.push(token);
                rows.push(row as u32);
                kept.push(Hypothesis { tokens, score });
            }
        }
        open = kept;
        if open.is_empty() || finished.len() >= width {
            break;
        }
        state = next.rows(ids(&rows, device));
    }
    finished.extend(open);
    let best = finished.into_iter().reduce(|a, b| if b.normalised() > a.normalised() { b } else { a });
    best.map_or_else(Decoded::default, |h| Decoded {
        tokens: h.tokens,
        log_probability: h.score,
        attention: Vec::new(),
    })
}

/// The `width` best continuations of all hypotheses: hypothesis, token, score; best first, ties by order.
fn expand<B: Backend>(open: &[Hypothesis], log_probabilities: Tensor<B, 2>, width: usize) -> Vec<(usize, u32, f64)> {
    let vocabulary = log_probabilities.dims()[1];
    let values: Vec<f32> = floats(log_probabilities.into_data());
    let mut all = Vec::new();
    for (row, hypothesis) in open.iter().enumerate() {
        let own = &values[row * vocabulary..(row + 1) * vocabulary];
        let mut best: Vec<usize> = (0..vocabulary).collect();
        let by_value = |a: &usize, b: &usize| own[*b].total_cmp(&own[*a]).then(a.cmp(b));
        if width < vocabulary {
            best.select_nth_unstable_by(width, by_value);
            best.truncate(width);
        }
        all.extend(best.into_iter().map(|token| (row, token as u32, hypothesis.score + f64::from(own[token]))));
    }
    all.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    all.truncate(width);
    all
}

/// For each pair, how many target tokens (the end token included) the model puts first when fed the right ones before
/// them, and how many there are. Targets are framed.
pub fn teacher_forced<B: Backend>(model: &AttentionLstm<B>, pairs: &[Pair], device: &B::Device) -> Vec<(u64, u64)> {
    let batch = Batch::<B>::new(pairs, &[], device);
    let logits = model.logits(&batch);
    let width = logits.dims()[1];
    let best: Vec<i64> = logits.argmax(2).into_data().iter::<i64>().collect();
    let count = |(row, pair): (usize, &Pair)| {
        let labels = &pair.target[1..];
        let right =
            labels.iter().enumerate().filter(|(at, label)| best[row * width + at] == i64::from(**label)).count();
        (right as u64, labels.len() as u64)
    };
    pairs.iter().enumerate().map(count).collect()
}

fn read<B: Backend>(sources: &[Vec<u32>], device: &B::Device) -> Batch<B> {
    let pairs: Vec<Pair> = sources.iter().map(|s| Pair { source: s.clone(), target: Vec::new() }).collect();
    Batch::new(&pairs, &[], device)
}

fn ids<B: Backend>(tokens: &[u32], device: &B::Device) -> Tensor<B, 1, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let count = tokens.len();
    Tensor::from_data(TensorData::new(tokens, [count]), device)
}

fn floats(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().map(|value| value.elem()).collect()
}
