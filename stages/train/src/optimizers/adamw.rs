//! Adam with decoupled weight decay (Kingma & Ba, 2015; Loshchilov & Hutter, 2019), as PyTorch's `AdamW`; lazily as its `SparseAdam`.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use codepair_model::ParameterKind;
use serde::{Deserialize, Serialize};

use super::{Update, check_from_zero, check_share};
use crate::tensors::flat;

/// Its values; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adamw {
    /// How much of the mean of gradients is kept each step.
    pub beta1: f64,
    /// How much of the mean of squared gradients is kept each step.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub epsilon: f64,
    /// Times the rate, the share of each matrix that is taken away a step.
    pub weight_decay: f64,
}

impl Default for Adamw {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

impl Adamw {
    pub(super) fn check(&self) -> Result<(), String> {
        check_share("beta1", self.beta1)?;
        check_share("beta2", self.beta2)?;
        check_from_zero("epsilon", self.epsilon)?;
        check_from_zero("weight_decay", self.weight_decay)
    }

    pub(super) fn update<B: Backend, const D: usize>(&self, one: Update<'_, B, D>, lazy: bool) -> Tensor<B, D> {
        let Self { beta1, beta2, epsilon, weight_decay } = *self;
        let gradient = one.gradient.clone();
        let mean = one.remembered(0).mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
        let square = one.remembered(1).mul_scalar(beta2) + gradient.clone().powi_scalar(2).mul_scalar(1.0 - beta2);
        let step = one.step.min(i32::MAX as u64) as i32;
        let (first, second) = (1.0 - beta1.powi(step), 1.0 - beta2.powi(step));
        let root = square.clone().sqrt().div_scalar(second.sqrt()).add_scalar(epsilon);
        let moved = one.decayed(weight_decay) - (mean.clone() / root).mul_scalar(one.rate / first);
        if !(lazy && one.kind == ParameterKind::Embedding) {
            *one.memory = vec![flat(mean), flat(square)];
            return moved;
        }
        // Rows without a gradient were not looked up.
        let touched = gradient.abs().sum_dim(D - 1).greater_elem(0.0).expand(one.weight.shape());
        let mean = one.remembered(0).mask_where(touched.clone(), mean);
        let square = one.remembered(1).mask_where(touched.clone(), square);
        let moved = one.weight.clone().mask_where(touched, moved);
        *one.memory = vec![flat(mean), flat(square)];
        moved
    }
}
