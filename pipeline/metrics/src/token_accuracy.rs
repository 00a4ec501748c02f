//! Token accuracy under teacher forcing: right tokens over all tokens of all references.

use crate::{Better, Generated, Metric};

pub(crate) const METRICS: &[Metric<Generated>] = &[Metric {
    name: "token_accuracy",
    signature: "teacher forcing, end token counted",
    better: Better::Higher,
    score: token_accuracy,
}];

fn token_accuracy(samples: &[Generated]) -> f64 {
    let total: u64 = samples.iter().map(|s| s.tokens).sum();
    let right: u64 = samples.iter().map(|s| s.tokens_right).sum();
    if total == 0 { 0.0 } else { right as f64 / total as f64 }
}
