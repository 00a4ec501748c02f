//! Rows of any shape, their columns mapped in the config: functions, pairs of text and code, or what users ask.

use std::borrow::Cow;

use anyhow::Result;
use codepair_code::{find_docstring, holds_code};
use codepair_runtime::{Config, config_error};
use codepair_schemas::rows::{Function, Pair, Query};
use serde::{Deserialize, Serialize};

use super::line_feeds;
use crate::files::{self, Files, Look, Patterns};
use crate::found::{Found, no_code};
use crate::split::{Constant, Named, Shares, SplitBy, Standing, split_of_word};

/// Defines the table of a source whose rows are mapped: fields of its own with their defaults, and those that all have.
macro_rules! mapped {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $kind:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// The file, folder or archive, or a URL.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            path: String,
            /// Patterns of files to leave out.
            exclude: Vec<String>,
            $($(#[$field_meta])* $field: $kind,)*
            /// Which column becomes which.
            columns: $crate::sources::mapped::Columns,
            /// The split of all rows, where no column says it.
            split: Option<$crate::split::Constant>,
            /// Which rows stay in one split: `row`, `file`, `module` or `repo`. Without it that of the largest unit that rows
            /// name.
            split_by: Option<$crate::split::SplitBy>,
            /// Shares of validation and test, where nothing says the split.
            shares: $crate::split::Shares,
            /// Take the share of validation out of what the split column has for training: of data that has no validation.
            validation_of_training: bool,
            /// The language of rows where no column says it; Python without this.
            language: String,
            /// What the licence column says where no column does.
            licence: String,
            /// What the origin column says where no column does.
            origin: String,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    path: String::new(),
                    exclude: Vec::new(),
                    $($field: $default,)*
                    columns: $crate::sources::mapped::Columns::default(),
                    split: None,
                    split_by: None,
                    shares: $crate::split::Shares::default(),
                    validation_of_training: false,
                    language: String::new(),
                    licence: String::new(),
                    origin: String::new(),
                }
            }
        }

        impl $name {
            fn mapping(&self) -> $crate::sources::mapped::Mapping<'_> {
                $crate::sources::mapped::Mapping {
                    columns: &self.columns,
                    split: self.split,
                    split_by: self.split_by,
                    shares: self.shares,
                    validation_of_training: self.validation_of_training,
                    language: &self.language,
                }
            }

            /// The files with these ends.
            fn find(&self, config: &codepair_runtime::Config, include: &[&str]) -> anyhow::Result<$crate::files::Files> {
                self.columns.check()?;
                self.shares.check()?;
                $crate::sources::mapped::find(config, &self.path, include, &self.exclude)
            }
        }
    };
}
pub(crate) use mapped;

/// The files at a path whose names have one of these ends.
pub(crate) fn find(config: &Config, path: &str, ends: &[&str], exclude: &[String]) -> Result<Files> {
    // As some systems write names.
    let include = ends.iter().flat_map(|end| [format!("**/*.{end}"), format!("**/*.{}", end.to_uppercase())]);
    let patterns = Patterns::new(&include.collect::<Vec<_>>(), exclude)?;
    files::find(config, path, patterns, Look { archives: true, ..Look::default() })
}

/// Names of columns; `code` and `docstring` are needed, `code` and `text`, or `query` alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Columns {
    /// The code.
    code: String,
    /// Of a function: its documentation.
    docstring: String,
    /// What belongs to a code; such rows go to `pairs`.
    text: Option<String>,
    /// Of a pair: 1 where it is right, 0 where it is wrong.
    label: Option<String>,
    /// Of a function: its name.
    name: Option<String>,
    /// The repository, whose rows stay in one split.
    repo: Option<String>,
    /// The file in it.
    path: Option<String>,
    /// Where it is to be seen.
    url: Option<String>,
    /// train, validation or test (also valid, val, dev).
    split: Option<String>,
    /// The programming language.
    language: Option<String>,
    /// The licence.
    licence: Option<String>,
    /// Where the row is from.
    origin: Option<String>,
    /// What a user asks; such rows go to `queries`.
    query: Option<String>,
    /// Where a user asks it: a document, a project.
    context: Option<String>,
}

/// What a column holds in a row.
pub(crate) enum Cell<'a> {
    Text(Cow<'a, str>),
    /// No text where one is needed, and one where a name is asked for.
    Number(String),
    Null,
    /// The row has no such column.
    Missing,
    /// What it holds that is no text.
    Other(String),
}

/// Where a row was found.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) file: &'a str,
    /// What the file's name says of the split.
    pub(crate) split: Option<crate::split::Named>,
}

