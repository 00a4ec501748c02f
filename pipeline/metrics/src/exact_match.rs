//! Exact match: the share of predictions equal to their reference after white space is folded.

use crate::{Better, Generated, Metric, mean};

pub(crate) const METRICS: &[Metric<Generated>] =
    &[Metric { name: "exact_match", signature: "white space folded", better: Better::Higher, score: exact_match }];

/// Share of exact matches, 0 to 1.
fn exact_match(samples: &[Generated]) -> f64 {
    mean(samples.iter().map(|s| f64::from(u8::from(same(&s.reference, &s.prediction)))))
}

/// Whether two texts are equal after white space is folded.
#[must_use]
pub fn same(reference: &str, prediction: &str) -> bool {
    reference.split_whitespace().eq(prediction.split_whitespace())
}
