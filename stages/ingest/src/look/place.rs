//! Of which kind a place is, by the names of what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use codepair_code::Language;
use codepair_runtime::{config_error, input_error};
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::files::{file_name, has_end, is_url, unpacked};

/// So many files of a folder are looked at.
const FILES: usize = 200_000;

/// The kind of a place, and keys that follow from names alone.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    pub(super) kind: &'static str,
    pub(super) keys: Vec<(String, Value, String)>,
}

impl Place {
    fn of(kind: &'static str) -> Self {
        Self { kind, keys: Vec::new() }
    }

    pub(super) fn find(path: &str) -> Result<Self> {
        let local = Path::new(path);
        if local.is_dir() {
            let files = WalkDir::new(local).into_iter().filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry));
            let files =
                files.filter_map(Result::ok).filter(|entry| entry.file_type().is_file() || entry.path_is_symlink());
            let names = files.filter_map(|entry| Some(entry.path().strip_prefix(local).ok()?.to_str()?.to_owned()));
            return Self::of_names(path, &names.take(FILES).collect::<Vec<_>>(), true);
        }
        if !local.is_file() && !is_url(path) && !path.contains("://") {
            return Err(input_error(format!("{path} does not exist")));
        }
        Self::of_names(path, &[file_name(path).to_owned()], false)
    }

    fn of_names(path: &str, names: &[String], is_folder: bool) -> Result<Self> {
        let any = |wanted: &dyn Fn(&str) -> bool| names.iter().any(|name| wanted(name));
        if any(&|name| name.ends_with("code_idx_map.txt")) {
            return Ok(Self::of("cosqa"));
        }
        if any(&|name| name.contains("final/jsonl/") && name.ends_with(".jsonl.gz")) {
            return Ok(Self {
                kind: "codesearchnet",
                keys: languages(names.iter().filter_map(|name| Language::named(name.split('/').next()?))),
            });
        }
        if let Some((source, target)) = parallel(names) {
            let why = "the files' ends; exchange them to go the other way".to_owned();
            let keys =
                vec![("source".to_owned(), json!(source), why), ("target".to_owned(), json!(target), String::new())];
            return Ok(Self { kind: "parallel_text", keys });
        }
        let is_archive =
            |name: &str| [".zip", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.zst"].iter().any(|end| has_end(name, end));
        let count =
            |ends: &[&str]| names.iter().filter(|name| ends.iter().any(|end| has_end(unpacked(name), end))).count();
        let rows = [
            ("jsonl", count(&[".jsonl", ".ndjson"])),
            ("parquet", count(&[".parquet", ".arrow"])),
            ("csv", count(&[".csv", ".tsv"])),
            // In a folder of other things many a `.json` is none of rows.
            ("jsonl", if is_folder { 0 } else { count(&[".json"]) }),
        ];
        let (kind, rows) =
            rows.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best }).unwrap_or(("jsonl", 0));
        let sources = names.iter().filter(|name| Language::of_path(name).is_some()).count();
        let archives = names.iter().filter(|name| is_archive(name)).count();
        if rows > 0 && rows * 3 >= sources {
            return Ok(Self::of(kind));
        }
        if sources == 0 && archives == 0 {
            return Err(config_error(format!(
                "{path} holds nothing that is known by its name: source files in Go, Java, JavaScript, PHP, Python or Ruby, \
                 archives of them, .jsonl, .csv, .tsv, .parquet or .arrow, or NAME.SOURCE and NAME.TARGET with lines that \
                 belong together; a .json that holds one array is named itself; the kinds of sources: codepair config ingest"
            )));
        }
        let mut keys = languages(names.iter().filter_map(|name| Language::of_path(name)));
        if archives > 0 && is_folder {
            keys.push(("archives".to_owned(), json!(true), "the folder has archives".to_owned()));
        }
        Ok(Self { kind: "source_tree", keys })
    }
}

fn is_hidden(entry: &walkdir::DirEntry) -> bool {
    entry.file_name().to_str().is_some_and(|name| name.starts_with('.') || name == "node_modules")
}

/// The languages that at least one in twenty source files is in; Python alone needs no mention, for it is the default.
fn languages(found: impl Iterator<Item = Language>) -> Vec<(String, Value, String)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    found.for_each(|language| *counts.entry(language.name()).or_default() += 1);
    let all: usize = counts.values().sum();
    let chosen: Vec<&str> = counts.iter().filter(|(_, count)| *count * 20 >= all).map(|(name, _)| *name).collect();
    if chosen.is_empty() || chosen == ["python"] {
        return Vec::new();
    }
    let counted: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    vec![("languages".to_owned(), json!(chosen), format!("files: {}", counted.join(", ")))]
}

