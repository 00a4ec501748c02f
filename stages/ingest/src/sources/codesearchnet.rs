//! CodeSearchNet (Husain et al., 2019): its `.jsonl.gz` tree, a zip of it, or either behind a URL.
//!
//! `code` holds the docstring: it is cut out, or a model would read its target.

use anyhow::Result;
use codepair_code::cut_docstring;
use codepair_runtime::{Config, cache_folder, config_error, input_error};
use codepair_schemas::rows::Function;
use serde::{Deserialize, Serialize};

use super::{Found, Kind, download, lines};
use crate::files::{self, Patterns, SourceFile};
use crate::split::group;

/// `<language>/final/jsonl/{train,valid,test}/<language>_<split>_<n>.jsonl.gz`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Codesearchnet {
    /// The folder or URL above `<language>`, or a zip.
    #[serde(skip_serializing)]
    path: String,
}

const LANGUAGE: &str = "python";
const SPLITS: [&str; 3] = ["test", "train", "valid"];

#[derive(Deserialize)]
struct Line {
    repo: String,
    path: String,
    func_name: String,
    language: String,
    code: String,
    docstring: String,
    partition: String,
    url: String,
}

impl Kind for Codesearchnet {
    fn files(&self, config: &Config) -> Result<Vec<SourceFile>> {
        if self.path.is_empty() {
            return Err(config_error("path is missing: the folder above python/final/jsonl, a zip, or a URL"));
        }
        if download::is_url(&self.path) && !self.path.ends_with(".zip") {
            return remote_tree(&self.path);
        }
        let include = format!("**/{LANGUAGE}/final/jsonl/{{train,valid,test}}/*.jsonl.gz");
        files::find(config, &self.path, &Patterns::new(&[include], &[])?)
    }

    fn rows(&self, file: &str, content: &[u8]) -> Result<Vec<Found>> {
        lines::parse(file, content, row)
    }
}

/// A web server lists nothing, but the files are numbered from 0.
fn remote_tree(base: &str) -> Result<Vec<SourceFile>> {
    let mut found = Vec::new();
    for split in SPLITS {
        for number in 0.. {
            let name = format!("{LANGUAGE}/final/jsonl/{split}/{LANGUAGE}_{split}_{number}.jsonl.gz");
            let url = format!("{}/{name}", base.trim_end_matches('/'));
            match download::fetch(&url, &cache_folder().join("downloads"))? {
                Some(path) => found.push(files::on_disk(&path, name)?),
                None => break,
            }
        }
    }
    if found.is_empty() {
        return Err(input_error(format!("{base} has no {LANGUAGE}/final/jsonl/train/{LANGUAGE}_train_0.jsonl.gz")));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn row(place: String, line: Line) -> Found {
    let reject = |reason, detail| Found::Rejected { place: place.clone(), reason, detail };
    if line.language != LANGUAGE {
        return reject("unsupported_language", line.language);
    }
    let split = match line.partition.as_str() {
        "valid" => "validation",
        split @ ("train" | "test") => split,
        other => return reject("unknown_split", other.to_owned()),
    };
    match cut_docstring(&line.code.replace("\r\n", "\n")) {
        Ok((code, _)) => Found::Function(Function {
            group: group(&line.repo, if line.path.is_empty() { &line.url } else { &line.path }),
            repo: line.repo,
            path: line.path,
            name: line.func_name,
            language: line.language,
            url: line.url,
            code: code.trim_end().to_owned(),
            docstring: line.docstring,
            split: split.to_owned(),
            ..Function::default()
        }),
        Err(error) => reject("syntax_error", error.to_string()),
    }
}
