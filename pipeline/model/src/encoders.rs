//! Models that make vectors, by which texts and code are compared. A new one is a file and a line in the list.
#![allow(clippy::large_enum_variant, reason = "there is one model in a process")]

mod nbow;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub use nbow::NbowConfig;

use crate::batch::Tokens;
use crate::family::family;

family! { $ each_encoder, EncoderConfig, Encoder:
    /// Two bags of embeddings.
    Nbow: NbowConfig => nbow::Nbow<B>,
}

/// What a text is: the two may be read by different parts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What is asked.
    Query,
    /// What is searched.
    Document,
}

/// Makes a vector of each row.
pub trait Encode<B: Backend> {
    /// Unit vectors, [B, E].
    fn vectors(&self, role: Role, tokens: &Tokens<B>) -> Tensor<B, 2>;
}

impl<B: Backend> Encoder<B> {
    /// See [`Encode::vectors`].
    pub fn vectors(&self, role: Role, tokens: &Tokens<B>) -> Tensor<B, 2> {
        each_encoder!(self, model => model.vectors(role, tokens))
    }
}
