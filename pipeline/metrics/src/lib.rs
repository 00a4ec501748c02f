//! Scores, one file a metric, no I/O.
//!
//! A new metric is a new file and one line in [`GENERATION`] or [`SEARCH`]; evaluation, storage and report follow.

pub mod bleu;
mod exact_match;
mod mrr;
mod ndcg;
mod recall;
mod token_accuracy;

/// What a generator wrote for one input.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// What was to be written.
    pub reference: String,
    /// What was written.
    pub prediction: String,
    /// Tokens of the reference that the model puts first when it is fed the right ones before them.
    pub tokens_right: u64,
    /// Tokens of the reference.
    pub tokens: u64,
}

/// A metric over a whole set of samples `T`.
pub struct Metric<T> {
    /// Its name, as it stands in `scores.metric`.
    pub name: &'static str,
    /// How exactly it is computed, in the reference tool's words.
    pub signature: &'static str,
    /// Computes it; 0 for no samples.
    pub score: fn(&[T]) -> f64,
}

/// Metrics of generation.
pub const GENERATION: &[Metric<Generated>] = &[
    Metric { name: "bleu", signature: bleu::SIGNATURE, score: bleu::corpus },
    Metric { name: "exact_match", signature: "white space folded", score: exact_match::exact_match },
    Metric {
        name: "token_accuracy",
        signature: "teacher forcing, end token counted",
        score: token_accuracy::token_accuracy,
    },
];

/// Metrics of search, over the rank of each query's one relevant candidate, from 1; ties count against it.
pub const SEARCH: &[Metric<usize>] = &[
    Metric { name: "mrr", signature: "one relevant, all candidates, ties against", score: mrr::mrr },
    Metric { name: "recall@1", signature: "one relevant, all candidates, ties against", score: recall::at::<1> },
    Metric { name: "recall@5", signature: "one relevant, all candidates, ties against", score: recall::at::<5> },
    Metric { name: "recall@10", signature: "one relevant, all candidates, ties against", score: recall::at::<10> },
    Metric { name: "ndcg@10", signature: "one relevant, all candidates, ties against", score: ndcg::at::<10> },
];

pub use exact_match::{exact_match, same};

/// The mean; 0 of nothing.
pub(crate) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    if count == 0 { 0.0 } else { values.sum::<f64>() / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_metrics_equal_their_formulas() {
        let score = |name: &str, ranks: &[usize]| (SEARCH.iter().find(|m| m.name == name).unwrap().score)(ranks);
        assert_eq!(score("mrr", &[1, 2, 4]), (1.0 + 0.5 + 0.25) / 3.0);
        assert_eq!(score("recall@5", &[1, 5, 6]), 2.0 / 3.0);
        let expected = (1.0 + 1.0 / 3f64.log2()) / 3.0;
        assert!((score("ndcg@10", &[1, 2, 11]) - expected).abs() < 1e-12);
        assert_eq!(score("mrr", &[]), 0.0);
    }

    #[test]
    fn generation_metrics_equal_their_formulas() {
        let samples = [
            Generated { reference: "a  b".into(), prediction: "a\nb".into(), tokens_right: 1, tokens: 4 },
            Generated { reference: "a".into(), prediction: "b".into(), tokens_right: 3, tokens: 4 },
        ];
        assert_eq!(exact_match(&samples), 0.5);
        assert_eq!(token_accuracy::token_accuracy(&samples), 0.5);
    }
}
