//! A copy mechanism (See et al., 2017): the next token is drawn from the vocabulary or, as a gate has it, copied from the source.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, IndexingUpdateOp, Int, Tensor};

use crate::batch::Tokens;
use crate::layers::{NEVER, Rows};

/// Probabilities below this count as it, so that their logarithm is a number.
const LEAST: f64 = 1e-9;

/// Where to copy from, and whether. Source and target must have one vocabulary.
#[derive(Module, Debug)]
pub(crate) struct Copying<B: Backend> {
    query: Linear<B>,
    gate: Linear<B>,
}

/// What can be copied: the source's states [B, S, M], its ids and its padding [B, S].
#[derive(Clone, Debug)]
pub(crate) struct Original<B: Backend> {
    states: Tensor<B, 3>,
    ids: Tensor<B, 2, Int>,
    padding: Tensor<B, 2, Bool>,
}

impl<B: Backend> Original<B> {
    pub(crate) fn new(states: Tensor<B, 3>, source: &Tokens<B>) -> Self {
        Self { states, ids: source.ids.clone(), padding: source.padding.clone() }
    }
}

impl<B: Backend> Rows<B> for Original<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Self {
            states: Rows::select(self.states, rows),
            ids: Rows::select(self.ids, rows),
            padding: Rows::select(self.padding, rows),
        }
    }
}

/// Logits as they are, or mixed with what can be copied where the model copies.
pub(crate) fn mixed<B: Backend>(
    copying: Option<&Copying<B>>,
    logits: Tensor<B, 3>,
    states: Tensor<B, 3>,
    original: Option<&Original<B>>,
) -> Tensor<B, 3> {
    match (copying, original) {
        (Some(copying), Some(original)) => copying.mix(logits, states, original),
        _ => logits,
    }
}

impl<B: Backend> Copying<B> {
    /// For decoder states of width `state` over source states of width `memory`.
    pub(crate) fn new(state: usize, memory: usize, device: &B::Device) -> Self {
        Self {
            query: LinearConfig::new(state, memory).with_bias(false).init(device),
            gate: LinearConfig::new(state, 1).init(device),
        }
    }

    /// Logits of both ways together: g · softmax(logits) + (1 − g) · Σ of the attention on the places where a token stands
    /// (equation 9), as logarithms, [B, T, V]; `states` are the decoder's, [B, T, D].
    fn mix(&self, logits: Tensor<B, 3>, states: Tensor<B, 3>, original: &Original<B>) -> Tensor<B, 3> {
        let [rows, length, vocabulary] = logits.dims();
        let [_, width, memory] = original.states.dims();
        let query = self.query.forward(states.clone()).div_scalar((memory as f64).sqrt());
        let padding = original.padding.clone().unsqueeze_dim::<3>(1).expand([rows, length, width]);
        let scores = query.matmul(original.states.clone().swap_dims(1, 2)).mask_fill(padding, NEVER);
        let gate = sigmoid(self.gate.forward(states));
        let copied = softmax(scores, 2) * (gate.clone().neg().add_scalar(1.0));
        let places = original.ids.clone().unsqueeze_dim::<3>(1).expand([rows, length, width]);
        let none = Tensor::zeros([rows, length, vocabulary], &copied.device());
        let copied = none.scatter(2, places, copied, IndexingUpdateOp::Add);
        (softmax(logits, 2) * gate + copied).add_scalar(LEAST).log()
    }
}
