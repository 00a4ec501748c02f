//! JSON lines of any shape, their fields mapped in the config.

use anyhow::Result;
use codepair_code::cut_docstring;
use codepair_runtime::{Config, config_error};
use codepair_schemas::rows::Function;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Found, Kind, lines};
use crate::files::{self, Patterns, SourceFile};
use crate::split::{Shares, group};

/// A file or folder of `.jsonl` and `.jsonl.gz`.
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
}

/// Names of fields; `code` and `docstring` are needed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Columns {
    code: String,
    docstring: String,
    name: Option<String>,
    repo: Option<String>,
    path: Option<String>,
    url: Option<String>,
    split: Option<String>,
}

impl Kind for Jsonl {
    fn files(&self, config: &Config) -> Result<Vec<SourceFile>> {
        if self.columns.code.is_empty() || self.columns.docstring.is_empty() {
            return Err(config_error(
                "columns need code and docstring: columns = { code = \"source\", docstring = \"doc\" }",
            ));
        }
        let include = ["**/*.jsonl", "**/*.jsonl.gz"].map(str::to_owned);
        files::find(config, &self.path, &Patterns::new(&include, &[])?)
    }

    fn rows(&self, file: &str, content: &[u8]) -> Result<Vec<Found>> {
        lines::parse(file, content, |place, line: Map<String, Value>| {
            self.row(file, &line).unwrap_or_else(|(reason, detail)| Found::Rejected { place, reason, detail })
        })
    }
}

impl Jsonl {
    fn row(&self, file: &str, line: &Map<String, Value>) -> Result<Found, (&'static str, String)> {
        let columns = &self.columns;
        let needed = |field: &str| match line.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(("wrong_fields", format!("field {field} is no text"))),
            None => Err(("wrong_fields", format!("field {field} is missing"))),
        };
        let wanted = |field: &Option<String>| field.as_deref().map_or(Ok(String::new()), needed);
        let code = needed(&columns.code)?.replace("\r\n", "\n");
        let (code, inner) = cut_docstring(&code).map_err(|error| ("syntax_error", error.to_string()))?;
        let docstring = needed(&columns.docstring)?;
        let (repo, path) = (wanted(&columns.repo)?, wanted(&columns.path)?);
        let group = group(&repo, if path.is_empty() { file } else { &path });
        let split = match wanted(&columns.split)?.as_str() {
            "" => self.shares.split(&group),
            "train" => "train",
            "valid" | "validation" | "dev" => "validation",
            "test" => "test",
            other => return Err(("unknown_split", other.to_owned())),
        };
        Ok(Found::Function(Function {
            name: wanted(&columns.name)?,
            language: "python".to_owned(),
            url: wanted(&columns.url)?,
            code: code.trim_end().to_owned(),
            docstring: if docstring.is_empty() { inner.unwrap_or_default() } else { docstring },
            split: split.to_owned(),
            group,
            repo,
            path,
            ..Function::default()
        }))
    }
}
