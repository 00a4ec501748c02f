//! Adafactor (Shazeer & Stern, 2018) with a rate from outside: the second moments of a matrix are kept as those of its rows and
//! columns, and the step is clipped by its own root mean square.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{Update, check_from_zero};
use crate::tensors::flat;

/// Added to squared gradients (ε₁).
const EPSILON: f64 = 1e-30;
/// The least scale of a parameter (ε₂).
const LEAST_SCALE: f64 = 1e-3;

/// Its values; the defaults are those of `transformers` with a rate given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adafactor {
    /// The share of older second moments that is kept at step t is 1 − t to the power of minus this.
    pub decay_power: f64,
    /// A step's root mean square is at most this before the rate.
    pub clip: f64,
    /// The rate is multiplied by the root mean square of the parameter.
    pub scale_parameter: bool,
    /// Times the rate, the share of each matrix that is taken away a step.
    pub weight_decay: f64,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self { decay_power: 0.8, clip: 1.0, scale_parameter: false, weight_decay: 0.0 }
    }
}

fn mean_square<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    tensor.powi_scalar(2).mean().unsqueeze()
}

impl Adafactor {
    pub(super) fn check(&self) -> Result<(), String> {
        check_from_zero("decay_power", self.decay_power)?;
        if !(self.clip.is_finite() && self.clip > 0.0) {
            return Err(format!("clip = {} must be above 0", self.clip));
        }
        check_from_zero("weight_decay", self.weight_decay)
    }

    pub(super) fn update<B: Backend, const D: usize>(&self, one: Update<'_, B, D>) -> Tensor<B, D> {
        let keep = 1.0 - (one.step as f64).powf(-self.decay_power);
        let squares = one.gradient.clone().powi_scalar(2).add_scalar(EPSILON);
        let mix = |old: Tensor<B, D>, new: Tensor<B, D>| old.mul_scalar(keep) + new.mul_scalar(1.0 - keep);
        let step = if D == 2 {
            let [rows, columns] = [one.weight.dims()[0], one.weight.dims()[1]];
            // [R, 1] and [1, C] in a shape of D = 2 axes.
            let (mut down, mut across) = ([1; D], [1; D]);
            (down[0], across[1]) = (rows, columns);
            let old = |at: usize, shape: [usize; D]| match one.memory.get(at) {
                Some(flat) => flat.clone().reshape(shape),
                None => Tensor::zeros(shape, &one.weight.device()),
            };
            let of_rows = mix(old(0, down), squares.clone().mean_dim(1));
            let of_columns = mix(old(1, across), squares.mean_dim(0));
            *one.memory = vec![flat(of_rows.clone()), flat(of_columns.clone())];
            let share = of_rows.clone() / of_rows.mean_dim(0);
            one.gradient.clone() / share.sqrt() / of_columns.sqrt()
        } else {
            let square = mix(one.remembered(0), squares);
            *one.memory = vec![flat(square.clone())];
            one.gradient.clone() / square.sqrt()
        };
        let step = step.clone() / mean_square(step).sqrt().div_scalar(self.clip).clamp_min(1.0);
        let step = if self.scale_parameter {
            step * mean_square(one.weight.clone()).sqrt().clamp_min(LEAST_SCALE)
        } else {
            step
        };
        one.decayed(self.weight_decay) - step.mul_scalar(one.rate)
    }
}
