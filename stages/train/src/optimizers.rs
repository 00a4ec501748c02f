//! How gradients move weights. A new optimizer is a file, a line in [`OptimizerConfig`] and what the compiler then asks for.
//!
//! The rate comes from the schedule. Weight decay is decoupled (Loshchilov & Hutter, 2019) and leaves embeddings, biases and
//! norms alone.

mod adafactor;
mod adamw;
mod muon;
mod sgd;

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Tensor, cast::ToElement as _};
use codepair_model::{Model, Named, ParameterKind, is_eager, named};
use serde::{Deserialize, Serialize};

use adafactor::Adafactor;
use adamw::Adamw;
use muon::Muon;
use sgd::Sgd;

use crate::tensors;

/// `optimizer` of a training; `kind` says which.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay.
    Adamw(Adamw),
    /// The same, where the rows of an embedding table that a batch does not touch stay as they are, moments and all.
    LazyAdamw(Adamw),
    /// Second moments by rows and columns.
    Adafactor(Adafactor),
    /// Plain steps, with momentum or without.
    Sgd(Sgd),
    /// Orthogonalised momentum for matrices, AdamW for the rest.
    Muon(Muon),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::Adamw(Adamw::default())
    }
}

impl OptimizerConfig {
    /// The same kind with its defaults.
    pub(crate) fn default_of_kind(&self) -> Self {
        match self {
            Self::Adamw(_) => Self::Adamw(Adamw::default()),
            Self::LazyAdamw(_) => Self::LazyAdamw(Adamw::default()),
            Self::Adafactor(_) => Self::Adafactor(Adafactor::default()),
            Self::Sgd(_) => Self::Sgd(Sgd::default()),
            Self::Muon(_) => Self::Muon(Muon::default()),
        }
    }

    /// # Errors
    /// A value that cannot be: the key, and why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Adamw(config) | Self::LazyAdamw(config) => config.check(),
            Self::Adafactor(config) => config.check(),
            Self::Sgd(config) => config.check(),
            Self::Muon(config) => config.check(),
        }
    }

    /// The weights after one step.
    fn update<B: Backend, const D: usize>(&self, one: Update<'_, B, D>) -> Tensor<B, D> {
        match self {
            Self::Adamw(config) => config.update(one, false),
            Self::LazyAdamw(config) => config.update(one, true),
            Self::Adafactor(config) => config.update(one),
            Self::Sgd(config) => config.update(one),
            Self::Muon(config) => config.update(one),
        }
    }
}

/// That a share lies in [0, 1).
fn check_share(key: &str, value: f64) -> Result<(), String> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(format!("{key} = {value} must be at least 0 and below 1")) }
}

/// That a value is a number from 0 on.
fn check_from_zero(key: &str, value: f64) -> Result<(), String> {
    let is_right = value.is_finite() && value >= 0.0;
    if is_right { Ok(()) } else { Err(format!("{key} = {value} must be at least 0")) }
}

/// A parameter to be moved.
struct Update<'a, B: Backend, const D: usize> {
    kind: ParameterKind,
    weight: Tensor<B, D>,
    gradient: Tensor<B, D>,
    /// What the optimizer remembers of it, each flat; empty before the first step.
    memory: &'a mut Vec<Tensor<B, 1>>,
    rate: f64,
    /// The number of this step, from 1.
    step: u64,
}

impl<B: Backend, const D: usize> Update<'_, B, D> {
    /// The memory number `at`, in the shape of the weight; zeros before the first step.
    fn remembered(&self, at: usize) -> Tensor<B, D> {
        let zeros = || self.weight.zeros_like();
        self.memory.get(at).map_or_else(zeros, |flat| flat.clone().reshape(self.weight.shape()))
    }

    /// The weight pulled towards 0, if it is of those that are.
    fn decayed(&self, decay: f64) -> Tensor<B, D> {
        let is_decayed = self.kind == ParameterKind::Matrix && decay > 0.0;
        let weight = self.weight.clone();
        if is_decayed { weight.mul_scalar(1.0 - self.rate * decay) } else { weight }
    }
}