/// How the rows of a source become those of a dataset.
#[derive(Clone, Copy)]
pub(crate) struct Mapping<'a> {
    pub(crate) columns: &'a Columns,
    pub(crate) split: Option<Constant>,
    pub(crate) split_by: Option<SplitBy>,
    pub(crate) shares: Shares,
    pub(crate) validation_of_training: bool,
    pub(crate) language: &'a str,
}

impl Columns {
    /// # Errors
    /// Exit 2: the needed ones are not named.
    pub(crate) fn check(&self) -> Result<()> {
        let (code, docstring) = (!self.code.is_empty(), !self.docstring.is_empty());
        let is_function = code && docstring && self.text.is_none() && self.query.is_none() && self.context.is_none();
        let is_pair = code && !docstring && self.text.is_some() && self.query.is_none() && self.context.is_none();
        let of_codes = [&self.text, &self.label, &self.name, &self.repo, &self.path, &self.url, &self.language];
        let is_query = self.query.is_some() && !code && !docstring && of_codes.iter().all(|column| column.is_none());
        if (is_function && self.label.is_none()) || (is_pair && self.name.is_none()) || is_query {
            return Ok(());
        }
        Err(config_error(
            "columns need code and docstring, of functions: columns = { code = \"source\", docstring = \"doc\" }; or code and text, \
             of pairs of a text and a code: columns = { text = \"question\", code = \"answer\" }; or query, with or without \
             context, of what users ask: columns = { query = \"question\", context = \"project\" }",
        ))
    }

    /// The names of those without which there is no row.
    pub(crate) fn needed(&self) -> Vec<&str> {
        let named = [self.code.as_str(), &self.docstring].into_iter().filter(|name| !name.is_empty());
        named.chain([&self.text, &self.query].into_iter().filter_map(Option::as_deref)).collect()
    }

    /// The names of all that are mapped.
    pub(crate) fn names(&self) -> Vec<&str> {
        let optional = [
            &self.text,
            &self.label,
            &self.name,
            &self.repo,
            &self.path,
            &self.url,
            &self.language,
            &self.split,
            &self.licence,
            &self.origin,
            &self.query,
            &self.context,
        ];
        let optional = optional.into_iter().filter_map(Option::as_deref);
        [self.code.as_str(), &self.docstring].into_iter().filter(|name| !name.is_empty()).chain(optional).collect()
    }
}

