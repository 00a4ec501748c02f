//! Which columns of a table are texts and which are code, by their names and by what is in them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Config, config_error, input_error, nearest};
use serde_json::{Map, Value, json};

use super::language_of;
use super::trial::Enough;
use crate::files::{Files, Item, Opened, has_end, unpacked};
use crate::found::Found;
use crate::sources::{JsonPiece, array, lines, records, table};
use crate::split::split_of_word;

/// Rows of a file that are looked at, and files.
const ROWS: usize = 400;
const FILES: usize = 6;

/// Names that mean a role, the surest first.
const CODE: [&str; 26] = [
    "code",
    "snippet",
    "func_code_string",
    "whole_func_string",
    "original_string",
    "function",
    "func",
    "source_code",
    "canonical_solution",
    "solution",
    "program",
    "implementation",
    "method",
    "body",
    "answer",
    "accepted_answer",
    "completion",
    "response",
    "output",
    "target",
    "chosen",
    "source",
    "sql",
    "query_code",
    "cmd",
    "content",
];
const TEXT: [&str; 27] = [
    "text",
    "question",
    "nl",
    "intent",
    "rewritten_intent",
    "natural_language",
    "query",
    "instruction",
    "prompt",
    "problem",
    "problem_description",
    "task",
    "title",
    "question_title",
    "description",
    "summary",
    "comment",
    "utterance",
    "request",
    "input",
    "message",
    "docstring",
    "func_documentation_string",
    "documentation",
    "doc",
    "docs",
    "caption",
];
/// Texts that document a function rather than ask for code.
const DOCUMENTATION: [&str; 5] = ["docstring", "func_documentation_string", "documentation", "doc", "docs"];
/// What else a row may say, by role.
const OTHERS: [(&str, &[&str]); 7] = [
    ("label", &["label", "is_correct", "correct"]),
    ("split", &["split", "partition", "split_name", "set", "fold"]),
    ("language", &["language", "lang", "programming_language"]),
    ("repo", &["repo", "repository", "repo_name", "repository_name", "project"]),
    ("path", &["path", "file", "file_path", "filename", "func_path_in_repository"]),
    ("url", &["url", "link", "func_code_url"]),
    ("name", &["func_name", "name", "function_name", "identifier"]),
];

/// What was guessed of the columns.
pub(super) struct Guessed {
    /// A kind that has these very columns.
    pub(super) kind: Option<&'static str>,
    pub(super) keys: Vec<(String, Value, String)>,
}

/// Some rows: the texts of each by column.
type Sample = Vec<BTreeMap<String, String>>;

/// Guesses the columns of a source's first rows, but those that are named: the text's and the code's.
///
/// # Errors
/// Exit 2: which are text and code cannot be told. Exit 3: the files cannot be read.
pub(super) fn guess(kind: &str, path: &str, named: (Option<&str>, Option<&str>), config: &Config) -> Result<Guessed> {
    let files = crate::sources::row_files(kind, path, config)?;
    // Fields of a CSV may be divided by another mark: by the one that makes the most columns.
    let count = |rows: &Result<Sample>| rows.iter().flatten().map(BTreeMap::len).max().unwrap_or(0);
    let (mut rows, mut delimiter) = (sample(kind, &files, None), None);
    for other in [b';', b'\t', b'|'].into_iter().filter(|_| kind == "csv") {
        let divided = sample(kind, &files, Some(other));
        if count(&rows) < 2 && count(&divided) > 1 {
            (rows, delimiter) = (divided, Some(other as char));
        }
    }
    let rows = rows?;
    let mut guessed = guess_of(&rows, named, path)?;
    if let Some(delimiter) = delimiter {
        guessed.keys.insert(0, ("delimiter".to_owned(), json!(delimiter), String::new()));
    }
    Ok(guessed)
}

