//! The pipeline's config: one TOML file, overridden by `--set`, each stage reading its own table.

mod kind;
mod size;
mod values;
mod variations;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use codepair_schemas::STAGES;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use self::values::{apply_set, expand, make_text};
use self::words::{explain, place_and_message, unknown_key};
use crate::config_error;

pub use self::kind::{of_kind, schema_of_kinds, take_kind};
pub use self::size::ByteSize;
pub use self::variations::Variation;
pub use self::words::nearest;

/// The config of whoever names none: their own, which `codepair init` writes.
pub const OWN_CONFIG: &str = "codepair.toml";
/// Else that of a checkout of codepair.
const SHIPPED_CONFIG: &str = "configs/quickstart.toml";

/// A config file as read, variables expanded and `--set` applied, not yet given meaning by the stages.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    name: String,
    table: Table,
    /// The same before variables were expanded: what may be kept.
    written: Table,
    /// What was typed after the `=` of each `--set`, by its key: `2024` may be meant as a text.
    typed: BTreeMap<String, String>,
    /// Of each stage what the lists in its tables stand for.
    varied: BTreeMap<&'static str, Vec<Variation>>,
}

/// `[resources.STAGE]`: how much of the machine a stage may use; never part of a fingerprint.
#[derive(Clone, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Worker threads; all cores unless told, one for training.
    pub threads: Option<usize>,
    /// `cpu` or `cuda`; `--device` comes first.
    pub device: Option<String>,
    /// Such as `1GiB`: where it keeps its data in memory up to this, and on disk beyond it.
    pub memory_limit: Option<ByteSize>,
}

/// Bytes with which a stage that has to do with few can do at all.
const LEAST_MEMORY: u64 = 16 << 20;

