//! Mostly Basic Python Problems (Austin et al., 2021), or problems in its fields.

use anyhow::Result;
use codepair_runtime::Config;
use codepair_schemas::rows::Problem;
use serde::{Deserialize, Serialize};

use super::{Found, Kind, lines};
use crate::files::{self, Patterns, SourceFile};
use crate::split::Shares;

/// `mbpp.jsonl`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mbpp {
    /// The file, or its URL.
    #[serde(skip_serializing)]
    path: String,
    /// Shares of validation and test, by a hash of the task's number; without it MBPP's official splits.
    shares: Option<Shares>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "prompt")]
    text: String,
    code: String,
    task_id: i64,
    #[serde(default)]
    test_setup_code: String,
    test_list: Vec<String>,
    #[serde(default)]
    challenge_test_list: Vec<String>,
}

impl Kind for Mbpp {
    fn files(&self, config: &Config) -> Result<Vec<SourceFile>> {
        files::find(config, &self.path, &Patterns::new(&["**/*.jsonl".to_owned()], &[])?)
    }

    fn rows(&self, file: &str, content: &[u8]) -> Result<Vec<Found>> {
        lines::parse(file, content, |place, line: Line| {
            let group = format!("task-{}", line.task_id);
            let split = match self.shares {
                Some(shares) => Some(shares.split(&group)),
                None => official_split(line.task_id),
            };
            let Some(split) = split else {
                return Found::Rejected {
                    place,
                    reason: "unknown_split",
                    detail: format!("task {} is in none of MBPP's splits", line.task_id),
                };
            };
            Found::Problem(Problem {
                task_id: line.task_id,
                text: line.text,
                // Nearly all of MBPP's code has CRLF.
                code: line.code.replace("\r\n", "\n"),
                test_setup_code: line.test_setup_code.replace("\r\n", "\n"),
                test_list: line.test_list,
                challenge_test_list: line.challenge_test_list,
                group,
                split: split.to_owned(),
                ..Problem::default()
            })
        })
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
