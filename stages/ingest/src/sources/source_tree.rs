//! A tree of source code: its functions and methods, by the rules of CodeSearchNet (Husain et al., 2019, section 2): no
//! tests, no constructors or methods that every class has, three lines of code and three words of documentation at least.

use std::process::Command;

use anyhow::Result;
use codepair_code::{Language, first_paragraph, functions, holds_code, words};
use codepair_runtime::{Config, config_error, decode, input_error};
use codepair_schemas::rows::Function;
use serde::{Deserialize, Serialize};

use super::{SourceKind, line_feeds};
use crate::files::{self, Files, Look, Opened, Patterns};
use crate::found::Found;
use crate::split::{Constant, Shares, SplitBy, Standing};

/// A folder, or the standard library of an interpreter.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTree {
    /// A folder, a git checkout (of which what git tracks counts), an archive (`.zip`, `.whl`, `.tar.gz`), or a folder of
    /// archives.
    #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
    path: Option<String>,
    /// Take the standard library of this interpreter instead, such as `python3`.
    #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
    python: Option<String>,
    /// Read the archives in a folder too.
    archives: bool,
    /// The languages to read: go, java, javascript, php, python, ruby.
    languages: Vec<Language>,
    /// Patterns of the files to read, in archives too; all files of the languages where there are none.
    include: Vec<String>,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// Name of the repository, where the whole tree is one; groups are then not the top-level modules. A checkout and an
    /// archive say it themselves.
    repo: String,
    /// Take functions whose name has the word test.
    tests: bool,
    /// Take constructors and methods that every class has, such as `__str__` and `toString`.
    boilerplate: bool,
    /// Lines of code at least, documentation not counted.
    minimum_lines: usize,
    /// Words in the first paragraph of the documentation at least, where there is any.
    minimum_docstring_words: usize,
    /// The split of all functions.
    split: Option<Constant>,
    /// Which functions stay in one split: those of a `row`, `file`, `module` or `repo`. Without it those of a package or
    /// repository; where the tree is a single one of these, or one top-level module, those of a file.
    split_by: Option<SplitBy>,
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
            languages: vec![Language::Python],
            include: Vec::new(),
            exclude: EXCLUDED.map(str::to_owned).to_vec(),
            repo: String::new(),
            tests: false,
            boilerplate: false,
            minimum_lines: 3,
            minimum_docstring_words: 3,
            split: None,
            split_by: None,
            shares: Shares::default(),
            licence: String::new(),
            origin: String::new(),
        }
    }
}

/// A larger source file is data or made by a program; parsers of languages need many times its size.
const SOURCE_BYTES: u64 = 2 << 20;

/// Tests, and code of others.
const EXCLUDED: [&str; 18] = [
    "**/test/**",
    "**/tests/**",
    "**/__tests__/**",
    "**/spec/**",
    "**/conftest.py",
    "**/test_*.py",
    "**/*_test.py",
    "**/*_test.go",
    "**/*Test.java",
    "**/*Test.php",
    "**/*_spec.rb",
    "**/*_test.rb",
    "**/*.spec.js",
    "**/*.test.js",
    "**/vendor/**",
    "**/node_modules/**",
    "**/site-packages/**",
    "**/dist-packages/**",
];

/// A file, and where it is from.
pub(crate) struct Module {
    repo: String,
    /// Within the repository.
    path: String,
    /// Of the whole file.
    url: String,
    /// The archive, or the checkout's address and commit.
    origin: String,
    split_by: SplitBy,
    content: Vec<u8>,
}

impl SourceKind for SourceTree {
    type Piece = Module;

    fn files(&self, config: &Config) -> Result<Files> {
        let location = match (&self.path, &self.python) {
            (Some(path), None) => path.clone(),
            (None, Some(python)) => standard_library(python)?,
            _ => return Err(config_error("a source_tree needs either path or python")),
        };
        self.shares.check()?;
        if self.languages.is_empty() {
            return Err(config_error("languages is empty; there are go, java, javascript, php, python and ruby"));
        }
        let extensions = self.languages.iter().flat_map(|language| language.extensions());
        let of_languages = extensions.map(|extension| format!("**/*.{extension}")).collect();
        let include = if self.include.is_empty() { &of_languages } else { &self.include };
        files::find(
            config,
            &location,
            Patterns::new(include, &self.exclude)?,
            Look { archives: self.archives, checkouts: true },
        )
    }

