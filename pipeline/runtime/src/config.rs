//! The pipeline's config: one TOML file, overridden by `--set`, each stage reading its own table.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use codepair_schemas::STAGES;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::config_error;

const DEFAULT_PATH: &str = "configs/quickstart.toml";

/// A config file as read, variables expanded and `--set` applied, not yet given meaning by the stages.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    name: String,
    table: Table,
    /// The same before variables were expanded: what may be kept.
    written: Table,
}

/// `[resources.STAGE]`: how much of the machine a stage may use; never part of a fingerprint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Worker threads; all cores unless told, one for training.
    pub threads: Option<usize>,
    /// `cpu` or `cuda`; `--device` comes first.
    pub device: Option<String>,
    /// Such as `1GiB`: where it keeps its data in memory up to this, and on disk beyond it.
    pub memory_limit: Option<ByteSize>,
}

/// A number of bytes, as a whole number or with a unit: `512MiB`, `1.5GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ByteSize(pub u64);

impl TryFrom<Value> for ByteSize {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Integer(bytes) => u64::try_from(bytes).map(Self).map_err(|_| format!("{bytes} is no size")),
            Value::String(text) => text.parse(),
            other => Err(format!("{other} is no size; write it as \"1GiB\"")),
        }
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = (text[..split].parse::<f64>(), text[split..].trim().to_ascii_lowercase());
        let units = ["", "b", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib"];
        let factor = [1e0, 1e0, 1e3, 1e6, 1e9, 1e12, 1024.0, 1_048_576.0, 1_073_741_824.0, 1_099_511_627_776.0];
        let factor = units.iter().position(|known| *known == unit).map(|at| factor[at]);
        match (number, factor) {
            (Ok(number), Some(factor)) => Ok(Self((number * factor) as u64)),
            _ => Err(format!("{text:?} is no size; write it as \"1GiB\"")),
        }
    }
}

impl Config {
    /// Reads `path`, else `CODEPAIR_CONFIG`, else `configs/quickstart.toml`.
    ///
    /// # Errors
    /// Exit 2: no such file, no TOML, an unknown table, a bad name or `--set`.
    pub fn load(path: Option<&Path>, sets: &[String]) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => std::env::var_os("CODEPAIR_CONFIG").map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from),
        };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            config_error(format!(
                "cannot read the config {}: {error}; name one with --config or CODEPAIR_CONFIG",
                path.display()
            ))
        })?;
        Self::parse(&text, &path, sets)
    }

    /// As [`Config::load`], of a text; relative paths in it are relative to the folder of `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Self> {
        let mut table: Table = toml::from_str(text)
            .map_err(|error| config_error(format!("{} is no valid TOML: {error}", path.display())))?;
        for set in sets {
            apply_set(&mut table, set)?;
        }
        let written = table.clone();
        for (key, value) in &mut table {
            expand(key, value)?;
        }
        let known: Vec<&str> =
            ["name", "store", "resources"].into_iter().chain(STAGES.iter().map(|s| s.name)).collect();
        for key in table.keys() {
            if !known.contains(&key.as_str()) {
                return Err(config_error(format!("{}: {}", path.display(), unknown_key(key, "the config", &known))));
            }
        }
        let name = match table.get("name") {
            Some(Value::String(name)) => name.clone(),
            _ => return Err(config_error(format!("{}: `name` is missing: name = \"my-pipeline\"", path.display()))),
        };
        let config = Self { path: path.to_owned(), name, table, written };
        config.check_name("name", &config.name)?;
        STAGES.iter().try_for_each(|stage| config.resources(stage.name).map(drop))?;
        for stage in STAGES.iter().filter(|stage| stage.per_model) {
            config.tables(stage.name).iter().try_for_each(|model| config.check_name(stage.name, model))?;
        }
        Ok(config)
    }

    fn check_name(&self, key: &str, name: &str) -> Result<()> {
        let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if fits {
            return Ok(());
        }
        Err(config_error(format!(
            "{}: {key}: the name {name:?} may hold only letters, digits, - and _, for it becomes a folder",
            self.path.display()
        )))
    }

    /// The pipeline's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file it came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path of the config, relative ones being relative to the config's own folder.
    #[must_use]
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The URL of the store.
    ///
    /// # Errors
    /// Exit 2: `[store] url` is missing.
    pub fn store_url(&self) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct StoreTable {
            url: String,
        }
        if !self.table.contains_key("store") {
            return Err(config_error(format!(
                "{}: [store] is missing: [store] url = \"file://./.codepair\"",
                self.path.display()
            )));
        }
        Ok(self.read::<StoreTable>(&["store"])?.url)
    }

    /// A stage's table, with its defaults where it has none.
    ///
    /// # Errors
    /// Exit 2: an unknown key (the nearest known one is named), or a value of the wrong type.
    pub fn section<T: DeserializeOwned>(&self, stage: &str) -> Result<T> {
        self.read(&[stage])
    }

    /// `[resources.STAGE]`.
    ///
    /// # Errors
    /// Exit 2: as [`Config::section`].
    pub fn resources(&self, stage: &str) -> Result<Resources> {
        for (key, _) in self.table.get("resources").and_then(Value::as_table).into_iter().flatten() {
            let known: Vec<&str> = STAGES.iter().map(|s| s.name).collect();
            if !known.contains(&key.as_str()) {
                return Err(config_error(format!(
                    "{}: {}",
                    self.path.display(),
                    unknown_key(key, "[resources]", &known)
                )));
            }
        }
        self.read(&["resources", stage])
    }

    /// The names of the tables in a stage's table, such as the models of `[train.NAME]`.
    #[must_use]
    pub fn tables(&self, stage: &str) -> Vec<String> {
        let table = self.table.get(stage).and_then(Value::as_table);
        table.into_iter().flatten().filter(|(_, v)| v.is_table()).map(|(k, _)| k.clone()).collect()
    }

    /// A stage's table as JSON, as it was written, to compare with a plan's.
    #[must_use]
    pub fn raw(&self, stage: &str) -> serde_json::Value {
        self.written.get(stage).map_or(serde_json::Value::Null, |v| serde_json::to_value(v).unwrap_or_default())
    }

    /// The SHA-256 of a stage's table with variables expanded, where there are some: they may have other values next time.
    #[must_use]
    pub fn expanded(&self, stage: &str) -> Option<String> {
        let expanded = self.table.get(stage)?;
        (self.written.get(stage) != Some(expanded)).then(|| crate::sha256(expanded.to_string().as_bytes()))
    }

    fn read<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<T> {
        let mut value = Value::Table(self.table.clone());
        for key in keys {
            value = match value {
                Value::Table(mut table) => table.remove(*key).unwrap_or_else(|| Value::Table(Table::new())),
                other => other,
            };
        }
        serde_path_to_error::deserialize(value).map_err(|error| {
            let (mut place, mut message) = (keys.join("."), String::new());
            let outer = (error.path().to_string(), error.into_inner().to_string());
            // Within a table of some kind the path begins anew.
            let mut next = Some(outer);
            while let Some((path, said)) = next.take() {
                if path != "." {
                    place = format!("{place}.{path}");
                }
                next = said
                    .strip_prefix(WITHIN)
                    .and_then(|said| said.split_once(WITHIN))
                    .map(|(p, m)| (p.into(), m.into()));
                message = said;
            }
            let message = explain(&message, &place);
            config_error(format!("{}: {message}", self.path.display()))
        })
    }
}

