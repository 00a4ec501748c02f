//! Token accuracy under teacher forcing: right tokens over all tokens of all references.

use crate::{Better, Generated, Metric, ratio};

/// From 0 to 1.
pub(crate) const METRICS: &[Metric<Generated>] = &[Metric {
    name: "token_accuracy",
    signature: "teacher forcing, end token counted",
    better: Better::Higher,
    sums: |sample| vec![sample.tokens_right as f64, sample.tokens as f64],
    value: ratio,
}];
