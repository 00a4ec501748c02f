//! Stochastic gradient descent with momentum (Polyak, 1964), as PyTorch's `SGD` but for the decay, which is decoupled.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{Update, check_from_zero, check_share};
use crate::tensors::flat;

/// Its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// How much of the last step is made again.
    pub momentum: f64,
    /// The step is the gradient and the momentum behind it (Nesterov, 1983).
    pub nesterov: bool,
    /// Times the rate, the share of each matrix that is taken away a step.
    pub weight_decay: f64,
}

impl Sgd {
    pub(super) fn check(&self) -> Result<(), String> {
        check_share("momentum", self.momentum)?;
        if self.nesterov && self.momentum == 0.0 {
            return Err("nesterov needs momentum above 0".to_owned());
        }
        check_from_zero("weight_decay", self.weight_decay)
    }

    pub(super) fn update<B: Backend, const D: usize>(&self, one: Update<'_, B, D>) -> Tensor<B, D> {
        let gradient = one.gradient.clone();
        let weight = one.decayed(self.weight_decay);
        if self.momentum == 0.0 {
            return weight - gradient.mul_scalar(one.rate);
        }
        let velocity = one.remembered(0).mul_scalar(self.momentum) + gradient.clone();
        *one.memory = vec![flat(velocity.clone())];
        let step = if self.nesterov { gradient + velocity.mul_scalar(self.momentum) } else { velocity };
        weight - step.mul_scalar(one.rate)
    }
}
