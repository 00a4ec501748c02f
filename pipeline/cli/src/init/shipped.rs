//! The configs that codepair ships, with the files that they name: the binary holds them, for there may be no checkout.

use std::path::{Path, PathBuf};

use anyhow::Result;
use codepair_runtime::config_error;

/// The files below `configs/`, by their paths there.
macro_rules! files {
    ($($path:literal,)*) => { &[$(($path, include_str!(concat!("../../../../configs/", $path)))),*] };
}

const FILES: &[(&str, &str)] = files![
    "codesearchnet.toml",
    "mining.toml",
    "multi30k.toml",
    "openai.toml",
    "quickstart.toml",
    "sample.toml",
    "problems/quickstart.jsonl",
    "prompts/code_for_query.jsonl",
    "prompts/code_for_query.txt",
    "prompts/hard_negative.jsonl",
    "prompts/hard_negative.txt",
    "prompts/paraphrase.jsonl",
    "prompts/paraphrase.txt",
    "prompts/performant_code.jsonl",
    "prompts/performant_code.txt",
    "prompts/query_for_code.jsonl",
    "prompts/query_for_code.txt",
];

/// A shipped config as `output`, the files that it names beside it, and what it is for.
///
/// # Errors
/// Exit 2: there is none of that name.
pub(super) fn files(name: &str, output: &Path) -> Result<(Vec<(PathBuf, String)>, String)> {
    let configs = || FILES.iter().filter_map(|(path, text)| Some((path.strip_suffix(".toml")?, *text)));
    let Some((_, config)) = configs().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = configs().map(|(known, _)| known).collect();
        return Err(config_error(format!("--from {name}: there is no such config; there are {}", known.join(", "))));
    };
    // In a checkout all configs share the store beside their folder.
    let own = config.replace("url = \"file://../.codepair\"", "url = \"file://.codepair\"");
    let mut files = vec![(output.to_owned(), own)];
    let folder = output.parent().unwrap_or(Path::new(""));
    let named = FILES.iter().filter(|(path, _)| path.contains('/'));
    // A template goes with its few-shots, whether these are named or not.
    let is_named = |path: &str| config.contains(path) || config.contains(&path.replace(".jsonl", ".txt"));
    files.extend(named.filter(|(path, _)| is_named(path)).map(|(path, text)| (folder.join(path), (*text).to_owned())));
    let about: Vec<&str> = config.lines().map_while(|line| line.strip_prefix("# ")).collect();
    Ok((files, about.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_shipped_can_be_written() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut there: Vec<String> = Vec::new();
        for folder in ["", "problems", "prompts"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.contains('.') {
                    there.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
                }
            }
        }
        there.sort();
        let mut known: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        known.sort_unstable();
        assert_eq!(there, known);
    }

    #[test]
    fn a_config_brings_what_it_names() {
        let (files, about) = files("openai", Path::new("mine/x.toml")).unwrap();
        let paths: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(paths.len(), 11, "{paths:?}");
        assert!(paths.contains(&"mine/prompts/performant_code.jsonl".to_owned()), "{paths:?}");
        assert!(files[0].1.contains("url = \"file://.codepair\"") && about.contains("OpenAI-compatible"), "{about}");
        assert!(super::files("opnai", Path::new("x")).unwrap_err().to_string().contains("openai, quickstart"));
    }
}
