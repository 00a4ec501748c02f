//! Encoder and decoder of self-attention (Vaswani et al., 2017), normalised before each part (Xiong et al., 2020).

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::Vocabularies;
use crate::batch::{Batch, Tokens};
use crate::generators::{Generate, Step};
use crate::layers::attention::{Attention, AttentionSizes, KeysValues, future};
use crate::layers::copying::{Copying, Original, mixed};
use crate::layers::{Output, Rows, embedding};

/// Sizes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerConfig {
    /// Width of embeddings and states.
    pub width: usize,
    /// Heads of each attention.
    pub heads: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Width inside the feed-forward parts.
    pub feed_forward: usize,
    /// What stands between their two matrices.
    pub activation: Activation,
    /// How places are told apart.
    pub positions: Positions,
    /// Places that have an embedding where positions are learned; what stands further behind has the last one's.
    pub longest: usize,
    /// Queries and keys are scaled to one length before they meet.
    pub qk_norm: bool,
    /// The output is the table of target embeddings once more.
    pub tied: bool,
    /// Share of values that are dropped in training.
    pub dropout: f64,
    /// Tokens may be copied from the source; needs one tokenizer for both.
    pub copy: bool,
}

/// How places are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Queries and keys of the self-attention are turned by their places.
    Rotary,
    /// An embedding a place.
    Learned,
}

/// What stands between the two matrices of a feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// x · Φ(x).
    Gelu,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            width: 256,
            heads: 4,
            encoder_layers: 3,
            decoder_layers: 3,
            feed_forward: 1024,
            activation: Activation::Relu,
            positions: Positions::Rotary,
            longest: 512,
            qk_norm: false,
            tied: true,
            dropout: 0.1,
            copy: false,
        }
    }
}

impl TransformerConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        let sizes = [
            ("width", self.width),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
            ("longest", self.longest),
        ];
        crate::layers::check_sizes(&sizes, self.dropout)?;
        crate::layers::check_sizes(
            &[("encoder_layers", self.encoder_layers), ("decoder_layers", self.decoder_layers)],
            0.0,
        )?;
        if !self.width.is_multiple_of(self.heads) {
            return Err(format!("width = {} must be a multiple of heads = {}", self.width, self.heads));
        }
        if self.positions == Positions::Rotary && !(self.width / self.heads).is_multiple_of(2) {
            return Err("positions = \"rotary\" needs heads of an even width: width / heads".to_owned());
        }
        Ok(())
    }

    pub(crate) fn one_vocabulary(&self) -> Option<&'static str> {
        self.copy.then_some("copy")
    }
}

/// Two matrices and what stands between them.
#[derive(Module, Debug)]
struct FeedForward<B: Backend> {
    inner: Linear<B>,
    outer: Linear<B>,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl<B: Backend> FeedForward<B> {
    fn new(config: &TransformerConfig, device: &B::Device) -> Self {
        Self {
            inner: LinearConfig::new(config.width, config.feed_forward).init(device),
            outer: LinearConfig::new(config.feed_forward, config.width).init(device),
            dropout: DropoutConfig::new(config.dropout).init(),
            activation: config.activation,
        }
    }

    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let inner = self.inner.forward(states);
        let inner = match self.activation {
            Activation::Relu => relu(inner),
            Activation::Gelu => gelu(inner),
        };
        self.outer.forward(self.dropout.forward(inner))
    }
}

/// A layer of the encoder.
#[derive(Module, Debug)]
struct EncoderLayer<B: Backend> {
    attention_norm: LayerNorm<B>,
    attention: Attention<B>,
    feed_forward_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
    dropout: Dropout,
}

/// A layer of the decoder.
#[derive(Module, Debug)]
struct DecoderLayer<B: Backend> {
    attention_norm: LayerNorm<B>,
    attention: Attention<B>,
    cross_norm: LayerNorm<B>,
    cross: Attention<B>,
    feed_forward_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
    dropout: Dropout,
}

/// The model.
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    source_embedding: Embedding<B>,
    target_embedding: Embedding<B>,
    source_positions: Option<Embedding<B>>,
    target_positions: Option<Embedding<B>>,
    encoder: Vec<EncoderLayer<B>>,
    encoder_norm: LayerNorm<B>,
    decoder: Vec<DecoderLayer<B>>,
    decoder_norm: LayerNorm<B>,
    output: Output<B>,
    copying: Option<Copying<B>>,
    dropout: Dropout,
    width: usize,
}

