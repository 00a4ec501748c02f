//! CodeSearchNet (Husain et al., 2019): its `.jsonl.gz` tree, a zip of it, Hugging Face's Parquet, or these behind a URL.
//!
//! `code` holds the docstring: it is cut out, or a model would read its target.

use std::io::BufReader;

use anyhow::Result;
use codepair_code::{Language, find_docstring};
use codepair_runtime::{Config, config_error, input_error};
use codepair_schemas::rows::{Function, Judgment, Query};
use serde::{Deserialize, Serialize};

use super::lines::{self, Lines};
use super::pickle::{Dict, Dicts};
use super::records::{self, Dialect, Records};
use super::table::{self, Table};
use super::{SourceKind, line_feeds};
use crate::files::{self, Files, Look, Opened, Patterns};
use crate::found::Found;
use crate::split::{SplitBy, Standing};

/// `<language>/final/jsonl/{train,valid,test}/<language>_<split>_<n>.jsonl.gz`, or `<language>/**/*.parquet`; and where
/// they are there, `annotationStore.csv` and `queries.csv`.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Codesearchnet {
    /// The folder or URL above `<language>`, or a zip.
    #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
    path: String,
    /// Of python, java, javascript, go, php and ruby.
    languages: Vec<Language>,
    /// Read `<language>_dedupe_definitions_v2.pkl` as well: all definitions, documented or not, to be searched.
    definitions: bool,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// What the licence column says.
    licence: String,
    /// What the origin column says.
    origin: String,
}

impl Default for Codesearchnet {
    fn default() -> Self {
        Self {
            path: String::new(),
            languages: vec![Language::Python],
            definitions: false,
            exclude: Vec::new(),
            licence: "of each repository".to_owned(),
            origin: "CodeSearchNet, github.com/github/CodeSearchNet".to_owned(),
        }
    }
}

const SPLITS: [&str; 3] = ["test", "train", "valid"];

/// A row; Hugging Face has other names for the same.
#[derive(Default, Deserialize)]
struct Line {
    #[serde(alias = "repository_name")]
    repo: String,
    #[serde(alias = "func_path_in_repository")]
    path: String,
    func_name: String,
    language: String,
    #[serde(alias = "func_code_string")]
    code: String,
    #[serde(alias = "func_documentation_string")]
    docstring: String,
    #[serde(alias = "split_name")]
    partition: String,
    #[serde(alias = "func_code_url")]
    url: String,
}

/// The keys of a pickled definition that are read, in the order of [`Line`]'s fields.
const DEFINITION: [&str; 7] = ["nwo", "path", "identifier", "language", "function", "docstring", "url"];

/// Some of the pickled definitions, and the number of the first.
pub(crate) struct Definitions {
    file: String,
    first: usize,
    list: Vec<Dict>,
}

/// The names of [`Line`]'s fields, those of Hugging Face as well.
const FIELDS: [&str; 14] = [
    "repo",
    "repository_name",
    "path",
    "func_path_in_repository",
    "func_name",
    "language",
    "code",
    "func_code_string",
    "docstring",
    "func_documentation_string",
    "partition",
    "split_name",
    "url",
    "func_code_url",
];

/// The columns of Hugging Face's Parquet, in the order of [`Line`]'s fields.
const COLUMNS: [&str; 8] = [
    "repository_name",
    "func_path_in_repository",
    "func_name",
    "language",
    "func_code_string",
    "func_documentation_string",
    "split_name",
    "func_code_url",
];

/// Those of them without which a row is none.
const NEEDED: [&str; 4] = ["language", "func_code_string", "func_documentation_string", "split_name"];

pub(crate) enum Piece {
    Lines(Lines),
    Table(Table),
    Annotations(Records),
    Queries(Records),
    Definitions(Definitions),
}

impl SourceKind for Codesearchnet {
    type Piece = Piece;

