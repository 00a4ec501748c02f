//! The two families under one roof.

use burn::module::Module;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::{Encoder, EncoderConfig, Generator, GeneratorConfig, Vocabularies};

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// It writes a target for a source.
    Generation,
    /// It finds the target of a source among many.
    Search,
}

/// `[train.NAME.model]`; `kind` says which.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum ModelConfig {
    /// It writes.
    Generator(GeneratorConfig),
    /// It compares.
    Encoder(EncoderConfig),
}

/// A model of any kind.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one model in a process")]
pub enum Model<B: Backend> {
    /// It writes.
    Generator(Generator<B>),
    /// It compares.
    Encoder(Encoder<B>),
}

/// The names of all kinds of a family.
fn kinds<T: Serialize>(all: &[T]) -> Vec<String> {
    let kind = |config: &T| serde_json::to_value(config).ok()?.get("kind")?.as_str().map(str::to_owned);
    all.iter().filter_map(kind).collect()
}

/// By the kind, so that an error speaks of the one model that was meant.
impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let value = match Value::deserialize(from)? {
            Value::String(kind) => json!({ "kind": kind }),
            other => other,
        };
        let (generators, encoders) = (kinds(&GeneratorConfig::all()), kinds(&EncoderConfig::all()));
        let Some(kind) = value.get("kind").and_then(Value::as_str) else {
            return Err(D::Error::missing_field("kind"));
        };
        let is_in = |kinds: &[String]| kinds.iter().any(|known| known == kind);
        if is_in(&generators) {
            return serde_json::from_value(value).map(Self::Generator).map_err(D::Error::custom);
        }
        if is_in(&encoders) {
            return serde_json::from_value(value).map(Self::Encoder).map_err(D::Error::custom);
        }
        let known: Vec<String> = generators.iter().chain(&encoders).map(|kind| format!("`{kind}`")).collect();
        Err(D::Error::custom(format!("unknown variant `{kind}`, expected one of {}", known.join(", "))))
    }
}

impl ModelConfig {
    /// What the model is for.
    #[must_use]
    pub fn task(&self) -> Task {
        match self {
            Self::Generator(_) => Task::Generation,
            Self::Encoder(_) => Task::Search,
        }
    }

    /// The same kind with its defaults.
    #[must_use]
    pub fn default_of_kind(&self) -> Self {
        match self {
            Self::Generator(config) => Self::Generator(config.default_of_kind()),
            Self::Encoder(config) => Self::Encoder(config.default_of_kind()),
        }
    }

    /// Every kind with its defaults.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let generators = GeneratorConfig::all().into_iter().map(Self::Generator);
        generators.chain(EncoderConfig::all().into_iter().map(Self::Encoder)).collect()
    }

    /// That its sizes go together.
    ///
    /// # Errors
    /// The key, and why not.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Generator(config) => config.check(),
            Self::Encoder(config) => config.check(),
        }
    }

    /// The key because of which source and target must have one tokenizer.
    #[must_use]
    pub fn one_vocabulary(&self) -> Option<&'static str> {
        match self {
            Self::Generator(config) => config.one_vocabulary(),
            Self::Encoder(config) => config.one_vocabulary(),
        }
    }

    /// A model with fresh weights; seed the backend before.
    pub fn init<B: Backend>(&self, vocabularies: Vocabularies, device: &B::Device) -> Model<B> {
        match self {
            Self::Generator(config) => Model::Generator(config.init(vocabularies, device)),
            Self::Encoder(config) => Model::Encoder(config.init(vocabularies, device)),
        }
    }
}
