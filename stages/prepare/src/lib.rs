//! Prepare: functions, problems, pairs and synthetic pairs become `examples` without duplicates and leaks.
//!
//! The wide columns (text, code) are never sorted or joined. DataFusion computes narrow keys of all rows in one pass and
//! sorts them, on disk where they do not fit in memory; a walk along the sorted keys finds the duplicates; one pass over
//! the rows, in order, writes what is decided. What is known of each row is on disk too, with a bounded part in memory, so
//! that memory does not grow with the input.

mod candidates;
mod clusters;
mod evaluation;
mod examples;
mod filters;
mod functions;
mod keys;
mod near;
mod scratch;
mod verdicts;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use codepair_dedup::BANDS;
use codepair_runtime::{Config, Context, Input, Stage, Step, config_error, overrides};
use serde::{Deserialize, Serialize};

use crate::scratch::Scratch;
use crate::verdicts::Verdicts;

/// How rows become examples: which are duplicates, which leak what is tested on, which are left out.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Prepare {
    /// Jaccard similarity of 5-token shingles from which two functions count as near-duplicates.
    pub near_duplicate_threshold: f64,
    /// Whether rows that differ in the names of variables alone are duplicates.
    pub structural_duplicates: bool,
    /// Which part of a docstring is the text: `summary` (its first paragraph) or `full`.
    pub text: TextPart,
    /// Keep functions without a docstring, for models of code alone.
    pub keep_rows_without_text: bool,
    /// A text that is tested on is not looked for in rows where more than so many hold it: it is boilerplate, and would cost
    /// more rows than it protects. The test row stays. Without this all are looked for.
    pub boilerplate_texts: Option<u64>,
    /// Names, which become reasons, and expressions of SQL that are true for the training and validation rows to leave
    /// out.
    pub filters: BTreeMap<String, String>,
}

impl Default for Prepare {
    fn default() -> Self {
        Self {
            near_duplicate_threshold: 0.7,
            structural_duplicates: true,
            text: TextPart::Summary,
            keep_rows_without_text: false,
            boilerplate_texts: None,
            filters: BTreeMap::new(),
        }
    }
}

/// Which part of a docstring becomes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextPart {
    /// The first paragraph.
    Summary,
    /// All of it.
    Full,
}

impl Prepare {
    fn check(&self) -> Result<()> {
        if !(LEAST_THRESHOLD..=1.0).contains(&self.near_duplicate_threshold) {
            return Err(config_error(format!(
                "prepare.near_duplicate_threshold must be from {LEAST_THRESHOLD} to 1: of pairs that are less similar the bands \
                 ({BANDS}) find fewer than 95 in a hundred"
            )));
        }
        if let Some(name) = self.filters.keys().find(|name| !is_name(name) || REASONS.contains(&name.as_str())) {
            return Err(config_error(format!(
                "prepare.filters.{name}: use letters, digits and _, for it names a reason, and none of {}",
                REASONS.join(", ")
            )));
        }
        Ok(())
    }
}

/// Two rows of this Jaccard similarity share one of the bands of five rows with a probability of 0.954: 1 - (1 - 0.65^5)^25.
const LEAST_THRESHOLD: f64 = 0.65;

/// The stage's own reasons for leaving a row out.
const REASONS: [&str; 9] = [
    "no_text",
    "contaminated",
    "corpus_only",
    "evaluation_only",
    "exact_duplicate",
    "near_duplicate",
    "structural_duplicate",
    "parent_rejected",
    "tested_repo",
];

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Stage for Prepare {
    const NAME: &'static str = "prepare";
    type Config = Self;

    fn steps(config: &Self, _whole: &Config) -> Result<Vec<Step>> {
        config.check()?;
        candidates::check_filters(config)?;
        let value = serde_json::to_value(config)?;
        let changed = overrides(&value, &serde_json::to_value(Self::default())?);
        let ingested = ["functions", "problems", "pairs", "queries"].map(|dataset| Input::new(dataset, "ingest"));
        Ok(vec![Step {
            config: serde_json::json!({ "prepare": value }),
            overrides: serde_json::json!({ "prepare": changed }),
            inputs: ingested.into_iter().chain([Input::new("synthetic_pairs", "synth")]).collect(),
            ..Step::default()
        }])
    }

    fn run(context: &mut Context, config: &Self) -> Result<()> {
        let began = Instant::now();
        let scratch = Scratch::new(context.memory_limit)?;
        let session = candidates::session(context, config, &scratch)?;
        let keys = keys::keys(&session, config, &scratch)?;
        let verdicts = Verdicts::new(&session, keys, config, &scratch, context.threads)?;
        drop(session);
        context.attempt.note("passes_over_rows", verdicts.keys().passes());
        context.attempt.note("boilerplate_texts", verdicts.keys().boilerplate()?);
        context.attempt.note("pairs_not_compared", verdicts.pairs_not_compared());
        context.attempt.note("seconds_to_verdicts", began.elapsed().as_secs_f64());
        // A filter that nothing fell under says so too.
        config.filters.keys().for_each(|name| context.attempt.count_rejected(name, 0));
        examples::write(context, config, &verdicts)
    }
}
