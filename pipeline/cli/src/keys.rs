//! `codepair config`: every key of a config with its type, default and documentation, out of the stages' own structs.

use std::fmt::Write as _;

use anyhow::Result;
use codepair_runtime::{ExitStatus, Resources, config_error, keys};
use codepair_schemas::STAGES;
use serde_json::Value;

use crate::binaries;
use crate::table::print;

/// A table of the config, such as `[train.NAME]`.
struct Section {
    /// `train.NAME.model`.
    place: String,
    /// The kind that the keys are of, where there are several.
    kind: Option<String>,
    doc: String,
    keys: Vec<Key>,
}

struct Key {
    name: String,
    kind: String,
    /// Nothing where it must be given.
    default: Option<String>,
    doc: String,
}

/// Prints all tables, or those of a stage, or those of a kind.
pub(crate) fn config(wanted: Option<&str>) -> Result<ExitStatus> {
    let sections = sections()?;
    // `tokenize` is a stage, and its table is prepare's inner one.
    let wanted = wanted.map(codepair_schemas::table_of);
    let find = |name: &str| sections.iter().filter(|section| section.is(name)).collect::<Vec<&Section>>();
    let mut chosen = wanted.map_or_else(|| sections.iter().collect(), find);
    // `train.nbow` is a table of somebody's own config, of which the stage is known.
    if let Some((stage, _)) =
        wanted.and_then(|name| name.trim_matches(['[', ']']).split_once('.')).filter(|_| chosen.is_empty())
    {
        chosen = find(stage);
    }
    if chosen.is_empty() {
        let mut known: Vec<String> = sections.iter().map(Section::short).filter(|name| !name.is_empty()).collect();
        known.dedup();
        return Err(config_error(format!(
            "there is no table {}; there are {}",
            wanted.unwrap_or_default(),
            known.join(", ")
        )));
    }
    print(&page(&chosen)?);
    Ok(ExitStatus::Done)
}

/// The sections as Markdown.
fn page(sections: &[&Section]) -> Result<String> {
    let mut text = String::new();
    for section in sections {
        let kind = section.kind.as_ref().map_or(String::new(), |kind| format!(" with kind = \"{kind}\""));
        let heading = if section.place.is_empty() {
            "Before the first table".to_owned()
        } else {
            format!("`[{}]`", section.place)
        };
        writeln!(text, "## {heading}{kind}\n\n{}\n", section.doc)?;
        for key in &section.keys {
            let default = key.default.as_ref().map_or("must be given".to_owned(), |default| match default.as_str() {
                "" => "optional".to_owned(),
                default => format!("default {default}"),
            });
            let indent = if key.name.contains('.') { "  " } else { "" };
            writeln!(text, "{indent}- `{}` ({}; {default}): {}", key.name, key.kind, key.doc)?;
        }
        text.push('\n');
    }
    Ok(text)
}

impl Section {
    /// Whether a name means it: `synth`, `synth.openai`, `synth.NAME` or `train.NAME.model`.
    fn is(&self, name: &str) -> bool {
        let name = name.trim_matches(['[', ']']);
        let begins = |place: &str| place == name || place.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let is_kind = self.kind.as_deref() == Some(name);
        begins(&self.place) || begins(&self.short()) || is_kind || (self.place.is_empty() && name == "name")
    }

