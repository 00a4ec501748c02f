//! What a random ranking would reach.

use crate::{Better, Metric, Ranked, ratio};

/// The mean reciprocal rank that is to be expected: the mean of 1 / r over all ranks.
pub(crate) const METRICS: &[Metric<Ranked>] = &[Metric {
    name: "mrr_of_random",
    signature: "expectation, H_N / N",
    better: Better::Neither,
    sums: |found| {
        vec![(1..=found.candidates).map(|rank| 1.0 / rank as f64).sum::<f64>() / found.candidates as f64, 1.0]
    },
    value: ratio,
}];
