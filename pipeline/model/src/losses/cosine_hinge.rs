//! Hinge over the hardest negative of the batch (Husain et al., 2019).

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::diagonal;

/// Its values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CosineHinge {
    /// By how much the right document's cosine has to be above every other's.
    pub margin: f64,
}

impl Default for CosineHinge {
    fn default() -> Self {
        Self { margin: 1.0 }
    }
}

impl CosineHinge {
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_margin = (0.0..=2.0).contains(&self.margin);
        if is_margin { Ok(()) } else { Err(format!("margin = {} must be between 0 and 2", self.margin)) }
    }

    /// The mean over queries; `similarities` is [B, C ≥ B], the right document of row i in column i.
    pub(crate) fn over<B: Backend>(&self, similarities: Tensor<B, 2>) -> Tensor<B, 1> {
        let [rows, columns] = similarities.dims();
        let device = similarities.device();
        let right = diagonal(similarities.clone());
        let place = Tensor::<B, 2, Int>::eye(rows, &device).float();
        let others = Tensor::zeros([rows, columns - rows], &device);
        let place = if columns > rows { Tensor::cat(vec![place, others], 1) } else { place };
        let hardest = (similarities - place.mul_scalar(1e9)).max_dim(1);
        (hardest - right).add_scalar(self.margin).clamp_min(0.0).mean()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuDevice};

    #[test]
    fn it_equals_its_formula() {
        let matrix = Tensor::<Cpu, 2>::from_data([[0.5f32, 0.1, 0.3], [0.2, 0.4, 0.6]], &CpuDevice::default());
        let value = f64::from(CosineHinge::default().over(matrix).into_scalar());
        assert!((value - (0.8 + 1.2) / 2.0).abs() < 1e-6);
    }
}
