//! Layers of encoders and decoders of attention, normalised before each part (Xiong et al., 2020), and what a decoder remembers.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, RmsNorm, RmsNormConfig};
use burn::tensor::activation::{gelu, gelu_approximate, relu};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::Rows;
use crate::layers::attention::{Attention, AttentionSizes, KeysValues, bare_or_whole, future};

/// What stands between the two matrices of a feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// x · Φ(x).
    Gelu,
}

/// Sizes and options of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerSizes {
    /// Of the attention over the layer's own states.
    pub(crate) attention: AttentionSizes,
    /// Width inside the feed-forward part.
    pub(crate) feed_forward: usize,
    pub(crate) activation: Activation,
    /// The feed-forward part has a second matrix, by which it is multiplied (Shazeer, 2020); Φ is approximated by a tanh, as
    /// those had it who published such weights.
    pub(crate) gated: bool,
    /// Norms of the root of the mean square alone, with this epsilon; layer norms without.
    pub(crate) rms_epsilon: Option<f64>,
    pub(crate) dropout: f64,
}

/// A norm before a part.
#[derive(Module, Debug)]
pub(crate) enum Norm<B: Backend> {
    /// Mean and variance (Ba et al., 2016).
    Layer(LayerNorm<B>),
    /// The root of the mean square (Zhang & Sennrich, 2019).
    Rms(RmsNorm<B>),
}

impl<B: Backend> Norm<B> {
    pub(crate) fn new(sizes: &LayerSizes, device: &B::Device) -> Self {
        let width = sizes.attention.width;
        match sizes.rms_epsilon {
            None => Self::Layer(LayerNormConfig::new(width).init(device)),
            Some(epsilon) => Self::Rms(RmsNormConfig::new(width).with_epsilon(epsilon).init(device)),
        }
    }

    pub(crate) fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        match self {
            Self::Layer(norm) => norm.forward(states),
            Self::Rms(norm) => norm.forward(states),
        }
    }
}

/// Two matrices and what stands between them.
#[derive(Module, Debug)]
struct FeedForward<B: Backend> {
    inner: Linear<B>,
    gate: Option<Linear<B>>,
    outer: Linear<B>,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl<B: Backend> FeedForward<B> {
    fn new(sizes: &LayerSizes, device: &B::Device) -> Self {
        let (width, between) = (sizes.attention.width, sizes.feed_forward);
        let linear =
            |from: usize, to| bare_or_whole(sizes.attention.is_bare, from, to, 1.0 / (from as f64).sqrt()).init(device);
        Self {
            inner: linear(width, between),
            gate: sizes.gated.then(|| linear(width, between)),
            outer: linear(between, width),
            dropout: DropoutConfig::new(sizes.dropout).init(),
            activation: sizes.activation,
        }
    }

    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let inner = self.inner.forward(states.clone());
        let inner = match (self.activation, &self.gate) {
            (Activation::Relu, _) => relu(inner),
            (Activation::Gelu, None) => gelu(inner),
            (Activation::Gelu, Some(_)) => gelu_approximate(inner),
        };
        let inner = match &self.gate {
            None => inner,
            Some(gate) => inner * gate.forward(states),
        };
        self.outer.forward(self.dropout.forward(inner))
    }
}

/// A layer of an encoder, or of a decoder, which looks at a source.
#[derive(Module, Debug)]
pub(crate) struct Layer<B: Backend> {
    attention_norm: Norm<B>,
    attention: Attention<B>,
    cross_norm: Option<Norm<B>>,
    cross: Option<Attention<B>>,
    feed_forward_norm: Norm<B>,
    feed_forward: FeedForward<B>,
    dropout: Dropout,
}

/// What a decoder layer makes: its states, the attention over the source [B, h, T, S], and the keys and values written so far.
type Decoded<B> = (Tensor<B, 3>, Option<Tensor<B, 4>>, KeysValues<B>);

impl<B: Backend> Layer<B> {
    /// Fresh weights; `crosses` where it looks at a source.
    pub(crate) fn new(sizes: &LayerSizes, crosses: bool, device: &B::Device) -> Self {
        // Places of the source mean nothing to what looks at it from the target.
        let cross = AttentionSizes { rotary: false, ..sizes.attention };
        Self {
            attention_norm: Norm::new(sizes, device),
            attention: Attention::new(sizes.attention, device),
            cross_norm: crosses.then(|| Norm::new(sizes, device)),
            cross: crosses.then(|| Attention::new(cross, device)),
            feed_forward_norm: Norm::new(sizes, device),
            feed_forward: FeedForward::new(sizes, device),
            dropout: DropoutConfig::new(sizes.dropout).init(),
        }
    }

    /// As many as are asked for.
    pub(crate) fn many(count: usize, sizes: &LayerSizes, crosses: bool, device: &B::Device) -> Vec<Self> {
        (0..count).map(|_| Self::new(sizes, crosses, device)).collect()
    }

