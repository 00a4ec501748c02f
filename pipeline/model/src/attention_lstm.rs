//! A bidirectional LSTM encoder, additive attention and an LSTM decoder (Bahdanau et al., 2015).

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::lstm::{LstmCell, State, steps};
use crate::{Batch, Vocabularies};

/// Sizes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionLstmConfig {
    /// Width of the embeddings.
    pub embedding: usize,
    /// Width of each LSTM's state.
    pub hidden: usize,
    /// Share of embedding and readout values that are dropped in training.
    pub dropout: f64,
}

impl Default for AttentionLstmConfig {
    fn default() -> Self {
        Self { embedding: 256, hidden: 256, dropout: 0.2 }
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct AttentionLstm<B: Backend> {
    source_embedding: Embedding<B>,
    target_embedding: Embedding<B>,
    forward: LstmCell<B>,
    backward: LstmCell<B>,
    bridge: Linear<B>,
    attention_key: Linear<B>,
    attention_query: Linear<B>,
    attention_score: Linear<B>,
    decoder: LstmCell<B>,
    readout: Linear<B>,
    output: Linear<B>,
    dropout: Dropout,
    hidden: usize,
}

/// What the decoder looks at: encoder states [B, S, 2H], their keys [B, S, H], and the source's mask [B, S].
#[derive(Clone, Debug)]
pub(crate) struct Memory<B: Backend> {
    states: Tensor<B, 3>,
    keys: Tensor<B, 3>,
    mask: Tensor<B, 2>,
}

impl<B: Backend> Memory<B> {
    /// Each row repeated `times` times: [B × times, …].
    pub(crate) fn repeat(self, times: usize) -> Self {
        Self {
            states: self.states.repeat_dim(0, times),
            keys: self.keys.repeat_dim(0, times),
            mask: self.mask.repeat_dim(0, times),
        }
    }
}

impl<B: Backend> AttentionLstm<B> {
    /// Fresh weights.
    pub fn new(config: AttentionLstmConfig, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let AttentionLstmConfig { embedding, hidden, dropout } = config;
        Self {
            source_embedding: EmbeddingConfig::new(vocabularies.source, embedding).init(device),
            target_embedding: EmbeddingConfig::new(vocabularies.target, embedding).init(device),
            forward: LstmCell::new(embedding, hidden, device),
            backward: LstmCell::new(embedding, hidden, device),
            bridge: LinearConfig::new(2 * hidden, hidden).init(device),
            attention_key: LinearConfig::new(2 * hidden, hidden).init(device),
            attention_query: LinearConfig::new(hidden, hidden).with_bias(false).init(device),
            attention_score: LinearConfig::new(hidden, 1).with_bias(false).init(device),
            decoder: LstmCell::new(embedding + 2 * hidden, hidden, device),
            readout: LinearConfig::new(embedding + 3 * hidden, hidden).init(device),
            output: LinearConfig::new(hidden, vocabularies.target).init(device),
            dropout: DropoutConfig::new(dropout).init(),
            hidden,
        }
    }

    /// Reads the source: memory, and the decoder's first state.
    pub(crate) fn encode(&self, source: Tensor<B, 2, Int>, mask: Tensor<B, 2>) -> (Memory<B>, State<B>) {
        let device = source.device();
        let rows = source.dims()[0];
        let inputs = steps(self.dropout.forward(self.source_embedding.forward(source)));
        let masks = steps(mask.clone().unsqueeze_dim::<3>(2));
        let start = || State::zeros(rows, self.hidden, &device);
        let (forwards, last) = self.forward.run(&inputs, &masks, start(), false);
        let (backwards, first) = self.backward.run(&inputs, &masks, start(), true);
        let states = Tensor::cat(vec![Tensor::stack::<3>(forwards, 1), Tensor::stack::<3>(backwards, 1)], 2);
        let ends = Tensor::cat(vec![last.hidden, first.hidden], 1);
        let hidden = self.bridge.forward(ends).tanh();
        let keys = self.attention_key.forward(states.clone());
        let cell = Tensor::zeros([rows, self.hidden], &device);
        (Memory { states, keys, mask }, State { hidden, cell })
    }

    /// Weights over the source, [B, S], and the states they sum to, [B, 2H].
    fn attend(&self, memory: &Memory<B>, hidden: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let query = self.attention_query.forward(hidden).unsqueeze_dim::<3>(1);
        let scores = self.attention_score.forward((memory.keys.clone() + query).tanh()).squeeze_dim::<2>(2);
        let scores = scores + (memory.mask.clone() - 1.0) * 1e9;
        let weights = softmax(scores, 1);
        let context = weights.clone().unsqueeze_dim::<3>(1).matmul(memory.states.clone()).squeeze_dim(1);
        (weights, context)
    }

    /// One step after the embedded token [B, E]: what the readout sees [B, E + 3H], the attention [B, S], the new state.
    fn advance(
        &self,
        memory: &Memory<B>,
        embedded: Tensor<B, 2>,
        state: State<B>,
    ) -> (Tensor<B, 2>, Tensor<B, 2>, State<B>) {
        let (weights, context) = self.attend(memory, state.hidden.clone());
        let input = Tensor::cat(vec![embedded.clone(), context.clone()], 1);
        let state = self.decoder.step(input, state);
        let seen = Tensor::cat(vec![embedded, context, state.hidden.clone()], 1);
        (seen, weights, state)
    }

    /// Log-probabilities of the next token, [B, V], after `token` [B]; the attention [B, S]; the new state.
    pub(crate) fn step(
        &self,
        memory: &Memory<B>,
        token: Tensor<B, 1, Int>,
        state: State<B>,
    ) -> (Tensor<B, 2>, Tensor<B, 2>, State<B>) {
        let embedded = self.target_embedding.forward(token.unsqueeze_dim::<2>(1)).squeeze_dim(1);
        let (seen, weights, state) = self.advance(memory, embedded, state);
        let logits = self.output.forward(self.readout.forward(seen).tanh());
        (log_softmax(logits, 1), weights, state)
    }

    /// Logits for every target position but the first, given the right tokens before it: [B, T − 1, V].
    pub(crate) fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3> {
        let (memory, mut state) = self.encode(batch.source.clone(), batch.source_mask.clone());
        let length = batch.target.dims()[1] - 1;
        let before = batch.target.clone().narrow(1, 0, length);
        let embedded = self.dropout.forward(self.target_embedding.forward(before));
        let mut seen = Vec::with_capacity(length);
        for input in steps(embedded) {
            let (one, _, next) = self.advance(&memory, input, state);
            seen.push(one);
            state = next;
        }
        let readout = self.readout.forward(Tensor::stack::<3>(seen, 1)).tanh();
        self.output.forward(self.dropout.forward(readout))
    }
}