/// That some of the first rows of a source have the columns that a config names.
///
/// # Errors
/// Exit 2: none has one of them; the columns that there are.
pub(crate) fn are_there(kind: &str, path: &str, needed: &[&str], config: &Config) -> Result<()> {
    // What cannot be read, ingest will say.
    let Ok(files) = crate::sources::row_files(kind, path, config) else { return Ok(()) };
    let Ok(rows) = sample(kind, &files, None) else { return Ok(()) };
    let mut there: Vec<&str> = rows.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
    there.sort_unstable();
    there.dedup();
    let has = |name: &str| there.iter().any(|column| *column == name || column.starts_with(&format!("{name}.")));
    // Of no rows nothing is known.
    match needed.iter().find(|name| !there.is_empty() && !has(name)) {
        None => Ok(()),
        Some(missing) => {
            let meant = nearest(missing, &there);
            let (seen, list) = (rows.len(), there.join(", "));
            let what = format!("columns name {missing:?}, and none of the first {seen} rows has it");
            match meant {
                _ if there.len() == 1 && list.contains([';', '\t', '|']) => Err(config_error(format!(
                    "columns name {missing:?}, and there is no such column, but {list}; is it divided by another character? \
                     delimiter = \";\""
                ))),
                Some(meant) => Err(config_error(format!("{what}; did you mean {meant:?}? There are {list}"))),
                // Nothing else is there: all rows would be rejected.
                None if seen < ROWS => Err(config_error(format!("{what}; there are {list}"))),
                None => {
                    tracing::warn!("{what}; there are {list}");
                    Ok(())
                }
            }
        }
    }
}

fn guess_of(rows: &Sample, named: (Option<&str>, Option<&str>), path: &str) -> Result<Guessed> {
    if rows.is_empty() {
        return Err(input_error(format!(
            "{path} has no rows that can be read: is it empty, or another format than its name says, or no UTF-8?"
        )));
    }
    let columns: Vec<&String> = {
        let mut names: Vec<&String> = rows.iter().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        names
    };
    let has = |names: &[&str]| names.iter().all(|name| columns.iter().any(|column| *column == name));
    if has(&["task_id", "text", "code", "test_list"]) {
        return Ok(Guessed { kind: Some("mbpp"), keys: Vec::new() });
    }
    let (text, code) = roles(rows, &columns, named).ok_or_else(|| {
        let shown: Vec<&str> = columns.iter().map(|column| column.as_str()).collect();
        config_error(format!(
            "{path} has the columns {}, and which of them are a text and its code cannot be told; name them: codepair init \
             {path} --text COLUMN --code COLUMN",
            shown.join(", ")
        ))
    })?;
    if let Some(absent) = [&text, &code].into_iter().find(|name| !columns.contains(name)) {
        return Err(config_error(format!(
            "{path} has no column {absent}; there are {}",
            columns.iter().map(|column| column.as_str()).collect::<Vec<_>>().join(", ")
        )));
    }
    let used = [&text, &code];
    let is_free = |column: &&&String| !used.contains(*column);
    let named = |role: &str, names: &[&str]| {
        let column = names
            .iter()
            .find_map(|name| columns.iter().filter(is_free).find(|column| column.eq_ignore_ascii_case(name)))?;
        let values: Vec<&str> = rows.iter().filter_map(|row| row.get(*column)).map(String::as_str).collect();
        let fits = match role {
            "split" => values.iter().all(|value| split_of_word(value).is_some()),
            "label" => values.iter().all(|value| matches!(*value, "0" | "1" | "0.0" | "1.0")),
            _ => values.iter().any(|value| !value.trim().is_empty()),
        };
        (fits && !values.is_empty()).then(|| (*column).clone())
    };
    let codes = || rows.iter().filter_map(|row| row.get(&code)).map(String::as_str);
    let language = language_of(codes());
    let documents = DOCUMENTATION.iter().any(|name| text.eq_ignore_ascii_case(name));
    let mut chosen = Map::new();
    chosen.insert(if documents { "docstring" } else { "text" }.to_owned(), json!(text));
    chosen.insert("code".to_owned(), json!(code));
    for (role, names) in OTHERS {
        // A pair has no name of its own.
        if let Some(column) =
            named(role, names).filter(|_| (role != "name" || documents) && (role != "label" || !documents))
        {
            chosen.insert(role.to_owned(), json!(column));
        }
    }
    let rest: Vec<&str> =
        columns.iter().filter(|column| !chosen.values().any(|used| *used == ***column)).map(|c| c.as_str()).collect();
    let has_language = chosen.contains_key("language");
    let why = if rest.is_empty() { String::new() } else { format!("not used: {}", rest.join(", ")) };
    let mut keys = vec![("columns".to_owned(), Value::Object(chosen), why)];
    if !has_language && language.is_none_or(|language| language.name() != "python") {
        let (name, why) = match language {
            Some(language) => (language.name(), "what most codes are no syntax error of"),
            None => ("other", "the codes are in none of the languages that are parsed; write which"),
        };
        keys.push(("language".to_owned(), json!(name), why.to_owned()));
    }
    Ok(Guessed { kind: None, keys })
}

