//! `[train.NAME]`.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_model::{EncoderConfig, Loss, ModelConfig, Side, Task, short};
use codepair_runtime::{config_error, overrides};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::averaging::Averaging;
use crate::best::BestBy;
use crate::init::Init;
use crate::optimizers::OptimizerConfig;
use crate::sampling::TeacherForcing;
use crate::schedule::Schedule;

/// What is trained on what, and how.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What the model reads.
    pub source: Side,
    /// What it writes or searches.
    pub target: Side,
    /// Kind and sizes.
    pub model: ModelConfig,
    /// What is minimised: a kind's name, or a table with its values [default: cross_entropy for generators, softmax for encoders].
    #[serde(default, deserialize_with = "short")]
    pub loss: Option<Loss>,
    /// The share of right tokens that a generator's decoder sees in training; it sees its own in place of the others.
    #[serde(default)]
    pub teacher_forcing: TeacherForcing,
    /// Begin with given weights and not with fresh ones: those of a trained model of the same kind, sizes and tokenizers,
    /// `NAME@FINGERPRINT`; those of a folder of pretrained files, which says the sizes (`t5`: a T5 or CodeT5 as transformers has it);
    /// or those of `{ encoder = FOLDER, decoder = FOLDER }` (`paired`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// How gradients move weights: a kind's name, or a table with its values.
    #[serde(default, deserialize_with = "named")]
    pub optimizer: OptimizerConfig,
    /// How the rate changes over the steps: a kind's name, or a table with its values.
    #[serde(default, deserialize_with = "named")]
    pub schedule: Schedule,
    /// Passes over the training split, at most.
    #[serde(default = "defaults::epochs")]
    pub epochs: u32,
    /// Pairs a batch.
    #[serde(default = "defaults::batch_size")]
    pub batch_size: usize,
    /// In place of a number of pairs: pairs times the tokens of the longest of them, source and target together, are at most this;
    /// `batch_size` times 32 pairs are sorted by length together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Batches a step: their gradients are added up.
    #[serde(default = "defaults::one")]
    pub accumulate: usize,
    /// The highest learning rate of the schedule.
    #[serde(default = "defaults::learning_rate")]
    pub learning_rate: f64,
    /// The global norm of all gradients is scaled down to this.
    #[serde(default = "defaults::gradient_norm")]
    pub gradient_norm: f64,
    /// What says which epoch is the best, and when to stop: a metric such as `bleu` or `mrr` on a sample of the validation split, by
    /// its name or as `{ metric = "bleu", rows = 500 }` [default: the validation loss, which is that of the likelihood alone].
    #[serde(default, deserialize_with = "metric", skip_serializing_if = "Option::is_none")]
    pub best_by: Option<BestBy>,
    /// Stop after so many epochs that are no better.
    #[serde(default = "defaults::patience")]
    pub patience: u32,
    /// Of weights, order and dropout. `seeds = [1, 2, 3]` makes a model of each, `NAME-1`, `NAME-2`, …, which the report puts
    /// together; so does a list in place of any other value, and several lists make a model of each combination, seeds changing last.
    /// A key that is a list by itself takes a list of lists.
    #[serde(default)]
    pub seed: u64,
    /// Learn from synthetic positives too.
    #[serde(default = "defaults::yes")]
    pub synthetic_positives: bool,
    /// Synthetic negatives of these names (`nearest`, `mined`, or an edit's) join the batch of their parent; search only.
    #[serde(default)]
    pub negatives: Vec<String>,
    /// At most so many of each pair's negatives; all without it.
    #[serde(default)]
    pub negatives_per_pair: Option<usize>,
    /// Validate and keep a mean of the weights: `ema` or `epochs`, or a table with its values; the last step's own without it.
    #[serde(default, deserialize_with = "short", skip_serializing_if = "Option::is_none")]
    pub average: Option<Averaging>,
    /// How often rows of a source are taken in an epoch, such as `{ mbpp = 3, stdlib = 0.5 }`; those of others once. What synthesis
    /// made has its generator as its source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_weights: BTreeMap<String, f64>,
    /// Take only the first so many training pairs.
    #[serde(default)]
    pub max_examples: Option<usize>,
    /// Steps between rows of `training_steps`.
    #[serde(default = "defaults::log_steps", skip_serializing_if = "codepair_runtime::is_unrecorded")]
    pub log_steps: u64,
    /// Steps between checkpoints, beside those by time; one is also made after every epoch.
    #[serde(default, skip_serializing_if = "codepair_runtime::is_unrecorded")]
    pub checkpoint_steps: Option<u64>,
    /// Seconds between checkpoints.
    #[serde(default = "defaults::checkpoint_seconds", skip_serializing_if = "codepair_runtime::is_unrecorded")]
    pub checkpoint_seconds: u64,
}

