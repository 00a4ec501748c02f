//! Rows of any shape, their columns mapped in the config: functions, or what users ask.

use std::borrow::Cow;

use anyhow::Result;
use codepair_code::find_docstring;
use codepair_runtime::config_error;
use codepair_schemas::rows::{Function, Query};
use serde::{Deserialize, Serialize};

use super::{Found, line_feeds};
use crate::split::{Shares, group};

/// Names of columns; `code` and `docstring` are needed, or `query` alone.
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
    origin: Option<String>,
    /// What a user asks; such rows go to `queries`.
    query: Option<String>,
    /// Where a user asks it: a document, a project.
    context: Option<String>,
}

/// What holds for all rows whose columns say nothing of it.
#[derive(Clone, Copy)]
pub(crate) struct Defaults<'a> {
    pub(crate) shares: Shares,
    /// Python where this says nothing either.
    pub(crate) language: &'a str,
}

/// A cell: nothing where the row has no such column, an empty text where it is null, an error where it holds no text.
type Cell<'a> = Result<Option<Cow<'a, str>>, String>;

impl Columns {
    /// # Errors
    /// Exit 2: the needed ones are not named.
    pub(crate) fn check(&self) -> Result<()> {
        let needed = [&self.code, &self.docstring].map(|column| !column.is_empty());
        let is_function = needed.contains(&true) || self.of_functions().iter().any(|column| column.is_some());
        match &self.query {
            None if needed == [true, true] && self.context.is_none() => Ok(()),
            Some(_) if !is_function => Ok(()),
            _ => Err(config_error(
                "columns need code and docstring, of functions: columns = { code = \"source\", docstring = \"doc\" }; or query, \
                 with or without context, of what users ask: columns = { query = \"question\", context = \"project\" }",
            )),
        }
    }

    /// What queries do not have.
    fn of_functions(&self) -> [&Option<String>; 5] {
        [&self.name, &self.repo, &self.path, &self.url, &self.language]
    }

    /// The names of all that are mapped.
    pub(crate) fn names(&self) -> Vec<&str> {
        let of_all = [&self.split, &self.licence, &self.origin, &self.query, &self.context];
        let optional = self.of_functions().into_iter().chain(of_all).filter_map(Option::as_deref);
        [self.code.as_str(), &self.docstring].into_iter().filter(|name| !name.is_empty()).chain(optional).collect()
    }

    /// The function or query in a row of `file`, whose cells `cell` looks up by the column's name.
    pub(crate) fn row<'a>(
        &self,
        file: &str,
        place: impl FnOnce() -> String,
        defaults: Defaults,
        cell: impl Fn(&str) -> Cell<'a>,
    ) -> Found {
        let found = match &self.query {
            Some(query) => self.query(query, defaults, cell).map(Found::Query),
            None => self.function(file, defaults, cell).map(Found::Function),
        };
        match found {
            Ok(found) => found,
            Err((reason, detail)) => Found::Rejected { place: place(), reason, detail },
        }
    }

    fn query<'a>(&self, query: &str, defaults: Defaults, cell: impl Fn(&str) -> Cell<'a>) -> Result<Query, Fault> {
        let text = needed(&cell, query)?;
        if text.trim().is_empty() {
            return Err(("empty_text", format!("field {query} is empty")));
        }
        let wanted = |column: &Option<String>| wanted(&cell, column.as_deref());
        let split = split(&wanted(&self.split)?, || defaults.shares.split(&text))?;
        Ok(Query {
            context: wanted(&self.context)?,
            split: split.to_owned(),
            licence: wanted(&self.licence)?,
            origin: wanted(&self.origin)?,
            text,
            ..Query::default()
        })
    }

    fn function<'a>(&self, file: &str, defaults: Defaults, cell: impl Fn(&str) -> Cell<'a>) -> Result<Function, Fault> {
        let needed = |column| needed(&cell, column);
        let wanted = |column: &Option<String>| wanted(&cell, column.as_deref());
        let language = [wanted(&self.language)?.as_str(), defaults.language, "python"]
            .into_iter()
            .find(|language| !language.is_empty())
            .unwrap_or_default()
            .to_lowercase();
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
        let split = split(&wanted(&self.split)?, || defaults.shares.split(&group))?;
        Ok(Function {
            name: wanted(&self.name)?,
            language,
            url: wanted(&self.url)?,
            licence: wanted(&self.licence)?,
            origin: wanted(&self.origin)?,
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

/// Why a row is none.
type Fault = (&'static str, String);

/// The text of a column that a row must have; a null is an empty one.
fn needed<'a>(cell: impl Fn(&str) -> Cell<'a>, column: &str) -> Result<String, Fault> {
    match cell(column) {
        Ok(Some(text)) => Ok(text.into_owned()),
        Ok(None) => Err(("wrong_fields", format!("field {column} is missing"))),
        Err(detail) => Err(("wrong_fields", detail)),
    }
}

/// The text of a column that is mapped, or nothing.
fn wanted<'a>(cell: impl Fn(&str) -> Cell<'a>, column: Option<&str>) -> Result<String, Fault> {
    column.map_or(Ok(String::new()), |column| needed(cell, column))
}

fn split(named: &str, otherwise: impl FnOnce() -> &'static str) -> Result<&'static str, Fault> {
    match named {
        "" => Ok(otherwise()),
        "train" => Ok("train"),
        "valid" | "validation" | "dev" => Ok("validation"),
        "test" => Ok("test"),
        other => Err(("unknown_split", other.to_owned())),
    }
}
