//! Exact match: the share of predictions equal to their reference after white space is folded.

use crate::{Better, Generated, Metric, ratio};

/// From 0 to 1.
pub(crate) const METRICS: &[Metric<Generated>] = &[Metric {
    name: "exact_match",
    signature: "white space folded",
    better: Better::Higher,
    sums: |sample| vec![f64::from(u8::from(same(&sample.reference, &sample.prediction))), 1.0],
    value: ratio,
}];

/// Whether two texts are equal after white space is folded.
fn same(reference: &str, prediction: &str) -> bool {
    reference.split_whitespace().eq(prediction.split_whitespace())
}
