//! What is minimised. A new loss is a file, a line in [`Loss`] and what the compiler then asks for.

mod cosine_hinge;
mod cross_entropy;
mod softmax;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Deserializer, Serialize};

pub use cosine_hinge::CosineHinge;
pub use cross_entropy::{ClassWeights, CrossEntropy};
pub use softmax::Softmax;

use crate::{Batch, Model, Role, Task};

/// `loss` of a training; `kind` says which.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Loss {
    /// Of the right token among all; for generators.
    CrossEntropy(CrossEntropy),
    /// Of the right document among all of the batch (multiple negatives ranking); for encoders.
    Softmax(Softmax),
    /// Hinge over the hardest negative of the batch; for encoders.
    CosineHinge(CosineHinge),
}

/// Reads a loss, or the name of its kind alone.
///
/// # Errors
/// It is neither.
pub fn short<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let value = match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(kind) => serde_json::json!({ "kind": kind }),
        other => other,
    };
    serde_json::from_value(value).map_err(serde::de::Error::custom)
}

impl Loss {
    /// What is minimised where nothing is said.
    #[must_use]
    pub fn default_of(task: Task) -> Self {
        match task {
            Task::Generation => Self::CrossEntropy(CrossEntropy::default()),
            Task::Search => Self::Softmax(Softmax::default()),
        }
    }

    /// The same kind with its defaults.
    #[must_use]
    pub fn default_of_kind(&self) -> Self {
        match self {
            Self::CrossEntropy(_) => Self::CrossEntropy(CrossEntropy::default()),
            Self::Softmax(_) => Self::Softmax(Softmax::default()),
            Self::CosineHinge(_) => Self::CosineHinge(CosineHinge::default()),
        }
    }

    /// What models it is for.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Self::CrossEntropy(_) => Task::Generation,
            Self::Softmax(_) | Self::CosineHinge(_) => Task::Search,
        }
    }

    /// That its values can be.
    ///
    /// # Errors
    /// The key, and why not.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::CrossEntropy(loss) => loss.check(),
            Self::Softmax(loss) => loss.check(),
            Self::CosineHinge(loss) => loss.check(),
        }
    }
}

/// A loss with what it knows of the training data.
#[derive(Clone, Debug)]
pub struct Criterion<B: Backend> {
    /// Which.
    pub loss: Loss,
    /// Weights of the target tokens, [V], where the loss asks for them.
    pub class_weights: Option<Tensor<B, 1>>,
}

impl<B: Backend> Model<B> {
    /// The mean loss of a batch, [1].
    ///
    /// # Panics
    /// The loss is for the other family.
    pub fn loss(&self, batch: &Batch<B>, criterion: &Criterion<B>) -> Tensor<B, 1> {
        match (self, criterion.loss) {
            (Self::Generator(model), Loss::CrossEntropy(loss)) => {
                loss.over(model.logits(batch), &batch.target, criterion.class_weights.as_ref())
            }
            (Self::Encoder(_), Loss::Softmax(loss)) => loss.over(self.similarities(batch)),
            (Self::Encoder(_), Loss::CosineHinge(loss)) => loss.over(self.similarities(batch)),
            _ => unreachable!("a config whose loss is for another family is refused"),
        }
    }

    /// Over how many items the loss of a batch is the mean: the tokens of framed targets but the first of each, or queries.
    pub fn items(&self, batch: &Batch<B>) -> usize {
        match self {
            Self::Generator(_) => batch.target.count() - batch.target.rows(),
            Self::Encoder(_) => batch.source.rows(),
        }
    }

    /// Cosines of queries and documents, [B, C ≥ B]; the right document of row i in column i.
    fn similarities(&self, batch: &Batch<B>) -> Tensor<B, 2> {
        let Self::Encoder(model) = self else { unreachable!("only encoders compare") };
        let queries = model.vectors(Role::Query, &batch.source);
        queries.matmul(model.vectors(Role::Document, &batch.target).transpose())
    }
}

/// The right document of each query, [B, 1].
fn diagonal<B: Backend>(matrix: Tensor<B, 2>) -> Tensor<B, 2> {
    let rows = matrix.dims()[0] as i64;
    let index = Tensor::<B, 1, Int>::arange(0..rows, &matrix.device()).unsqueeze_dim::<2>(1);
    matrix.gather(1, index)
}
