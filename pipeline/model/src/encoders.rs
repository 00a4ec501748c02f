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

/// Rows encoded at once.
const BATCH_ROWS: usize = 256;

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

    /// The vectors of any number of rows, some at a time.
    pub fn encoded<R: AsRef<[u32]>>(&self, role: Role, rows: &[R], device: &B::Device) -> Vec<Vec<f32>> {
        let mut vectors = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(BATCH_ROWS) {
            let encoded = self.vectors(role, &Tokens::new(chunk, device));
            let width = encoded.dims()[1];
            let values: Vec<f32> = encoded.into_data().iter::<f32>().collect();
            vectors.extend(values.chunks(width).map(<[f32]>::to_vec));
        }
        vectors
    }
}
