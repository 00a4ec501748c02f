//! Mean reciprocal rank.

use crate::{Better, Metric, RANKS, Ranked, ratio};

/// From 0 to 1.
pub(crate) const METRICS: &[Metric<Ranked>] = &[Metric {
    name: "mrr",
    signature: RANKS,
    better: Better::Higher,
    sums: |found| vec![1.0 / found.rank as f64, 1.0],
    value: ratio,
}];