    /// `synth.openai`: the place without names that users give, and the kind.
    fn short(&self) -> String {
        let plain = self.place.split('.').filter(|part| *part != "NAME");
        plain.chain(self.kind.as_deref()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
    }
}

/// All tables, in the order of the pipeline.
fn sections() -> Result<Vec<Section>> {
    let mut sections = vec![
        Section {
            place: String::new(),
            kind: None,
            doc: "The pipeline itself.".to_owned(),
            keys: vec![Key {
                name: "name".to_owned(),
                kind: "text".to_owned(),
                default: None,
                doc: "The pipeline's name; its runs are in the store under it.".to_owned(),
            }],
        },
        Section {
            place: "store".to_owned(),
            kind: None,
            doc: "Where artifacts, runs and the ledger of paid answers are.".to_owned(),
            keys: vec![Key {
                name: "url".to_owned(),
                kind: "text".to_owned(),
                default: None,
                doc: "`file://` (relative paths are relative to the config's folder), `s3://`, `gs://` or `az://`; credentials \
                      come from the environment, such as AWS_ACCESS_KEY_ID."
                    .to_owned(),
            }],
        },
    ];
    let resources = keys::<Resources>().to_value();
    for stage in STAGES {
        read(&binaries::keys(stage.name)?, stage.table, &mut sections);
        let mut own = resources.clone();
        if let Some(properties) = own["properties"].as_object_mut() {
            properties.retain(|key, _| stage.resources.contains(&key.as_str()));
        }
        own["description"] =
            Value::from(format!("How much of the machine `{}` may use; in no fingerprint.", stage.name));
        read(&own, &format!("resources.{}", stage.name), &mut sections);
    }
    Ok(sections)
}

/// Adds the tables that a schema describes.
fn read(schema: &Value, place: &str, sections: &mut Vec<Section>) {
    // A table of tables, which users name.
    if schema["properties"].is_null() && schema["additionalProperties"].is_object() {
        return read(&schema["additionalProperties"], &format!("{place}.NAME"), sections);
    }
    if let Some(kinds) = of_kinds(schema) {
        return kinds.into_iter().for_each(|kind| read(kind, place, sections));
    }
    let properties = schema["properties"].as_object();
    let kind = properties.and_then(|keys| keys.get("kind")?.get("const")?.as_str()).map(str::to_owned);
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (mut own, mut inner) = (Vec::new(), Vec::new());
    for (name, property) in properties.into_iter().flatten().filter(|(name, _)| *name != "kind") {
        let is_table = !property["additionalProperties"]["properties"].is_null() || of_kinds(property).is_some();
        if is_table {
            inner.push((format!("{place}.{name}"), property));
        } else {
            own.push(key(name, property, required.contains(&name.as_str())));
            // Of a table that is written on one line.
            for (inner, property) in inner_keys(property) {
                own.push(key(&format!("{name}.{inner}"), property, false));
            }
        }
    }
    sections.push(Section { place: place.to_owned(), kind, doc: doc(schema), keys: own });
    inner.into_iter().for_each(|(place, property)| read(property, &place, sections));
}

/// The keys of a table that is written on one line, such as `shares`.
fn inner_keys(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let outer = if schema["properties"].is_null() { schema["anyOf"].get(0).unwrap_or(schema) } else { schema };
    outer["properties"].as_object().into_iter().flatten()
}

/// The schemas of the kinds of a table that says by its `kind` what else it holds, whatever families they come in; nothing where
/// it is something else.
fn of_kinds(schema: &Value) -> Option<Vec<&Value>> {
    let choices = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array())?;
    let mut found = Vec::new();
    for choice in choices.iter().filter(|choice| choice["type"] != "null") {
        if choice["properties"]["kind"].is_null() {
            found.extend(of_kinds(choice)?);
        } else {
            found.push(choice);
        }
    }
    Some(found)
}

fn key(name: &str, schema: &Value, is_required: bool) -> Key {
    let mut doc = doc(schema);
    for (value, meaning) in choices(schema).into_iter().filter(|(_, meaning)| !meaning.is_empty()) {
        let _ = write!(doc, " `\"{value}\"`: {meaning}");
    }
    let default = match schema.get("default") {
        Some(Value::Null) => String::new(),
        Some(default) => format!("`{}`", toml(default)),
        None => String::new(),
    };
    Key {
        name: name.to_owned(),
        kind: kind(schema),
        default: (!is_required).then_some(default),
        doc: doc.trim().to_owned(),
    }
}

