//! Prepare: functions, problems and synthetic pairs become `examples` without duplicates and leaks, and token tables.
//!
//! The wide columns (text, code) are never sorted or joined: DataFusion decides over narrow keys which rows stay, and
//! one pass over the rows, in order, writes them.

mod candidates;
mod examples;
mod functions;
mod near;
mod tokens;
mod verdicts;

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Config, Context, Input, Stage, Step, config_error, overrides};
use codepair_tokenizer::Cut;
use serde::{Deserialize, Serialize};

/// `[prepare]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prepare {
    /// Jaccard similarity of 5-token shingles from which two functions count as near-duplicates.
    pub near_duplicate_threshold: f64,
    /// Which part of a docstring is the text: `summary` (its first paragraph) or `full`.
    pub text: TextPart,
    /// `[prepare.tokenizers.NAME]`.
    pub tokenizers: BTreeMap<String, TokenizerConfig>,
}

impl Default for Prepare {
    fn default() -> Self {
        Self { near_duplicate_threshold: 0.7, text: TextPart::Summary, tokenizers: BTreeMap::new() }
    }
}

/// Which part of a docstring becomes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPart {
    /// The first paragraph.
    Summary,
    /// All of it.
    Full,
}

/// A column that can be tokenised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Natural language.
    Text,
    /// Program text.
    Code,
}

/// `[prepare.tokenizers.NAME]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerConfig {
    /// Tokens at most, special ones included.
    pub vocabulary: usize,
    /// The columns it is trained on and encodes.
    pub fields: Vec<Field>,
    /// `bytes` keeps everything; `words` is for search.
    pub cut: Cut,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self { vocabulary: 8000, fields: vec![Field::Text, Field::Code], cut: Cut::Bytes }
    }
}

impl Prepare {
    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.near_duplicate_threshold) || self.near_duplicate_threshold == 0.0 {
            return Err(config_error("prepare.near_duplicate_threshold must be above 0 and at most 1"));
        }
        for (name, tokenizer) in &self.tokenizers {
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(config_error(format!(
                    "prepare.tokenizers.{name}: use letters, digits and _, for it names a table"
                )));
            }
            if tokenizer.vocabulary < 260 {
                return Err(config_error(format!(
                    "prepare.tokenizers.{name}.vocabulary must be at least 260: 256 bytes, 3 special tokens and a pair"
                )));
            }
        }
        Ok(())
    }
}

impl Stage for Prepare {
    const NAME: &'static str = "prepare";
    type Config = Self;

    fn steps(config: &Self, _whole: &Config) -> Result<Vec<Step>> {
        config.check()?;
        let value = serde_json::to_value(config)?;
        let mut changed = overrides(&value, &serde_json::to_value(Self::default())?);
        let default = serde_json::to_value(TokenizerConfig::default())?;
        for (name, tokenizer) in &config.tokenizers {
            changed["tokenizers"][name] = overrides(&serde_json::to_value(tokenizer)?, &default);
        }
        let input = |dataset: &str, step: &str| Input::new(dataset, step);
        Ok(vec![Step {
            config: serde_json::json!({ "prepare": value }),
            overrides: serde_json::json!({ "prepare": changed }),
            inputs: vec![input("functions", "ingest"), input("problems", "ingest"), input("synthetic_pairs", "synth")],
            ..Step::default()
        }])
    }

    fn run(context: &mut Context, config: &Self) -> Result<()> {
        let session = candidates::session(context, config)?;
        let keys = candidates::keys(&session)?;
        let near = near::clusters(&session, &keys, config.near_duplicate_threshold, context.threads)?;
        let verdicts = verdicts::decide(&keys, &near);
        let examples = examples::write(context, config, &keys, &verdicts)?;
        tokens::write(context, config, &examples)
    }
}
