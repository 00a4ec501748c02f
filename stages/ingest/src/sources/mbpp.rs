//! Mostly Basic Python Problems (Austin et al., 2021), or problems in its fields.

use anyhow::Result;
use codepair_runtime::{Config, config_error};
use codepair_schemas::rows::Problem;
use serde::{Deserialize, Serialize};

use super::array;
use super::jsonl::Piece;
use super::lines;
use super::{SourceKind, line_feeds};
use crate::files::{self, Files, Look, Opened, Patterns, SourceFile};
use crate::found::Found;
use crate::split::Shares;

/// `mbpp.jsonl`, or the sanitized subset `sanitized-mbpp.json`.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mbpp {
    /// The file, or its URL.
    #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
    path: String,
    /// Shares of validation and test, by a hash of the task's number; without it MBPP's official splits.
    shares: Option<Shares>,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// What the licence column says.
    licence: String,
    /// What the origin column says.
    origin: String,
}

impl Default for Mbpp {
    fn default() -> Self {
        let (licence, origin) = ("CC-BY-4.0".to_owned(), "MBPP, github.com/google-research".to_owned());
        Self { path: String::new(), shares: None, exclude: Vec::new(), licence, origin }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "prompt")]
    text: String,
    code: String,
    task_id: i64,
    #[serde(default)]
    test_setup_code: String,
    /// What the sanitized subset has in its place.
    #[serde(default)]
    test_imports: Vec<String>,
    test_list: Vec<String>,
    #[serde(default)]
    challenge_test_list: Vec<String>,
}

impl SourceKind for Mbpp {
    type Piece = Piece;

    fn files(&self, config: &Config) -> Result<Files> {
        self.shares.map_or(Ok(()), |shares| shares.check())?;
        let patterns = Patterns::new(&["**/*mbpp*.jsonl", "**/*mbpp*.json"], &self.exclude)?;
        let files = files::find(config, &self.path, patterns, Look { archives: true, ..Look::default() })?;
        let is_sanitized = |file: &&SourceFile| files::has_end(&file.name, ".json");
        if let (Some(one), Some(other)) =
            (files.list.iter().find(is_sanitized), files.list.iter().find(|file| !is_sanitized(file)))
        {
            // The sanitized problems are among the others, under the same numbers.
            let (one, other) = (&one.name, &other.name);
            return Err(config_error(format!("path holds both {one} and {other}: name the one that is meant")));
        }
        Ok(files)
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        Piece::cut(file, emit)
    }

    fn rows(&self, piece: Piece) -> Result<Vec<Found>> {
        match piece {
            Piece::Lines(lines) => lines::parse(&lines, |place, line| self.row(place, line)),
            Piece::Values(values) => array::parse(&values, |place, line| self.row(place, line)),
        }
    }
}

impl Mbpp {
    fn row(&self, place: String, line: Line) -> Found {
        let group = format!("task-{}", line.task_id);
        let split = match self.shares {
            Some(shares) => Some(shares.split(&group)),
            None => official_split(line.task_id),
        };
        let Some(split) = split else {
            let detail = format!("task {} is in none of MBPP's splits", line.task_id);
            return Found::Rejected { place, reason: "unknown_split", detail };
        };
        let setup = if line.test_imports.is_empty() { line.test_setup_code } else { line.test_imports.join("\n") };
        Found::Problem(Problem {
            task_id: line.task_id,
            text: line.text,
            // Nearly all of MBPP's code has CRLF.
            code: line_feeds(line.code),
            test_setup_code: line_feeds(setup),
            test_list: line.test_list,
            challenge_test_list: line.challenge_test_list,
            group,
            split: split.to_owned(),
            ..Problem::default()
        })
        .with_code()
    }
}

/// MBPP's splits (Austin et al., 2021, section 2): prompt 1–10, test 11–510, validation 511–600, train 601–974.
fn official_split(task_id: i64) -> Option<&'static str> {
    match task_id {
        1..=10 => Some("prompt"),
        11..=510 => Some("test"),
        511..=600 => Some("validation"),
        601..=974 => Some("train"),
        _ => None,
    }
}
