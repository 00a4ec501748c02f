//! Muon (Jordan et al., 2024): the momentum of a matrix is made orthogonal before it is stepped along; everything else, embeddings
//! among it, moves by AdamW.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use codepair_model::ParameterKind;
use serde::{Deserialize, Serialize};

use super::adamw::Adamw;
use super::{Update, check_from_zero, check_share};
use crate::tensors::flat;

/// Coefficients of the quintic iteration, and how often it is made.
const QUINTIC: [f64; 3] = [3.4445, -4.775, 2.0315];
const ITERATIONS: usize = 5;

/// Its values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Muon {
    /// How much of the last step is made again.
    pub momentum: f64,
    /// The rate of the matrices, times the schedule's.
    pub matrix_rate: f64,
    /// Times the rate, the share of each matrix that is taken away a step.
    pub weight_decay: f64,
    /// AdamW's for all but the matrices.
    pub beta1: f64,
    /// AdamW's for all but the matrices.
    pub beta2: f64,
}

impl Default for Muon {
    fn default() -> Self {
        Self { momentum: 0.95, matrix_rate: 20.0, weight_decay: 0.01, beta1: 0.9, beta2: 0.999 }
    }
}

impl Muon {
    pub(super) fn check(&self) -> Result<(), String> {
        check_share("momentum", self.momentum)?;
        check_share("beta1", self.beta1)?;
        check_share("beta2", self.beta2)?;
        check_from_zero("matrix_rate", self.matrix_rate)?;
        check_from_zero("weight_decay", self.weight_decay)
    }

    pub(super) fn update<B: Backend, const D: usize>(&self, mut one: Update<'_, B, D>) -> Tensor<B, D> {
        if one.kind != ParameterKind::Matrix {
            return Adamw { beta1: self.beta1, beta2: self.beta2, ..Adamw::default() }.update(one, false);
        }
        one.rate *= self.matrix_rate;
        let velocity = one.remembered(0).mul_scalar(self.momentum) + one.gradient.clone();
        *one.memory = vec![flat(velocity.clone())];
        let direction = one.gradient.clone() + velocity.mul_scalar(self.momentum);
        let [rows, columns] = [one.weight.dims()[0], one.weight.dims()[D - 1]];
        let step = orthogonal(direction.reshape([rows, columns])).reshape(one.weight.shape());
        // Tall and wide maps change what they write by the same amount.
        let scale = (columns as f64 / rows as f64).max(1.0).sqrt();
        one.decayed(self.weight_decay) - step.mul_scalar(one.rate * scale)
    }
}

/// The nearest matrix whose singular values are about 1, by Newton and Schulz's iteration.
fn orthogonal<B: Backend>(matrix: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, columns] = matrix.dims();
    let is_tall = rows > columns;
    let mut x = if is_tall { matrix.transpose() } else { matrix };
    let norm = x.clone().powi_scalar(2).sum().sqrt().add_scalar(1e-7);
    x = x / norm.unsqueeze();
    let [a, b, c] = QUINTIC;
    for _ in 0..ITERATIONS {
        let gram = x.clone().matmul(x.clone().transpose());
        let mixed = gram.clone().mul_scalar(b) + gram.clone().matmul(gram).mul_scalar(c);
        x = x.clone().mul_scalar(a) + mixed.matmul(x);
    }
    if is_tall { x.transpose() } else { x }
}
