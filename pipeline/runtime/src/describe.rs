//! What a stage says of itself before it runs, and the fingerprint that follows from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::sha256;

/// The answer to `--describe`: the steps of one stage under one config.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The stage's name.
    pub stage: String,
    /// Its revision.
    pub revision: u32,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// One step: a stage, for one model where the stage is per model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// The model, for per-model stages.
    pub model: Option<String>,
    /// The resolved config, under the keys of the config file; paths, devices and other things that cannot change the
    /// output are left out.
    pub config: Value,
    /// The part of it that differs from the defaults; this goes into the fingerprint.
    pub overrides: Value,
    /// Digest of the content of each source.
    pub sources: BTreeMap<String, String>,
    /// What it reads, and from which step.
    pub inputs: Vec<Input>,
    /// Schema version of each Parquet dataset that it writes.
    pub schemas: BTreeMap<String, u32>,
    /// Whether it can say beforehand what it will cost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forecasts: bool,
}

/// A dataset of another step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The dataset, or the kind of listed files.
    pub dataset: String,
    /// The step that writes it; nothing where every step that does is meant.
    pub step: String,
}

impl Input {
    /// `dataset` of `step`.
    pub fn new(dataset: impl Into<String>, step: impl Into<String>) -> Self {
        Self { dataset: dataset.into(), step: step.into() }
    }

    /// `dataset` of every step that writes it: which these are the plan knows.
    pub fn all(dataset: impl Into<String>) -> Self {
        Self::new(dataset, "")
    }

    /// This input, or one of each step that is meant, of the `steps` of a plan before it.
    pub fn resolved<'a>(&self, steps: impl Iterator<Item = &'a str>) -> Vec<Self> {
        if !self.step.is_empty() {
            return vec![self.clone()];
        }
        let writers = steps.filter(|step| codepair_schemas::is_written_by(&self.dataset, step));
        writers.map(|step| Self::new(self.dataset.clone(), step)).collect()
    }
}

/// The values of `config` that differ from `defaults`, tables compared key by key. The key `kind` is always kept: it
/// says whose defaults the others are.
#[must_use]
pub fn overrides(config: &Value, defaults: &Value) -> Value {
    match (config, defaults) {
        (Value::Object(config), Value::Object(defaults)) => {
            let mut kept = serde_json::Map::new();
            for (key, value) in config {
                match defaults.get(key) {
                    // Two kinds may have the same defaults: inner tables are looked into, however equal they are.
                    Some(default @ Value::Object(_)) if value.is_object() => {
                        let inner = overrides(value, default);
                        if default != value || inner != Value::Object(serde_json::Map::new()) {
                            kept.insert(key.clone(), inner);
                        }
                    }
                    Some(default) if default == value && key != "kind" => {}
                    _ => {
                        kept.insert(key.clone(), value.clone());
                    }
                }
            }
            Value::Object(kept)
        }
        _ => config.clone(),
    }
}

