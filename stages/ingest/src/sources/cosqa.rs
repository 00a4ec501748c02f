//! CoSQA (Huang et al., 2021): real web queries, a code base to search, and labelled pairs.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_code::find_docstring;
use codepair_runtime::{Config, config_error, input_error};
use codepair_schemas::rows::{Function, Judgment, Pair, Query};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{SourceKind, line_feeds};
use crate::files::{self, Files, Look, Opened, Patterns};
use crate::found::Found;

/// A folder with `code_idx_map.txt`, `cosqa-retrieval-*.json` and `cosqa-{train,dev,test}.json`, as far as they are there.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cosqa {
    /// The folder, or an archive of it.
    #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
    path: String,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// What the licence column says.
    licence: String,
    /// What the origin column says.
    origin: String,
}

impl Default for Cosqa {
    fn default() -> Self {
        let (licence, origin) = ("C-UDA-1.0".to_owned(), "CoSQA, github.com/Jun-jie-Huang/CoCLR".to_owned());
        Self { path: String::new(), exclude: Vec::new(), licence, origin }
    }
}

/// A query and its code; the retrieval files say which row of the code base that is.
#[derive(Deserialize)]
struct Line {
    idx: String,
    doc: String,
    code: String,
    label: Option<f64>,
    retrieval_idx: Option<u64>,
}

impl SourceKind for Cosqa {
    type Piece = (String, Vec<u8>);

    fn files(&self, config: &Config) -> Result<Files> {
        if self.path.is_empty() {
            return Err(config_error("path is missing: the folder with code_idx_map.txt and cosqa-*.json"));
        }
        files::find(
            config,
            &self.path,
            Patterns::new(&["**/code_idx_map.txt", "**/cosqa-*.json"], &self.exclude)?,
            Look { archives: true, ..Look::default() },
        )
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Self::Piece) -> Result<()>) -> Result<()> {
        let content = file.read_text()?.into_bytes();
        emit((file.name().to_owned(), content))
    }

    fn rows(&self, (file, content): (String, Vec<u8>)) -> Result<Vec<Found>> {
        if file.ends_with("code_idx_map.txt") {
            let codes: BTreeMap<String, u64> = json(&file, &content)?;
            let mut codes: Vec<(u64, String)> = codes.into_iter().map(|(code, index)| (index, code)).collect();
            codes.sort_unstable();
            return Ok(codes.into_iter().map(|(index, code)| function(index, code)).collect());
        }
        let lines: Vec<Line> = json(&file, &content)?;
        let name = file.rsplit('/').next().unwrap_or(&file);
        let split = split(name)?;
        // The retrieval file for training is one of labelled pairs: nobody is to be tested on its queries.
        if name.contains("retrieval") && split != "train" {
            return Ok(lines.into_iter().flat_map(|line| retrieval(&file, split, line)).collect());
        }
        Ok(lines.into_iter().map(|line| pair(line, split)).collect())
    }
}

fn json<T: DeserializeOwned>(file: &str, content: &[u8]) -> Result<T> {
    serde_json::from_slice(content).map_err(|error| input_error(format!("{file} is not as CoSQA has it: {error}")))
}

/// `cosqa-dev.json` is for validation.
fn split(file: &str) -> Result<&'static str> {
    let splits = [("train", "train"), ("dev", "validation"), ("test", "test")];
    let found = splits.into_iter().find(|(word, _)| file.contains(&format!("-{word}")));
    found.map(|(_, split)| split).ok_or_else(|| input_error(format!("{file}: the name says no split")))
}

/// The code base is to be searched; nothing is trained or tested on it.
fn function(index: u64, code: String) -> Found {
    let url = format!("cosqa:{index}");
    match without_docstring(code) {
        Ok((code, docstring)) => Found::Function(Function {
            name: name(&code),
            language: "python".to_owned(),
            group: url.clone(),
            url,
            code,
            docstring,
            split: "corpus".to_owned(),
            ..Function::default()
        })
        .with_code(),
        Err(detail) => Found::Rejected { place: url, reason: "syntax_error", detail },
    }
}

fn retrieval(file: &str, split: &str, line: Line) -> Vec<Found> {
    let Some(index) = line.retrieval_idx else {
        let detail = "field retrieval_idx is missing".to_owned();
        return vec![Found::Rejected { place: format!("{file} {}", line.idx), reason: "wrong_fields", detail }];
    };
    vec![
        Found::Query(Query { text: line.doc.clone(), split: split.to_owned(), ..Query::default() }),
        Found::Judgment(Judgment {
            query: line.doc,
            language: "python".to_owned(),
            url: format!("cosqa:{index}"),
            relevance: line.label.unwrap_or(1.0),
            ..Judgment::default()
        }),
    ]
}

fn pair(line: Line, split: &str) -> Found {
    match without_docstring(line.code) {
        Ok((code, _)) => Found::Pair(Pair {
            text: line.doc,
            code,
            language: "python".to_owned(),
            label: line.label,
            group: line.idx.clone(),
            url: line.idx,
            split: split.to_owned(),
            ..Pair::default()
        }),
        Err(detail) => Found::Rejected { place: line.idx, reason: "syntax_error", detail },
    }
}

/// The code, and the docstring that was in it.
fn without_docstring(source: String) -> Result<(String, String), String> {
    let mut code = line_feeds(source);
    let found = find_docstring(&code).map_err(|error| error.to_string())?;
    let text = found.as_ref().map(|docstring| docstring.text(&code)).unwrap_or_default();
    found.iter().for_each(|docstring| docstring.cut_from(&mut code));
    code.truncate(code.trim_end().len());
    Ok((code, text))
}

/// The name after the first `def`.
fn name(code: &str) -> String {
    let after = code.split_once("def ").map_or("", |(_, after)| after);
    after.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default().to_owned()
}