impl Config {
    /// Reads `path`, else `CODEPAIR_CONFIG`, else `codepair.toml`, else `configs/quickstart.toml`.
    ///
    /// # Errors
    /// Exit 2: no such file, no TOML, an unknown table, a bad name or `--set`.
    pub fn load(path: Option<&Path>, sets: &[String]) -> Result<Self> {
        let own = || if Path::new(OWN_CONFIG).is_file() { OWN_CONFIG } else { SHIPPED_CONFIG }.into();
        let path = match path {
            Some(path) => path.to_owned(),
            None => std::env::var_os("CODEPAIR_CONFIG").map_or_else(own, PathBuf::from),
        };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            config_error(format!(
                "cannot read the config {}: {error}; name one with --config or CODEPAIR_CONFIG, or write one: codepair init PATH",
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
        let mut typed = BTreeMap::new();
        for set in sets {
            let (key, text) = apply_set(&mut table, set)?;
            typed.insert(key, text);
        }
        let written = table.clone();
        for (key, value) in &mut table {
            expand(key, value)?;
        }
        let tables = STAGES.iter().map(|stage| stage.table).filter(|table| !table.contains('.'));
        let known: Vec<&str> = ["name", "store", "resources"].into_iter().chain(tables).collect();
        for key in table.keys() {
            if !known.contains(&key.as_str()) {
                return Err(config_error(format!("{}: {}", path.display(), unknown_key(key, "the config", &known))));
            }
        }
        let name = match table.get("name") {
            Some(Value::String(name)) => name.clone(),
            Some(_) if typed.contains_key("name") => typed["name"].clone(),
            Some(other) => {
                return Err(config_error(format!(
                    "{}: name: {other} is no text; write it as \"{other}\"",
                    path.display()
                )));
            }
            None => return Err(config_error(format!("{}: `name` is missing: name = \"my-pipeline\"", path.display()))),
        };
        let mut varied = BTreeMap::new();
        for stage in STAGES {
            let Some(Value::Table(tables)) = table.get_mut(stage.table) else { continue };
            let found = variations::vary(stage, tables)
                .map_err(|why| config_error(format!("{}: {}.{why}", path.display(), stage.table)))?;
            varied.insert(stage.name, found);
        }
        let config = Self { path: path.to_owned(), name, table, written, typed, varied };
        config.check_name("name", &config.name)?;
        config.check_resources()?;
        for stage in STAGES.iter().filter(|stage| stage.per_model) {
            config.tables(stage.name).iter().try_for_each(|model| config.check_name(stage.table, model))?;
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
        Ok(self.read::<StoreTable>("store", self.table.get("store").cloned())?.url)
    }

    /// A stage's table, with its defaults where it has none.
    ///
    /// # Errors
    /// Exit 2: an unknown key (the nearest known one is named), or a value of the wrong type.
    pub fn section<T: DeserializeOwned>(&self, stage: &str) -> Result<T> {
        self.read(codepair_schemas::table_of(stage), table_of(&self.table, stage))
    }

    /// `[resources.STAGE]`.
    ///
    /// # Errors
    /// Exit 2: as [`Config::section`], a key that the stage does not read, or a value that cannot be.
    pub fn resources(&self, stage: &str) -> Result<Resources> {
        let table = self.table.get("resources").and_then(|all| all.get(stage));
        let resources: Resources = self.read(&format!("resources.{stage}"), table.cloned())?;
        let place = format!("{}: resources.{stage}", self.path.display());
        let read = codepair_schemas::stage(stage).map_or(&[][..], |entry| entry.resources);
        if let Some(key) =
            table.and_then(Value::as_table).into_iter().flat_map(Table::keys).find(|key| !read.contains(&key.as_str()))
        {
            return Err(config_error(format!("{place}.{key}: {stage} does not read it; it reads {}", read.join(", "))));
        }
        if resources.threads == Some(0) {
            return Err(config_error(format!("{place}.threads must be at least 1")));
        }
        if let Some(limit) = resources.memory_limit.filter(|limit| limit.0 < LEAST_MEMORY) {
            return Err(config_error(format!(
                "{place}.memory_limit = {}: that is bytes, and the least is {} MiB; write it as \"1GiB\"",
                limit.0,
                LEAST_MEMORY >> 20
            )));
        }
        Ok(resources)
    }

    fn check_resources(&self) -> Result<()> {
        let known: Vec<&str> = STAGES.iter().map(|s| s.name).collect();
        for (key, value) in self.table.get("resources").and_then(Value::as_table).into_iter().flatten() {
            if !known.contains(&key.as_str()) {
                let unknown = unknown_key(key, "[resources]", &known);
                return Err(config_error(format!("{}: {unknown}", self.path.display())));
            }
            if !value.is_table() {
                return Err(config_error(format!(
                    "{}: resources.{key} = {value}: it is a table, such as {{ threads = 2 }}",
                    self.path.display()
                )));
            }
        }
        known.iter().try_for_each(|stage| self.resources(stage).map(drop))
    }

    /// The names of the tables in a stage's table, such as the models of `[train.NAME]`.
    #[must_use]
    pub fn tables(&self, stage: &str) -> Vec<String> {
        let table = table_of(&self.table, stage);
        let tables = table.as_ref().and_then(Value::as_table).into_iter().flatten();
        tables.filter(|(_, value)| value.is_table()).map(|(name, _)| name.clone()).collect()
    }

    /// What the lists in a stage's tables stand for: each is a table of its own.
    #[must_use]
    pub fn variations(&self, stage: &str) -> &[Variation] {
        self.varied.get(stage).map_or(&[], Vec::as_slice)
    }

    /// A stage's table as JSON, as it was written, to compare with a plan's.
    #[must_use]
    pub fn raw(&self, stage: &str) -> serde_json::Value {
        let table = table_of(&self.written, stage);
        table.map_or(serde_json::Value::Null, |table| serde_json::to_value(table).unwrap_or_default())
    }

    /// The SHA-256 of a stage's table with variables expanded, where there are some: they may have other values next time.
    #[must_use]
    pub fn expanded(&self, stage: &str) -> Option<String> {
        let expanded = table_of(&self.table, stage)?;
        let is_written_so = table_of(&self.written, stage).is_some_and(|written| written == expanded);
        (!is_written_so).then(|| crate::sha256(expanded.to_string().as_bytes()))
    }

    /// The value at a place, with its defaults where there is none.
    fn read<T: DeserializeOwned>(&self, at: &str, value: Option<Value>) -> Result<T> {
        let mut value = value.unwrap_or_else(|| Value::Table(Table::new()));
        loop {
            let error = match serde_path_to_error::deserialize(value.clone()) {
                Ok(read) => return Ok(read),
                Err(error) => error,
            };
            let (place, message) = place_and_message(at.to_owned(), error);
            // `--set licence=2024` is a text where one is asked for.
            let within = place.strip_prefix(&format!("{at}.")).unwrap_or_default();
            let typed = message.contains("expected a string").then(|| self.typed.get(&place)).flatten();
            if typed.is_none_or(|text| !make_text(&mut value, within, text)) {
                let (path, said) = (self.path.display(), explain(&message, &place));
                return Err(config_error(format!("{path}: {said}{}", self.mistyped(&place, &message))));
            }
        }
    }
}

impl Config {
    /// Of a table that lacks what all of its kind have: the one that its name may be meant for.
    fn mistyped(&self, place: &str, message: &str) -> String {
        let of = |(table, name)| Some((STAGES.iter().find(|stage| stage.table == table)?, name));
        let Some((stage, name)) = place.rsplit_once('.').and_then(of) else { return String::new() };
        let others = self.tables(stage.name);
        let others: Vec<&str> = others.iter().map(String::as_str).filter(|other| *other != name).collect();
        let nearest = nearest(name, &others).filter(|_| message.starts_with("missing field"));
        nearest.map_or(String::new(), |nearest| format!("; did you mean [{}.{nearest}]?", stage.table))
    }
}

/// A stage's table, without what of it is the table of another stage.
fn table_of(whole: &Table, stage: &str) -> Option<Value> {
    let name = codepair_schemas::table_of(stage);
    let mut keys = name.split('.');
    let mut table = keys.next().and_then(|key| whole.get(key))?;
    for key in keys {
        table = table.get(key)?;
    }
    let mut table = table.clone();
    let inner = STAGES.iter().filter_map(|other| other.table.strip_prefix(name)?.strip_prefix('.'));
    if let Value::Table(table) = &mut table {
        inner.for_each(|key| drop(table.remove(key)));
    }
    Some(table)
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
    fn a_text_may_be_typed_as_a_number() {
        #[derive(Debug, Deserialize)]
        struct Texts {
            licence: String,
            #[allow(dead_code, reason = "it is read")]
            rows: u32,
        }
        let read = |sets: &[&str]| {
            parse("name = \"x\"\n[report]\nlicence = \"a\"\nrows = 1", sets)?.section::<Texts>("report")
        };
        assert_eq!(read(&["report.licence=2024"]).unwrap().licence, "2024");
        assert_eq!(read(&["report.licence=1.50"]).unwrap().licence, "1.50");
        assert_eq!(parse("name = \"x\"", &["name=2024"]).unwrap().name(), "2024");
        // What a file says stays what it is, and no text becomes a number.
        assert!(parse("name = 2024", &[]).unwrap_err().to_string().contains("write it as \"2024\""));
        let number = read(&["report.rows=many"]).unwrap_err().to_string();
        assert!(number.contains("report.rows") && number.contains("expected a whole number"), "{number}");
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