/// The two ends of files that differ in nothing else, and whose names say splits.
fn parallel(names: &[String]) -> Option<(String, String)> {
    let mut stems: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (stem, end) in names.iter().filter_map(|name| unpacked(name).rsplit_once('.')) {
        let file = stem.rsplit('/').next().unwrap_or(stem);
        if ["train", "val", "dev", "test"].iter().any(|split| file.starts_with(split)) {
            stems.entry(stem).or_default().insert(end);
        }
    }
    let ends = stems.values().find(|ends| ends.len() == 2)?;
    // A program and its script or its stub are no two texts.
    const OTHERS: [&str; 20] = [
        "json", "jsonl", "csv", "tsv", "parquet", "arrow", "zip", "tar", "sh", "bat", "yaml", "yml", "toml", "cfg",
        "ini", "md", "pyi", "pyc", "ipynb", "log",
    ];
    let mut training =
        stems.iter().filter(|(stem, _)| stem.rsplit('/').next().is_some_and(|file| file.starts_with("train")));
    let is_same = training.next().is_some_and(|(_, own)| own == ends) && training.all(|(_, own)| own == ends);
    let pair = ends.clone();
    let mut ends = ends.iter().copied();
    let (one, two) = (ends.next()?, ends.next()?);
    // Texts come before code: of `nl` and `py` the former is what is asked in.
    let is_code =
        |end: &str| Language::of_path(&format!("x.{end}")).is_some() || matches!(end, "code" | "sql" | "cm" | "sh");
    let (source, target) = if is_code(one) && !is_code(two) { (two, one) } else { (one, two) };
    let is_tested = stems
        .iter()
        .any(|(stem, own)| *own == pair && !stem.rsplit('/').next().is_some_and(|file| file.starts_with("train")));
    (is_same && is_tested && !OTHERS.contains(&one) && !OTHERS.contains(&two))
        .then(|| (source.to_owned(), target.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(names: &[&str]) -> Result<Place> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Place::of_names("x", &names, names.len() > 1)
    }

    #[test]
    fn kinds_are_known_by_names() {
        for (names, expected) in [
            (&["a.py", "b/c.py", "data/x.jsonl"][..], "jsonl"),
            (&["rows.jsonl.gz"], "jsonl"),
            (&["rows.json"], "jsonl"),
            (&["train-00000-of-00002.parquet", "README.md"], "parquet"),
            (&["data.TSV"], "csv"),
            (&["w/sympy-1.14.whl"], "source_tree"),
            (&["python/final/jsonl/train/python_train_0.jsonl.gz"], "codesearchnet"),
            (&["code_idx_map.txt", "cosqa-train.json"], "cosqa"),
        ] {
            assert_eq!(kind(names).unwrap().kind, expected, "{names:?}");
        }
        let project: Vec<String> =
            (0..50).map(|n| format!("src/a{n}.go")).chain(["testdata/x.csv".to_owned()]).collect();
        let seen = Place::of_names("x", &project, true).unwrap();
        assert_eq!((seen.kind, &seen.keys[0].1), ("source_tree", &json!(["go"])));
        assert!(kind(&["README.md", "a.json", "b.json"]).unwrap_err().to_string().contains("codepair config ingest"));
    }

    #[test]
    fn parallel_texts_are_known_by_their_ends() {
        let seen = kind(&["train.py", "train.nl", "val.py.gz", "val.nl.gz", "test.py", "test.nl"]).unwrap();
        assert_eq!(seen.kind, "parallel_text");
        let values: Vec<&Value> = seen.keys.iter().map(|(_, value, _)| value).collect();
        assert_eq!(values, [&json!("nl"), &json!("py")]);
        assert_eq!(kind(&["train.csv", "train.jsonl"]).unwrap().kind, "jsonl");
        // A program beside its script is none, nor a package with stubs.
        assert_eq!(kind(&["train.py", "train.sh", "test.py", "test.sh"]).unwrap().kind, "source_tree");
        assert_eq!(kind(&["train.py", "train.txt"]).unwrap().kind, "source_tree");
        let archive = Place::of_names("x", &["a.zip".to_owned()], true).unwrap();
        assert_eq!(archive.keys[0].0, "archives");
        assert_eq!(kind(&["testing/a.py", "tests/test_a.py", "tests/test_a.pyi"]).unwrap().kind, "source_tree");
    }
}
