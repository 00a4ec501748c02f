//! Normalised discounted cumulative gain (Järvelin & Kekäläinen, 2002); with one relevant candidate the ideal is 1.

use crate::{Better, Metric, RANKS, mean};

pub(crate) const METRICS: &[Metric<usize>] =
    &[Metric { name: "ndcg@10", signature: RANKS, better: Better::Higher, score: at::<10> }];

fn at<const K: usize>(ranks: &[usize]) -> f64 {
    mean(ranks.iter().map(|&rank| if rank <= K { 1.0 / (rank as f64 + 1.0).log2() } else { 0.0 }))
}
