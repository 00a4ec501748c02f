//! Recall at k; with one relevant candidate, the share of queries that have it among the first k.

use crate::mean;

pub(crate) fn at<const K: usize>(ranks: &[usize]) -> f64 {
    mean(ranks.iter().map(|&rank| f64::from(u8::from(rank <= K))))
}
