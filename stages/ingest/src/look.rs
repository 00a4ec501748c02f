//! What a place holds, and how it can be read: for `codepair init`. A guess is tried out with the real reader, so what is said
//! of rows and splits is what ingest will find.

mod columns;
mod place;
mod trial;

use std::path::Path;

use anyhow::Result;
use codepair_code::Language;
use codepair_runtime::{Config, config_error, input_error};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::files::has_end;
use crate::sources::Source;
use place::Place;

pub(crate) use columns::are_there as columns_are_there;
pub(crate) use trial::{Trial, try_out};

/// So many bytes are read of what is looked at.
const LOOKED_AT: u64 = 24 << 20;
/// Of fewer rows a split is a matter of chance.
const ROWS_OF_A_SPLIT: usize = 20;

/// How a place can be read.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// The kind of the source.
    pub kind: String,
    /// The other keys of `[ingest.NAME]` but the path, each with what it was guessed from.
    pub keys: Vec<(String, Value, String)>,
    /// Files of the source.
    pub files: usize,
    /// Rows that can be learned from, about.
    pub rows: u64,
    /// Functions without documentation among all, and rows that are rejected, from 0 to 1.
    pub undocumented: f64,
    /// As `undocumented`.
    pub rejected: f64,
    /// Rows of each split that were seen.
    pub splits: Map<String, Value>,
    /// The most frequent language.
    pub language: String,
    /// Tokens of nine in ten texts, about.
    pub text_tokens: usize,
    /// Tokens of nine in ten codes, about.
    pub code_tokens: usize,
    /// What else whoever reads the config should know.
    pub remarks: Vec<String>,
}

/// Looks at a folder, a file or a URL.
///
/// # Errors
/// Exit 2: it holds nothing of which the kind or the columns can be told. Exit 3: it is not there, or cannot be read.
pub fn look(path: &str, text: Option<&str>, code: Option<&str>) -> Result<Seen> {
    let config = Config::parse("name = \"look\"", Path::new("codepair.toml"), &[])?;
    let place = Place::find(path)?;
    if ROWS.contains(&place.kind) {
        return rows(place.kind, path, (text, code), &config);
    }
    if text.is_some() || code.is_some() {
        return Err(config_error(format!("{path} was taken for a {}, which has no columns", place.kind)));
    }
    let seen = seen(place.kind, place.keys, path, &config);
    match seen {
        // An archive may hold rows as well as sources.
        Err(error) if packing(path) => {
            ROWS.iter().find_map(|kind| rows(kind, path, (text, code), &config).ok()).ok_or(error)
        }
        seen => seen,
    }
}

/// The kinds whose columns are mapped.
const ROWS: [&str; 3] = ["jsonl", "csv", "parquet"];

fn packing(path: &str) -> bool {
    [".zip", ".tar", ".tar.gz", ".tgz"].iter().any(|end| has_end(path, end))
}

fn rows(kind: &str, path: &str, named: (Option<&str>, Option<&str>), config: &Config) -> Result<Seen> {
    let guessed = columns::guess(kind, path, named, config)?;
    // Rows of a data set may be known by its columns.
    seen(guessed.kind.unwrap_or(kind), guessed.keys, path, config)
}

