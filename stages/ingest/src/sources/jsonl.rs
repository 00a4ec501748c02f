//! JSON lines of any shape, their fields mapped in the config.

use std::borrow::Cow;

use anyhow::Result;
use codepair_runtime::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lines::{self, Lines};
use super::mapped::{Columns, Defaults};
use super::{Found, Kind};
use crate::files::{self, Files, Look, Opened, Patterns};
use crate::split::Shares;

/// A file, folder or archive of `.jsonl` and `.jsonl.gz`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jsonl {
    /// The file or folder, or a URL.
    #[serde(skip_serializing)]
    path: String,
    /// Which field becomes which column.
    columns: Columns,
    /// Shares of validation and test, where no field holds the split.
    shares: Shares,
    /// The language of rows where no field says it; Python without this.
    language: String,
    /// What the licence column says where no field does.
    licence: String,
    /// What the origin column says where no field does.
    origin: String,
}

impl Kind for Jsonl {
    type Piece = Lines;

    fn files(&self, config: &Config) -> Result<Files> {
        self.columns.check()?;
        files::find(config, &self.path, Patterns::new(&["**/*.jsonl", "**/*.jsonl.gz"], &[""; 0])?, Look::default())
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Lines) -> Result<()>) -> Result<()> {
        lines::cut(file, emit)
    }

    fn rows(&self, lines: Lines) -> Result<Vec<Found>> {
        lines::parse_fields(&lines, &self.columns.names(), |place, line: Map<String, Value>| {
            self.columns.row(
                &lines.file,
                || place,
                Defaults { shares: self.shares, language: &self.language },
                |column| match line.get(column) {
                    Some(Value::String(text)) => Ok(Some(Cow::Borrowed(text.as_str()))),
                    Some(Value::Null) => Ok(Some(Cow::Borrowed(""))),
                    Some(_) => Err(format!("field {column} is no text")),
                    None => Ok(None),
                },
            )
        })
    }
}
