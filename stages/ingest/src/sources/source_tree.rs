//! A tree of Python source: its functions and methods, by tree-sitter.

use std::process::Command;

use anyhow::Result;
use codepair_code::functions;
use codepair_runtime::{Config, config_error, input_error};
use codepair_schemas::rows::Function;
use serde::{Deserialize, Serialize};

use super::{Found, Kind, line_feeds};
use crate::files::{self, Files, Opened, Patterns};
use crate::split::{Shares, group};

/// A folder, or the standard library of an interpreter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTree {
    /// A folder, a git checkout (of which what git tracks counts), an archive (`.zip`, `.whl`, `.tar.gz`), or a folder of
    /// archives.
    #[serde(skip_serializing)]
    path: Option<String>,
    /// Take the standard library of this interpreter instead, such as `python3`.
    #[serde(skip_serializing)]
    python: Option<String>,
    /// Read the archives in a folder too.
    archives: bool,
    /// Patterns of the files to read, in archives too.
    include: Vec<String>,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// Name of the repository, where the whole tree is one; groups are then not the top-level modules. A checkout and an
    /// archive say it themselves.
    repo: String,
    /// Shares of validation and test.
    shares: Shares,
    /// What the licence column says.
    licence: String,
    /// What the origin column says.
    origin: String,
}

impl Default for SourceTree {
    fn default() -> Self {
        Self {
            path: None,
            python: None,
            archives: false,
            include: vec!["**/*.py".to_owned()],
            exclude: ["**/test/**", "**/tests/**", "**/site-packages/**", "**/dist-packages/**"]
                .map(str::to_owned)
                .to_vec(),
            repo: String::new(),
            shares: Shares::default(),
            licence: String::new(),
            origin: String::new(),
        }
    }
}

/// A file, and where it is from.
pub(crate) struct Module {
    repo: String,
    /// Within the repository.
    path: String,
    /// Of the whole file.
    url: String,
    content: Vec<u8>,
}

impl Kind for SourceTree {
    type Piece = Module;

    fn files(&self, config: &Config) -> Result<Files> {
        let location = match (&self.path, &self.python) {
            (Some(path), None) => path.clone(),
            (None, Some(python)) => standard_library(python)?,
            _ => return Err(config_error("a source_tree needs either path or python")),
        };
        files::find(config, &location, Patterns::new(&self.include, &self.exclude)?, self.archives)
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Module) -> Result<()>) -> Result<()> {
        let content = file.read_all()?;
        let path = file.name().to_owned();
        let (repo, url) = match (file.archive(), file.checkout()) {
            (Some(archive), _) => (package(archive).to_owned(), format!("{archive}/{path}")),
            (None, Some(checkout)) => (checkout.repository.clone(), checkout.url(&path)),
            (None, None) => (String::new(), path.clone()),
        };
        let repo = if self.repo.is_empty() { repo } else { self.repo.clone() };
        emit(Module { repo, path, url, content })
    }

    fn rows(&self, mut module: Module) -> Result<Vec<Found>> {
        let place = module.url.clone();
        let reject = |reason, detail| Ok(vec![Found::Rejected { place, reason, detail }]);
        let Ok(text) = String::from_utf8(std::mem::take(&mut module.content)) else {
            return reject("not_utf8", "the file is no UTF-8 text".to_owned());
        };
        let text = line_feeds(text);
        match functions(&text) {
            Ok(found) => Ok(found.into_iter().map(|function| self.row(&module, function)).collect()),
            Err(error) => reject("syntax_error", error.to_string()),
        }
    }
}

impl SourceTree {
    fn row(&self, module: &Module, function: codepair_code::Function) -> Found {
        let url = format!("{}#L{}-L{}", module.url, function.first_line, function.last_line);
        let body = function.code.lines().skip(1).map(str::trim).find(|line| !line.is_empty() && *line != "pass");
        if body.is_none() && !function.code.contains(": ") {
            return Found::Rejected { place: url, reason: "no_code", detail: format!("{} has no body", function.name) };
        }
        let group = group(&module.repo, &module.path);
        Found::Function(Function {
            repo: module.repo.clone(),
            path: module.path.clone(),
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

/// The package in an archive, by the archive's name: `sympy` of `wheels/sympy-1.14.0-py3-none-any.whl`.
fn package(archive: &str) -> &str {
    let file = archive.rsplit('/').next().unwrap_or(archive);
    let plain = [".whl", ".zip", ".tar.gz", ".tgz", ".tar"].iter().find_map(|end| file.strip_suffix(end));
    let plain = plain.unwrap_or(file);
    let version = plain.match_indices('-').find(|(at, _)| plain[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    version.map_or(plain, |(at, _)| &plain[..at])
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

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn packages_are_named_by_their_archives() {
        for (archive, name) in [
            ("w/sympy-1.14.0-py3-none-any.whl", "sympy"),
            ("zope.interface-7.0-cp311.whl", "zope.interface"),
            ("my-tool-2.tar.gz", "my-tool"),
            ("tree.zip", "tree"),
        ] {
            assert_eq!(package(archive), name);
        }
    }
}
