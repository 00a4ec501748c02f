//! Cross-entropy of the right document among all documents of the batch (van den Oord et al., 2018; multiple negatives ranking of
//! sentence-transformers).

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::diagonal;

/// Its values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Softmax {
    /// Cosines are divided by this.
    pub temperature: f64,
    /// The right query among all queries counts as well, one half each.
    pub symmetric: bool,
}

impl Default for Softmax {
    /// sentence-transformers' scale of 20.
    fn default() -> Self {
        Self { temperature: 0.05, symmetric: false }
    }
}

impl Softmax {
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_above = self.temperature.is_finite() && self.temperature > 0.0;
        if is_above { Ok(()) } else { Err(format!("temperature = {} must be above 0", self.temperature)) }
    }

    /// The mean over queries; `similarities` is [B, C ≥ B], the right document of row i in column i.
    pub(crate) fn over<B: Backend>(&self, similarities: Tensor<B, 2>) -> Tensor<B, 1> {
        let rows = similarities.dims()[0];
        let scores = similarities.div_scalar(self.temperature);
        let documents = diagonal(log_softmax(scores.clone(), 1)).mean().neg();
        if !self.symmetric {
            return documents;
        }
        let queries = diagonal(log_softmax(scores.narrow(1, 0, rows), 0)).mean().neg();
        (documents + queries).div_scalar(2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuDevice};

    #[test]
    fn it_equals_its_formula() {
        let device = CpuDevice::default();
        let matrix = || Tensor::<Cpu, 2>::from_data([[0.5f32, 0.1, 0.3], [0.2, 0.4, 0.6]], &device);
        let of = |right: f64, others: &[f64]| {
            let all: f64 = others.iter().chain([&right]).map(|s| (s / 0.05).exp()).sum();
            all.ln() - right / 0.05
        };
        let documents = (of(0.5, &[0.1, 0.3]) + of(0.4, &[0.2, 0.6])) / 2.0;
        let queries = (of(0.5, &[0.2]) + of(0.4, &[0.1])) / 2.0;
        let value = |loss: Softmax| f64::from(loss.over(matrix()).into_scalar());
        assert!((value(Softmax::default()) - documents).abs() < 1e-5);
        let both = value(Softmax { symmetric: true, ..Softmax::default() });
        assert!((both - (documents + queries) / 2.0).abs() < 1e-5);
    }
}