/// The dotted keys in which two configs differ, as `key: old → new`.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Vec<String> {
    fn walk(key: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<String>) {
        match (old, new) {
            (Some(Value::Object(a)), Some(Value::Object(b))) => {
                let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                for inner in keys {
                    let path = if key.is_empty() { inner.clone() } else { format!("{key}.{inner}") };
                    walk(&path, a.get(inner), b.get(inner), out);
                }
            }
            (a, b) if a != b => {
                let show = |v: Option<&Value>| v.map_or_else(|| "absent".to_owned(), ToString::to_string);
                out.push(format!("{key}: {} → {}", show(a), show(b)));
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", Some(old), Some(new), &mut out);
    out
}

/// The identity of a step's artifact, known before it runs: 32 hexadecimal digits.
///
/// Hashed are the step's name, the stage's revision, the schema versions of its outputs, the config values that differ
/// from the defaults, the digests of its sources, the fingerprints of the steps it reads, and the generation that
/// `--force` raises.
#[must_use]
pub fn fingerprint(
    name: &str,
    revision: u32,
    step: &Step,
    upstream: &BTreeMap<String, String>,
    generation: u32,
) -> String {
    // serde_json's maps are sorted by key, so equal values have one spelling.
    let mut content = serde_json::json!({
        "step": name,
        "revision": revision,
        "schemas": step.schemas,
        "config": step.overrides,
        "sources": step.sources,
        "inputs": upstream,
    });
    if generation > 0 {
        content["generation"] = generation.into();
    }
    sha256(content.to_string().as_bytes())[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn step(overrides: Value) -> Step {
        Step { overrides, ..Step::default() }
    }

    /// What a plan kept of a config is compared with the config: no number may change on the way.
    #[test]
    fn numbers_are_read_as_they_were_written() {
        let rates = (0..2000).map(|step| 1e-30 * 1.037_f64.powi(step));
        for rate in rates.chain([1e-30, 5e-324, f64::MAX, 0.1 + 0.2]) {
            let text = serde_json::to_string(&json!({ "learning_rate": rate })).unwrap();
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read["learning_rate"].as_f64().map(f64::to_bits), Some(rate.to_bits()), "{text}");
        }
    }

    #[test]
    fn fingerprints_are_frozen() {
        let step = Step {
            overrides: json!({"train": {"a": {"epochs": 8}}}),
            sources: BTreeMap::from([("s".into(), "00".into())]),
            schemas: BTreeMap::from([("training_steps".into(), 1)]),
            ..Step::default()
        };
        let upstream = BTreeMap::from([("prepare".into(), "ab".into())]);
        insta::assert_snapshot!(fingerprint("train:a", 1, &step, &upstream, 0));
    }

    #[test]
    fn every_part_changes_the_fingerprint() {
        let base = step(json!({"a": 1}));
        let none = BTreeMap::new();
        let reference = fingerprint("x", 1, &base, &none, 0);
        let sourced = Step { sources: BTreeMap::from([("s".into(), "1".into())]), ..base.clone() };
        let versioned = Step { schemas: BTreeMap::from([("d".into(), 2)]), ..base.clone() };
        for other in [
            fingerprint("y", 1, &base, &none, 0),
            fingerprint("x", 2, &base, &none, 0),
            fingerprint("x", 1, &step(json!({"a": 2})), &none, 0),
            fingerprint("x", 1, &base, &BTreeMap::from([("p".into(), "1".into())]), 0),
            fingerprint("x", 1, &base, &none, 1),
            fingerprint("x", 1, &sourced, &none, 0),
            fingerprint("x", 1, &versioned, &none, 0),
        ] {
            assert_ne!(reference, other);
        }
        let resolved = Step { config: json!({"path": "elsewhere"}), ..base };
        assert_eq!(reference, fingerprint("x", 1, &resolved, &none, 0));
    }

    #[test]
    fn differences_name_the_key() {
        let old = json!({"train": {"a": {"epochs": 5, "seed": 1}}});
        let new = json!({"train": {"a": {"epochs": 8, "rate": 0.5}}});
        assert_eq!(
            difference(&old, &new),
            ["train.a.epochs: 5 → 8", "train.a.rate: absent → 0.5", "train.a.seed: 1 → absent"]
        );
    }

    proptest! {
        #[test]
        fn values_at_their_default_never_count(epochs in 0u32..9, rate in 0u32..9, extra in 0u32..9) {
            let defaults = json!({"epochs": 5, "model": {"rate": 3}, "kind": "k"});
            let with = json!({"epochs": epochs, "model": {"rate": rate}, "kind": "k"});
            let kept = overrides(&with, &defaults);
            prop_assert_eq!(kept.get("epochs").is_some(), epochs != 5);
            prop_assert_eq!(kept["model"].get("rate").is_some(), rate != 3);
            prop_assert_eq!(&kept["kind"], "k");
            // A key that a later version adds with its default leaves old fingerprints alone.
            let mut later = with;
            later["added"] = extra.into();
            let mut later_defaults = defaults;
            later_defaults["added"] = extra.into();
            prop_assert_eq!(overrides(&later, &later_defaults), kept);
        }
    }
}
