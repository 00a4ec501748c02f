//! Neural bag of words (Husain et al., 2019): two bags of embeddings, pooled with learned weights, compared by cosine.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Loss, Vocabularies};

/// Sizes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NbowConfig {
    /// Width of the embeddings.
    pub embedding: usize,
    /// One table for queries and code; needs one tokenizer for both. Small data gains by it.
    pub shared: bool,
    /// What is minimised.
    pub loss: Loss,
}

impl Default for NbowConfig {
    fn default() -> Self {
        Self { embedding: 128, shared: false, loss: Loss::default() }
    }
}

/// A bag: embeddings and the weight of each token in the mean.
#[derive(Module, Debug)]
struct Bag<B: Backend> {
    embedding: Embedding<B>,
    weight: Linear<B>,
}

impl<B: Backend> Bag<B> {
    fn new(vocabulary: usize, width: usize, device: &B::Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(vocabulary, width).init(device),
            weight: LinearConfig::new(width, 1).init(device),
        }
    }

    /// Unit vectors, [B, E]. A bag has no order, so it is a row of token counts, [B, V], and the weighted sum of its
    /// embeddings one product with the weighted table, [V, E]: no tensor of [B, T, E] is ever made.
    fn forward(&self, ids: Tensor<B, 2, Int>, mask: Tensor<B, 2>) -> Tensor<B, 2> {
        let table = self.embedding.weight.val();
        let counts = Tensor::zeros([ids.dims()[0], table.dims()[0]], &ids.device());
        let counts: Tensor<B, 2> = counts.scatter(1, ids, mask, IndexingUpdateOp::Add);
        let weights = sigmoid(self.weight.forward(table.clone()));
        // The mean's divisor does not matter: the vector is scaled to length one.
        let sum = counts.matmul(table * weights);
        let length = sum.clone().powi_scalar(2).sum_dim(1).add_scalar(1e-12).sqrt();
        sum / length
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Nbow<B: Backend> {
    query: Bag<B>,
    code: Option<Bag<B>>,
    #[module(skip)]
    loss: Loss,
}

impl<B: Backend> Nbow<B> {
    /// Fresh weights.
    pub fn new(config: NbowConfig, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let query = Bag::new(vocabularies.source, config.embedding, device);
        let code = (!config.shared).then(|| Bag::new(vocabularies.target, config.embedding, device));
        Self { query, code, loss: config.loss }
    }

    /// Unit vectors of queries, [B, E], of ids and mask [B, S].
    pub fn encode_source(&self, ids: Tensor<B, 2, Int>, mask: Tensor<B, 2>) -> Tensor<B, 2> {
        self.query.forward(ids, mask)
    }

    /// Unit vectors of code, [B, E], of ids and mask [B, T].
    pub fn encode_target(&self, ids: Tensor<B, 2, Int>, mask: Tensor<B, 2>) -> Tensor<B, 2> {
        self.code.as_ref().unwrap_or(&self.query).forward(ids, mask)
    }

    /// The mean loss over the queries of a batch; code rows past the queries are further negatives.
    pub(crate) fn loss(&self, batch: &crate::Batch<B>) -> Tensor<B, 1> {
        let queries = self.encode_source(batch.source.clone(), batch.source_mask.clone());
        let codes = self.encode_target(batch.target.clone(), batch.target_mask.clone());
        self.loss.over(queries.matmul(codes.transpose()))
    }
}
