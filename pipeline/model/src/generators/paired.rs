//! The encoder of one T5 with the decoder of another, and a learned projection between them (Rothe et al., 2020, pair checkpoints
//! so): each half keeps its sizes, its embeddings and its tokenizer.

use burn::module::Module;
use burn::nn::{Embedding, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::t5::output;
use crate::Vocabularies;
use crate::batch::{Batch, Tokens};
use crate::generators::{Generate, Step};
use crate::layers::t5::{Half, T5Sizes};
use crate::layers::transformer::Cache;
use crate::layers::{Output, embedding};

/// Sizes of both halves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PairedConfig {
    /// What reads.
    pub encoder: T5Sizes,
    /// What writes.
    pub decoder: T5Sizes,
    /// The output is the decoder's table of embeddings once more.
    pub tied: bool,
    /// States are divided by the root of the width before the output.
    pub scaled: bool,
    /// Share of values that are dropped in training.
    pub dropout: f64,
}

impl Default for PairedConfig {
    fn default() -> Self {
        Self { encoder: T5Sizes::default(), decoder: T5Sizes::default(), tied: true, scaled: true, dropout: 0.1 }
    }
}

impl PairedConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        let within = |half: &str, sizes: &T5Sizes| sizes.check(self.dropout).map_err(|why| format!("{half}.{why}"));
        within("encoder", &self.encoder)?;
        within("decoder", &self.decoder)
    }

    pub(crate) fn one_vocabulary(&self) -> Option<&'static str> {
        None
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Paired<B: Backend> {
    source_embedding: Embedding<B>,
    encoder: Half<B>,
    projection: Linear<B>,
    target_embedding: Embedding<B>,
    decoder: Half<B>,
    output: Output<B>,
}

impl<B: Backend> Paired<B> {
    /// Fresh weights.
    pub(crate) fn new(config: &PairedConfig, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let (encoder, decoder) = (&config.encoder, &config.decoder);
        Self {
            source_embedding: embedding(vocabularies.source, encoder.width, 1.0, device),
            encoder: Half::new(encoder, false, config.dropout, device),
            projection: LinearConfig::new(encoder.width, decoder.width).init(device),
            target_embedding: embedding(vocabularies.target, decoder.width, 1.0, device),
            decoder: Half::new(decoder, true, config.dropout, device),
            output: output((config.tied, config.scaled), decoder.width, vocabularies.target, device),
        }
    }

    fn write(&self, ids: Tensor<B, 2, Int>, cache: Cache<B>) -> (Tensor<B, 3>, Tensor<B, 3>, Cache<B>) {
        let (states, weights, cache) = self.decoder.decode(self.target_embedding.forward(ids), cache);
        (self.output.forward(states, &self.target_embedding), weights, cache)
    }
}

impl<B: Backend> Generate<B> for Paired<B> {
    type State = Cache<B>;

    fn begin(&self, source: &Tokens<B>) -> Cache<B> {
        let states = self.encoder.encode(self.source_embedding.forward(source.ids.clone()), &source.padding);
        self.decoder.remember(&self.projection.forward(states), source.padding.clone())
    }

    fn step(&self, last: Tensor<B, 1, Int>, state: Cache<B>) -> Step<B, Cache<B>> {
        let (logits, attention, state) = self.write(last.unsqueeze_dim(1), state);
        Step { logits: logits.squeeze_dim(1), attention: Some(attention.squeeze_dim(1)), state }
    }

    fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3> {
        self.write(batch.inputs(), self.begin(&batch.source)).0
    }
}