/// Before and after the path of a value within a table whose kind was read first.
const WITHIN: char = '\u{1f}';

/// Takes the `kind` out of a table that says by it what else it holds; `known` are the kinds.
///
/// # Errors
/// It has none, or an unknown one.
pub fn take_kind<'de, D: Deserializer<'de>>(deserializer: D, known: &[&str]) -> Result<(String, Table), D::Error> {
    let mut table = Table::deserialize(deserializer)?;
    let kind = match table.remove("kind") {
        Some(Value::String(kind)) => kind,
        Some(other) => return Err(D::Error::custom(format!("kind is a name, and not {other}"))),
        None => return Err(D::Error::missing_field("kind")),
    };
    if known.contains(&kind.as_str()) {
        return Ok((kind, table));
    }
    let known: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
    Err(D::Error::custom(format!("unknown variant `{kind}`, expected one of {}", known.join(", "))))
}

/// Reads the rest of such a table; an error says where in it the fault lies, which serde's own tags do not.
///
/// # Errors
/// An unknown key, or a value of the wrong type.
pub fn of_kind<T: DeserializeOwned, E: serde::de::Error>(table: Table) -> Result<T, E> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let path = error.path().to_string();
        E::custom(format!("{WITHIN}{path}{WITHIN}{}", error.into_inner()))
    })
}

/// Rewrites serde's "unknown field" so that it names the nearest known key.
fn explain(message: &str, place: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, Some((key, known))) = (message.starts_with("unknown field"), quoted.split_first()) {
        let place = place.strip_suffix(&format!(".{key}")).unwrap_or(place);
        return unknown_key(key, &format!("[{place}]"), known);
    }
    if let (true, Some((value, known))) = (message.starts_with("unknown variant"), quoted.split_first()) {
        return format!("{place}: unknown value `{value}`{}", suggestion(value, known));
    }
    format!("{place}: {message}")
}

fn unknown_key(key: &str, place: &str, known: &[&str]) -> String {
    format!("unknown key `{key}` in {place}{}", suggestion(key, known))
}

fn suggestion(word: &str, known: &[&str]) -> String {
    let nearest = known.iter().max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(word, nearest) > 0.7 => format!("; did you mean `{nearest}`?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; known are {}", known.join(", ")),
    }
}

