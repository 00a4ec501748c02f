//! The list of models: a new one is a file, a line in [`ModelConfig`] and a line in [`Model`].

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use codepair_schemas::Field;
use serde::{Deserialize, Serialize};

use crate::{AttentionLstm, AttentionLstmConfig, Batch, Nbow, NbowConfig};

/// Sizes of the vocabularies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabularies {
    /// Of what is read.
    pub source: usize,
    /// Of what is written or searched.
    pub target: usize,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// It writes a target for a source.
    Generation,
    /// It finds the target of a source among many.
    Search,
}

/// One side of a model: which column, by which tokenizer, cut after how many tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The column.
    pub column: Field,
    /// The tokenizer's name in `[prepare.tokenizers]`.
    pub tokenizer: String,
    /// Longer sources are cut; longer targets of a generator are left out, of a search model cut.
    pub max_tokens: usize,
}

/// `config.json` of a trained model: all that is needed to load it beside its weights and tokenizers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The model's name.
    pub name: String,
    /// Its kind and sizes.
    pub model: ModelConfig,
    /// Sizes of the tokenizers.
    pub vocabularies: Vocabularies,
    /// What it reads.
    pub source: Side,
    /// What it writes or searches.
    pub target: Side,
    /// Trainable parameters.
    pub parameters: usize,
}

/// `[train.NAME.model]`; `kind` says which.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelConfig {
    /// BiLSTM encoder, Bahdanau attention, LSTM decoder.
    AttentionLstm(AttentionLstmConfig),
    /// Two bags of embeddings.
    Nbow(NbowConfig),
}

/// A model of any kind.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one model in a process")]
pub enum Model<B: Backend> {
    /// See [`AttentionLstm`].
    AttentionLstm(AttentionLstm<B>),
    /// See [`Nbow`].
    Nbow(Nbow<B>),
}

impl ModelConfig {
    /// What the model is for.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Self::AttentionLstm(_) => Task::Generation,
            Self::Nbow(_) => Task::Search,
        }
    }

    /// The same kind with its defaults.
    #[must_use]
    pub fn default_of_kind(&self) -> Self {
        match self {
            Self::AttentionLstm(_) => Self::AttentionLstm(AttentionLstmConfig::default()),
            Self::Nbow(_) => Self::Nbow(NbowConfig::default()),
        }
    }

    /// A model with fresh weights; seed the backend before.
    pub fn init<B: Backend>(&self, vocabularies: Vocabularies, device: &B::Device) -> Model<B> {
        match self {
            Self::AttentionLstm(config) => Model::AttentionLstm(AttentionLstm::new(*config, vocabularies, device)),
            Self::Nbow(config) => Model::Nbow(Nbow::new(*config, vocabularies, device)),
        }
    }
}

impl<B: Backend> Model<B> {
    /// The mean loss of a batch, and over how many items (target tokens, or queries) it is the mean.
    pub fn loss(&self, batch: &Batch<B>) -> (Tensor<B, 1>, usize) {
        match self {
            Self::AttentionLstm(model) => cross_entropy(model.logits(batch), batch),
            Self::Nbow(model) => (model.loss(batch), batch.source.dims()[0]),
        }
    }
}

/// Mean negative log-likelihood of the target tokens after the first, padding left out; `logits` is [B, T − 1, V].
fn cross_entropy<B: Backend>(logits: Tensor<B, 3>, batch: &Batch<B>) -> (Tensor<B, 1>, usize) {
    let [rows, length, vocabulary] = logits.dims();
    let labels = batch.target.clone().narrow(1, 1, length).reshape([rows * length, 1]);
    let mask = batch.target_mask.clone().narrow(1, 1, length).reshape([rows * length, 1]);
    let chosen = log_softmax(logits.reshape([rows * length, vocabulary]), 1).gather(1, labels);
    let count = batch.target_mask.clone().narrow(1, 1, length).sum().into_scalar();
    let count = burn::tensor::ElementConversion::elem::<f32>(count).max(1.0);
    ((chosen * mask).sum().neg().div_scalar(count), count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cards of an old store's models are read by every later version.
    #[test]
    fn the_card_is_frozen() {
        let side = |column| Side { column, tokenizer: "code".to_owned(), max_tokens: 48 };
        let card = ModelCard {
            name: "nbow".to_owned(),
            model: ModelConfig::Nbow(NbowConfig::default()),
            vocabularies: Vocabularies { source: 4000, target: 8000 },
            source: side(Field::Text),
            target: side(Field::Code),
            parameters: 7,
        };
        let text = serde_json::to_string_pretty(&card).unwrap_or_default();
        insta::assert_snapshot!(text);
        assert_eq!(serde_json::from_str::<ModelCard>(&text).ok(), Some(card));
    }
}