    fn files(&self, config: &Config) -> Result<Files> {
        if self.path.is_empty() {
            return Err(config_error("path is missing: the folder above python/final/jsonl, a zip, or a URL"));
        }
        let patterns = self.patterns()?;
        let file = files::file_name(&self.path);
        let is_file =
            [".zip", ".tar.gz", ".tgz", ".parquet", ".jsonl.gz", ".pkl", ".csv"].iter().any(|end| file.ends_with(end));
        if files::is_url(file) && !is_file && !file.starts_with("hf://") {
            return self.remote_tree(patterns);
        }
        files::find(config, &self.path, patterns, Look { archives: true, ..Look::default() })
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        let name = file.name().to_owned();
        match name.rsplit(['/', '.']).next().unwrap_or_default() {
            "parquet" => table::cut(file, table::Wanted::Named(&COLUMNS), &mut |table| emit(Piece::Table(table))),
            "pkl" => definitions(file, emit),
            "csv" if name.ends_with("queries.csv") => {
                records::cut(file, CSV, &mut |records| emit(Piece::Queries(records)))
            }
            "csv" => records::cut(file, CSV, &mut |records| emit(Piece::Annotations(records))),
            _ => lines::cut(file, &mut |lines| emit(Piece::Lines(lines))),
        }
    }

    fn rows(&self, piece: Piece) -> Result<Vec<Found>> {
        match piece {
            Piece::Lines(lines) => lines::parse_fields(&lines, &FIELDS, |place, line| self.row(place, line)),
            Piece::Table(table) => {
                let row = |row| {
                    let place = table.place(row);
                    if let Some(column) = NEEDED.iter().find(|column| table.text(column, row).is_none()) {
                        return Found::Rejected {
                            place,
                            reason: "wrong_fields",
                            detail: format!("{column} is missing"),
                        };
                    }
                    let cell = |column| table.text(column, row).unwrap_or_default().to_owned();
                    self.row(place, Line::from_cells(COLUMNS.map(cell)))
                };
                Ok((0..table.rows).map(row).collect())
            }
            Piece::Annotations(records) => Ok(each(&records, |record| annotation(&records, record))),
            Piece::Queries(records) => Ok(each(&records, |record| {
                let text = records.text(record, "query").ok_or("there is no column query")?.to_owned();
                Ok(Found::Query(Query { text, split: "test".to_owned(), ..Query::default() }))
            })),
            Piece::Definitions(Definitions { file, first, list }) => {
                let place = |row: usize| format!("{file}[{}]", first + row);
                Ok(list.into_iter().enumerate().map(|(row, dict)| definition(place(row), dict)).collect())
            }
        }
    }
}

impl Line {
    fn from_cells(cells: [String; 8]) -> Self {
        let [repo, path, func_name, language, code, docstring, partition, url] = cells;
        Self { repo, path, func_name, language, code, docstring, partition, url }
    }
}

impl Codesearchnet {
    fn patterns(&self) -> Result<Patterns> {
        let mut include = vec!["**/annotationStore.csv".to_owned(), "**/queries.csv".to_owned()];
        for language in self.languages.iter().map(|language| language.name()) {
            include.push(format!("**/{language}/final/jsonl/{{train,valid,test}}/*.jsonl.gz"));
            include.push(format!("**/{language}/**/*.parquet"));
            if self.definitions {
                include.push(format!("**/{language}_dedupe_definitions_v2.pkl"));
            }
        }
        Patterns::new(&include, &self.exclude)
    }

    /// A web server lists nothing, but the files are numbered from 0, and the others have known names.
    fn remote_tree(&self, patterns: Patterns) -> Result<Files> {
        let base = self.path.trim_end_matches('/');
        let mut runs: Vec<Box<dyn Iterator<Item = String> + Send>> = Vec::new();
        let mut one = |name: String| runs.push(Box::new(std::iter::once(name)));
        ["annotationStore.csv", "queries.csv"].into_iter().for_each(|name| one(name.to_owned()));
        let languages = || self.languages.iter().map(|language| language.name());
        let definitions = languages().filter(|_| self.definitions);
        definitions.for_each(|language| one(format!("{language}_dedupe_definitions_v2.pkl")));
        for (language, split) in languages().flat_map(|language| SPLITS.map(|split| (language, split))) {
            let name = move |n: u32| format!("{language}/final/jsonl/{split}/{language}_{split}_{n}.jsonl.gz");
            runs.push(Box::new((0..).map(name)));
        }
        let list = files::find_on_web(base, runs)?;
        if !list.iter().any(|file| file.name.ends_with(".jsonl.gz")) {
            let language = self.languages.first().map_or("python", |language| language.name());
            let wanted = format!("{language}/final/jsonl/train/{language}_train_0.jsonl.gz");
            return Err(input_error(format!("{base} has no {wanted}")));
        }
        Ok(Files::new(list, patterns, None))
    }

