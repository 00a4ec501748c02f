//! Rows of any shape, their columns mapped in the config.

use std::borrow::Cow;

use anyhow::Result;
use codepair_code::find_docstring;
use codepair_runtime::config_error;
use codepair_schemas::rows::Function;
use serde::{Deserialize, Serialize};

use super::{Found, line_feeds};
use crate::split::{Shares, group};

/// Names of columns; `code` and `docstring` are needed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Columns {
    code: String,
    docstring: String,
    name: Option<String>,
    repo: Option<String>,
    path: Option<String>,
    url: Option<String>,
    split: Option<String>,
    language: Option<String>,
    licence: Option<String>,
}

/// A cell: nothing where the row has no such column, an error where it holds no text.
type Cell<'a> = Result<Option<Cow<'a, str>>, String>;

impl Columns {
    /// # Errors
    /// Exit 2: the needed ones are not named.
    pub(crate) fn check(&self) -> Result<()> {
        if self.code.is_empty() || self.docstring.is_empty() {
            return Err(config_error(
                "columns need code and docstring: columns = { code = \"source\", docstring = \"doc\" }",
            ));
        }
        Ok(())
    }

    /// The names of all that are mapped.
    pub(crate) fn names(&self) -> Vec<&str> {
        let optional =
            [&self.name, &self.repo, &self.path, &self.url, &self.split, &self.language, &self.licence].into_iter();
        [self.code.as_str(), &self.docstring].into_iter().chain(optional.filter_map(Option::as_deref)).collect()
    }

    /// The function in a row of `file`, whose cells `cell` looks up by the column's name.
    pub(crate) fn row<'a>(
        &self,
        file: &str,
        place: impl FnOnce() -> String,
        shares: Shares,
        cell: impl Fn(&str) -> Cell<'a>,
    ) -> Found {
        match self.function(file, shares, cell) {
            Ok(function) => Found::Function(function),
            Err((reason, detail)) => Found::Rejected { place: place(), reason, detail },
        }
    }

    fn function<'a>(
        &self,
        file: &str,
        shares: Shares,
        cell: impl Fn(&str) -> Cell<'a>,
    ) -> Result<Function, (&'static str, String)> {
        let needed = |column: &str| match cell(column) {
            Ok(Some(text)) => Ok(text.into_owned()),
            Ok(None) => Err(("wrong_fields", format!("field {column} is missing"))),
            Err(detail) => Err(("wrong_fields", detail)),
        };
        let wanted = |column: &Option<String>| column.as_deref().map_or(Ok(String::new()), needed);
        let language = match wanted(&self.language)? {
            language if language.is_empty() => "python".to_owned(),
            language => language.to_lowercase(),
        };
        let mut code = line_feeds(needed(&self.code)?);
        let mut docstring = needed(&self.docstring)?;
        if language == "python"
            && let Some(found) = find_docstring(&code).map_err(|error| ("syntax_error", error.to_string()))?
        {
            if docstring.is_empty() {
                docstring = found.text(&code);
            }
            found.cut_from(&mut code);
        }
        code.truncate(code.trim_end().len());
        let (repo, path) = (wanted(&self.repo)?, wanted(&self.path)?);
        let group = group(&repo, if path.is_empty() { file } else { &path });
        let split = match wanted(&self.split)?.as_str() {
            "" => shares.split(&group),
            "train" => "train",
            "valid" | "validation" | "dev" => "validation",
            "test" => "test",
            other => return Err(("unknown_split", other.to_owned())),
        };
        Ok(Function {
            name: wanted(&self.name)?,
            language,
            url: wanted(&self.url)?,
            licence: wanted(&self.licence)?,
            split: split.to_owned(),
            code,
            docstring,
            group,
            repo,
            path,
            ..Function::default()
        })
    }
}