/// Tries a guess out, and divides rows otherwise where a split would have none.
fn seen(kind: &str, mut keys: Vec<(String, Value, String)>, path: &str, config: &Config) -> Result<Seen> {
    let mut remarks = Vec::new();
    let mut trial = source(kind, &keys, path)?.try_out(config, LOOKED_AT)?;
    if trial.rows() == 0 {
        let reasons: Vec<String> = trial.reasons.iter().map(|(reason, rows)| format!("{rows} {reason}")).collect();
        return Err(input_error(format!(
            "{path} was read as {kind}, and no row of it can be used ({}); write the table by hand: codepair config ingest.{kind}",
            if reasons.is_empty() { "it has none".to_owned() } else { reasons.join(", ") }
        )));
    }
    // What names of files or a column say is not to be divided otherwise.
    let has_column = keys.iter().any(|(key, value, _)| key == "columns" && !value["split"].is_null());
    let can_divide = (kind == "source_tree" || ROWS.contains(&kind)) && !trial.is_named && !has_column;
    if has_column && trial.rows_of("validation") == 0 && trial.rows_of("train") > 0 {
        let why = "the split column has no validation, by which training chooses its best epoch";
        keys.push(("validation_of_training".to_owned(), json!(true), why.to_owned()));
        trial = source(kind, &keys, path)?.try_out(config, LOOKED_AT)?;
    }
    for (by, why) in [
        ("file", "the files of a module or repository would all come into one split, and there are few of these"),
        ("row", "the rows of a file would all come into one split, and there are few files"),
    ] {
        if !can_divide || trial.fills_splits(ROWS_OF_A_SPLIT) {
            break;
        }
        let mut other = keys.clone();
        other.push(("split_by".to_owned(), json!(by), why.to_owned()));
        let tried = source(kind, &other, path)?.try_out(config, LOOKED_AT)?;
        if tried.least_split() > trial.least_split() {
            keys.retain(|(key, ..)| key != "split_by");
            keys.push(("split_by".to_owned(), json!(by), why.to_owned()));
            trial = tried;
        }
    }
    if can_divide && !trial.fills_splits(ROWS_OF_A_SPLIT) && trial.has_shares() {
        let mut other = keys.clone();
        other.push((
            "shares".to_owned(),
            json!({ "validation": 0.15, "test": 0.2 }),
            "there are few rows: larger shares make scores less a matter of chance".to_owned(),
        ));
        let tried = source(kind, &other, path)?.try_out(config, LOOKED_AT)?;
        if tried.least_split() >= trial.least_split() {
            (keys, trial) = (other, tried);
        }
    }
    let empty: Vec<&str> =
        ["train", "validation", "test"].into_iter().filter(|split| trial.rows_of(split) == 0).collect();
    if !empty.is_empty() {
        remarks.push(format!(
            "nothing is in {}: a training needs it; add another source, or more rows",
            empty.join(" and ")
        ));
    }
    Ok(Seen {
        kind: kind.to_owned(),
        files: trial.files,
        rows: trial.rows_in_all(),
        undocumented: trial.undocumented(),
        rejected: trial.rejected(),
        splits: trial.splits.iter().map(|(split, rows)| (split.clone(), json!(rows))).collect(),
        language: trial.language(),
        text_tokens: trial.text_tokens(),
        code_tokens: trial.code_tokens(),
        keys,
        remarks,
    })
}

fn source(kind: &str, keys: &[(String, Value, String)], path: &str) -> Result<Source> {
    let mut table = Map::from_iter([("kind".to_owned(), json!(kind)), ("path".to_owned(), json!(path))]);
    table.extend(keys.iter().map(|(key, value, _)| (key.clone(), value.clone())));
    serde_json::from_value(Value::Object(table)).map_err(|error| config_error(format!("{path}: {error}")))
}

/// The language in which most of these codes are no syntax error; nothing where they are in none.
fn language_of<'a>(codes: impl Iterator<Item = &'a str>) -> Option<Language> {
    let codes: Vec<&str> = codes.filter(|code| !code.trim().is_empty()).take(60).collect();
    let is_ruby = |code: &&str| code.split_whitespace().any(|word| matches!(word, "end" | "def"));
    let fits = |language: Language| {
        // Plain English is no syntax error of Ruby's.
        let fits = |code: &&&str| language.check(code).is_ok() && (language != Language::Ruby || is_ruby(code));
        codes.iter().filter(fits).count()
    };
    // Of equal ones the first.
    let order = [Language::Python, Language::Java, Language::Go, Language::Javascript, Language::Php, Language::Ruby];
    let counted = order.into_iter().map(|language| (fits(language), language));
    let best = counted.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
    (best.0 * 10 >= codes.len() * 6 && best.0 > 0).then_some(best.1)
}
