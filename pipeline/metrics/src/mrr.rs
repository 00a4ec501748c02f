//! Mean reciprocal rank.

use crate::{Metric, RANKS, mean};

pub(crate) const METRICS: &[Metric<usize>] = &[Metric { name: "mrr", signature: RANKS, score: mrr }];

fn mrr(ranks: &[usize]) -> f64 {
    mean(ranks.iter().map(|&rank| 1.0 / rank as f64))
}
