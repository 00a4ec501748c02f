//! `init`: the weights that a training begins with in place of fresh ones.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use burn::tensor::backend::Backend;
use codepair_model::{Folder, Model, ModelCard, ModelConfig, Pretrained, load, pinned};
use codepair_runtime::{Config, Context, config_error, input_error};
use codepair_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainConfig;

/// Where weights come from: a trained model as `NAME@FINGERPRINT`, a folder of pretrained files, or one a half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged, expecting = "it is NAME@FINGERPRINT, a folder, or { encoder = FOLDER, decoder = FOLDER }")]
pub enum Init {
    /// A trained model, or a folder of pretrained files, which count by content.
    Whole(String),
    /// For a model of the kind `paired`.
    Halves {
        /// The folder of what reads.
        encoder: String,
        /// The folder of what writes.
        decoder: String,
    },
}

/// What a training begins with.
pub(crate) enum First {
    /// Fresh weights.
    Fresh,
    /// A trained model's, `NAME@FINGERPRINT`.
    Trained(String),
    /// Those of files.
    Pretrained(Pretrained),
}

impl Init {
    /// As it counts: where folders lie does not, what is in them does elsewhere.
    pub(crate) fn recorded(&self) -> Self {
        match self {
            Self::Whole(name) if is_trained(name) => self.clone(),
            _ => Self::Whole("pretrained files".to_owned()),
        }
    }
}

/// Whether a text has the form of `NAME@FINGERPRINT`; others are folders.
fn is_trained(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, fingerprint)| {
        !name.contains(['/', '.']) && !fingerprint.is_empty() && fingerprint.chars().all(|c| c.is_ascii_hexdigit())
    })
}

impl First {
    /// What the config says, with folders looked into.
    ///
    /// # Errors
    /// Exit 3: a folder does not hold what it should.
    pub(crate) fn of(name: &str, config: &TrainConfig, whole: &Config) -> Result<Self> {
        let open = |folder: &str| Folder::open(&whole.resolve(folder)).with_context(|| format!("train.{name}.init"));
        Ok(match &config.init {
            None => Self::Fresh,
            Some(Init::Whole(init)) if is_trained(init) => Self::Trained(init.clone()),
            // It may be on another machine, whose plan is there.
            Some(Init::Whole(init)) if !whole.resolve(init).is_dir() => {
                return Err(input_error(format!(
                    "train.{name}.init: there is no folder {}; what it takes is a folder of config.json and safetensors (one of a hub has to \
                     be downloaded first), or a trained model as NAME@FINGERPRINT, as codepair status says them",
                    whole.resolve(init).display()
                )));
            }
            Some(Init::Whole(init)) => Self::Pretrained(Pretrained::Whole(open(init)?)),
            Some(Init::Halves { encoder, decoder }) => {
                Self::Pretrained(Pretrained::Halves { encoder: open(encoder)?, decoder: open(decoder)? })
            }
        })
    }

    /// Digests of the folders, by the keys that name them.
    pub(crate) fn digests(&self) -> Result<BTreeMap<String, String>> {
        match self {
            Self::Pretrained(pretrained) => pretrained.digests(),
            Self::Fresh | Self::Trained(_) => Ok(BTreeMap::new()),
        }
    }

    /// The config with the model that the folders say.
    ///
    /// # Errors
    /// Exit 2: it says another itself.
    pub(crate) fn resolved(&self, name: &str, config: &TrainConfig, whole: &Config) -> Result<TrainConfig> {
        let Self::Pretrained(pretrained) = self else { return Ok(config.clone()) };
        // Found now rather than when all else is made.
        pretrained.special()?;
        let wrong = |why: String| config_error(format!("train.{name}.model.{why}"));
        let theirs = serde_json::to_value(pretrained.model()?)?;
        let own = serde_json::to_value(&config.model)?;
        if own["kind"] != theirs["kind"] {
            let key = if theirs["kind"] == "paired" { "a folder a half" } else { "one folder" };
            return Err(wrong(format!(
                "kind = {}: init, {key}, is for a model of the kind {}",
                own["kind"], theirs["kind"]
            )));
        }
        // As it was written: a value that is the default as well is one that is said.
        let written = &whole.section::<Value>("train")?[name]["model"];
        let model: ModelConfig = serde_json::from_value(agreed(written, &theirs).map_err(wrong)?)?;
        Ok(TrainConfig { model, ..config.clone() })
    }