    fn provenance(&self) -> (&str, &str) {
        let is_library = self.python.is_some();
        let licence = if is_library && self.licence.is_empty() { "PSF-2.0" } else { &self.licence };
        let origin = if is_library && self.origin.is_empty() { "Python's standard library" } else { &self.origin };
        (licence, origin)
    }

    fn shares(&self) -> Option<Shares> {
        self.split.is_none().then_some(self.shares)
    }

    fn split_by(&self) -> Option<SplitBy> {
        self.split_by
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Module) -> Result<()>) -> Result<()> {
        let content = file.read_at_most(SOURCE_BYTES + 1)?;
        let path = file.name().to_owned();
        let (repo, url, origin) = match (file.archive(), file.checkout()) {
            (Some(archive), _) => (package(archive).to_owned(), format!("{archive}/{path}"), archive.to_owned()),
            (None, Some(checkout)) => (checkout.repository.clone(), checkout.url(&path), checkout.origin()),
            (None, None) => (String::new(), path.clone(), String::new()),
        };
        let origin = if self.origin.is_empty() { origin } else { String::new() };
        let repo = if self.repo.is_empty() { repo } else { self.repo.clone() };
        let is_one_repo = file.checkout().is_some() || !self.repo.is_empty() || file.is_one_archive();
        let usual = match (is_one_repo || (repo.is_empty() && file.is_one_module()), repo.is_empty()) {
            (true, _) => SplitBy::File,
            (false, true) => SplitBy::Module,
            (false, false) => SplitBy::Repo,
        };
        let split_by = self.split_by.unwrap_or(usual);
        emit(Module { repo, path, url, origin, split_by, content })
    }

    fn rows(&self, mut module: Module) -> Result<Vec<Found>> {
        let place = module.url.clone();
        let reject = |reason, detail| Ok(vec![Found::Rejected { place, reason, detail }]);
        if module.content.len() as u64 > SOURCE_BYTES {
            return reject("too_large", format!("the file has more than {SOURCE_BYTES} bytes"));
        }
        let content = std::mem::take(&mut module.content);
        let declared = if module.path.ends_with(".py") { coding_cookie(&content) } else { None };
        let text = match declared {
            Some(label) => decode_as(&label, &content),
            None => decode(content),
        };
        let text = match text {
            Ok(text) => line_feeds(text),
            Err(what) => return reject("not_utf8", what),
        };
        let Some(language) = self.language(&module.path) else {
            return reject("unknown_language", format!("the file's name ends as in none of {:?}", self.languages));
        };
        match functions(language, &text) {
            Ok(found) => Ok(found.into_iter().map(|function| self.row(&module, language, function)).collect()),
            Err(error) => reject("syntax_error", error.to_string()),
        }
    }
}

impl SourceTree {
    /// By the file's name; a config with patterns of its own and one language means that one.
    fn language(&self, path: &str) -> Option<Language> {
        let named = Language::of_path(path).filter(|language| self.languages.contains(language));
        named.or(if let [only] = *self.languages { Some(only) } else { None })
    }

    fn row(&self, module: &Module, language: Language, function: codepair_code::Function) -> Found {
        let url = format!("{}#L{}-L{}", module.url, function.first_line, function.last_line);
        if let Some(reason) = self.rejection(language, &function) {
            return Found::Rejected { place: url, reason, detail: function.name };
        }
        let place =
            Standing { repo: &module.repo, path: &module.path, content: &[&function.code, &function.docstring] };
        let group = place.group(module.split_by);
        let split = self.split.map_or_else(|| self.shares.split(&group), Constant::name);
        Found::Function(Function {
            repo: module.repo.clone(),
            path: module.path.clone(),
            name: function.name,
            language: language.name().to_owned(),
            url,
            origin: module.origin.clone(),
            code: function.code,
            docstring: function.docstring,
            split: split.to_owned(),
            group,
            ..Function::default()
        })
    }

    /// Why a function is none that the rules take.
    fn rejection(&self, language: Language, function: &codepair_code::Function) -> Option<&'static str> {
        let mut lines = function.code.lines().map(str::trim).filter(|line| !line.is_empty());
        let short_docstring =
            || first_paragraph(&function.docstring).split_whitespace().count() < self.minimum_docstring_words;
        if function.has_error {
            Some("syntax_error")
        } else if !holds_code(language.name(), &function.code) {
            Some("no_code")
        } else if !self.boilerplate && language.is_boilerplate(&function.name) {
            Some("boilerplate")
        } else if !self.tests && is_test(&function.name) {
            Some("test")
        } else if self.minimum_lines > 0 && lines.nth(self.minimum_lines - 1).is_none() {
            Some("short_code")
        } else if !function.docstring.is_empty() && short_docstring() {
            Some("short_docstring")
        } else {
            None
        }
    }
}