mod defaults {
    pub(super) fn epochs() -> u32 {
        5
    }
    pub(super) fn one() -> usize {
        1
    }
    pub(super) fn batch_size() -> usize {
        32
    }
    pub(super) fn learning_rate() -> f64 {
        1e-3
    }
    pub(super) fn gradient_norm() -> f64 {
        1.0
    }
    pub(super) fn patience() -> u32 {
        5
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn log_steps() -> u64 {
        20
    }
    pub(super) fn checkpoint_seconds() -> u64 {
        60
    }
}

impl TrainConfig {
    /// # Errors
    /// Exit 2: a value that cannot be.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        let wrong = |key: &str, why: &str| Err(config_error(format!("train.{name}.{key} {why}")));
        let within = |table: &str, checked: Result<(), String>| {
            checked.map_err(|why| config_error(format!("train.{name}.{table}.{why}")))
        };
        if self.epochs == 0 || self.batch_size == 0 || self.accumulate == 0 || self.log_steps == 0 {
            return wrong("epochs, batch_size, accumulate and log_steps", "must be at least 1");
        }
        if self.batch_tokens == Some(0) || self.checkpoint_steps == Some(0) {
            return wrong("batch_tokens and checkpoint_steps", "must be at least 1");
        }
        if self.source.max_tokens == 0 || self.target.max_tokens == 0 {
            return wrong("source.max_tokens and target.max_tokens", "must be at least 1");
        }
        if self.source.column == self.target.column {
            return match self.target.fields.is_empty() {
                true => wrong("source.column and target.column", "must differ"),
                false => wrong(
                    "target.column",
                    "is the field that every document has, and has to be another than the source's: name it",
                ),
            };
        }
        self.check_fields(name)?;
        if self.source_weights.values().any(|weight| !(0.0..=1000.0).contains(weight)) {
            return wrong("source_weights", "must be numbers between 0 and 1000");
        }
        if self.model.task() == Task::Generation && !self.negatives.is_empty() {
            return wrong("negatives", "are for search models; a generator learns from positives only");
        }
        let is_above = |value: f64| value.is_finite() && value > 0.0;
        if !is_above(self.learning_rate) || !is_above(self.gradient_norm) {
            return wrong("learning_rate and gradient_norm", "must be numbers above 0");
        }
        if self.patience == 0 || self.max_examples == Some(0) {
            return wrong("patience and max_examples", "must be at least 1");
        }
        if self.model.task() == Task::Search && self.batch_size == 1 && self.negatives.is_empty() {
            return wrong(
                "batch_size",
                "= 1 leaves a search model nothing to tell its document from; take some hundred",
            );
        }
        if self.loss.is_some() && self.older_loss().is_some() {
            return wrong("model.loss", "is the older place of loss; give one of them");
        }
        if self.model.one_vocabulary() == Some("copy")
            && matches!(self.loss(), Loss::CrossEntropy(loss) if loss.z_loss > 0.0)
        {
            return wrong(
                "loss.z_loss",
                "does nothing with model.copy: what is copied and what is written sum to 1 as they are",
            );
        }
        within("model", self.model.check())?;
        within("optimizer", self.optimizer.check())?;
        within("schedule", self.schedule.check())?;
        within("teacher_forcing", self.teacher_forcing.check())?;
        if self.model.task() == Task::Search && self.teacher_forcing != TeacherForcing::default() {
            return wrong("teacher_forcing", "is for generators; a search model writes nothing");
        }
        within("best_by", self.best_by.as_ref().map_or(Ok(()), |best| best.check(self.model.task())))?;
        within("average", self.average.map_or(Ok(()), |average| average.check()))?;
        within("loss", self.loss().check())?;
        if self.loss().task() != self.model.task() {
            let (loss, model) = (kind(&self.loss())?, kind(&self.model)?);
            return wrong("loss", &format!("= \"{loss}\" is not for a model of the kind {model}"));
        }
        if self.source.tokenizer != self.target.tokenizer
            && let Some(key) = self.model.one_vocabulary()
        {
            return wrong(
                "source.tokenizer and target.tokenizer",
                &format!("must be the same, for model.{key} has one vocabulary"),
            );
        }
        Ok(())
    }

