//! Recall at k; with one relevant candidate, the share of queries that have it among the first k.

use crate::{Better, Metric, RANKS, Ranked, ratio};

/// From 0 to 1.
pub(crate) const METRICS: &[Metric<Ranked>] = &[
    Metric { name: "recall@1", signature: RANKS, better: Better::Higher, sums: at::<1>, value: ratio },
    Metric { name: "recall@5", signature: RANKS, better: Better::Higher, sums: at::<5>, value: ratio },
    Metric { name: "recall@10", signature: RANKS, better: Better::Higher, sums: at::<10>, value: ratio },
];

fn at<const K: usize>(found: &Ranked) -> Vec<f64> {
    vec![f64::from(u8::from(found.rank <= K)), 1.0]
}