    fn row(&self, place: String, line: Line) -> Found {
        let reject = |reason, detail| Found::Rejected { place: place.clone(), reason, detail };
        if self.languages.iter().all(|language| language.name() != line.language) {
            return reject("unsupported_language", line.language);
        }
        let split = match line.partition.as_str() {
            "valid" | "validation" => "validation",
            "train" => "train",
            "test" => "test",
            other => return reject("unknown_split", other.to_owned()),
        };
        match function(line, split) {
            Ok(function) => Found::Function(function).with_code(),
            Err(detail) => reject("syntax_error", detail),
        }
    }
}

/// As its authors write them.
const CSV: Dialect = Dialect { delimiter: b',', escape: None };

/// Judgments are kept in all languages: they are few, and those of functions that are not there match nothing.
fn annotation(records: &Records, record: &[String]) -> Result<Found, String> {
    let cell = |column: &str| records.text(record, column).ok_or(format!("there is no column {column}"));
    let relevance = cell("Relevance")?;
    Ok(Found::Judgment(Judgment {
        query: cell("Query")?.to_owned(),
        language: cell("Language")?.to_lowercase(),
        url: cell("GitHubUrl")?.to_owned(),
        relevance: relevance.parse().map_err(|_| format!("relevance {relevance:?} is no number"))?,
        notes: cell("Notes")?.to_owned(),
        ..Judgment::default()
    }))
}

/// Each record as a row.
fn each(records: &Records, row: impl Fn(&[String]) -> Result<Found, String>) -> Vec<Found> {
    let found = records.list.iter().map(|(line, record)| {
        let row = record.as_ref().map_err(Clone::clone).and_then(|record| row(record));
        row.unwrap_or_else(|detail| Found::Rejected { place: records.place(*line), reason: "wrong_fields", detail })
    });
    found.collect()
}

fn function(line: Line, split: &str) -> Result<Function, String> {
    let mut code = line_feeds(line.code);
    // In the other languages the comment stands before the function, and is not in `code`.
    if line.language == "python" {
        let docstring = find_docstring(&code).map_err(|error| error.to_string())?;
        docstring.iter().for_each(|docstring| docstring.cut_from(&mut code));
    }
    code.truncate(code.trim_end().len());
    Ok(Function {
        group: {
            let path = if line.path.is_empty() { &line.url } else { &line.path };
            Standing { repo: &line.repo, path, content: &[] }.group(SplitBy::Repo)
        },
        repo: line.repo,
        path: line.path,
        name: line.func_name,
        language: line.language,
        url: line.url,
        code,
        docstring: line.docstring,
        split: split.to_owned(),
        ..Function::default()
    })
}

/// Definitions that are read at once.
const DEFINITIONS: usize = 512;

fn definitions(file: &mut Opened, emit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
    let name = file.name().to_owned();
    let (mut first, mut list) = (0, Vec::with_capacity(DEFINITIONS));
    for dict in Dicts::new(BufReader::new(file), &DEFINITION)? {
        list.push(dict.map_err(|error| files::damaged(&name, &format!("{error:#}")))?);
        if list.len() == DEFINITIONS {
            let list = std::mem::replace(&mut list, Vec::with_capacity(DEFINITIONS));
            emit(Piece::Definitions(Definitions { file: name.clone(), first, list }))?;
            first += DEFINITIONS;
        }
    }
    emit(Piece::Definitions(Definitions { file: name, first, list }))
}

/// Definitions are there to be searched, not to learn from: most of the documented ones are rows of the splits too.
fn definition(place: String, dict: Dict) -> Found {
    let needed = |key: &str| matches!(key, "language" | "function");
    if let Some((key, _)) = DEFINITION.iter().zip(&dict).find(|(key, text)| needed(key) && text.is_none()) {
        return Found::Rejected { place, reason: "wrong_fields", detail: format!("{key} is missing") };
    }
    let mut texts = dict.into_iter().map(|text| text.map_or(String::new(), |text| text.to_string()));
    let mut next = || texts.next().unwrap_or_default();
    let (repo, path, func_name, language, code, docstring, url) =
        (next(), next(), next(), next(), next(), next(), next());
    let place = if url.is_empty() { place } else { url.clone() };
    let line = Line { repo, path, func_name, language, code, docstring, partition: String::new(), url };
    match function(line, "corpus") {
        Ok(function) => Found::Function(function).with_code(),
        Err(detail) => Found::Rejected { place, reason: "syntax_error", detail },
    }
}
