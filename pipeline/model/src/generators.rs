//! Models that write a target for a source. A new one is a file and a line in the list.
#![allow(clippy::large_enum_variant, reason = "there is one model in a process")]

mod attention_lstm;
mod paired;
mod recurrent;
mod t5;
mod transformer;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

pub use attention_lstm::AttentionLstmConfig;
pub use paired::PairedConfig;
pub use recurrent::{LstmConfig, RnnConfig};
pub use t5::T5Config;
pub use transformer::{Positions, TransformerConfig};

use crate::batch::{Batch, Tokens};
use crate::family::family;
use crate::layers::Rows;

family! { $ each_generator, GeneratorConfig, Generator:
    /// Encoder and decoder of simple recurrent networks.
    Rnn: RnnConfig => recurrent::Recurrent<B>,
    /// Encoder and decoder of LSTMs.
    Lstm: LstmConfig => recurrent::Recurrent<B>,
    /// BiLSTM encoder, Bahdanau attention, LSTM decoder.
    AttentionLstm: AttentionLstmConfig => attention_lstm::AttentionLstm<B>,
    /// Encoder and decoder of self-attention.
    Transformer: TransformerConfig => transformer::Transformer<B>,
    /// T5 and CodeT5: positions by distance, norms by the root of the mean square.
    T5: T5Config => t5::T5<B>,
    /// The encoder of one T5 and the decoder of another.
    Paired: PairedConfig => paired::Paired<B>,
}

/// A token further.
pub struct Step<B: Backend, S> {
    /// Of the next token, [B, V].
    pub logits: Tensor<B, 2>,
    /// Over the source, [B, S], where the model has one.
    pub attention: Option<Tensor<B, 2>>,
    /// What the next step begins with.
    pub state: S,
}

/// Writes a target for a source, token by token.
pub trait Generate<B: Backend> {
    /// What a token hands to the next: a memory of the source, and hidden states or keys and values so far.
    type State: Rows<B>;

    /// Reads the source.
    fn begin(&self, source: &Tokens<B>) -> Self::State;

    /// Logits behind the last token of each row, [B].
    fn step(&self, last: Tensor<B, 1, Int>, state: Self::State) -> Step<B, Self::State>;

    /// Logits for every place of a framed target but the first, given the right tokens before it: [B, T − 1, V].
    fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3>;
}

impl<B: Backend> Generator<B> {
    /// See [`Generate::logits`].
    pub fn logits(&self, batch: &Batch<B>) -> Tensor<B, 3> {
        each_generator!(self, model => model.logits(batch))
    }
}
