//! What a trained model is: all that is needed to load it beside its weights and tokenizers.

use anyhow::Result;
use codepair_runtime::{Manifest, Store, input_error};
use codepair_schemas::Field;
use codepair_tokenizer::Special;
use serde::{Deserialize, Serialize};

use crate::ModelConfig;

/// Sizes of the vocabularies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabularies {
    /// Of what is read.
    pub source: usize,
    /// Of what is written or searched.
    pub target: usize,
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

/// `config.json` of a trained model.
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
    /// The tokens that begin and end what it writes.
    #[serde(default)]
    pub special: Special,
    /// Trainable parameters.
    pub parameters: usize,
}

impl ModelCard {
    /// What a trained model is, without its weights.
    ///
    /// # Errors
    /// Exit 3: the card is missing or damaged.
    pub fn of(store: &Store, manifest: &Manifest) -> Result<Self> {
        let bytes = manifest.read_named(store, "models/config.json")?;
        serde_json::from_slice(&bytes)
            .map_err(|error| input_error(format!("config.json of {} {}: {error}", manifest.step, manifest.fingerprint)))
    }
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
            model: serde_json::from_str(r#"{ "kind": "nbow" }"#).unwrap_or_else(|error| panic!("{error}")),
            vocabularies: Vocabularies { source: 4000, target: 8000 },
            source: side(Field::Text),
            target: side(Field::Code),
            special: Special::default(),
            parameters: 7,
        };
        let text = serde_json::to_string_pretty(&card).unwrap_or_default();
        insta::assert_snapshot!(text);
        assert_eq!(serde_json::from_str::<ModelCard>(&text).ok(), Some(card.clone()));
        // Until the training had a loss of its own, the model had it, and there were no other special tokens.
        let older = text.replace("\"shared\": false", "\"shared\": false, \"loss\": \"cosine_hinge\"");
        let older: serde_json::Value = serde_json::from_str(&older).unwrap_or_default();
        let mut older = older.as_object().cloned().unwrap_or_default();
        older.remove("special");
        let read: ModelCard = serde_json::from_value(older.into()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((read.special, read.name), (card.special, card.name));
    }
}