/// The column of the texts and that of the codes.
fn roles(rows: &Sample, columns: &[&String], named: (Option<&str>, Option<&str>)) -> Option<(String, String)> {
    if let (Some(text), Some(code)) = named {
        return Some((text.to_owned(), code.to_owned()));
    }
    let texts = |column: &str| rows.iter().filter_map(|row| row.get(column)).map(String::as_str).collect::<Vec<_>>();
    let place = |names: &[&str], column: &str| {
        names.iter().position(|name| column.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(name)))
    };
    let candidates: Vec<(&str, f64)> = columns
        .iter()
        .map(|column| (column.as_str(), texts(column)))
        .filter(|(_, values)| {
            values.iter().filter(|value| value.split_whitespace().count() > 1).count() * 10 >= rows.len() * 5
        })
        .map(|(column, values)| {
            (column, values.iter().map(|value| code_likeness(value)).sum::<f64>() / values.len().max(1) as f64)
        })
        .collect();
    let by_name =
        |names: &[&str], column: &str| place(names, column).map_or(0.0, |at| 2.0 - at as f64 / names.len() as f64);
    let code = candidates.iter().filter(|(column, _)| named.0 != Some(column));
    let code = code.map(|(column, likeness)| (*column, by_name(&CODE, column) + 2.0 * likeness));
    let code = code.filter(|(_, score)| *score > 0.6).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(column, _)| column);
    let code = named.1.or(code)?;
    let texts: Vec<(&str, f64)> = candidates
        .iter()
        .filter(|(column, _)| *column != code)
        .map(|(column, likeness)| (*column, by_name(&TEXT, column) - likeness))
        .collect();
    // Of one alone no name is needed.
    let least = if texts.len() == 1 { -0.4 } else { 0.0 };
    let text =
        texts.iter().filter(|(_, score)| *score > least).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(column, _)| *column);
    Some((named.0.or(text)?.to_owned(), code.to_owned()))
}

/// How much a text looks like a program, from 0 to 1: its marks, its lines that are indented or end as statements do.
fn code_likeness(text: &str) -> f64 {
    let letters = text.chars().filter(|c| !c.is_whitespace()).count().max(1) as f64;
    let marks = text.chars().filter(|c| "(){}[]=<>;:_+*/\\.\"'".contains(*c)).count() as f64;
    let lines = text.lines().count().max(1) as f64;
    let is_statement = |line: &&str| {
        line.starts_with([' ', '\t']) || line.trim_end().ends_with([';', '{', '}', ':', ')', ','].as_slice())
    };
    let statements = text.lines().filter(is_statement).count() as f64;
    (marks / letters * 3.0).min(1.0) * 0.6 + statements / lines * 0.4
}

/// The first rows, their texts by column; fields within others as `meta.code`.
fn sample(kind: &str, files: &Files, delimiter: Option<u8>) -> Result<Sample> {
    let mut all = Sample::new();
    // Files may differ: some rows of each of a few, the first and the last among them.
    let step = files.list.len().div_ceil(FILES).max(1);
    let last = files.list.len().saturating_sub(1);
    for number in (0..files.list.len()).filter(|number| number % step == 0 || *number == last) {
        let mut rows = Sample::new();
        let each = |_, item: Item| match item {
            Item::File(file) => take(kind, file, delimiter, &mut rows),
            Item::Unreadable { .. } => Ok(()),
        };
        match files.peek(number, each) {
            Err(error) if !error.is::<Enough>() => return Err(error),
            _ => all.append(&mut rows),
        }
    }
    Ok(all)
}

