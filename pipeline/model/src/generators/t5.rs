//! T5 and CodeT5 (Raffel et al., 2020; Wang et al., 2021): one table of embeddings for what is read and what is written.
//!
//! As in transformers, but for its dropout of attention weights.

use burn::module::Module;
use burn::nn::{Embedding, Initializer, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::Vocabularies;
use crate::batch::{Batch, Tokens};
use crate::generators::{Generate, Step};
use crate::layers::t5::{Half, T5Sizes};
use crate::layers::transformer::Cache;
use crate::layers::{Output, embedding};

/// Sizes of the model, as published for t5-small and codet5-small.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct T5Config {
    /// Width of embeddings and states (`d_model`).
    pub width: usize,
    /// Heads of each attention.
    pub heads: usize,
    /// Width of each head (`d_kv`).
    pub head_width: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Width inside the feed-forward parts (`d_ff`).
    pub feed_forward: usize,
    /// Feed-forward parts are gated (T5 1.1), and not plain with a ReLU (T5, CodeT5).
    pub gated: bool,
    /// The output is the table of embeddings once more.
    pub tied: bool,
    /// States are divided by the root of the width before the output, as T5 and CodeT5 have it, and T5 1.1 has not.
    pub scaled: bool,
    /// Buckets of distances.
    pub buckets: usize,
    /// Distances of so many places and more share a bucket.
    pub farthest: usize,
    /// What norms add to the mean square.
    pub epsilon: f64,
    /// Share of values that are dropped in training.
    pub dropout: f64,
}

impl Default for T5Config {
    fn default() -> Self {
        let T5Sizes { width, heads, head_width, layers, feed_forward, gated, buckets, farthest, epsilon } =
            T5Sizes::default();
        let (encoder_layers, decoder_layers, tied, scaled, dropout) = (layers, layers, true, true, 0.1);
        Self {
            width,
            heads,
            head_width,
            encoder_layers,
            decoder_layers,
            feed_forward,
            gated,
            tied,
            scaled,
            buckets,
            farthest,
            epsilon,
            dropout,
        }
    }
}

impl T5Config {
    pub(crate) fn check(&self) -> Result<(), String> {
        let counts = [("encoder_layers", self.encoder_layers), ("decoder_layers", self.decoder_layers)];
        crate::layers::check_sizes(&counts, self.dropout)?;
        self.half(self.encoder_layers).check(self.dropout)
    }

    /// It has one table of embeddings.
    pub(crate) fn one_vocabulary(&self) -> Option<&'static str> {
        Some("kind")
    }

    /// A half of so many layers.
    pub(crate) fn half(&self, layers: usize) -> T5Sizes {
        let Self { width, heads, head_width, feed_forward, gated, buckets, farthest, epsilon, .. } = *self;
        T5Sizes { width, heads, head_width, layers, feed_forward, gated, buckets, farthest, epsilon }
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct T5<B: Backend> {
    embedding: Embedding<B>,
    encoder: Half<B>,
    decoder: Half<B>,
    output: Output<B>,
}

impl<B: Backend> T5<B> {
    /// Fresh weights.
    pub(crate) fn new(config: &T5Config, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let (encoder, decoder) = (config.half(config.encoder_layers), config.half(config.decoder_layers));
        Self {
            embedding: embedding(vocabularies.source, config.width, 1.0, device),
            encoder: Half::new(&encoder, false, config.dropout, device),
            decoder: Half::new(&decoder, true, config.dropout, device),
            output: output((config.tied, config.scaled), config.width, vocabularies.target, device),
        }
    }

    fn write(&self, ids: Tensor<B, 2, Int>, cache: Cache<B>) -> (Tensor<B, 3>, Tensor<B, 3>, Cache<B>) {
        let (states, weights, cache) = self.decoder.decode(self.embedding.forward(ids), cache);
        (self.output.forward(states, &self.embedding), weights, cache)
    }
}

/// Scores over a vocabulary, those of the embeddings once more where they are tied.
pub(crate) fn output<B: Backend>(
    (tied, scaled): (bool, bool),
    width: usize,
    vocabulary: usize,
    device: &B::Device,
) -> Output<B> {
    let std = 1.0 / (width as f64).sqrt();
    let drawn = Initializer::Normal { mean: 0.0, std };
    let own = LinearConfig::new(width, vocabulary).with_bias(false).with_initializer(drawn);
    Output::new((!tied).then(|| own.init(device))).scaled(if scaled { std } else { 1.0 })
}

impl<B: Backend> Generate<B> for T5<B> {
    type State = Cache<B>;

    fn begin(&self, source: &Tokens<B>) -> Cache<B> {
        let states = self.encoder.encode(self.embedding.forward(source.ids.clone()), &source.padding);
        self.decoder.remember(&states, source.padding.clone())
    }

    fn step(&self, last: Tensor<B, 1, Int>, state: Cache<B>) -> Step<B, Cache<B>> {
        let (logits, attention, state) = self.write(last.unsqueeze_dim(1), state);
        Step { logits: logits.squeeze_dim(1), attention: Some(attention.squeeze_dim(1)), state }
    }

    fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3> {
        self.write(batch.inputs(), self.begin(&batch.source)).0
    }
}
