//! What a trained model is: all that is needed to load it beside its weights and tokenizers.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Manifest, Store, input_error};
use codepair_schemas::{DocumentField, Field};
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

/// One side of a model: which column, or for search which fields, by which tokenizer, cut after how many tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "Written")]
#[schemars(with = "Written")]
pub struct Side {
    /// The column; of a document of several fields the one that no document is without.
    pub column: Field,
    /// The fields of a document, in order; the column alone where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<DocumentField>,
    /// The share of documents that are shown without a field in training.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub field_dropout: BTreeMap<DocumentField, f64>,
    /// The tokenizer's name in `[prepare.tokenizers]`.
    pub tokenizer: String,
    /// Longer ones are cut, or left out.
    pub max_tokens: usize,
}

/// A side as it is written.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The column; beside `fields` the one of them that no document is without [default: code, else text].
    column: Option<Field>,
    /// Of a search model's target in place of a column: the fields that a document is made of, such as `["name", "text", "code"]`;
    /// a row without code (without text, where there is no code among them) is no document.
    #[serde(default)]
    fields: Vec<DocumentField>,
    /// In training this share of the documents is shown without a field, such as `{ text = 0.5 }`; the field that is the source
    /// stands in a document only so, and never in validation.
    #[serde(default)]
    field_dropout: BTreeMap<DocumentField, f64>,
    /// The tokenizer's name in `[prepare.tokenizers]`.
    tokenizer: String,
    /// Longer sources are cut; longer targets of a generator are left out, of a search model cut.
    max_tokens: usize,
}

impl TryFrom<Written> for Side {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        let Written { column, fields, field_dropout, tokenizer, max_tokens } = written;
        let among = |field: Field| fields.contains(&field.into()).then_some(field);
        let column = match column.or_else(|| among(Field::Code)).or_else(|| among(Field::Text)) {
            Some(column) => column,
            None if fields.is_empty() => return Err("column is missing: \"text\" or \"code\"".to_owned()),
            None => return Err("fields has to hold text or code".to_owned()),
        };
        if !fields.is_empty() && among(column).is_none() {
            return Err(format!("column = \"{}\" is none of the fields", column.name()));
        }
        let is_double = |(at, field): (usize, &DocumentField)| fields[..at].contains(field);
        if let Some((_, field)) = fields.iter().enumerate().find(|one| is_double(*one)) {
            return Err(format!("fields holds {} twice", field.name()));
        }
        if let Some((field, share)) = field_dropout.iter().find(|(_, share)| !(0.0..=1.0).contains(*share)) {
            return Err(format!("field_dropout.{} = {share} must be between 0 and 1", field.name()));
        }
        if field_dropout.contains_key(&column.into()) && !fields.is_empty() {
            let name = column.name();
            return Err(format!("field_dropout.{name}: every document has {name}; column says which field that is"));
        }
        if let Some(field) = field_dropout.keys().find(|field| !fields.contains(field)) {
            return Err(format!("field_dropout.{} is none of the fields", field.name()));
        }
        Ok(Self { column, fields, field_dropout, tokenizer, max_tokens })
    }
}

impl Side {
    /// The fields that a document is made of.
    #[must_use]
    pub fn document(&self) -> Vec<DocumentField> {
        if self.fields.is_empty() { vec![self.column.into()] } else { self.fields.clone() }
    }

    /// What is read or searched, in words: `name + code`. A field that is asked with is in no document that has an answer of its own.
    #[must_use]
    pub fn without(&self, asked: Field) -> String {
        let fields = self.document().into_iter().filter(|field| *field != asked.into());
        fields.map(DocumentField::name).collect::<Vec<_>>().join(" + ")
    }
}

/// The tokens of a document: those of its fields in order, and what stands for a line break between them.
#[must_use]
pub fn joined<P: AsRef<[u32]>>(parts: impl IntoIterator<Item = P>, between: &[u32]) -> Vec<u32> {
    let mut all: Vec<u32> = Vec::new();
    for part in parts {
        let part = part.as_ref();
        if !all.is_empty() && !part.is_empty() {
            all.extend(between);
        }
        all.extend(part);
    }
    all
}

/// `config.json` of a trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The model's name.
    pub name: String,
    /// Its kind and sizes.
    pub model: ModelConfig,
    /// Tokens that it has embeddings of: as many as its tokenizers have, or more.
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
        let side = |column| Side {
            column,
            fields: Vec::new(),
            field_dropout: BTreeMap::new(),
            tokenizer: "code".to_owned(),
            max_tokens: 48,
        };
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