/// Applies `a.b=c`; `c` is TOML where it parses as such, else a string.
fn apply_set(table: &mut Table, set: &str) -> Result<()> {
    let (key, text) = set
        .split_once('=')
        .ok_or_else(|| config_error(format!("--set {set}: expected KEY=VALUE, such as train.attention.epochs=8")))?;
    let value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let mut keys: Vec<&str> = key.trim().split('.').collect();
    let last = keys.pop().context("a split has at least one part")?;
    let mut place = table;
    for part in keys {
        let next = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = next
            .as_table_mut()
            .ok_or_else(|| config_error(format!("--set {set}: `{part}` is a value, not a table")))?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

/// Expands `${NAME}` and `${NAME:-default}` in every string.
fn expand(key: &str, value: &mut Value) -> Result<()> {
    match value {
        Value::String(text) if text.contains("${") => *text = expand_text(key, text)?,
        Value::Array(values) => values.iter_mut().try_for_each(|v| expand(key, v))?,
        Value::Table(table) => {
            for (name, inner) in table.iter_mut() {
                expand(&format!("{key}.{name}"), inner)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn expand_text(key: &str, text: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else {
            return Err(config_error(format!("{key}: `${{` without its `}}` in {text:?}")));
        };
        let inner = &rest[start + 2..start + length];
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(n, d)| (n, Some(d)));
        match (std::env::var(name), default) {
            (Ok(value), _) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            _ => return Err(config_error(format!("{key}: the environment variable {name} is not set"))),
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        epochs: u32,
        #[allow(dead_code)]
        batch_size: u32,
    }
    impl Default for Sample {
        fn default() -> Self {
            Self { epochs: 5, batch_size: 32 }
        }
    }

    fn parse(text: &str, sets: &[&str]) -> Result<Config> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::parse(text, Path::new("configs/x.toml"), &sets)
    }

    #[test]
    fn wrong_configs_say_what_is_meant() {
        let errors = [
            parse("name = \"x\"\n[trian.a]\nepochs = 1", &[]).unwrap_err(),
            parse("name = \"x\"\n[train]\nepocs = 1", &[]).unwrap().section::<Sample>("train").unwrap_err(),
            parse("name = \"x\"\n[train]\nepochs = \"many\"", &[]).unwrap().section::<Sample>("train").unwrap_err(),
            parse("name = \"x\"\n[train]\nzzz = 1", &[]).unwrap().section::<Sample>("train").unwrap_err(),
            parse("[train]", &[]).unwrap_err(),
            parse("name = \"a/b\"", &[]).unwrap_err(),
            parse("name = \"x\"\n[store]\nurl = \"${CODEPAIR_NO_SUCH}/a\"", &[]).unwrap_err(),
            parse("name = \"x\"", &["epochs"]).unwrap_err(),
            parse("name = \"x\"", &["name.a=1"]).unwrap_err(),
            parse("name = \"x\"\n[resources.trian]\nthreads = 1", &[]).unwrap_err(),
            parse("name = ", &[]).unwrap_err(),
        ];
        for error in &errors {
            assert_eq!(crate::exit_status(error), crate::ExitStatus::WrongConfig);
        }
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(text.join("\n---\n"));
    }

    #[test]
    fn set_overrides_and_variables_expand() {
        let config =
            parse("name = \"x\"\n[store]\nurl = \"${CODEPAIR_NO_SUCH:-file:///a}/b\"", &["train.epochs=8"]).unwrap();
        assert_eq!(config.section::<Sample>("train").unwrap().epochs, 8);
        assert_eq!(config.store_url().unwrap(), "file:///a/b");
        assert_eq!(parse("name = \"x\"", &["name=other"]).unwrap().name(), "other");
        assert_eq!(config.resolve("data.jsonl"), Path::new("configs/data.jsonl"));
    }

    #[test]
    fn what_is_kept_of_a_config_holds_no_values_of_variables() {
        let path = std::env::var("PATH").unwrap();
        let config = parse("name = \"x\"\n[synth.a]\nsystem = \"${PATH}\"\n[train.b]\nepochs = 2", &[]).unwrap();
        assert_eq!(config.raw("synth")["a"]["system"], "${PATH}");
        let digest = config.expanded("synth").unwrap();
        assert!(digest.len() == 64 && !digest.contains(&path));
        assert_eq!((config.expanded("train"), config.expanded("ingest")), (None, None));
    }

    proptest::proptest! {
        /// However a config is damaged, it is read or refused with a message, and never by a panic.
        #[test]
        fn fuzz_config(text in codepair_mutations::mutated_text(
            &["name = \"x\"\n[store]\nurl = \"file://${HOME:-/a}/b\"\n[train]\nepochs = 3\n[resources.train]\nthreads = 2\nmemory_limit = \"1GiB\"\n"],
            &["${", "}", ":-", "\"", "[", "]", "=", "\n", ".", "name", "train", "9999999999999999999999", "GiB"],
        )) {
            let sets = ["train.epochs=8".to_owned()];
            if let Ok(config) = Config::parse(&text, Path::new("c.toml"), &sets) {
                let _ = (config.section::<Sample>("train"), config.resources("train"), config.store_url());
                proptest::prop_assert!(!config.name().is_empty());
            }
        }
    }
}
