//! Loss, norm and whether they are numbers, summed on the device: a step fetches nothing from it.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

/// Sums over the steps since the last row.
pub(crate) struct Sums<B: Backend> {
    /// Loss times items, items, norms, steps that counted, and steps without numbers in a row until now; [5].
    values: Tensor<B, 1>,
    /// Steps, the skipped among them.
    steps: u64,
    tokens: usize,
    /// Of the targets.
    bytes: usize,
    started: Instant,
}

/// What the sums come to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    /// Mean loss an item; no number where no step had one.
    pub(crate) loss: f64,
    pub(crate) gradient_norm: f64,
    pub(crate) tokens_per_second: f64,
    /// Bits of loss for each byte of the targets; no number where they have none.
    pub(crate) bits_per_byte: f64,
    /// Steps whose gradients were no numbers.
    pub(crate) skipped: u64,
    /// Those of them at the end, in a row.
    pub(crate) streak: u64,
}

impl<B: Backend> Sums<B> {
    /// Sums of nothing, after so many steps in a row without numbers.
    pub(crate) fn new(streak: u64, device: &B::Device) -> Self {
        let streak = Tensor::zeros([1], device).add_scalar(streak as f64);
        let values = Tensor::cat(vec![Tensor::zeros([4], device), streak], 0);
        Self { values, steps: 0, tokens: 0, bytes: 0, started: Instant::now() }
    }

    /// Counts a step: its mean loss over so many items and the norm of its gradients, [1] each; whether both are numbers.
    pub(crate) fn add(&mut self, loss: Tensor<B, 1>, items: usize, norm: Tensor<B, 1>, finite: &Tensor<B, 1, Bool>) {
        let counts = finite.clone().float();
        let skips = finite.clone().bool_not();
        let items = counts.clone().mul_scalar(items as f64);
        let loss = loss.mask_fill(skips.clone(), 0.0) * items.clone();
        let norm = norm.mask_fill(skips, 0.0);
        let (before, streak) = (self.values.clone().narrow(0, 0, 4), self.values.clone().narrow(0, 4, 1));
        let streak = (streak + 1.0) * counts.clone().neg().add_scalar(1.0);
        let sums = before + Tensor::cat(vec![loss, items, norm, counts], 0);
        self.values = Tensor::cat(vec![sums, streak], 0);
        self.steps += 1;
    }

    /// Counts tokens that were read, and the bytes of the targets.
    pub(crate) fn add_tokens(&mut self, tokens: usize, bytes: usize) {
        self.tokens += tokens;
        self.bytes += bytes;
    }

    /// Fetches the sums and begins anew, the streak excepted; nothing where no step was made.
    pub(crate) fn take(&mut self) -> Result<Option<Means>> {
        if self.steps == 0 {
            return Ok(None);
        }
        let values = self.values.clone();
        let (steps, tokens) = (std::mem::take(&mut self.steps), std::mem::take(&mut self.tokens));
        let bytes = std::mem::take(&mut self.bytes);
        let seconds = std::mem::replace(&mut self.started, Instant::now()).elapsed().as_secs_f64();
        let read = values.clone().into_data().convert::<f32>().to_vec::<f32>();
        let read = read.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let [loss, items, norms, counted, streak] = [0, 1, 2, 3, 4].map(|at| f64::from(read[at]));
        self.values = Tensor::cat(vec![values.clone().narrow(0, 0, 4).zeros_like(), values.narrow(0, 4, 1)], 0);
        Ok(Some(Means {
            loss: loss / items,
            gradient_norm: norms / counted,
            tokens_per_second: tokens as f64 / seconds,
            bits_per_byte: loss / std::f64::consts::LN_2 / bytes as f64,
            skipped: steps - counted as u64,
            streak: streak as u64,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_model::{Cpu, CpuDevice};

    #[test]
    fn steps_without_numbers_count_for_nothing() {
        let device = CpuDevice::default();
        let one = |value: f32| Tensor::<Cpu, 1>::from_floats([value], &device);
        let mut sums = Sums::new(0, &device);
        let mut add = |loss: f32, items, norm: f32| {
            sums.add(one(loss), items, one(norm), &one(norm).is_finite());
            sums.add_tokens(10, 5);
        };
        add(2.0, 1, 3.0);
        add(4.0, 3, 5.0);
        add(f32::NAN, 7, f32::INFINITY);
        add(f32::NAN, 7, f32::NAN);
        let means = sums.take().unwrap().unwrap();
        assert_eq!((means.loss, means.gradient_norm, means.skipped, means.streak), (3.5, 4.0, 2, 2));
        assert!(sums.take().unwrap().is_none());
        let more = |sums: &mut Sums<Cpu>, norm: f32| sums.add(one(1.0), 1, one(norm), &one(norm).is_finite());
        more(&mut sums, f32::NAN);
        assert_eq!(sums.take().unwrap().map(|means| means.streak), Some(3));
        more(&mut sums, 1.0);
        assert_eq!(sums.take().unwrap().map(|means| (means.streak, means.loss)), Some((0, 1.0)));
    }
}