impl Mapping<'_> {
    /// The function, pair or query in a row, whose cells `cell` looks up by the column's name.
    pub(crate) fn row<'a>(
        &self,
        origin: Origin,
        place: impl FnOnce() -> String,
        cell: impl Fn(&str) -> Cell<'a>,
    ) -> Found {
        let columns = self.columns;
        let found = match (&columns.query, &columns.text) {
            (Some(query), _) => self.query(query, origin, cell).map(Found::Query),
            (None, Some(text)) => self.pair(text, origin, cell).map(Found::Pair),
            (None, None) => self.function(origin, cell).map(Found::Function),
        };
        match found {
            Ok(Found::Function(row)) if !holds_code(&row.language, &row.code) => no_code(place()),
            Ok(Found::Pair(row)) if !holds_code(&row.language, &row.code) => no_code(place()),
            Ok(found) => found.bounded(place),
            Err((reason, detail)) => Found::Rejected { place: place(), reason, detail },
        }
    }

    fn query<'a>(&self, query: &str, origin: Origin, cell: impl Fn(&str) -> Cell<'a>) -> Result<Query, Fault> {
        let text = needed(&cell, query)?;
        if text.trim().is_empty() {
            return Err(("empty_text", format!("field {query} is empty")));
        }
        let wanted = |column: &Option<String>| wanted(&cell, column.as_deref());
        let columns = self.columns;
        let group = || Standing { repo: "", path: "", content: &[&text] }.group(SplitBy::Row);
        let split = self.split_of(&wanted(&columns.split)?, origin, group)?;
        Ok(Query {
            context: wanted(&columns.context)?,
            split: split.to_owned(),
            licence: wanted(&columns.licence)?,
            origin: wanted(&columns.origin)?,
            text,
            ..Query::default()
        })
    }

    fn pair<'a>(&self, text: &str, origin: Origin, cell: impl Fn(&str) -> Cell<'a>) -> Result<Pair, Fault> {
        let columns = self.columns;
        let wanted = |column: &Option<String>| wanted(&cell, column.as_deref());
        let text = needed(&cell, text)?;
        if text.trim().is_empty() {
            return Err(("empty_text", "the text of the pair is empty".to_owned()));
        }
        let language = self.language_of(&wanted(&columns.language)?);
        let mut code = line_feeds(needed(&cell, &columns.code)?);
        if language == "python"
            && let Some(found) = find_docstring(&code).map_err(|error| ("syntax_error", error.to_string()))?
        {
            // A model must not read in the code what it is to find it by.
            found.cut_from(&mut code);
        }
        code.truncate(code.trim_end().len());
        let label = match wanted(&columns.label)?.as_str() {
            "" => None,
            label => Some(label.parse().map_err(|_| ("wrong_fields", format!("the label {label:?} is no number")))?),
        };
        let (repo, path) = (wanted(&columns.repo)?, wanted(&columns.path)?);
        // Texts of one code stay together.
        let group = self.group(&repo, &path, origin, &[&code]);
        let split = self.split_of(&wanted(&columns.split)?, origin, || group.clone())?;
        Ok(Pair {
            language,
            label,
            url: wanted(&columns.url)?,
            licence: wanted(&columns.licence)?,
            origin: wanted(&columns.origin)?,
            split: split.to_owned(),
            text,
            code,
            group,
            ..Pair::default()
        })
    }

    fn function<'a>(&self, origin: Origin, cell: impl Fn(&str) -> Cell<'a>) -> Result<Function, Fault> {
        let columns = self.columns;
        let needed = |column| needed(&cell, column);
        let wanted = |column: &Option<String>| wanted(&cell, column.as_deref());
        let language = self.language_of(&wanted(&columns.language)?);
        let mut code = line_feeds(needed(&columns.code)?);
        let mut docstring = needed(&columns.docstring)?;
        if language == "python"
            && let Some(found) = find_docstring(&code).map_err(|error| ("syntax_error", error.to_string()))?
        {
            if docstring.is_empty() {
                docstring = found.text(&code);
            }
            found.cut_from(&mut code);
        }
        code.truncate(code.trim_end().len());
        let (repo, path) = (wanted(&columns.repo)?, wanted(&columns.path)?);
        let group = self.group(&repo, &path, origin, &[&code, &docstring]);
        let split = self.split_of(&wanted(&columns.split)?, origin, || group.clone())?;
        Ok(Function {
            name: wanted(&columns.name)?,
            language,
            url: wanted(&columns.url)?,
            licence: wanted(&columns.licence)?,
            origin: wanted(&columns.origin)?,
            split: split.to_owned(),
            code,
            docstring,
            group,
            repo,
            path,
            ..Function::default()
        })
    }

    fn language_of(&self, named: &str) -> String {
        let said = [named, self.language, "python"].into_iter().find(|language| !language.is_empty());
        said.unwrap_or_default().to_lowercase()
    }

    /// By what the config says, else by the largest unit that the row names: rows of one file are not all of one split only
    /// because they lie in one file.
    fn group(&self, repo: &str, path: &str, origin: Origin, content: &[&str]) -> String {
        let by = self.split_by.unwrap_or(match (repo, path) {
            ("", "") => SplitBy::Row,
            ("", _) => SplitBy::Module,
            _ => SplitBy::Repo,
        });
        let path = if path.is_empty() && by != SplitBy::Row { origin.file } else { path };
        Standing { repo, path, content }.group(by)
    }

    /// What the row says, else the config, else the file's name, unless the config says how to divide; else a hash of the group
    /// decides.
    fn split_of(&self, named: &str, origin: Origin, group: impl FnOnce() -> String) -> Result<&'static str, Fault> {
        match named {
            "" => Ok(match (self.split, origin.split.filter(|_| self.split_by.is_none())) {
                (Some(constant), _) => constant.name(),
                (None, Some(named)) => named.split(self.shares, &group()),
                (None, None) => self.shares.split(&group()),
            }),
            other => match split_of_word(other) {
                Some("train") if self.validation_of_training => {
                    Ok(Named { split: "train", lacks_validation: true }.split(self.shares, &group()))
                }
                Some(split) => Ok(split),
                None => {
                    let known = "train, validation (valid, val, dev) and test";
                    Err(("unknown_split", format!("{other:?} is none of {known}")))
                }
            },
        }
    }
}

/// Why a row is none.
type Fault = (&'static str, String);

/// The text of a column that a row must have; a null is an empty one.
fn needed<'a>(cell: impl Fn(&str) -> Cell<'a>, column: &str) -> Result<String, Fault> {
    match cell(column) {
        Cell::Text(text) => Ok(text.into_owned()),
        Cell::Null => Ok(String::new()),
        Cell::Missing => Err(("wrong_fields", format!("field {column} is missing"))),
        Cell::Number(number) => Err(("wrong_fields", format!("field {column} is no text but {number}"))),
        Cell::Other(what) => Err(("wrong_fields", format!("field {column} is no text: {what}"))),
    }
}

/// The text of a column that is mapped, or nothing where the row does not have it.
fn wanted<'a>(cell: impl Fn(&str) -> Cell<'a>, column: Option<&str>) -> Result<String, Fault> {
    let Some(column) = column else { return Ok(String::new()) };
    match cell(column) {
        Cell::Number(number) => Ok(number),
        Cell::Missing => Ok(String::new()),
        _ => needed(cell, column),
    }
}
