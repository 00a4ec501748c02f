//! Means of weights: what is validated and kept in place of the weights of the last step.

use std::collections::VecDeque;

use anyhow::Result;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use bytes::Bytes;
use codepair_model::Model;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Files;
use crate::tensors::{self, Tensors};

/// `average` of a training; `kind` says which.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Averaging {
    /// A moving mean over steps (Polyak & Juditsky, 1992), that forgets exponentially.
    Ema {
        /// The share that is kept each step; the first steps keep less.
        #[serde(default = "decay")]
        decay: f64,
    },
    /// The mean of the weights at the ends of the last epochs (Vaswani et al., 2017).
    Epochs {
        /// How many.
        #[serde(default = "count")]
        count: usize,
    },
}

fn decay() -> f64 {
    0.999
}

fn count() -> usize {
    5
}

impl Averaging {
    /// # Errors
    /// A value that cannot be: the key, and why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Ema { decay } if !(0.0..1.0).contains(decay) => {
                Err(format!("decay = {decay} must be at least 0 and below 1"))
            }
            Self::Epochs { count: 0 } => Err("count must be at least 1".to_owned()),
            _ => Ok(()),
        }
    }
}

/// What is averaged so far.
pub(crate) struct Average<B: Backend> {
    averaging: Averaging,
    /// The moving mean, or the weights of the last epochs, the newest last.
    weights: VecDeque<Tensors<B>>,
}

impl<B: Backend> Average<B> {
    pub(crate) fn new(averaging: Averaging) -> Self {
        Self { averaging, weights: VecDeque::new() }
    }

    /// After a step, from 1.
    pub(crate) fn step(&mut self, model: &Model<B>, step: u64) {
        let Averaging::Ema { decay } = self.averaging else { return };
        let now = tensors::of(model);
        let Some(mean) = self.weights.pop_front() else { return self.weights.push_front(now) };
        // As TensorFlow has it: a mean that begins with the first weights would be long in forgetting them.
        let keep = decay.min((1.0 + step as f64) / (10.0 + step as f64));
        let mix = |(mean, now): (Tensor<B, 1>, Tensor<B, 1>)| mean.mul_scalar(keep) + now.mul_scalar(1.0 - keep);
        let mixed = mean.into_iter().zip(now.into_values()).map(|((name, mean), now)| (name, mix((mean, now))));
        self.weights.push_front(mixed.collect());
    }

    /// After an epoch.
    pub(crate) fn epoch(&mut self, model: &Model<B>) {
        let Averaging::Epochs { count } = self.averaging else { return };
        self.weights.push_back(tensors::of(model));
        while self.weights.len() > count {
            self.weights.pop_front();
        }
    }

    /// The model with the mean of the weights.
    pub(crate) fn of(&self, model: Model<B>) -> Model<B> {
        let Some(mut sum) = self.weights.front().cloned() else { return model };
        for other in self.weights.iter().skip(1) {
            sum.iter_mut().for_each(|(name, sum)| *sum = sum.clone() + other[name].clone());
        }
        let count = self.weights.len() as f64;
        tensors::put(model, sum.into_iter().map(|(name, sum)| (name, sum.div_scalar(count))).collect())
    }

    /// Adds what is averaged to a checkpoint.
    pub(crate) fn save(&self, files: &mut Files) -> Result<()> {
        for (at, weights) in self.weights.iter().enumerate() {
            files.insert(file(at), Bytes::from(tensors::save(weights)?));
        }
        Ok(())
    }

    /// Goes on with what a checkpoint has.
    pub(crate) fn load(&mut self, files: &Files, device: &B::Device) -> Result<()> {
        self.weights.clear();
        while let Some(bytes) = files.get(&file(self.weights.len())) {
            self.weights.push_back(tensors::load(bytes, device)?);
        }
        Ok(())
    }
}

/// A checkpoint's file of what is averaged.
fn file(at: usize) -> String {
    format!("average-{at}.safetensors")
}

#[cfg(test)]
mod tests {
    use codepair_model::{Cpu, CpuDevice, ModelConfig, Vocabularies};

    use super::*;

    /// A model all of whose weights are one number.
    fn filled(value: f32) -> Model<Cpu> {
        let kind = serde_json::json!({ "kind": "nbow", "embedding": 2 });
        let kind: ModelConfig = serde_json::from_value(kind).unwrap();
        let model = kind.init(Vocabularies { source: 3, target: 3 }, &CpuDevice::default());
        let same = tensors::of(&model).into_iter().map(|(name, tensor)| (name, tensor.zeros_like().add_scalar(value)));
        let same = same.collect();
        tensors::put(model, same)
    }

    fn value(model: &Model<Cpu>) -> f32 {
        let all: Vec<f32> =
            tensors::of(model).into_values().flat_map(|t| t.into_data().iter::<f32>().collect::<Vec<_>>()).collect();
        assert!(all.len() > 10 && all.iter().all(|value| *value == all[0]));
        all[0]
    }

    #[test]
    fn means_are_those_of_their_weights() {
        let mut last = Average::new(Averaging::Epochs { count: 2 });
        assert_eq!(value(&last.of(filled(7.0))), 7.0);
        for weight in [1.0, 2.0, 4.0] {
            last.step(&filled(100.0), 1);
            last.epoch(&filled(weight));
        }
        assert_eq!(value(&last.of(filled(4.0))), 3.0);

        let mut moving = Average::new(Averaging::Ema { decay: 0.5 });
        moving.epoch(&filled(100.0));
        for (step, weight) in [(1, 8.0), (2, 4.0), (50, 0.0)] {
            moving.step(&filled(weight), step);
        }
        // 3/12 is kept at the second step, the half afterwards.
        let expected = (8.0 * 0.25 + 4.0 * 0.75) * 0.5;
        assert!((value(&moving.of(filled(0.0))) - expected).abs() < 1e-6);
        for average in [last, moving] {
            let mut files = Files::new();
            average.save(&mut files).unwrap();
            let mut other = Average::<Cpu>::new(average.averaging);
            other.load(&files, &CpuDevice::default()).unwrap();
            assert_eq!(value(&other.of(filled(9.0))), value(&average.of(filled(9.0))));
        }
    }
}
