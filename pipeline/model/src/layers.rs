//! Parts that models share.

pub(crate) mod attention;
pub(crate) mod copying;
pub(crate) mod recurrent;
pub(crate) mod relative;
pub(crate) mod rotary;
pub(crate) mod t5;
pub(crate) mod transformer;

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

/// The score of what is not to be seen, before a softmax.
pub(crate) const NEVER: f32 = -1e9;

/// A table of embeddings with the given standard deviation.
pub(crate) fn embedding<B: Backend>(vocabulary: usize, width: usize, std: f64, device: &B::Device) -> Embedding<B> {
    EmbeddingConfig::new(vocabulary, width).with_initializer(Initializer::Normal { mean: 0.0, std }).init(device)
}

/// Embedded tokens [B, E] of ids [B].
pub(crate) fn look_up<B: Backend>(table: &Embedding<B>, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
    table.forward(ids.unsqueeze_dim::<2>(1)).squeeze_dim(1)
}

/// Scores over a vocabulary: a matrix of their own, or the embeddings' once more (Press & Wolf, 2017).
#[derive(Module, Debug)]
pub(crate) struct Output<B: Backend> {
    own: Option<Linear<B>>,
    /// What states are multiplied by before.
    scale: f64,
}

impl<B: Backend> Output<B> {
    /// A matrix, or the embeddings' table where there is none.
    pub(crate) fn new(own: Option<Linear<B>>) -> Self {
        Self { own, scale: 1.0 }
    }

    /// The same for states that are multiplied by a number before.
    pub(crate) fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Logits [B, T, V] of states [B, T, E]; `table` is what the output is tied to.
    pub(crate) fn forward(&self, states: Tensor<B, 3>, table: &Embedding<B>) -> Tensor<B, 3> {
        let states = if self.scale == 1.0 { states } else { states.mul_scalar(self.scale) };
        match &self.own {
            Some(linear) => linear.forward(states),
            None => {
                let [rows, length, width] = states.dims();
                let logits = states.reshape([rows * length, width]).matmul(table.weight.val().transpose());
                let vocabulary = logits.dims()[1];
                logits.reshape([rows, length, vocabulary])
            }
        }
    }
}

/// What can be taken apart into rows and put together anew: the state of a decoder, in which each row is a hypothesis.
pub trait Rows<B: Backend>: Clone {
    /// The rows named, in that order; a row may come more than once.
    #[must_use]
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self;
}

impl<B: Backend, const D: usize> Rows<B> for Tensor<B, D> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Tensor::select(self, 0, rows.clone())
    }
}

impl<B: Backend, const D: usize> Rows<B> for Tensor<B, D, Int> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Tensor::select(self, 0, rows.clone())
    }
}

impl<B: Backend, const D: usize> Rows<B> for Tensor<B, D, Bool> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Tensor::select(self, 0, rows.clone())
    }
}

impl<B: Backend, T: Rows<B>> Rows<B> for Option<T> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        self.map(|one| one.select(rows))
    }
}

impl<B: Backend, T: Rows<B>> Rows<B> for Vec<T> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        self.into_iter().map(|one| one.select(rows)).collect()
    }
}

/// That sizes are at least 1 and the dropout a share below 1.
pub(crate) fn check_sizes(sizes: &[(&str, usize)], dropout: f64) -> Result<(), String> {
    if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(format!("{key} must be at least 1"));
    }
    if !(0.0..1.0).contains(&dropout) {
        return Err(format!("dropout = {dropout} must be at least 0 and below 1"));
    }
    Ok(())
}
