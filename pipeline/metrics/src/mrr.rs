//! Mean reciprocal rank.

use crate::{Better, Metric, RANKS, mean};

pub(crate) const METRICS: &[Metric<usize>] =
    &[Metric { name: "mrr", signature: RANKS, better: Better::Higher, score: mrr }];

fn mrr(ranks: &[usize]) -> f64 {
    mean(ranks.iter().map(|&rank| 1.0 / rank as f64))
}
