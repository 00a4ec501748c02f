//! Normalised discounted cumulative gain (Järvelin & Kekäläinen, 2002); with one relevant candidate the ideal is 1.

use crate::mean;

pub(crate) fn at<const K: usize>(ranks: &[usize]) -> f64 {
    mean(ranks.iter().map(|&rank| if rank <= K { 1.0 / (rank as f64 + 1.0).log2() } else { 0.0 }))
}
