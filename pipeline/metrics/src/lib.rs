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
        attention_entropy,
    ];
    /// Metrics of search, by file.
    SEARCH: Ranked = [
        mrr,
        recall,
        ndcg,
        chance,
    ];
}

pub use bleu::sentence as sentence_bleu;

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
    /// Mean entropy of the attention over the tokens written, nats, and how many they are; nothing where there is no attention.
    pub attention: Option<(f64, u64)>,
}

/// What a search model found for one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// The rank of the one relevant candidate, from 1.
    pub rank: usize,
    /// How many candidates there were.
    pub candidates: usize,
}

/// A metric over samples `T`, as sums: what each sample adds, and what the sums come to. So a resample of the samples, of which a
/// bootstrap makes a thousand, costs no more than additions.
pub struct Metric<T> {
    /// Its name, as it stands in `scores.metric`.
    pub name: &'static str,
    /// How exactly it is computed, in the reference tool's words.
    pub signature: &'static str,
    /// Which values are better.
    pub better: Better,
    /// What a sample adds; always as many numbers.
    pub sums: fn(&T) -> Vec<f64>,
    /// What the sums come to; nothing where the samples do not tell.
    pub value: fn(&[f64]) -> Option<f64>,
}

impl<T> Metric<T> {
    /// The score of some samples; nothing where they do not tell.
    #[must_use]
    pub fn score(&self, samples: &[T]) -> Option<f64> {
        let mut sums: Vec<f64> = Vec::new();
        for one in samples.iter().map(self.sums) {
            sums.resize(one.len(), 0.0);
            sums.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        }
        if samples.is_empty() { None } else { (self.value)(&sums) }
    }
}

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// As of shares of right answers.
    Higher,
    /// As of losses and errors.
    Lower,
    /// It only says something of the others, such as what chance would reach.
    Neither,
}

/// Which values of a metric of either list are better; nothing of what is in none.
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

/// The first sum over the second.
pub(crate) fn ratio(sums: &[f64]) -> Option<f64> {
    match sums {
        [sum, count] if *count > 0.0 => Some(sum / count),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_metrics_equal_their_formulas() {
        let score = |name: &str, ranks: &[usize]| {
            let ranked: Vec<Ranked> = ranks.iter().map(|&rank| Ranked { rank, candidates: 3 }).collect();
            all(SEARCH).find(|m| m.name == name).unwrap().score(&ranked)
        };
        assert_eq!(score("mrr", &[1, 2, 4]), Some((1.0 + 0.5 + 0.25) / 3.0));
        assert_eq!(score("recall@5", &[1, 5, 6]), Some(2.0 / 3.0));
        let expected = (1.0 + 1.0 / 3f64.log2()) / 3.0;
        assert!((score("ndcg@10", &[1, 2, 11]).unwrap() - expected).abs() < 1e-12);
        assert_eq!(score("mrr", &[]), None);
        assert_eq!(score("mrr_of_random", &[2]), Some((1.0 + 0.5 + 1.0 / 3.0) / 3.0));
    }

    #[test]
    fn metrics_are_known_by_name() {
        assert_eq!((headline("search"), headline("generation"), headline("x")), (Some("mrr"), Some("bleu"), None));
        assert_eq!((better("recall@5"), better("mrr_of_random")), (Some(Better::Higher), Some(Better::Neither)));
        assert_eq!(better("unknown"), None);
    }

    #[test]
    fn generation_metrics_equal_their_formulas() {
        let sample = |reference: &str, prediction: &str, tokens_right, attention| Generated {
            reference: reference.into(),
            prediction: prediction.into(),
            tokens_right,
            tokens: 4,
            attention,
        };
        let samples = [sample("a  b", "a\nb", 1, Some((2.0, 1))), sample("a", "b", 3, Some((0.5, 3)))];
        let score = |name: &str, samples| all(GENERATION).find(|m| m.name == name).unwrap().score(samples);
        assert_eq!(score("exact_match", &samples), Some(0.5));
        assert_eq!(score("token_accuracy", &samples), Some(0.5));
        assert_eq!(score("attention_entropy", &samples), Some(3.5 / 4.0));
        assert_eq!(score("attention_entropy", &[sample("a", "b", 0, None)]), None);
    }
}
