//! Scheduled sampling (Bengio et al., 2015) in two passes (Mihaylova & Martins, 2019): what the model would write given the right
//! tokens takes the place of some of them, and the right ones are asked for all the same. So it is one way for every generator.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Int, Tensor};
use codepair_model::{Batch, Generator};
use serde::{Deserialize, Serialize};

/// `teacher_forcing` of a training: the share of right tokens that a decoder sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TeacherForcing {
    /// At the first step.
    pub start: f64,
    /// At the last step; between them it changes in a straight line.
    pub end: f64,
}

impl Default for TeacherForcing {
    fn default() -> Self {
        Self { start: 1.0, end: 1.0 }
    }
}

impl TeacherForcing {
    /// # Errors
    /// A value that cannot be: the key, and why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if is_share(self.start) && is_share(self.end) {
            Ok(())
        } else {
            Err("start and end must be between 0 and 1".to_owned())
        }
    }

    /// The share at a step, from 1, of so many.
    pub(crate) fn share(&self, step: u64, steps: u64) -> f64 {
        let part = step.saturating_sub(1) as f64 / steps.saturating_sub(1).max(1) as f64;
        self.start + (self.end - self.start) * part.min(1.0)
    }
}

/// A batch whose decoder sees the right tokens in this share of places, and elsewhere what the model holds most probable.
pub(crate) fn mixed<B: AutodiffBackend>(
    model: &Generator<B::InnerBackend>,
    batch: Batch<B>,
    right: Batch<B::InnerBackend>,
    share: f64,
) -> Batch<B> {
    let seen = right.inputs();
    let [rows, length] = seen.dims();
    if share >= 1.0 || length < 2 {
        return batch;
    }
    let written = model.logits(&right).argmax(2).reshape([rows, length]);
    let seen = exchanged(seen, written, share);
    Batch { seen: Some(Tensor::from_inner(seen)), ..batch }
}

/// The token that begins stays; each of the others is, with this probability, the right one and else the one that was written.
fn exchanged<B: Backend>(right: Tensor<B, 2, Int>, written: Tensor<B, 2, Int>, share: f64) -> Tensor<B, 2, Int> {
    let [rows, length] = right.dims();
    let chance = Tensor::<B, 2>::random([rows, length - 1], Distribution::Uniform(0.0, 1.0), &right.device());
    let (first, others) = (right.clone().narrow(1, 0, 1), right.narrow(1, 1, length - 1));
    // What is written at a place is seen at the next.
    let others = others.mask_where(chance.greater_equal_elem(share), written.narrow(1, 0, length - 1));
    Tensor::cat(vec![first, others], 1)
}

#[cfg(test)]
mod tests {
    use codepair_model::{Cpu, CpuDevice};

    use super::*;

    #[test]
    fn a_share_of_the_tokens_is_what_was_written() {
        let device = CpuDevice::default();
        let number = |value: i32| Tensor::<Cpu, 2, Int>::full([40, 51], value, &device);
        for share in [1.0, 0.75, 0.0] {
            let seen: Vec<i64> = exchanged(number(1), number(2), share).into_data().iter().collect();
            assert!(seen.chunks(51).all(|row| row[0] == 1));
            let right = seen.iter().filter(|token| **token == 1).count() - 40;
            assert!((right as f64 / 2000.0 - share).abs() < 0.04, "{right}");
        }
    }

    #[test]
    fn the_share_changes_in_a_straight_line() {
        let forcing = TeacherForcing { start: 1.0, end: 0.5 };
        assert_eq!([1, 6, 11, 20].map(|step| forcing.share(step, 11)), [1.0, 0.75, 0.5, 0.5]);
        assert_eq!(TeacherForcing::default().share(3, 10), 1.0);
        assert!(TeacherForcing { start: 1.1, end: 0.0 }.check().is_err());
    }
}
