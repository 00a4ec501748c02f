//! An encoder and a decoder of recurrent cells, and nothing between them but one state (Cho et al., 2014; Sutskever et al., 2014).

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::Vocabularies;
use crate::batch::{Batch, Tokens};
use crate::generators::{Generate, Step};
use crate::layers::copying::{Copying, Original, mixed};
use crate::layers::recurrent::{Cell, CellKind, CellState, Encoder, steps};
use crate::layers::{Rows, embedding, look_up};

/// Sizes of both kinds; each is a type, since each has its own defaults and place in the list.
macro_rules! sizes {
    ($(#[doc = $doc:literal])+ $Config:ident, $kind:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $Config {
            /// Width of the embeddings.
            pub embedding: usize,
            /// Width of each cell's state.
            pub hidden: usize,
            /// Share of embedding and readout values that are dropped in training.
            pub dropout: f64,
            /// Tokens may be copied from the source; needs one tokenizer for both.
            pub copy: bool,
        }

        impl Default for $Config {
            fn default() -> Self {
                Self { embedding: 256, hidden: 256, dropout: 0.2, copy: false }
            }
        }

        impl $Config {
            pub(crate) fn check(&self) -> Result<(), String> {
                crate::layers::check_sizes(&[("embedding", self.embedding), ("hidden", self.hidden)], self.dropout)
            }

            pub(crate) fn one_vocabulary(&self) -> Option<&'static str> {
                self.copy.then_some("copy")
            }
        }

        impl From<&$Config> for Sizes {
            fn from(config: &$Config) -> Self {
                let $Config { embedding, hidden, dropout, copy } = *config;
                Self { kind: $kind, embedding, hidden, dropout, copy }
            }
        }
    };
}

sizes! {
    /// Sizes of an Elman network.
    RnnConfig, CellKind::Elman
}
sizes! {
    /// Sizes of an LSTM.
    LstmConfig, CellKind::Lstm
}

/// What a config says.
pub(crate) struct Sizes {
    kind: CellKind,
    embedding: usize,
    hidden: usize,
    dropout: f64,
    copy: bool,
}

/// The model.
#[derive(Module, Debug)]
pub struct Recurrent<B: Backend> {
    source_embedding: Embedding<B>,
    target_embedding: Embedding<B>,
    encoder: Encoder<B>,
    decoder: Cell<B>,
    readout: Linear<B>,
    output: Linear<B>,
    copying: Option<Copying<B>>,
    dropout: Dropout,
}

/// The decoder's state, and what can be copied.
#[derive(Clone, Debug)]
pub struct State<B: Backend> {
    state: CellState<B>,
    original: Option<Original<B>>,
}

impl<B: Backend> Rows<B> for State<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Self { state: self.state.select(rows), original: self.original.select(rows) }
    }
}

impl<B: Backend> Recurrent<B> {
    /// Fresh weights.
    pub(crate) fn new(sizes: impl Into<Sizes>, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let Sizes { kind, embedding: width, hidden, dropout, copy } = sizes.into();
        Self {
            source_embedding: embedding(vocabularies.source, width, 1.0, device),
            target_embedding: embedding(vocabularies.target, width, 1.0, device),
            encoder: Encoder::new(kind, width, hidden, device),
            decoder: Cell::new(kind, width, hidden, device),
            readout: LinearConfig::new(width + hidden, hidden).init(device),
            output: LinearConfig::new(hidden, vocabularies.target).init(device),
            copying: copy.then(|| Copying::new(width + hidden, 2 * hidden, device)),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// Logits [B, T, V] of what the readout sees, [B, T, E + H]: the token and the state behind it.
    fn write(&self, seen: Tensor<B, 3>, original: Option<&Original<B>>) -> Tensor<B, 3> {
        let readout = self.dropout.forward(self.readout.forward(seen.clone()).tanh());
        mixed(self.copying.as_ref(), self.output.forward(readout), seen, original)
    }
}

impl<B: Backend> Generate<B> for Recurrent<B> {
    type State = State<B>;

    fn begin(&self, source: &Tokens<B>) -> State<B> {
        let embedded = self.dropout.forward(self.source_embedding.forward(source.ids.clone()));
        let (states, hidden) = self.encoder.read(embedded, source);
        let original = self.copying.is_some().then(|| Original::new(states, source));
        State { state: self.decoder.starting(hidden), original }
    }

    fn step(&self, last: Tensor<B, 1, Int>, State { state, original }: State<B>) -> Step<B, State<B>> {
        let embedded = look_up(&self.target_embedding, last);
        let state = self.decoder.step(embedded.clone(), state);
        let seen = Tensor::cat(vec![embedded, state.hidden.clone()], 1).unsqueeze_dim(1);
        let logits = self.write(seen, original.as_ref()).squeeze_dim(1);
        Step { logits, attention: None, state: State { state, original } }
    }

    fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3> {
        let State { mut state, original } = self.begin(&batch.source);
        let embedded = self.dropout.forward(self.target_embedding.forward(batch.inputs()));
        let mut hidden = Vec::with_capacity(batch.target.width());
        for input in steps(embedded.clone()) {
            state = self.decoder.step(input, state);
            hidden.push(state.hidden.clone());
        }
        self.write(Tensor::cat(vec![embedded, Tensor::stack::<3>(hidden, 1)], 2), original.as_ref())
    }
}
