//! `codepair init`: a first config for what somebody has, or a shipped one.

mod shipped;
mod written;

use std::path::{Path, PathBuf};

use anyhow::Result;
use codepair_runtime::{ExitStatus, config_error, quoted};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arguments::{Arguments, InitOptions};
use crate::binaries;
use crate::table::print;

/// What `codepair-look` says of a place.
#[derive(Debug, Deserialize)]
struct Seen {
    kind: String,
    keys: Vec<(String, Value, String)>,
    files: usize,
    rows: u64,
    undocumented: f64,
    rejected: f64,
    splits: Map<String, Value>,
    language: String,
    text_tokens: u64,
    code_tokens: u64,
    remarks: Vec<String>,
}

/// Writes a config, and says what to run next.
pub(crate) fn init(arguments: &Arguments, options: &InitOptions) -> Result<ExitStatus> {
    arguments.pipeline.refuse_all_sets()?;
    let folder = options.output.parent().unwrap_or(Path::new("")).to_owned();
    let (files, said) = match (&options.from, &options.path) {
        (Some(name), None) => shipped::files(name, &options.output)?,
        (None, path) => {
            let path = path.as_deref().unwrap_or(".");
            if path.contains("${") {
                return Err(config_error(format!(
                    "{path}: in a config ${{…}} is a variable; rename it, or link to it by another name"
                )));
            }
            let columns = [("--text", &options.text), ("--code", &options.code)];
            let seen: Seen = binaries::look(path, &columns)?;
            let name = name_of(path);
            let config = written::config(&seen, &name, &as_seen_from(&folder, path)?);
            (vec![(options.output.clone(), config)], written::summary(&seen, path))
        }
        (Some(_), Some(_)) => return Err(config_error("init takes a PATH or --from NAME, and not both")),
    };
    write(&files)?;
    let config = options.output.display();
    let given = if options.output == Path::new(codepair_runtime::OWN_CONFIG) {
        String::new()
    } else {
        format!(" --config {}", quoted(&config.to_string()))
    };
    print(&format!(
        "{said}\n{config} is written; have a look at it: each key says why. codepair config prints all there are.\n\nnext: codepair plan{given}\n      \
         codepair run{given}"
    ));
    Ok(ExitStatus::Done)
}

/// Writes all files, or none where another one is in the way.
fn write(files: &[(PathBuf, String)]) -> Result<()> {
    for (path, text) in files {
        let is_free = match std::fs::read(path) {
            Ok(there) => there == text.as_bytes(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !is_free {
            return Err(config_error(format!(
                "{} is there already, and nothing is overwritten; name another with --output",
                path.display()
            )));
        }
    }
    for (path, text) in files {
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, text));
        written.map_err(|error| config_error(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

/// The path as the config has to name it: relative ones are relative to its own folder.
fn as_seen_from(folder: &Path, path: &str) -> Result<String> {
    let is_near = folder.as_os_str().is_empty() || folder == Path::new(".");
    if is_near || path.contains("://") || Path::new(path).is_absolute() {
        return Ok(path.to_owned());
    }
    let whole = Path::new(path).canonicalize().map_err(|error| config_error(format!("{path}: {error}")))?;
    Ok(whole.display().to_string())
}

/// A name for the pipeline and its source, of what the place is called.
fn name_of(path: &str) -> String {
    let whole = Path::new(path).canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let file = whole.file_name().and_then(|name| name.to_str()).unwrap_or("own").to_owned();
    let stem = file.split('.').find(|part| !part.is_empty()).unwrap_or("own");
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    let plain = plain.trim_matches('_').to_lowercase();
    if plain.is_empty() { "own".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_tables() {
        assert_eq!(["/a/My Data.jsonl.gz", "x/.git", "/", "é"].map(name_of), ["my_data", "git", "own", "own"]);
        assert_eq!(as_seen_from(Path::new(""), "rows.jsonl").unwrap(), "rows.jsonl");
        assert_eq!(as_seen_from(Path::new("configs"), "hf://datasets/a/b").unwrap(), "hf://datasets/a/b");
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("new/two"));
        std::fs::write(&one, b"mine, and no text \xff").unwrap();
        let files = [(two.clone(), "b".to_owned()), (one.clone(), "a".to_owned())];
        assert!(write(&files).unwrap_err().to_string().contains("--output"));
        assert!(!two.exists());
        // What is the same already is no hindrance.
        std::fs::write(&one, "mine").unwrap();
        write(&[(one, "mine".to_owned()), (two.clone(), "b".to_owned())]).unwrap();
        assert_eq!(std::fs::read_to_string(two).unwrap(), "b");
    }
}
