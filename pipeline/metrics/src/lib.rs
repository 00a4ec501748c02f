//! Scores, one file a metric, no I/O.
//!
//! A new metric is a new file and one line in `metrics!`; evaluation, storage and report follow.

macro_rules! metrics {
    ($($(#[$doc:meta])* $list:ident: $sample:ty = [$($module:ident,)*];)*) => {
        $($(mod $module;)*)*
        $($(#[$doc])* pub const $list: &[&[Metric<$sample>]] = &[$($module::METRICS),*];)*
    };
}

metrics! {
    /// Metrics of generation, by file.
    GENERATION: Generated = [
        bleu,
        exact_match,
        token_accuracy,
    ];
    /// Metrics of search, by file: over the rank of each query's one relevant candidate, from 1.
    SEARCH: usize = [
        mrr,
        recall,
        ndcg,
    ];
}

pub use bleu::sentence as sentence_bleu;
pub use exact_match::same;

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
    /// Which values are better.
    pub better: Better,
    /// Computes it; 0 for no samples.
    pub score: fn(&[T]) -> f64,
}

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// As of shares of right answers.
    Higher,
    /// As of losses and errors.
    Lower,
}

/// Which values of a metric of either list are better; nothing of what is in none, such as what chance would reach.
#[must_use]
pub fn better(name: &str) -> Option<Better> {
    let directions = || all(GENERATION).map(|m| (m.name, m.better)).chain(all(SEARCH).map(|m| (m.name, m.better)));
    directions().find(|(known, _)| *known == name).map(|(_, better)| better)
}

/// The metric that stands for a task where there is room for one: the first of its list.
#[must_use]
pub fn headline(task: &str) -> Option<&'static str> {
    match task {
        "generation" => all(GENERATION).next().map(|metric| metric.name),
        "search" => all(SEARCH).next().map(|metric| metric.name),
        _ => None,
    }
}

/// How ranks are counted.
pub(crate) const RANKS: &str = "one relevant, all candidates, ties against";

/// All metrics of a list, in order.
pub fn all<T: 'static>(list: &'static [&'static [Metric<T>]]) -> impl Iterator<Item = &'static Metric<T>> {
    list.iter().copied().flatten()
}

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
        let score = |name: &str, ranks: &[usize]| (all(SEARCH).find(|m| m.name == name).unwrap().score)(ranks);
        assert_eq!(score("mrr", &[1, 2, 4]), (1.0 + 0.5 + 0.25) / 3.0);
        assert_eq!(score("recall@5", &[1, 5, 6]), 2.0 / 3.0);
        let expected = (1.0 + 1.0 / 3f64.log2()) / 3.0;
        assert!((score("ndcg@10", &[1, 2, 11]) - expected).abs() < 1e-12);
        assert_eq!(score("mrr", &[]), 0.0);
    }

    #[test]
    fn metrics_are_known_by_name() {
        assert_eq!((headline("search"), headline("generation"), headline("x")), (Some("mrr"), Some("bleu"), None));
        assert_eq!((better("recall@5"), better("mrr_of_random")), (Some(Better::Higher), None));
    }

    #[test]
    fn generation_metrics_equal_their_formulas() {
        let samples = [
            Generated { reference: "a  b".into(), prediction: "a\nb".into(), tokens_right: 1, tokens: 4 },
            Generated { reference: "a".into(), prediction: "b".into(), tokens_right: 3, tokens: 4 },
        ];
        let score = |name: &str| (all(GENERATION).find(|m| m.name == name).unwrap().score)(&samples);
        assert_eq!(score("exact_match"), 0.5);
        assert_eq!(score("token_accuracy"), 0.5);
    }
}
