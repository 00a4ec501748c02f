//! Cross-entropy of the right token among all, with what is used against overfitting.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::batch::Tokens;

/// Its values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropy {
    /// This share of each label is spread over all tokens (Szegedy et al., 2016).
    pub label_smoothing: f64,
    /// How much each target token counts.
    pub class_weights: ClassWeights,
    /// The β of `class_weights = "effective_number"`: near 1 it is near the inverse frequency.
    pub beta: f64,
    /// Weight of the squared logarithm of the softmax's divisor, which keeps logits near 0 (Chowdhery et al., 2022: 1e-4).
    pub z_loss: f64,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { label_smoothing: 0.0, class_weights: ClassWeights::Equal, beta: 0.999, z_loss: 0.0 }
    }
}

/// How much a target token counts, by how often it stands in the training rows. The mean over all training tokens is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All the same.
    #[default]
    Equal,
    /// 1 / n.
    InverseFrequency,
    /// (1 − β) / (1 − βⁿ) (Cui et al., 2019).
    EffectiveNumber,
}

impl CrossEntropy {
    /// The weights of tokens that stand in the training rows so often; nothing where all are the same.
    #[must_use]
    pub fn weights(&self, counts: &[u64]) -> Option<Vec<f32>> {
        // A token that never stands there is weighted like one that does once.
        let beta = self.beta;
        let weight = |&count: &u64| match self.class_weights {
            ClassWeights::Equal => None,
            ClassWeights::InverseFrequency => Some(1.0 / count.max(1) as f64),
            ClassWeights::EffectiveNumber => Some((1.0 - beta) / (1.0 - beta.powf(count.max(1) as f64))),
        };
        let weights = counts.iter().map(weight).collect::<Option<Vec<f64>>>()?;
        let all: f64 = counts.iter().map(|&count| count as f64).sum();
        let sum: f64 = weights.iter().zip(counts).map(|(weight, &count)| weight * count as f64).sum();
        let scale = if sum > 0.0 { all / sum } else { 1.0 };
        Some(weights.into_iter().map(|weight| (weight * scale) as f32).collect())
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(format!("label_smoothing = {} must be at least 0 and below 1", self.label_smoothing));
        }
        if !(self.z_loss.is_finite() && self.z_loss >= 0.0) {
            return Err(format!("z_loss = {} must be at least 0", self.z_loss));
        }
        if !(0.0..1.0).contains(&self.beta) {
            return Err(format!("beta = {} must be at least 0 and below 1", self.beta));
        }
        Ok(())
    }

    /// The mean over the tokens of framed targets but the first of each, weighted as PyTorch's `CrossEntropyLoss` is; `logits` is
    /// [B, T − 1, V] and `weights` [V].
    pub(crate) fn over<B: Backend>(
        &self,
        logits: Tensor<B, 3>,
        target: &Tokens<B>,
        weights: Option<&Tensor<B, 1>>,
    ) -> Tensor<B, 1> {
        let [rows, length, vocabulary] = logits.dims();
        let places = rows * length;
        let labels = target.ids.clone().narrow(1, 1, length).reshape([places, 1]);
        let mask = target.mask().narrow(1, 1, length).reshape([places, 1]);
        let logits = logits.reshape([places, vocabulary]);
        let log_probabilities = log_softmax(logits.clone(), 1);
        let chosen = log_probabilities.clone().gather(1, labels.clone());
        let count = (target.count() - target.rows()).max(1) as f64;
        let table = weights.map(|weights| weights.clone().unsqueeze_dim::<2>(0));
        // Each label's weight, and what they sum to.
        let each = weights.map_or(mask.clone(), |weights| {
            mask.clone() * weights.clone().select(0, labels.squeeze_dim::<1>(1)).unsqueeze_dim(1)
        });
        let mean = |sum: Tensor<B, 1>| match weights {
            None => sum.div_scalar(count),
            Some(_) => sum / each.clone().sum().clamp_min(f32::MIN_POSITIVE),
        };
        let mut loss = mean((chosen * each.clone()).sum().neg()).mul_scalar(1.0 - self.label_smoothing);
        if self.label_smoothing > 0.0 {
            let all = table.map_or(log_probabilities.clone(), |table| log_probabilities.clone() * table);
            let spread = (all.sum_dim(1) * mask.clone()).sum().neg().div_scalar(vocabulary as f64);
            loss = loss + mean(spread).mul_scalar(self.label_smoothing);
        }
        if self.z_loss > 0.0 {
            // Any logit less its log-probability is the logarithm of the divisor.
            let divisor = logits.narrow(1, 0, 1) - log_probabilities.narrow(1, 0, 1);
            let squares = (divisor.powi_scalar(2) * mask).sum().div_scalar(count);
            loss = loss + squares.mul_scalar(self.z_loss);
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuDevice};

    /// Two rows, three tokens of vocabulary, the second row one token shorter.
    const LOGITS: [[[f32; 3]; 2]; 2] = [[[1.0, 2.0, 0.5], [0.1, 0.2, 0.3]], [[2.0, -1.0, 0.0], [9.0, 9.0, 9.0]]];
    const TARGETS: [&[u32]; 2] = [&[1, 2, 0], &[1, 0]];
    /// What is asked for: row, place, label.
    const ASKED: [(usize, usize, usize); 3] = [(0, 0, 2), (0, 1, 0), (1, 0, 0)];

    fn value(loss: CrossEntropy, weights: Option<[f32; 3]>) -> f64 {
        let device = CpuDevice::default();
        let target = Tokens::<Cpu>::new(&TARGETS, &device);
        let weights = weights.map(|weights| Tensor::from_data(weights, &device));
        f64::from(loss.over(Tensor::from_data(LOGITS, &device), &target, weights.as_ref()).into_scalar())
    }

    /// The formulas of PyTorch's `CrossEntropyLoss`, written out.
    fn expected(loss: CrossEntropy, weights: [f64; 3]) -> f64 {
        let (mut sum, mut all, mut squares) = (0.0, 0.0, 0.0);
        for (row, place, label) in ASKED {
            let logits = LOGITS[row][place].map(f64::from);
            let divisor: f64 = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let spread: f64 = (0..3).map(|token| weights[token] * (divisor - logits[token])).sum::<f64>() / 3.0;
            let own = weights[label] * (divisor - logits[label]);
            sum += (1.0 - loss.label_smoothing) * own + loss.label_smoothing * spread;
            all += weights[label];
            squares += divisor * divisor;
        }
        sum / all + loss.z_loss * squares / 3.0
    }

    #[test]
    fn it_equals_its_formula() {
        let plain = CrossEntropy::default();
        let smooth = CrossEntropy { label_smoothing: 0.1, ..plain };
        let kept = CrossEntropy { z_loss: 0.01, ..plain };
        for loss in [plain, smooth, kept] {
            assert!((value(loss, None) - expected(loss, [1.0; 3])).abs() < 1e-6, "{loss:?}");
            let weights = [0.5, 2.0, 0.25];
            let got = value(loss, Some(weights.map(|w| w as f32)));
            assert!((got - expected(loss, weights)).abs() < 1e-6, "{loss:?}");
        }
    }

    #[test]
    fn weights_are_those_of_their_papers() {
        let of = |class_weights, counts: &[u64]| {
            CrossEntropy { class_weights, beta: 0.5, ..CrossEntropy::default() }.weights(counts)
        };
        assert_eq!(of(ClassWeights::Equal, &[1, 2]), None);
        // Four of one and one of another: their sums are equal, and the mean over all five is 1.
        let inverse = of(ClassWeights::InverseFrequency, &[4, 1, 0]);
        assert_eq!(inverse, Some(vec![0.625, 2.5, 2.5]));
        let effective = of(ClassWeights::EffectiveNumber, &[2, 1]).unwrap_or_default();
        // (1 − β) / (1 − β²) = 2/3 and 1, scaled by 3 / (2 · 2/3 + 1).
        assert!(
            (f64::from(effective[0]) - 6.0 / 7.0).abs() < 1e-6 && (f64::from(effective[1]) - 9.0 / 7.0).abs() < 1e-6
        );
    }
}