/// A value as TOML.
pub(crate) fn toml(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let is_given = |value: &&Value| !value.is_null() && **value != "";
            let pairs = table.iter().filter(|(_, value)| is_given(value));
            let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
        Value::Array(values) => format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Number(number) if number.is_f64() => {
            let (wide, narrow) = (number.as_f64().unwrap_or_default(), number.as_f64().unwrap_or_default() as f32);
            // 0.7 of 32 bits is 0.699999988079071 of 64.
            if f64::from(narrow) == wide { narrow.to_string() } else { wide.to_string() }
        }
        other => other.to_string(),
    }
}

/// The words that a key may hold, with what they mean.
fn choices(schema: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for choice in schema["oneOf"].as_array().into_iter().chain(schema["anyOf"].as_array()).flatten() {
        match choice["const"].as_str() {
            Some(value) => found.push((value.to_owned(), self::doc(choice))),
            None => found.extend(choices(choice)),
        }
    }
    let words = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(words.map(|word| (word.to_owned(), String::new())));
    found
}

/// What a key holds, in words.
fn kind(schema: &Value) -> String {
    let choices: Vec<String> = choices(schema).into_iter().map(|(value, _)| format!("\"{value}\"")).collect();
    if !choices.is_empty() && schema["type"] != "array" {
        return choices.join(" or ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => {
            let inner = schema["anyOf"].as_array().into_iter().flatten().map(kind);
            return inner.filter(|inner| !inner.is_empty()).collect::<Vec<_>>().join(" or ");
        }
    };
    let names: Vec<String> = types
        .into_iter()
        .filter(|name| *name != "null")
        .map(|name| match name {
            "string" => "text".to_owned(),
            "integer" => "whole number".to_owned(),
            "boolean" => "true or false".to_owned(),
            "array" => format!("list of {}", kind(&schema["items"])),
            "object" => table(schema),
            other => other.to_owned(),
        })
        .collect();
    names.join(" or ")
}

/// A table of keys, or one of texts that users name.
fn table(schema: &Value) -> String {
    if inner_keys(schema).next().is_some() {
        return "table".to_owned();
    }
    format!("table of {}", kind(&schema["additionalProperties"]))
}

/// The documentation, on one line.
fn doc(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    let inner = || schema["anyOf"].as_array().into_iter().flatten().find_map(|inner| inner["description"].as_str());
    let text = if text.is_empty() { inner().unwrap_or_default() } else { text };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_become_sections() {
        let schema = json!({ "additionalProperties": { "oneOf": [{
            "description": "A file.", "properties": {
                "kind": { "const": "csv" },
                "path": { "type": "string", "description": "Where\nit is." },
                "rows": { "type": ["integer", "null"], "default": null },
                "by": { "oneOf": [{ "const": "row", "description": "Alone." }], "default": "row" },
                "shares": {
                    "type": "object", "default": { "test": 0.1, "other": null }, "description": "Of rows.",
                    "properties": { "test": { "type": "number", "description": "For test.", "default": 0.1 } },
                },
                "from": { "anyOf": [{ "anyOf": [
                    { "type": "string" }, { "type": "object", "properties": { "a": { "type": "string" } } },
                ] }, { "type": "null" }] },
                "names": { "type": "array", "items": { "type": "string" }, "default": ["a"] },
                "order": { "anyOf": [{ "oneOf": [{ "properties": { "kind": { "const": "random" } } }] }, { "type": "null" }] },
            }, "required": ["path"],
        }] } });
        let mut sections = Vec::new();
        read(&schema, "ingest", &mut sections);
        let [section, order] = &sections[..] else { panic!() };
        assert_eq!((order.place.as_str(), order.kind.as_deref()), ("ingest.NAME.order", Some("random")));
        assert!(["ingest", "ingest.csv", "[ingest.NAME]"].iter().all(|name| section.is(name)) && !section.is("ing"));
        insta::assert_snapshot!(page(&[section]).unwrap());
    }
}
