//! Neural bag of words (Husain et al., 2019): two bags of embeddings, pooled with learned weights, compared by cosine.

use burn::module::Module;
use burn::nn::{Embedding, Linear, LinearConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Tensor};
use serde::{Deserialize, Serialize};

use crate::batch::Tokens;
use crate::encoders::{Encode, Role};
use crate::layers::{check_sizes, embedding};
use crate::{Loss, Vocabularies};

/// Sizes of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NbowConfig {
    /// Width of the embeddings.
    pub embedding: usize,
    /// One table for queries and code; needs one tokenizer for both. Small data gains by it.
    pub shared: bool,
    /// The older place of the training's `loss`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::losses::short")]
    #[schemars(with = "Option<String>")]
    pub loss: Option<Loss>,
}

impl Default for NbowConfig {
    fn default() -> Self {
        Self { embedding: 128, shared: false, loss: None }
    }
}

impl NbowConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        check_sizes(&[("embedding", self.embedding)], 0.0)
    }

    pub(crate) fn one_vocabulary(&self) -> Option<&'static str> {
        self.shared.then_some("shared")
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
        Self { embedding: embedding(vocabulary, width, 1.0, device), weight: LinearConfig::new(width, 1).init(device) }
    }

    /// Unit vectors, [B, E]. A bag has no order, so it is a row of token counts, [B, V], and the weighted sum of its
    /// embeddings one product with the weighted table, [V, E]: no tensor of [B, T, E] is ever made.
    fn forward(&self, tokens: &Tokens<B>) -> Tensor<B, 2> {
        let table = self.embedding.weight.val();
        let counts = Tensor::zeros([tokens.rows(), table.dims()[0]], &tokens.ids.device());
        let counts: Tensor<B, 2> = counts.scatter(1, tokens.ids.clone(), tokens.mask(), IndexingUpdateOp::Add);
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
}

impl<B: Backend> Nbow<B> {
    /// Fresh weights.
    pub(crate) fn new(config: &NbowConfig, vocabularies: Vocabularies, device: &B::Device) -> Self {
        let query = Bag::new(vocabularies.source, config.embedding, device);
        let code = (!config.shared).then(|| Bag::new(vocabularies.target, config.embedding, device));
        Self { query, code }
    }
}

impl<B: Backend> Encode<B> for Nbow<B> {
    fn vectors(&self, role: Role, tokens: &Tokens<B>) -> Tensor<B, 2> {
        match (role, &self.code) {
            (Role::Document, Some(code)) => code.forward(tokens),
            _ => self.query.forward(tokens),
        }
    }
}