/// An optimizer and what it remembers, by the names of the parameters.
pub(crate) struct Optimizer<B: AutodiffBackend> {
    config: OptimizerConfig,
    parameters: BTreeMap<u64, Named>,
    memory: BTreeMap<String, Vec<Tensor<B::InnerBackend, 1>>>,
}

/// The gradients of a step, what they are multiplied by ([1]), and whether they are numbers ([1]).
pub(crate) struct Gradients<B: AutodiffBackend> {
    pub(crate) all: GradientsParams,
    pub(crate) scale: Tensor<B::InnerBackend, 1>,
    pub(crate) finite: Tensor<B::InnerBackend, 1, Bool>,
}

impl<B: AutodiffBackend> Optimizer<B> {
    pub(crate) fn new(config: OptimizerConfig, model: &Model<B>) -> Self {
        Self { config, parameters: named(model), memory: BTreeMap::new() }
    }

    /// The model after one step; where the gradients are no numbers it stays as it is, and so does what is remembered.
    pub(crate) fn step(&mut self, model: Model<B>, gradients: Gradients<B>, rate: f64, step: u64) -> Model<B> {
        // On a device nobody waits for the answer: both are computed, and one is taken there.
        let is_known = is_eager::<B::InnerBackend>();
        if is_known && !gradients.finite.clone().into_scalar().to_bool() {
            return model;
        }
        model.map(&mut Stepping { optimizer: self, gradients, is_known, rate, step })
    }

    /// What is remembered, as a safetensors file.
    pub(crate) fn save(&self) -> Result<Vec<u8>> {
        let numbered = |(name, memory): (&String, &Vec<Tensor<B::InnerBackend, 1>>)| {
            let name = name.clone();
            memory.clone().into_iter().enumerate().map(move |(at, tensor)| (format!("{name}#{at}"), tensor))
        };
        tensors::save(&self.memory.iter().flat_map(numbered).collect())
    }

    /// Goes on with what was remembered.
    pub(crate) fn load(&mut self, bytes: &[u8], device: &B::Device) -> Result<()> {
        self.memory.clear();
        // There are fewer than ten of a parameter, so they come in their order.
        for (key, tensor) in tensors::load(bytes, device)? {
            let (name, _) = key.rsplit_once('#').ok_or_else(|| anyhow!("{key} is no memory of an optimizer"))?;
            self.memory.entry(name.to_owned()).or_default().push(tensor);
        }
        Ok(())
    }
}

/// A step over all parameters.
struct Stepping<'a, B: AutodiffBackend> {
    optimizer: &'a mut Optimizer<B>,
    gradients: Gradients<B>,
    /// The gradients are known to be numbers.
    is_known: bool,
    rate: f64,
    step: u64,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Stepping<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let named = self.optimizer.parameters.get(&id.val());
        let gradient = self.gradients.all.remove::<B::InnerBackend, D>(id);
        let (Some(Named { name, kind }), Some(gradient)) = (named, gradient) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let weight = tensor.inner();
        let gradient = gradient * self.gradients.scale.clone().unsqueeze();
        let memory = self.optimizer.memory.entry(name.clone()).or_default();
        // What else is held cannot be written over in place.
        let former = (!self.is_known).then(|| (weight.clone(), memory.clone()));
        let one = Update { kind: *kind, weight, gradient, memory, rate: self.rate, step: self.step };
        let mut moved = self.optimizer.config.update(one);
        if let Some((weight, before)) = former {
            moved = keep_unless(&self.gradients.finite, weight, moved);
            for (at, now) in memory.iter_mut().enumerate() {
                let old = before.get(at).cloned().unwrap_or_else(|| now.zeros_like());
                *now = keep_unless(&self.gradients.finite, old, now.clone());
            }
        }
        Param::from_mapped_value(id, Tensor::from_inner(moved).require_grad(), mapper)
    }
}

/// `new` where `is` holds, else `old`.
fn keep_unless<B: Backend, const D: usize>(
    is: &Tensor<B, 1, Bool>,
    old: Tensor<B, D>,
    new: Tensor<B, D>,
) -> Tensor<B, D> {
    let mask = is.clone().unsqueeze::<D>().expand(old.shape());
    old.mask_where(mask, new)
}

#[cfg(test)]
mod tests;
