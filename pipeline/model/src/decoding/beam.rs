//! Beam search over many sources at once: the open hypotheses of all of them are the rows of one state.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;

use super::{Decoded, Decoding, floats, ids};
use crate::batch::Tokens;
use crate::generators::{Generate, Step};
use crate::layers::Rows as _;

/// A hypothesis.
#[derive(Clone, Default)]
struct Hypothesis {
    tokens: Vec<u32>,
    is_ended: bool,
    score: f64,
}

impl Hypothesis {
    /// Mean log-probability a token, the end token counted where there is one: without it short answers always win.
    fn normalised(&self) -> f64 {
        self.score / (self.tokens.len() + usize::from(self.is_ended)).max(1) as f64
    }
}

/// The hypotheses of one source.
#[derive(Clone)]
struct Search {
    open: Vec<Hypothesis>,
    finished: Vec<Hypothesis>,
}

pub(super) fn beam<B: Backend, G: Generate<B>>(
    model: &G,
    source: &Tokens<B>,
    width: usize,
    decoding: Decoding,
) -> Vec<Decoded> {
    let Decoding { special, length } = decoding;
    let device = source.ids.device();
    let mut state = model.begin(source);
    let mut searches = vec![Search { open: vec![Hypothesis::default()], finished: Vec::new() }; source.rows()];
    for _ in 0..length {
        let open = || searches.iter().flat_map(|search| &search.open);
        let last: Vec<u32> = open().map(|one| one.tokens.last().copied().unwrap_or(special.begin)).collect();
        let Step { logits, state: next, .. } = model.step(ids(&last, &device), state);
        let log_probabilities = log_softmax(logits, 1);
        let vocabulary = log_probabilities.dims()[1];
        let values = floats(log_probabilities.into_data());
        let mut rows = Vec::new();
        let mut first = 0;
        for search in &mut searches {
            let before = search.open.len();
            let own = &values[first * vocabulary..(first + before) * vocabulary];
            rows.extend(
                search.advance(own, vocabulary, width, special.end).into_iter().map(|row| (first + row) as u32),
            );
            first += before;
        }
        if rows.is_empty() {
            break;
        }
        let stays = rows.len() == first && rows.iter().enumerate().all(|(at, row)| at == *row as usize);
        state = if stays { next } else { next.select(&ids(&rows, &device)) };
    }
    searches.into_iter().map(Search::best).collect()
}

impl Search {
    /// Puts a token behind every open hypothesis and keeps the best: of which former ones the open ones are made.
    fn advance(&mut self, values: &[f32], vocabulary: usize, width: usize, end: u32) -> Vec<usize> {
        let mut rows = Vec::new();
        let mut kept = Vec::new();
        for (row, token, score) in expand(&self.open, values, vocabulary, width) {
            let mut tokens = self.open[row].tokens.clone();
            if token == end {
                self.finished.push(Hypothesis { tokens, is_ended: true, score });
            } else {
                tokens.push(token);
                rows.push(row);
                kept.push(Hypothesis { tokens, is_ended: false, score });
            }
        }
        // As transformers has it: enough are finished, and none that is open is better than the worst of them.
        self.finished.sort_by(|a, b| b.normalised().total_cmp(&a.normalised()));
        self.finished.truncate(width);
        let open = kept.iter().map(Hypothesis::normalised).fold(f64::NEG_INFINITY, f64::max);
        if self.finished.get(width - 1).is_some_and(|worst| worst.normalised() >= open) {
            kept.clear();
            rows.clear();
        }
        self.open = kept;
        rows
    }

    /// The best of those that ended, or where none did of those that were cut.
    fn best(self) -> Decoded {
        let all = if self.finished.is_empty() { self.open } else { self.finished };
        let better = |a: Hypothesis, b: Hypothesis| if b.normalised() > a.normalised() { b } else { a };
        let best = all.into_iter().reduce(better).unwrap_or_default();
        let written = best.tokens.len() + usize::from(best.is_ended);
        Decoded { tokens: best.tokens, written, log_probability: best.score, attention: Vec::new() }
    }
}

/// The `width` best continuations of all hypotheses: hypothesis, token, score; best first, ties by order. `values` are the
/// log-probabilities, a row of the vocabulary for each hypothesis.
fn expand(open: &[Hypothesis], values: &[f32], vocabulary: usize, width: usize) -> Vec<(usize, u32, f64)> {
    let mut all = Vec::new();
    for (row, (hypothesis, own)) in open.iter().zip(values.chunks(vocabulary)).enumerate() {
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
