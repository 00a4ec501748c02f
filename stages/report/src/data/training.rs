//! What models were trained with, and what synthesis made: as their manifests say it.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Context, read_output, text_column};
use serde::Serialize;
use serde_json::Value;

/// A training, in words.
#[derive(Serialize)]
pub(super) struct Training {
    model: String,
    fingerprint: String,
    /// Keys of its table of the config, with their values.
    settings: Vec<(String, String)>,
    /// What it noted: pairs, pairs that were too long, the best epoch.
    noted: Vec<(String, String)>,
    ended: String,
}

/// What a generator made.
#[derive(Serialize)]
pub(super) struct Synthesis {
    generator: String,
    /// Pairs by kind.
    pairs: BTreeMap<String, u64>,
    rejected: u64,
    /// What it noted, such as requests and their cost.
    noted: Vec<(String, String)>,
}

/// The trainings behind the models.
pub(super) fn trainings(context: &Context) -> Vec<Training> {
    let training = |manifest: &std::sync::Arc<codepair_runtime::Manifest>| {
        let model = manifest.step.trim_start_matches("train:").to_owned();
        let mut settings = Vec::new();
        flatten("", &manifest.config["train"][&model], &mut settings);
        Training {
            fingerprint: manifest.fingerprint.clone(),
            noted: manifest.notes.iter().map(|(key, value)| (words(key), shown(value))).collect(),
            ended: format!("{:.0}", manifest.ended_at),
            settings,
            model,
        }
    };
    context.inputs("training_steps").map(training).collect()
}

/// What each generator made, cost and rejected.
pub(super) fn syntheses(context: &Context) -> Result<Vec<Synthesis>> {
    let mut made: BTreeMap<String, Synthesis> = BTreeMap::new();
    for manifest in context.inputs("synthetic_pairs") {
        let entry = |made: &mut BTreeMap<String, Synthesis>, name: &str| {
            let empty = || Synthesis {
                generator: name.to_owned(),
                pairs: BTreeMap::new(),
                rejected: 0,
                noted: noted(manifest.notes.get(name)),
            };
            made.entry(name.to_owned()).or_insert_with(empty);
        };
        for (name, note) in &manifest.notes {
            if note.is_object() {
                entry(&mut made, name);
            }
        }
        for batch in read_output(&context.store, manifest, "synthetic_pairs", &["generator", "kind"])? {
            let (generators, kinds) = (text_column(&batch, "generator")?, text_column(&batch, "kind")?);
            for row in 0..batch.num_rows() {
                entry(&mut made, generators.value(row));
                let own = made.get_mut(generators.value(row)).map(|own| &mut own.pairs);
                own.into_iter().for_each(|pairs| *pairs.entry(kinds.value(row).to_owned()).or_default() += 1);
            }
        }
        for batch in read_output(&context.store, manifest, "rejected", &["source"])? {
            let sources = text_column(&batch, "source")?;
            for row in 0..batch.num_rows() {
                entry(&mut made, sources.value(row));
                made.get_mut(sources.value(row)).into_iter().for_each(|own| own.rejected += 1);
            }
        }
    }
    Ok(made.into_values().collect())
}

fn noted(note: Option<&Value>) -> Vec<(String, String)> {
    let notes = note.and_then(Value::as_object).into_iter().flatten();
    notes.filter(|(_, value)| !value.is_null()).map(|(key, value)| (words(key), shown(value))).collect()
}

/// `source.max_tokens` of tables within others.
fn flatten(outer: &str, value: &Value, settings: &mut Vec<(String, String)>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let name = if outer.is_empty() { key.clone() } else { format!("{outer}.{key}") };
        match value {
            Value::Object(_) => flatten(&name, value, settings),
            Value::Null => {}
            value => settings.push((name, shown(value))),
        }
    }
}

fn words(key: &str) -> String {
    key.replace('_', " ")
}

/// Numbers as people write them.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_u64() => crate::grouped(number.as_u64().unwrap_or_default()),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            let text = if number.abs() >= 100.0 { format!("{number:.0}") } else { format!("{number:.4}") };
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_read_as_people_write_them() {
        let mut settings = Vec::new();
        let config = json!({ "epochs": 12345, "learning_rate": 0.003, "model": { "kind": "nbow", "shared": true }, "none": null });
        flatten("", &config, &mut settings);
        let shown: Vec<String> = settings.into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(shown, ["epochs 12,345", "learning_rate 0.003", "model.kind nbow", "model.shared true"]);
        assert_eq!(super::shown(&json!(226.04)), "226");
    }
}
