//! Losses over a matrix of similarities; one function a loss, one line in [`Loss::over`].

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

/// Cosine similarities are multiplied by this before the softmax (sentence-transformers' default scale).
const SCALE: f64 = 20.0;
/// Margin of the hinge (Husain et al., 2019).
const MARGIN: f64 = 1.0;

/// What a search model minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Cross-entropy of the right code among all codes of the batch (multiple negatives ranking).
    #[default]
    Softmax,
    /// Hinge over the hardest negative of the batch.
    CosineHinge,
}

impl Loss {
    /// The mean over queries; `similarities` is [B, C ≥ B], the right code of row i in column i.
    pub(crate) fn over<B: Backend>(self, similarities: Tensor<B, 2>) -> Tensor<B, 1> {
        match self {
            Self::Softmax => softmax(similarities),
            Self::CosineHinge => cosine_hinge(similarities),
        }
    }
}

fn diagonal<B: Backend>(matrix: Tensor<B, 2>) -> Tensor<B, 2> {
    let rows = matrix.dims()[0] as i64;
    let index = Tensor::<B, 1, Int>::arange(0..rows, &matrix.device()).unsqueeze_dim::<2>(1);
    matrix.gather(1, index)
}

fn softmax<B: Backend>(similarities: Tensor<B, 2>) -> Tensor<B, 1> {
    diagonal(log_softmax(similarities.mul_scalar(SCALE), 1)).mean().neg()
}

fn cosine_hinge<B: Backend>(similarities: Tensor<B, 2>) -> Tensor<B, 1> {
    let [rows, columns] = similarities.dims();
    let device = similarities.device();
    let right = diagonal(similarities.clone());
    let place = Tensor::<B, 2, Int>::eye(rows, &device).float();
    let others = Tensor::zeros([rows, columns - rows], &device);
    let place = if columns > rows { Tensor::cat(vec![place, others], 1) } else { place };
    let hardest = (similarities - place.mul_scalar(1e9)).max_dim(1);
    (hardest - right).add_scalar(MARGIN).clamp_min(0.0).mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuDevice};

    #[test]
    fn losses_equal_their_formulas() {
        let device = CpuDevice::default();
        let matrix = || Tensor::<Cpu, 2>::from_data([[0.5f32, 0.1, 0.3], [0.2, 0.4, 0.6]], &device);
        let row = |right: f64, others: [f64; 2]| {
            let all: f64 = [right, others[0], others[1]].iter().map(|s| (20.0 * s).exp()).sum();
            all.ln() - 20.0 * right
        };
        let expected = (row(0.5, [0.1, 0.3]) + row(0.4, [0.2, 0.6])) / 2.0;
        let value = |loss: Loss| f64::from(loss.over(matrix()).into_scalar());
        assert!((value(Loss::Softmax) - expected).abs() < 1e-5);
        assert!((value(Loss::CosineHinge) - (0.8 + 1.2) / 2.0).abs() < 1e-6);
    }
}
