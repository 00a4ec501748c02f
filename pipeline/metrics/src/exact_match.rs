//! Exact match: the share of predictions equal to their reference after white space is folded.

use crate::{Generated, mean};

/// Share of exact matches, 0 to 1.
#[must_use]
pub fn exact_match(samples: &[Generated]) -> f64 {
    mean(samples.iter().map(|s| f64::from(u8::from(same(&s.reference, &s.prediction)))))
}

/// Whether two texts are equal after white space is folded.
#[must_use]
pub fn same(reference: &str, prediction: &str) -> bool {
    reference.split_whitespace().eq(prediction.split_whitespace())
}
