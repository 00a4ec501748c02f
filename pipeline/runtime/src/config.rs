//! The pipeline's config: one TOML file, overridden by `--set`, each stage reading its own table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use codepair_schemas::STAGES;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::config_error;

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

/// A number of bytes, as a whole number or with a unit: `512MiB`, `1.5GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ByteSize(pub u64);

impl schemars::JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["integer", "string"] })
    }
}

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
        let config = Self { path: path.to_owned(), name, table, written, typed };
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
        self.read(table_name(stage), table_of(&self.table, stage))
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

/// Where a stage's table is.
fn table_name(stage: &str) -> &str {
    codepair_schemas::stage(stage).map_or(stage, |entry| entry.table)
}

/// A stage's table, without what of it is the table of another stage.
fn table_of(whole: &Table, stage: &str) -> Option<Value> {
    let name = table_name(stage);
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

/// Where in the config an error lies, and what is wrong there.
fn place_and_message(mut place: String, error: serde_path_to_error::Error<toml::de::Error>) -> (String, String) {
    let mut message = String::new();
    // Within a table of some kind the path begins anew.
    let mut next = Some((error.path().to_string(), error.into_inner().to_string()));
    while let Some((path, said)) = next.take() {
        if path != "." {
            place = format!("{place}.{path}");
        }
        next = said.strip_prefix(WITHIN).and_then(|said| said.split_once(WITHIN)).map(|(p, m)| (p.into(), m.into()));
        message = said;
    }
    (place, message)
}

/// Makes the value at a path a text; false where it is one already, or is not there.
fn make_text(table: &mut Value, path: &str, text: &str) -> bool {
    let place = path.split('.').try_fold(table, |place, key| place.get_mut(key));
    match place {
        Some(place) if !place.is_str() => {
            *place = Value::String(text.to_owned());
            true
        }
        _ => false,
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

/// The schema of a table whose `kind` is one of several, each with its own.
#[must_use]
pub fn schema_of_kinds(kinds: Vec<(&str, schemars::Schema)>) -> schemars::Schema {
    let with_kind = |(kind, mut schema): (&str, schemars::Schema)| {
        let object = schema.ensure_object();
        let properties = object.entry("properties").or_insert_with(|| serde_json::json!({}));
        properties["kind"] = serde_json::json!({ "const": kind });
        schema.to_value()
    };
    let kinds: Vec<serde_json::Value> = kinds.into_iter().map(with_kind).collect();
    schemars::json_schema!({ "oneOf": kinds })
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
    // Rust's names of types are none of the config's.
    let types = [
        ("u32", "a whole number"),
        ("u64", "a whole number"),
        ("usize", "a whole number"),
        ("f64", "a number"),
        ("a boolean", "true or false"),
        ("a string", "a text"),
        ("a sequence", "a list, such as [\"a\"]"),
    ];
    for rust in
        ["expected internally tagged enum ", "expected struct ", "expected a map", "expected adjacently tagged enum "]
    {
        if let Some((start, _)) = message.split_once(rust) {
            return format!("{place}: {start}expected a table, such as {{ key = value }}");
        }
    }
    for (name, words) in types {
        if let Some(start) = message.strip_suffix(&format!("expected {name}")) {
            return format!("{place}: {start}expected {words}");
        }
    }
    format!("{place}: {message}")
}

fn unknown_key(key: &str, place: &str, known: &[&str]) -> String {
    format!("unknown key `{key}` in {place}{}", suggestion(key, known))
}

fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known are {}", known.join(", ")),
    }
}

/// The known word that another one may be meant for.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(word, known);
    let nearest = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.filter(|nearest| likeness(nearest) > 0.7)
}

/// Applies `a.b=c`; `c` is TOML where it parses as such, else a string. Returns both as they were typed.
fn apply_set(table: &mut Table, set: &str) -> Result<(String, String)> {
    let (key, text) = set
        .split_once('=')
        .ok_or_else(|| config_error(format!("--set {set}: expected KEY=VALUE, such as train.attention.epochs=8")))?;
    let value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let key = key.trim();
    let mut keys: Vec<&str> = key.split('.').collect();
    if keys.iter().any(|part| part.trim().is_empty()) {
        return Err(config_error(format!("--set {set}: expected KEY=VALUE, such as train.attention.epochs=8")));
    }
    let last = keys.pop().context("a split has at least one part")?;
    let mut place = table;
    for part in keys {
        let next = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = next
            .as_table_mut()
            .ok_or_else(|| config_error(format!("--set {set}: `{part}` is a value, not a table")))?;
    }
    place.insert(last.to_owned(), value);
    Ok((key.to_owned(), text.to_owned()))
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
        let Some(length) = closing_brace(&rest[start + 2..]) else {
            return Err(config_error(format!("{key}: `${{` without its `}}` in {text:?}")));
        };
        let inner = &rest[start + 2..start + 2 + length];
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(n, d)| (n, Some(d)));
        match (std::env::var(name), default) {
            (Ok(value), _) if !value.is_empty() => out.push_str(&value),
            // A default may name another variable.
            (_, Some(default)) => out.push_str(&expand_text(key, default)?),
            _ => return Err(config_error(format!("{key}: the environment variable {name} is not set"))),
        }
        rest = &rest[start + 2 + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace closes that was open before `text`, those of variables within it aside.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
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
    fn a_default_may_name_another_variable() {
        let home = std::env::var("HOME").unwrap();
        let expanded = |text: &str| expand_text("store.url", text).map_err(|error| error.to_string());
        for (text, wanted) in [
            ("${CODEPAIR_A:-${CODEPAIR_B:-x}}/y", "x/y".to_owned()),
            ("${CODEPAIR_A:-${HOME}}", home.clone()),
            ("${HOME:-${CODEPAIR_B}}", home),
            ("{${CODEPAIR_A:-}}", "{}".to_owned()),
            ("${CODEPAIR_A:-a${CODEPAIR_B:-b}c}${CODEPAIR_C:-d}", "abcd".to_owned()),
        ] {
            assert_eq!(expanded(text).unwrap(), wanted, "{text}");
        }
        assert!(expanded("${CODEPAIR_A:-${CODEPAIR_B}}").unwrap_err().contains("CODEPAIR_B is not set"));
        assert!(expanded("${CODEPAIR_A:-${CODEPAIR_B:-x}").unwrap_err().contains("without its `}`"));
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
