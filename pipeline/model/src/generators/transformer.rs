//! Encoder and decoder of self-attention (Vaswani et al., 2017), normalised before each part (Xiong et al., 2020).

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::Vocabularies;
use crate::batch::{Batch, Tokens};
use crate::generators::{Generate, Step};
use crate::layers::attention::AttentionSizes;
use crate::layers::copying::{Copying, Original, mixed};
use crate::layers::transformer::{Activation, Cache, Layer, LayerSizes, Norm, decode, encode};
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

/// The model.
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    source_embedding: Embedding<B>,
    target_embedding: Embedding<B>,
    source_positions: Option<Embedding<B>>,
    target_positions: Option<Embedding<B>>,
    encoder: Vec<Layer<B>>,
    encoder_norm: Norm<B>,
    decoder: Vec<Layer<B>>,
    decoder_norm: Norm<B>,
    output: Output<B>,
    copying: Option<Copying<B>>,
    dropout: Dropout,
    width: usize,
}

/// What the decoder remembers, and what can be copied.
#[derive(Clone, Debug)]
pub struct State<B: Backend> {
    cache: Cache<B>,
    original: Option<Original<B>>,
}

impl<B: Backend> Rows<B> for State<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Self { cache: self.cache.select(rows), original: self.original.select(rows) }
    }
}

impl TransformerConfig {
    fn layer(&self) -> LayerSizes {
        let attention = AttentionSizes {
            width: self.width,
            heads: self.heads,
            head_width: self.width / self.heads,
            is_bare: false,
            qk_norm: self.qk_norm,
            rotary: self.positions == Positions::Rotary,
        };
        LayerSizes {
            attention,
            feed_forward: self.feed_forward,
            activation: self.activation,
            gated: false,
            rms_epsilon: None,
            dropout: self.dropout,
        }
    }
}

impl<B: Backend> Transformer<B> {
    /// Fresh weights.
    pub(crate) fn new(config: &TransformerConfig, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let (width, layer) = (config.width, config.layer());
        // Scaled up by the square root of the width when they are read, they are of one size with everything else.
        let std = 1.0 / (width as f64).sqrt();
        let positions = || match config.positions {
            Positions::Rotary => None,
            Positions::Learned => Some(embedding(config.longest, width, 0.02, device)),
        };
        let own = LinearConfig::new(width, vocabularies.target).with_bias(false);
        let output = Output::new((!config.tied).then(|| own.init(device)));
        Self {
            source_embedding: embedding(vocabularies.source, width, std, device),
            target_embedding: embedding(vocabularies.target, width, std, device),
            source_positions: positions(),
            target_positions: positions(),
            encoder: Layer::many(config.encoder_layers, &layer, false, device),
            encoder_norm: Norm::new(&layer, device),
            decoder: Layer::many(config.decoder_layers, &layer, true, device),
            decoder_norm: Norm::new(&layer, device),
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
        let State { cache, original } = state;
        let embedded = self.embed(&self.target_embedding, self.target_positions.as_ref(), ids, cache.length());
        let (states, weights, cache) = decode(&self.decoder, embedded, cache, None);
        let states = self.decoder_norm.forward(states);
        let logits = self.output.forward(states.clone(), &self.target_embedding);
        let logits = mixed(self.copying.as_ref(), logits, states, original.as_ref());
        (logits, weights, State { cache, original })
    }
}

impl<B: Backend> Generate<B> for Transformer<B> {
    type State = State<B>;

    fn begin(&self, source: &Tokens<B>) -> State<B> {
        let embedded = self.embed(&self.source_embedding, self.source_positions.as_ref(), source.ids.clone(), 0);
        let states = self.encoder_norm.forward(encode(&self.encoder, embedded, &source.padding, None));
        State {
            cache: Cache::new(&self.decoder, &states, source.padding.clone()),
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