fn take(kind: &str, file: &mut Opened, delimiter: Option<u8>, rows: &mut Sample) -> Result<()> {
    let mut add = |found: &mut dyn Iterator<Item = BTreeMap<String, String>>| {
        rows.extend(found);
        if rows.len() < ROWS { Ok(()) } else { Err(Enough.into()) }
    };
    match kind {
        "jsonl" => JsonPiece::cut(file, &mut |piece| {
            let found = RefCell::new(Vec::new());
            let keep = |place, object: Map<String, Value>| {
                let mut row = BTreeMap::new();
                flatten("", object, &mut row);
                found.borrow_mut().push(row);
                Found::Rejected { place, reason: "", detail: String::new() }
            };
            match &piece {
                JsonPiece::Lines(lines) => lines::parse(lines, keep).map(drop)?,
                JsonPiece::Values(values) => array::parse(values, keep).map(drop)?,
            }
            add(&mut found.into_inner().into_iter())
        }),
        "csv" => {
            let usual = if has_end(unpacked(file.name()), ".tsv") { b'\t' } else { b',' };
            let delimiter = delimiter.unwrap_or(usual);
            let dialect = records::Dialect { delimiter, escape: None };
            records::cut(file, dialect, &mut |records| add(&mut records.texts()))
        }
        _ => table::cut(file, table::Wanted::Texts, &mut |table| add(&mut table.texts())),
    }
}

fn flatten(outer: &str, object: Map<String, Value>, row: &mut BTreeMap<String, String>) {
    for (key, value) in object {
        let name = if outer.is_empty() { key } else { format!("{outer}.{key}") };
        match value {
            Value::String(text) => drop(row.insert(name, text)),
            Value::Object(inner) => flatten(&name, inner, row),
            Value::Number(number) => drop(row.insert(name, number.to_string())),
            // No text, but a column all the same.
            _ => drop(row.insert(name, String::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(columns: &[(&str, &str)]) -> Sample {
        let row: BTreeMap<String, String> = columns.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        vec![row; 10]
    }

    fn columns(of: &[(&str, &str)]) -> Value {
        guess_of(&rows(of), (None, None), "x").unwrap().keys[0].1.clone()
    }

    const PYTHON: &str = "def add(a, b):\n    return a + b\n";

    #[test]
    fn columns_are_known_by_name_and_content() {
        let asked = ("question", "How do I add two numbers?");
        assert_eq!(columns(&[asked, ("answer", PYTHON), ("id", "7")]), json!({ "text": "question", "code": "answer" }));
        // Of two columns with names that fit, what is in them decides.
        let seen = columns(&[
            ("prompt", "Write a function that adds."),
            ("response", "Sure, here it is for you."),
            ("output", PYTHON),
        ]);
        assert_eq!(seen, json!({ "text": "prompt", "code": "output" }));
        let named = columns(&[
            ("doc", "Adds two numbers."),
            ("func", PYTHON),
            ("repo_name", "a/b"),
            ("func_name", "add"),
            ("split", "valid"),
        ]);
        assert_eq!(
            named,
            json!({ "docstring": "doc", "code": "func", "repo": "repo_name", "name": "func_name", "split": "split" })
        );
        // Names that nobody knows.
        assert_eq!(columns(&[("x1", PYTHON), ("text", "Adds two numbers.")])["code"], "x1");
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let error = guess_of(&rows(&[("a", "plain words here"), ("b", "more of the same")]), (None, None), "x.csv")
            .err()
            .unwrap();
        assert!(error.to_string().contains("x.csv has the columns a, b"), "{error}");
        let sql = guess_of(
            &rows(&[("question", "How many are there?"), ("query", "SELECT COUNT(*) FROM t WHERE a = 'b';")]),
            (None, None),
            "x",
        )
        .unwrap();
        assert_eq!(sql.keys[0].1, json!({ "text": "question", "code": "query" }));
        assert_eq!(sql.keys[1].1, json!("other"));
    }
}