    /// Whether the tokenizers have no more tokens than the model has embeddings of; a warning where they are not the files' own.
    pub(crate) fn check_tokenizers(&self, name: &str, config: &TrainConfig, tokenizers: [&Tokenizer; 2]) -> Result<()> {
        let Self::Pretrained(pretrained) = self else { return Ok(()) };
        let known = pretrained.vocabularies()?;
        let sides = [("source", &config.source, known.source), ("target", &config.target, known.target)];
        let own = pretrained.tokenizers();
        for (((key, side, known), tokenizer), own) in sides.into_iter().zip(tokenizers).zip(own) {
            let own = own.and_then(|own| Tokenizer::from_json(&own).ok()?.to_json().ok());
            let is_own = own.map(|own| tokenizer.to_json().is_ok_and(|json| json == own));
            if tokenizer.vocabulary() > known {
                let (tokenizer_name, tokens) = (&side.tokenizer, tokenizer.vocabulary());
                let advice = match is_own {
                    Some(true) => "their config.json and their tokenizer.json do not go together".to_owned(),
                    _ => format!(
                        "take their own: [prepare.tokenizers.{tokenizer_name}] file = the tokenizer.json beside them"
                    ),
                };
                return Err(config_error(format!(
                    "train.{name}.{key}.tokenizer: {tokenizer_name} has {tokens} tokens, and the files of init are for {known}; {advice}"
                )));
            }
            if is_own == Some(false) {
                tracing::warn!(
                    "train.{name}.{key}.tokenizer: {} is not the tokenizer.json of the files that init names: their weights know nothing of its tokens",
                    side.tokenizer
                );
            }
        }
        Ok(())
    }
}

/// What files say, and nothing else in what is written beside it; dropout is the training's own matter.
fn agreed(written: &Value, theirs: &Value) -> Result<Value, String> {
    let (Value::Object(written), Value::Object(said)) = (written, theirs) else { return Ok(theirs.clone()) };
    let mut all = said.clone();
    for (key, value) in written {
        let Some(other) = said.get(key) else { continue };
        let inner = match other {
            Value::Object(_) => agreed(value, other).map_err(|why| format!("{key}.{why}"))?,
            _ if key == "dropout" => value.clone(),
            _ if *other == *value || (other.is_number() && other.as_f64() == value.as_f64()) => other.clone(),
            _ => return Err(format!("{key} = {value}, and the files of init say {other}; leave it out")),
        };
        all.insert(key.clone(), inner);
    }
    Ok(Value::Object(all))
}

/// A trained model to begin with.
pub(crate) struct Parent {
    pub(crate) card: ModelCard,
    weights: Vec<u8>,
}

impl Parent {
    /// Puts its weights into a model.
    pub(crate) fn fill<B: Backend>(self, name: &str, model: &mut Model<B>) -> Result<()> {
        load(model, self.weights).map_err(|error| config_error(format!("train.{name}.init: {error:#}")))
    }
}

/// A trained model that reads and writes the same tokens.
pub(crate) fn trained(
    context: &Context,
    name: &str,
    (init, model): (&str, &ModelConfig),
    tokenizers: [&Tokenizer; 2],
) -> Result<Parent> {
    let manifest = pinned(&context.store, init).with_context(|| format!("train.{name}.init"))?;
    let card = ModelCard::of(&context.store, &manifest)?;
    let differing = differing(&serde_json::to_value(&card.model)?, &serde_json::to_value(model)?);
    if !differing.is_empty() {
        let differing = differing.join(", ");
        return Err(config_error(format!(
            "train.{name}.init: {init} is another model: {differing}; take the same here"
        )));
    }
    for (side, tokenizer) in ["source", "target"].into_iter().zip(tokenizers) {
        let theirs = manifest.read_named(&context.store, &format!("models/{side}_tokenizer.json"))?;
        if Tokenizer::from_json(&theirs)?.to_json()? != tokenizer.to_json()? {
            return Err(config_error(format!(
                "train.{name}.init: {init} has another {side} tokenizer; take the [prepare.tokenizers] and the data that it was trained with"
            )));
        }
    }
    let weights = manifest.read_named(&context.store, "models/model.safetensors")?.to_vec();
    Ok(Parent { card, weights })
}

/// That the folders hold what they held when the run was planned.
pub(crate) fn check_digests(context: &Context, name: &str, first: &First) -> Result<()> {
    match first.digests()? == context.description.sources {
        true => Ok(()),
        false => Err(input_error(format!("train.{name}.init: the files changed since they were hashed; run it again"))),
    }
}

/// Keys in which two models differ, with what the first has; dropout may.
fn differing(one: &Value, other: &Value) -> Vec<String> {
    let keys = |of: &Value| of.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let mut all = [keys(one), keys(other)].concat();
    all.sort();
    all.dedup();
    // What is off may be left out of the text.
    let value = |of: &Value, key: &str| of.get(key).cloned().filter(|value| *value != false);
    all.retain(|key| key != "dropout" && key != "loss" && value(one, key) != value(other, key));
    all.into_iter().map(|key| format!("model.{key} = {}", one.get(&key).unwrap_or(&Value::Null))).collect()
}
