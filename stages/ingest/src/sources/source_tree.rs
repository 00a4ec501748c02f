//! A tree of Python source: its functions and methods, by tree-sitter.

use std::process::Command;

use anyhow::Result;
use codepair_code::functions;
use codepair_runtime::{Config, config_error, input_error};
use codepair_schemas::rows::Function;
use serde::{Deserialize, Serialize};

use super::{Found, Kind};
use crate::files::{self, Patterns, SourceFile};
use crate::split::{Shares, group};

/// A folder, or the standard library of an interpreter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTree {
    /// A folder or a zip.
    #[serde(skip_serializing)]
    path: Option<String>,
    /// Take the standard library of this interpreter instead, such as `python3`.
    #[serde(skip_serializing)]
    python: Option<String>,
    /// Patterns of the files to read.
    include: Vec<String>,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// Name of the repository, where the whole tree is one; groups are then not the top-level modules.
    repo: String,
    /// Shares of validation and test.
    shares: Shares,
}

impl Default for SourceTree {
    fn default() -> Self {
        Self {
            path: None,
            python: None,
            include: vec!["**/*.py".to_owned()],
            exclude: ["**/test/**", "**/tests/**", "**/site-packages/**", "**/dist-packages/**"]
                .map(str::to_owned)
                .to_vec(),
            repo: String::new(),
            shares: Shares::default(),
        }
    }
}

impl Kind for SourceTree {
    fn files(&self, config: &Config) -> Result<Vec<SourceFile>> {
        let location = match (&self.path, &self.python) {
            (Some(path), None) => path.clone(),
            (None, Some(python)) => standard_library(python)?,
            _ => return Err(config_error("a source_tree needs either path or python")),
        };
        files::find(config, &location, &Patterns::new(&self.include, &self.exclude)?)
    }

    fn rows(&self, file: &str, content: &[u8]) -> Result<Vec<Found>> {
        let reject = |reason, detail| Ok(vec![Found::Rejected { place: file.to_owned(), reason, detail }]);
        let Ok(text) = std::str::from_utf8(content) else {
            return reject("not_utf8", "the file is no UTF-8 text".to_owned());
        };
        let text = text.replace("\r\n", "\n");
        match functions(&text) {
            Ok(found) => Ok(found.into_iter().map(|function| self.row(file, function)).collect()),
            Err(error) => reject("syntax_error", error.to_string()),
        }
    }
}

impl SourceTree {
    fn row(&self, file: &str, function: codepair_code::Function) -> Found {
        let url = format!("{file}#L{}-L{}", function.first_line, function.last_line);
        let body = function.code.lines().skip(1).map(str::trim).find(|line| !line.is_empty() && *line != "pass");
        if body.is_none() && !function.code.contains(": ") {
            return Found::Rejected { place: url, reason: "no_code", detail: format!("{} has no body", function.name) };
        }
        let group = group(&self.repo, file);
        Found::Function(Function {
            repo: self.repo.clone(),
            path: file.to_owned(),
            name: function.name,
            language: "python".to_owned(),
            url,
            code: function.code,
            docstring: function.docstring,
            split: self.shares.split(&group).to_owned(),
            group,
            ..Function::default()
        })
    }
}

fn standard_library(python: &str) -> Result<String> {
    let advice = "name an interpreter that is installed, or give path";
    let output = Command::new(python)
        .args(["-I", "-S", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"])
        .output()
        .map_err(|error| input_error(format!("python = {python:?}: {error}; {advice}")))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(input_error(format!("python = {python:?}: {error}; {advice}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
