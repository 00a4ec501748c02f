//! Entropy of the attention over the source, of models that have one.

use crate::{Better, Generated, Metric, ratio};

/// From 0, where it looks at one token, to the logarithm of the source's length, where it looks at all alike.
pub(crate) const METRICS: &[Metric<Generated>] = &[Metric {
    name: "attention_entropy",
    signature: "nats, mean over written tokens",
    better: Better::Neither,
    sums: |sample| {
        let (entropy, tokens) = sample.attention.unwrap_or_default();
        vec![entropy * tokens as f64, tokens as f64]
    },
    value: ratio,
}];