    /// That a document can be made of the fields of a target.
    fn check_fields(&self, name: &str) -> Result<()> {
        let wrong = |key: &str, why: &str| Err(config_error(format!("train.{name}.{key} {why}")));
        if !self.source.fields.is_empty() {
            return wrong("source.fields", "cannot be: what is asked with is one column");
        }
        if self.target.fields.is_empty() {
            return Ok(());
        }
        if self.model.task() == Task::Generation {
            return wrong("target.fields", "are what a search model searches; a generator writes one column");
        }
        if !self.negatives.is_empty() {
            return wrong(
                "negatives",
                "have code alone, so that the document with more fields would always be the right one; leave target.fields out",
            );
        }
        let asked = self.source.column.into();
        if self.target.fields.contains(&asked)
            && self.target.field_dropout.get(&asked).is_none_or(|share| *share == 0.0)
        {
            let field = self.source.column.name();
            return wrong(
                "target.fields",
                &format!(
                    "hold {field}, which is asked with: each document would hold its own query. Leave it out, or let training \
                     leave it out of some: field_dropout = {{ {field} = 0.5 }}"
                ),
            );
        }
        Ok(())
    }

    /// What is minimised.
    pub(crate) fn loss(&self) -> Loss {
        self.loss.or(self.older_loss()).unwrap_or_else(|| Loss::default_of(self.model.task()))
    }

    /// The loss where it stood before trainings had one.
    fn older_loss(&self) -> Option<Loss> {
        match &self.model {
            ModelConfig::Encoder(EncoderConfig::Nbow(config)) => config.loss,
            _ => None,
        }
    }

    /// The resolved values that decide about the output, and those of them that differ from the defaults.
    pub(crate) fn values(&self) -> Result<(Value, Value)> {
        let mut model = self.model.clone();
        if let ModelConfig::Encoder(EncoderConfig::Nbow(config)) = &mut model {
            config.loss = None;
        }
        let init = self.init.as_ref().map(Init::recorded);
        let value = serde_json::to_value(Self { loss: Some(self.loss()), model, init, ..self.clone() })?;
        let plain = Self {
            loss: Some(self.loss().default_of_kind()),
            model: self.model.default_of_kind(),
            optimizer: self.optimizer.default_of_kind(),
            ..serde_json::from_value(json!({
                "source": value["source"], "target": value["target"], "model": value["model"],
            }))?
        };
        let mut changed = overrides(&value, &serde_json::to_value(plain)?);
        // These have no defaults.
        for side in ["source", "target"] {
            changed[side] = value[side].clone();
        }
        Ok((value, changed))
    }
}

/// Reads a metric's table, or its name alone.
fn metric<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<BestBy>, D::Error> {
    let value = match Value::deserialize(from)? {
        Value::String(metric) => json!({ "metric": metric }),
        other => other,
    };
    serde_json::from_value(value).map(Some).map_err(serde::de::Error::custom)
}

/// The `kind` of a tagged table.
fn kind(of: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_value(of)?["kind"].as_str().unwrap_or_default().to_owned())
}

/// Reads a tagged table, or the name of its kind alone.
fn named<'de, D: serde::Deserializer<'de>, T: serde::de::DeserializeOwned>(from: D) -> Result<T, D::Error> {
    short(from)?.ok_or_else(|| serde::de::Error::missing_field("kind"))
}