/// Keys and values of the source and of what was written so far, a layer each.
#[derive(Clone, Debug)]
pub struct State<B: Backend> {
    written: Vec<KeysValues<B>>,
    source: Vec<KeysValues<B>>,
    padding: Tensor<B, 2, Bool>,
    original: Option<Original<B>>,
}

impl<B: Backend> Rows<B> for State<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Self {
            written: self.written.select(rows),
            source: self.source.select(rows),
            padding: Rows::select(self.padding, rows),
            original: self.original.select(rows),
        }
    }
}

impl<B: Backend> EncoderLayer<B> {
    fn new(config: &TransformerConfig, device: &B::Device) -> Self {
        Self {
            attention_norm: LayerNormConfig::new(config.width).init(device),
            attention: Attention::new(config.attention(true), device),
            feed_forward_norm: LayerNormConfig::new(config.width).init(device),
            feed_forward: FeedForward::new(config, device),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    fn forward(&self, states: Tensor<B, 3>, hidden: &Tensor<B, 4, Bool>) -> Tensor<B, 3> {
        let normed = self.attention_norm.forward(states.clone());
        let over = self.attention.keys_values(normed.clone(), 0);
        let (seen, _) = self.attention.forward(normed, 0, over, Some(hidden.clone()));
        let states = states + self.dropout.forward(seen);
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(states.clone()));
        states + self.dropout.forward(fed)
    }
}

/// What a decoder layer makes: its states, the attention over the source [B, h, T, S], and the keys and values written so far.
type Decoded<B> = (Tensor<B, 3>, Tensor<B, 4>, KeysValues<B>);

impl<B: Backend> DecoderLayer<B> {
    fn new(config: &TransformerConfig, device: &B::Device) -> Self {
        Self {
            attention_norm: LayerNormConfig::new(config.width).init(device),
            attention: Attention::new(config.attention(true), device),
            cross_norm: LayerNormConfig::new(config.width).init(device),
            cross: Attention::new(config.attention(false), device),
            feed_forward_norm: LayerNormConfig::new(config.width).init(device),
            feed_forward: FeedForward::new(config, device),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    /// States [B, T, E] that stand behind `written`.
    fn forward(
        &self,
        states: Tensor<B, 3>,
        written: Option<KeysValues<B>>,
        source: KeysValues<B>,
        padding: &Tensor<B, 4, Bool>,
    ) -> Decoded<B> {
        let normed = self.attention_norm.forward(states.clone());
        let first = written.as_ref().map_or(0, KeysValues::length);
        let own = self.attention.keys_values(normed.clone(), first);
        let length = own.length();
        let over = written.map_or(own.clone(), |written| written.then(own));
        let hidden = (length > 1).then(|| future(length, &normed.device()));
        let (seen, _) = self.attention.forward(normed, first, over.clone(), hidden);
        let states = states + self.dropout.forward(seen);
        let normed = self.cross_norm.forward(states.clone());
        let (seen, weights) = self.cross.forward(normed, 0, source, Some(padding.clone()));
        let states = states + self.dropout.forward(seen);
        let fed = self.feed_forward.forward(self.feed_forward_norm.forward(states.clone()));
        (states + self.dropout.forward(fed), weights, over)
    }
}

impl TransformerConfig {
    /// Places of the source mean nothing to what looks at it from the target.
    fn attention(&self, own: bool) -> AttentionSizes {
        let rotary = own && self.positions == Positions::Rotary;
        AttentionSizes { width: self.width, heads: self.heads, qk_norm: self.qk_norm, rotary }
    }
}

impl<B: Backend> Transformer<B> {
    /// Fresh weights.
    pub(crate) fn new(config: &TransformerConfig, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let width = config.width;
        // Scaled up by the square root of the width when they are read, they are of one size with everything else.
        let std = 1.0 / (width as f64).sqrt();
        let positions = || match config.positions {
            Positions::Rotary => None,
            Positions::Learned => Some(embedding(config.longest, width, 0.02, device)),
        };
        let output = if config.tied {
            Output::tied()
        } else {
            Output::own(LinearConfig::new(width, vocabularies.target).with_bias(false).init(device))
        };
        Self {
            source_embedding: embedding(vocabularies.source, width, std, device),
            target_embedding: embedding(vocabularies.target, width, std, device),
            source_positions: positions(),
            target_positions: positions(),
            encoder: (0..config.encoder_layers).map(|_| EncoderLayer::new(config, device)).collect(),
            encoder_norm: LayerNormConfig::new(width).init(device),
            decoder: (0..config.decoder_layers).map(|_| DecoderLayer::new(config, device)).collect(),
            decoder_norm: LayerNormConfig::new(width).init(device),
            output,
            copying: config.copy.then(|| Copying::new(width, width, device)),
            dropout: DropoutConfig::new(config.dropout).init(),
            width,
        }
    }

    /// Embedded ids [B, T], the first of which stands at the place `first`.
    fn embed(
        &self,
        table: &Embedding<B>,
        positions: Option<&Embedding<B>>,
        ids: Tensor<B, 2, Int>,
        first: usize,
    ) -> Tensor<B, 3> {
        let (device, length) = (ids.device(), ids.dims()[1]);
        let embedded = table.forward(ids).mul_scalar((self.width as f64).sqrt());
        let embedded = match positions {
            None => embedded,
            Some(positions) => {
                let most = positions.weight.dims()[0] as i64;
                let places = Tensor::<B, 1, Int>::arange(first as i64..(first + length) as i64, &device);
                embedded + positions.forward(places.clamp_max(most - 1).unsqueeze_dim::<2>(0))
            }
        };
        self.dropout.forward(embedded)
    }

    /// Runs the decoder over ids [B, T] that stand behind what was written: logits [B, T, V], attention over the source
    /// [B, T, S], and the state behind them.
    fn decode(&self, ids: Tensor<B, 2, Int>, state: State<B>) -> (Tensor<B, 3>, Tensor<B, 3>, State<B>) {
        let State { written, source, padding, original } = state;
        let first = written.first().map_or(0, KeysValues::length);
        let mut states = self.embed(&self.target_embedding, self.target_positions.as_ref(), ids, first);
        let hidden = padding.clone().unsqueeze_dims::<4>(&[1, 2]);
        let mut before = written.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let (mut now, mut last) = (Vec::with_capacity(self.decoder.len()), None);
        for (layer, source) in self.decoder.iter().zip(&source) {
            let (next, weights, over) = layer.forward(states, before.next().flatten(), source.clone(), &hidden);
            states = next;
            last = Some(weights);
            now.push(over);
        }
        let states = self.decoder_norm.forward(states);
        let logits = self.output.forward(states.clone(), &self.target_embedding);
        let logits = mixed(self.copying.as_ref(), logits, states, original.as_ref());
        let [rows, length, _] = logits.dims();
        let weights = last.map_or_else(
            || Tensor::zeros([rows, length, padding.dims()[1]], &logits.device()),
            |weights| weights.mean_dim(1).squeeze_dim(1),
        );
        (logits, weights, State { written: now, source, padding, original })
    }
}

impl<B: Backend> Generate<B> for Transformer<B> {
    type State = State<B>;

    fn begin(&self, source: &Tokens<B>) -> State<B> {
        let hidden = source.padding.clone().unsqueeze_dims::<4>(&[1, 2]);
        let mut states = self.embed(&self.source_embedding, self.source_positions.as_ref(), source.ids.clone(), 0);
        for layer in &self.encoder {
            states = layer.forward(states, &hidden);
        }
        let states = self.encoder_norm.forward(states);
        State {
            written: Vec::new(),
            source: self.decoder.iter().map(|layer| layer.cross.keys_values(states.clone(), 0)).collect(),
            padding: source.padding.clone(),
            original: self.copying.is_some().then(|| Original::new(states, source)),
        }
    }

    fn step(&self, last: Tensor<B, 1, Int>, state: State<B>) -> Step<B, State<B>> {
        let (logits, attention, state) = self.decode(last.unsqueeze_dim(1), state);
        Step { logits: logits.squeeze_dim(1), attention: Some(attention.squeeze_dim(1)), state }
    }

    fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3> {
        let state = self.begin(&batch.source);
        self.decode(batch.inputs(), state).0
    }
}
