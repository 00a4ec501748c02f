//! A bidirectional LSTM encoder, additive attention and an LSTM decoder (Bahdanau et al., 2015).

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::Vocabularies;
use crate::batch::{Batch, Tokens};
use crate::generators::{Generate, Step};
use crate::layers::copying::{Copying, Original, mixed};
use crate::layers::recurrent::{Cell, CellKind, CellState, Encoder, steps};
use crate::layers::{NEVER, Rows, embedding, look_up};

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
    /// Tokens may be copied from the source; needs one tokenizer for both.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub copy: bool,
}

impl Default for AttentionLstmConfig {
    fn default() -> Self {
        Self { embedding: 256, hidden: 256, dropout: 0.2, copy: false }
    }
}

impl AttentionLstmConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        crate::layers::check_sizes(&[("embedding", self.embedding), ("hidden", self.hidden)], self.dropout)
    }

    pub(crate) fn one_vocabulary(&self) -> Option<&'static str> {
        self.copy.then_some("copy")
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct AttentionLstm<B: Backend> {
    source_embedding: Embedding<B>,
    target_embedding: Embedding<B>,
    encoder: Encoder<B>,
    attention_key: Linear<B>,
    attention_query: Linear<B>,
    attention_score: Linear<B>,
    decoder: Cell<B>,
    readout: Linear<B>,
    output: Linear<B>,
    copying: Option<Copying<B>>,
    dropout: Dropout,
}

/// What the decoder looks at: encoder states [B, S, 2H], their keys [B, S, H], and where the source is padded [B, S].
#[derive(Clone, Debug)]
struct Memory<B: Backend> {
    states: Tensor<B, 3>,
    keys: Tensor<B, 3>,
    padding: Tensor<B, 2, Bool>,
}

/// The decoder's state and what it looks at.
#[derive(Clone, Debug)]
pub struct State<B: Backend> {
    state: CellState<B>,
    memory: Memory<B>,
    original: Option<Original<B>>,
}

impl<B: Backend> Rows<B> for State<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        let Memory { states, keys, padding } = self.memory;
        let memory = Memory {
            states: Rows::select(states, rows),
            keys: Rows::select(keys, rows),
            padding: Rows::select(padding, rows),
        };
        Self { state: self.state.select(rows), memory, original: self.original.select(rows) }
    }
}

impl<B: Backend> AttentionLstm<B> {
    /// Fresh weights.
    pub(crate) fn new(config: &AttentionLstmConfig, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let AttentionLstmConfig { embedding: width, hidden, dropout, copy } = *config;
        let seen = width + 3 * hidden;
        Self {
            source_embedding: embedding(vocabularies.source, width, 1.0, device),
            target_embedding: embedding(vocabularies.target, width, 1.0, device),
            encoder: Encoder::new(CellKind::Lstm, width, hidden, device),
            attention_key: LinearConfig::new(2 * hidden, hidden).init(device),
            attention_query: LinearConfig::new(hidden, hidden).with_bias(false).init(device),
            attention_score: LinearConfig::new(hidden, 1).with_bias(false).init(device),
            decoder: Cell::new(CellKind::Lstm, width + 2 * hidden, hidden, device),
            readout: LinearConfig::new(seen, hidden).init(device),
            output: LinearConfig::new(hidden, vocabularies.target).init(device),
            copying: copy.then(|| Copying::new(seen, 2 * hidden, device)),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// Weights over the source, [B, S], and the states they sum to, [B, 2H].
    fn attend(&self, memory: &Memory<B>, hidden: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let query = self.attention_query.forward(hidden).unsqueeze_dim::<3>(1);
        let scores = self.attention_score.forward((memory.keys.clone() + query).tanh()).squeeze_dim::<2>(2);
        let weights = softmax(scores.mask_fill(memory.padding.clone(), NEVER), 1);
        let context = weights.clone().unsqueeze_dim::<3>(1).matmul(memory.states.clone()).squeeze_dim(1);
        (weights, context)
    }

    /// One step after the embedded token [B, E]: what the readout sees [B, E + 3H], the attention [B, S], the new state.
    fn advance(
        &self,
        memory: &Memory<B>,
        embedded: Tensor<B, 2>,
        state: CellState<B>,
    ) -> (Tensor<B, 2>, Tensor<B, 2>, CellState<B>) {
        let (weights, context) = self.attend(memory, state.hidden.clone());
        let input = Tensor::cat(vec![embedded.clone(), context.clone()], 1);
        let state = self.decoder.step(input, state);
        let seen = Tensor::cat(vec![embedded, context, state.hidden.clone()], 1);
        (seen, weights, state)
    }

    /// Logits [B, T, V] of what the readout sees, [B, T, E + 3H].
    fn write(&self, seen: Tensor<B, 3>, original: Option<&Original<B>>) -> Tensor<B, 3> {
        let readout = self.dropout.forward(self.readout.forward(seen.clone()).tanh());
        mixed(self.copying.as_ref(), self.output.forward(readout), seen, original)
    }
}

impl<B: Backend> Generate<B> for AttentionLstm<B> {
    type State = State<B>;

    fn begin(&self, source: &Tokens<B>) -> State<B> {
        let embedded = self.dropout.forward(self.source_embedding.forward(source.ids.clone()));
        let (states, hidden) = self.encoder.read(embedded, source);
        let original = self.copying.is_some().then(|| Original::new(states.clone(), source));
        let keys = self.attention_key.forward(states.clone());
        let memory = Memory { states, keys, padding: source.padding.clone() };
        State { state: self.decoder.starting(hidden), memory, original }
    }

    fn step(&self, last: Tensor<B, 1, Int>, State { state, memory, original }: State<B>) -> Step<B, State<B>> {
        let embedded = look_up(&self.target_embedding, last);
        let (seen, weights, state) = self.advance(&memory, embedded, state);
        let logits = self.write(seen.unsqueeze_dim(1), original.as_ref()).squeeze_dim(1);
        Step { logits, attention: Some(weights), state: State { state, memory, original } }
    }

    fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3> {
        let State { mut state, memory, original } = self.begin(&batch.source);
        let embedded = self.dropout.forward(self.target_embedding.forward(batch.inputs()));
        let mut seen = Vec::with_capacity(batch.target.width());
        for input in steps(embedded) {
            let (one, _, next) = self.advance(&memory, input, state);
            seen.push(one);
            state = next;
        }
        self.write(Tensor::stack::<3>(seen, 1), original.as_ref())
    }
}