/// The encoding that a Python source declares in one of its first two lines (PEP 263); nothing where that is UTF-8.
fn coding_cookie(content: &[u8]) -> Option<String> {
    for line in content.split(|byte| *byte == b'\n').take(2) {
        let line = String::from_utf8_lossy(line);
        let Some(comment) = line.trim_start_matches([' ', '\t', '\x0c']).strip_prefix('#') else {
            // A statement in the first line leaves no place for it in the second.
            if line.trim().is_empty() { continue } else { return None }
        };
        let Some((_, said)) = comment.split_once("coding").filter(|(_, rest)| rest.starts_with([':', '='])) else {
            continue;
        };
        let said = said[1..].trim_start_matches([' ', '\t']);
        let label: String = said.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        // As `get_normal_name` of CPython's tokenizer has it: what follows, such as Emacs' `-unix`, says nothing.
        let normal = label.to_ascii_lowercase().replace('_', "-");
        let is_utf8 = matches!(normal.as_str(), "utf-8" | "utf8" | "") || normal.starts_with("utf-8-");
        return (!is_utf8).then_some(label);
    }
    None
}

/// The text of bytes in a declared encoding.
fn decode_as(label: &str, content: &[u8]) -> Result<String, String> {
    // Python's names of encodings, where they are none of the web's.
    let normal = label.to_ascii_lowercase().replace('_', "-");
    let is_latin1 = |name: &str| normal.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let known = match normal.as_str() {
        "l1" => "iso-8859-1".to_owned(),
        _ if ["latin-1", "iso-8859-1", "iso-latin-1"].into_iter().any(is_latin1) => "iso-8859-1".to_owned(),
        "cp932" | "ms932" => "shift_jis".to_owned(),
        "cp949" => "euc-kr".to_owned(),
        "cp936" => "gbk".to_owned(),
        "koi8r" => "koi8-r".to_owned(),
        other => other.strip_prefix("cp125").map_or_else(|| other.to_owned(), |page| format!("windows-125{page}")),
    };
    let encoding = encoding_rs::Encoding::for_label(known.as_bytes());
    let encoding = encoding.ok_or_else(|| format!("the file declares the encoding {label}, which is not known"))?;
    let text = encoding.decode_without_bom_handling_and_without_replacement(content);
    text.map(std::borrow::Cow::into_owned)
        .ok_or_else(|| format!("the file declares {label}, and is not in that encoding"))
}

/// Whether a word of the name is test, tests or testcase, numbered or not.
fn is_test(name: &str) -> bool {
    words(name).any(|word| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        matches!(word, "test" | "tests" | "testcase" | "runtest" | "runtests")
    })
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
    use super::{coding_cookie, decode_as, is_test, package};

    #[test]
    fn declared_encodings_are_read() {
        for (source, label) in [
            ("# -*- coding: latin-1 -*-\nx = 1\n", Some("latin-1")),
            ("#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n", Some("cp1252")),
            ("# -*- coding: utf-8 -*-\n", None),
            ("x = 1\n# coding: latin-1\n", None),
            ("\n\n# coding: latin-1\n", None),
            ("# codings of all kinds\n", None),
        ] {
            assert_eq!(coding_cookie(source.as_bytes()).as_deref(), label, "{source}");
        }
        assert_eq!(decode_as("latin-1", b"caf\xe9").unwrap(), "café");
        assert_eq!(decode_as("cp1251", b"\xef\xf0").unwrap(), "пр");
        assert!(decode_as("klingon", b"x").unwrap_err().contains("klingon"));
        assert!(decode_as("ascii-8bit", b"x").is_err());
    }

    #[test]
    fn tests_are_known_by_their_names() {
        for name in ["test_add", "TestCase.run", "add_tests", "test1", "HTTPTest2", "runtests"] {
            assert!(is_test(name), "{name}");
        }
        for name in ["latest", "contest", "attestation", "testify"] {
            assert!(!is_test(name), "{name}");
        }
    }

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
