//! Recall at k; with one relevant candidate, the share of queries that have it among the first k.

use crate::{Better, Metric, RANKS, mean};

pub(crate) const METRICS: &[Metric<usize>] = &[
    Metric { name: "recall@1", signature: RANKS, better: Better::Higher, score: at::<1> },
    Metric { name: "recall@5", signature: RANKS, better: Better::Higher, score: at::<5> },
    Metric { name: "recall@10", signature: RANKS, better: Better::Higher, score: at::<10> },
];

fn at<const K: usize>(ranks: &[usize]) -> f64 {
    mean(ranks.iter().map(|&rank| f64::from(u8::from(rank <= K))))
}
