//! Normalised discounted cumulative gain (Järvelin & Kekäläinen, 2002); with one relevant candidate the ideal is 1.

use crate::{Better, Metric, RANKS, Ranked, ratio};

/// From 0 to 1.
pub(crate) const METRICS: &[Metric<Ranked>] =
    &[Metric { name: "ndcg@10", signature: RANKS, better: Better::Higher, sums: at::<10>, value: ratio }];

fn at<const K: usize>(found: &Ranked) -> Vec<f64> {
    vec![if found.rank <= K { 1.0 / (found.rank as f64 + 1.0).log2() } else { 0.0 }, 1.0]
}
