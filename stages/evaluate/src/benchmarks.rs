//! `[evaluate.NAME]`: what models are tested on. A new kind is a file, a line in [`Benchmark`] and what the compiler then asks for.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use codepair_model::{ModelConfig, Task};
use codepair_runtime::config_error;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// `[evaluate.NAME]`; `kind` says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Benchmark {
    /// Search: every code of a split is a candidate, every text a query, its own code the one relevant.
    Pairs(Pairs),
    /// Generation: what is written for each row of a split, greedily and by beam search, against its reference.
    Generation(Generation),
}

/// A split's own texts and codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pairs {
    /// Which rows.
    pub split: Split,
    /// Models that need no training, scored over the same candidates.
    pub baselines: Vec<Baseline>,
    /// Candidates kept of each query's ranking, the right one always among them.
    pub depth: usize,
}

/// A split's sources and references.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Generation {
    /// Which rows.
    pub split: Split,
    /// Only the first so many of them; all without it.
    pub rows: Option<usize>,
    /// Hypotheses of the beam search.
    pub beam_width: usize,
    /// Predictions whose attention is kept.
    pub attention_rows: usize,
}

/// The rows that a benchmark is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Those that choose the best epoch.
    Validation,
    /// Those that nothing else sees.
    #[default]
    Test,
}

/// A model that needs no training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// Okapi BM25 over the words of text and code.
    Bm25,
}

impl Split {
    /// As it stands in `examples.split`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl Baseline {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bm25 => "bm25",
        }
    }
}

impl Default for Pairs {
    fn default() -> Self {
        Self { split: Split::Test, baselines: vec![Baseline::Bm25], depth: 10 }
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self { split: Split::Test, rows: None, beam_width: 4, attention_rows: 4 }
    }
}

impl Benchmark {
    /// The same kind with its defaults.
    pub(crate) fn default_of_kind(&self) -> Self {
        match self {
            Self::Pairs(_) => Self::Pairs(Pairs::default()),
            Self::Generation(_) => Self::Generation(Generation::default()),
        }
    }

    /// Which rows.
    pub(crate) fn split(&self) -> Split {
        match self {
            Self::Pairs(pairs) => pairs.split,
            Self::Generation(generation) => generation.split,
        }
    }

    /// What models it is for.
    pub(crate) fn task(&self) -> Task {
        match self {
            Self::Pairs(_) => Task::Search,
            Self::Generation(_) => Task::Generation,
        }
    }

    /// The baselines it asks for.
    pub(crate) fn baselines(&self) -> &[Baseline] {
        match self {
            Self::Pairs(pairs) => &pairs.baselines,
            Self::Generation(_) => &[],
        }
    }

    /// # Errors
    /// Exit 2: a value that cannot be.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        let (key, least) = match self {
            Self::Pairs(pairs) => ("depth", pairs.depth),
            Self::Generation(generation) => ("beam_width", generation.beam_width.min(generation.rows.unwrap_or(1))),
        };
        if least == 0 {
            return Err(config_error(format!("evaluate.{name}: {key} (and rows) must be at least 1")));
        }
        Ok(())
    }
}

/// All benchmarks by their names; those of both kinds where nothing is said.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[schemars(transparent)]
pub struct Benchmarks(pub BTreeMap<String, Benchmark>);

impl Default for Benchmarks {
    fn default() -> Self {
        Self(BTreeMap::from([
            ("generation".to_owned(), Benchmark::Generation(Generation::default())),
            ("search".to_owned(), Benchmark::Pairs(Pairs::default())),
        ]))
    }
}

/// Keys that `[evaluate]` had before benchmarks had names, and where they are now.
const MOVED: [(&str, &str); 5] = [
    ("baselines", "[evaluate.search] kind = \"pairs\", baselines = …"),
    ("ranking_depth", "[evaluate.search] kind = \"pairs\", depth = …"),
    ("beam_width", "[evaluate.generation] kind = \"generation\", beam_width = …"),
    ("generate_rows", "[evaluate.generation] kind = \"generation\", rows = …"),
    ("attention_rows", "[evaluate.generation] kind = \"generation\", attention_rows = …"),
];

impl<'de> Deserialize<'de> for Benchmarks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Tables;
        impl<'de> Visitor<'de> for Tables {
            type Value = Benchmarks;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("tables of benchmarks, such as [evaluate.search]")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut tables: M) -> Result<Benchmarks, M::Error> {
                let mut found = BTreeMap::new();
                while let Some(name) = tables.next_key::<String>()? {
                    if let Some((_, now)) = MOVED.iter().find(|(key, _)| *key == name) {
                        return Err(M::Error::custom(format!("{name} is a key of a benchmark now: {now}")));
                    }
                    found.insert(name, tables.next_value()?);
                }
                Ok(if found.is_empty() { Benchmarks::default() } else { Benchmarks(found) })
            }
        }
        from.deserialize_map(Tables)
    }
}

/// The task of a model, by its table of the config; nothing where that is no model, which `train` says better.
pub(crate) fn task_of(model: &serde_json::Value) -> Option<Task> {
    let model: ModelConfig = serde_json::from_value(model["model"].clone()).ok()?;
    Some(model.task())
}