    fn feed(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(states.clone()));
        states + self.dropout.forward(fed)
    }

    fn encode(&self, states: Tensor<B, 3>, hidden: &Tensor<B, 4, Bool>, bias: Option<&Tensor<B, 4>>) -> Tensor<B, 3> {
        let normed = self.attention_norm.forward(states.clone());
        let over = self.attention.keys_values(normed.clone(), 0);
        let (seen, _) = self.attention.forward(normed, 0, over, Some(hidden.clone()), bias);
        self.feed(states + self.dropout.forward(seen))
    }

    /// States [B, T, E] that stand behind `written`.
    fn decode(
        &self,
        states: Tensor<B, 3>,
        written: Option<KeysValues<B>>,
        source: KeysValues<B>,
        padding: &Tensor<B, 4, Bool>,
        bias: Option<&Tensor<B, 4>>,
    ) -> Decoded<B> {
        let normed = self.attention_norm.forward(states.clone());
        let first = written.as_ref().map_or(0, KeysValues::length);
        let own = self.attention.keys_values(normed.clone(), first);
        let length = own.length();
        let over = written.map_or(own.clone(), |written| written.then(own));
        let hidden = (length > 1).then(|| future(length, &normed.device()));
        let (seen, _) = self.attention.forward(normed, first, over.clone(), hidden, bias);
        let mut states = states + self.dropout.forward(seen);
        let mut weights = None;
        if let (Some(norm), Some(cross)) = (&self.cross_norm, &self.cross) {
            let normed = norm.forward(states.clone());
            let (seen, over_source) = cross.forward(normed, 0, source, Some(padding.clone()), None);
            states = states + self.dropout.forward(seen);
            weights = Some(over_source);
        }
        (self.feed(states), weights, over)
    }
}

/// Runs an encoder's layers over embedded tokens [B, S, E] whose padding is [B, S].
pub(crate) fn encode<B: Backend>(
    layers: &[Layer<B>],
    embedded: Tensor<B, 3>,
    padding: &Tensor<B, 2, Bool>,
    bias: Option<&Tensor<B, 4>>,
) -> Tensor<B, 3> {
    let hidden = padding.clone().unsqueeze_dims::<4>(&[1, 2]);
    layers.iter().fold(embedded, |states, layer| layer.encode(states, &hidden, bias))
}

/// What a decoder remembers: keys and values of the source and of what was written so far, a layer each.
#[derive(Clone, Debug)]
pub struct Cache<B: Backend> {
    written: Vec<KeysValues<B>>,
    source: Vec<KeysValues<B>>,
    padding: Tensor<B, 2, Bool>,
}

impl<B: Backend> Rows<B> for Cache<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Self {
            written: self.written.select(rows),
            source: self.source.select(rows),
            padding: Rows::select(self.padding, rows),
        }
    }
}

impl<B: Backend> Cache<B> {
    /// Nothing written yet; the source's states are [B, S, E] and its padding [B, S].
    pub(crate) fn new(layers: &[Layer<B>], states: &Tensor<B, 3>, padding: Tensor<B, 2, Bool>) -> Self {
        let crosses = layers.iter().filter_map(|layer| layer.cross.as_ref());
        Self {
            written: Vec::new(),
            source: crosses.map(|cross| cross.keys_values(states.clone(), 0)).collect(),
            padding,
        }
    }

    /// How many places were written.
    pub(crate) fn length(&self) -> usize {
        self.written.first().map_or(0, KeysValues::length)
    }
}

/// Runs a decoder's layers over embedded tokens [B, T, E] that stand behind what was written: their states, the attention over
/// the source [B, T, S], mean of the last layer's heads, and what is remembered behind them.
pub(crate) fn decode<B: Backend>(
    layers: &[Layer<B>],
    embedded: Tensor<B, 3>,
    cache: Cache<B>,
    bias: Option<&Tensor<B, 4>>,
) -> (Tensor<B, 3>, Tensor<B, 3>, Cache<B>) {
    let Cache { written, source, padding } = cache;
    let hidden = padding.clone().unsqueeze_dims::<4>(&[1, 2]);
    let mut before = written.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let (mut states, mut now, mut last) = (embedded, Vec::with_capacity(layers.len()), None);
    for (layer, source) in layers.iter().zip(&source) {
        let (next, weights, over) = layer.decode(states, before.next().flatten(), source.clone(), &hidden, bias);
        states = next;
        last = weights;
        now.push(over);
    }
    let [rows, length, _] = states.dims();
    let weights = last.map_or_else(
        || Tensor::zeros([rows, length, padding.dims()[1]], &states.device()),
        |weights| weights.mean_dim(1).squeeze_dim(1),
    );
    (states, weights, Cache { written: now, source, padding })
}
