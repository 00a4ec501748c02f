//! Mean reciprocal rank.

use crate::mean;

pub(crate) fn mrr(ranks: &[usize]) -> f64 {
    mean(ranks.iter().map(|&rank| 1.0 / rank as f64))
}
