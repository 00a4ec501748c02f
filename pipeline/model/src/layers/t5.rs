//! One half of a T5 (Raffel et al., 2020): its encoder, or its decoder.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::attention::AttentionSizes;
use crate::layers::relative::Relative;
use crate::layers::transformer::{Activation, Cache, Layer, LayerSizes, Norm, decode, encode};

/// Sizes of a half.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct T5Sizes {
    /// Width of embeddings and states.
    pub width: usize,
    /// Heads of each attention.
    pub heads: usize,
    /// Width of each head.
    pub head_width: usize,
    /// Layers.
    pub layers: usize,
    /// Width inside the feed-forward parts.
    pub feed_forward: usize,
    /// Feed-forward parts are gated (T5 1.1), and not plain with a ReLU (T5, CodeT5).
    pub gated: bool,
    /// Buckets of distances.
    pub buckets: usize,
    /// Distances of so many places and more share a bucket.
    pub farthest: usize,
    /// What norms add to the mean square.
    pub epsilon: f64,
}

impl Default for T5Sizes {
    /// Those of t5-small and codet5-small.
    fn default() -> Self {
        Self {
            width: 512,
            heads: 8,
            head_width: 64,
            layers: 6,
            feed_forward: 2048,
            gated: false,
            buckets: 32,
            farthest: 128,
            epsilon: 1e-6,
        }
    }
}

impl T5Sizes {
    pub(crate) fn check(&self, dropout: f64) -> Result<(), String> {
        let sizes = [
            ("width", self.width),
            ("heads", self.heads),
            ("head_width", self.head_width),
            ("layers", self.layers),
            ("feed_forward", self.feed_forward),
        ];
        crate::layers::check_sizes(&sizes, dropout)?;
        if self.buckets < 4 || !self.buckets.is_multiple_of(4) || self.farthest <= self.buckets / 2 {
            return Err(format!(
                "buckets = {} must be a multiple of 4, and farthest = {} more than half of it",
                self.buckets, self.farthest
            ));
        }
        if self.epsilon.is_nan() || self.epsilon <= 0.0 {
            return Err(format!("epsilon = {} must be above 0", self.epsilon));
        }
        Ok(())
    }

    fn layer(&self, dropout: f64) -> LayerSizes {
        let attention = AttentionSizes {
            width: self.width,
            heads: self.heads,
            head_width: self.head_width,
            is_bare: true,
            qk_norm: false,
            rotary: false,
        };
        LayerSizes {
            attention,
            feed_forward: self.feed_forward,
            activation: if self.gated { Activation::Gelu } else { Activation::Relu },
            gated: self.gated,
            rms_epsilon: Some(self.epsilon),
            dropout,
        }
    }
}

/// The layers of a half, the scores of distances that all of them share, and the norm behind them.
#[derive(Module, Debug)]
pub(crate) struct Half<B: Backend> {
    relative: Relative<B>,
    layers: Vec<Layer<B>>,
    norm: Norm<B>,
    dropout: Dropout,
}

impl<B: Backend> Half<B> {
    /// Fresh weights of a decoder, which looks at a source, or of an encoder.
    pub(crate) fn new(sizes: &T5Sizes, is_decoder: bool, dropout: f64, device: &B::Device) -> Self {
        let layer = sizes.layer(dropout);
        let std = 1.0 / (sizes.width as f64).sqrt();
        Self {
            relative: Relative::new(sizes.buckets, sizes.heads, std, (sizes.farthest, !is_decoder), device),
            layers: Layer::many(sizes.layers, &layer, is_decoder, device),
            norm: Norm::new(&layer, device),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// States of embedded tokens [B, S, E].
    pub(crate) fn encode(&self, embedded: Tensor<B, 3>, padding: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        let length = embedded.dims()[1];
        let bias = self.relative.forward((0, length), length);
        let states = encode(&self.layers, self.dropout.forward(embedded), padding, Some(&bias));
        self.dropout.forward(self.norm.forward(states))
    }

    /// What is remembered of a source before anything is written.
    pub(crate) fn remember(&self, states: &Tensor<B, 3>, padding: Tensor<B, 2, Bool>) -> Cache<B> {
        Cache::new(&self.layers, states, padding)
    }

    /// States of embedded tokens [B, T, E] behind what was written, the attention over the source [B, T, S], and what is
    /// remembered behind them.
    pub(crate) fn decode(&self, embedded: Tensor<B, 3>, cache: Cache<B>) -> (Tensor<B, 3>, Tensor<B, 3>, Cache<B>) {
        let (first, length) = (cache.length(), embedded.dims()[1]);
        let bias = self.relative.forward((first, length), first + length);
        let (states, weights, cache) = decode(&self.layers, self.dropout.forward(embedded), cache, Some(&bias));
        (self.dropout.forward(self.norm.forward(states)), weights, cache)
    }
}
