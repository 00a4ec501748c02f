//! The table of stages.

/// A stage: one binary, one revision.
#[derive(Debug)]
pub struct Stage {
    /// Verb; the binary is `codepair-NAME`.
    pub name: &'static str,
    /// Its table of the config; what of it is another stage's is not its own.
    pub table: &'static str,
    /// Raised when the output changes meaning, a changed default included; part of every fingerprint.
    pub revision: u32,
    /// Steps are `NAME:TABLE`, one for each table in its own: a model, or a tokenizer.
    pub per_model: bool,
    /// Where lists of values in its tables make a step each: the keys that are lists by themselves.
    pub lists: Option<&'static [&'static str]>,
    /// Worker threads where the config says nothing; without it as many as there are cores.
    pub threads: Option<usize>,
    /// What of `[resources.NAME]` it reads.
    pub resources: &'static [&'static str],
    /// What it reads: datasets and listed files of earlier stages.
    pub inputs: &'static [&'static str],
    /// What it writes. `tokenizers`, `models`, `events` and `pages` are listed files, the rest Parquet.
    pub outputs: &'static [&'static str],
}

/// All stages, in the order of the pipeline.
pub const STAGES: &[Stage] = &[
    Stage {
        name: "ingest",
        table: "ingest",
        revision: 7,
        per_model: false,
        lists: None,
        threads: None,
        resources: &["threads"],
        inputs: &[],
        outputs: &["functions", "pairs", "problems", "queries", "judgments", "sources", "rejected"],
    },
    Stage {
        name: "synth",
        table: "synth",
        revision: 7,
        per_model: false,
        lists: None,
        threads: None,
        resources: &["threads"],
        inputs: &["functions", "problems", "queries"],
        outputs: &["synthetic_pairs", "embeddings", "requests", "rejected"],
    },
    Stage {
        name: "prepare",
        table: "prepare",
        revision: 8,
        per_model: false,
        lists: None,
        threads: None,
        resources: &["threads", "memory_limit"],
        inputs: &["functions", "pairs", "problems", "queries", "synthetic_pairs"],
        outputs: &["examples", "duplicates", "rejected"],
    },
    Stage {
        name: "tokenize",
        table: "prepare.tokenizers",
        revision: 1,
        per_model: true,
        lists: None,
        threads: None,
        resources: &["threads"],
        inputs: &["examples"],
        outputs: &["tokens", "tokenizers"],
    },
    Stage {
        name: "train",
        table: "train",
        revision: 4,
        per_model: true,
        lists: Some(&["negatives", "fields"]),
        // A step is too small to be divided well: two trainings side by side take less time.
        threads: Some(1),
        resources: &["threads", "device"],
        inputs: &["tokens", "tokenizers"],
        outputs: &["models", "training_steps", "events"],
    },
    Stage {
        name: "evaluate",
        table: "evaluate",
        revision: 3,
        per_model: true,
        lists: None,
        threads: None,
        resources: &["threads", "device"],
        inputs: &["examples", "models"],
        outputs: &["predictions", "rankings", "attention"],
    },
    Stage {
        name: "score",
        table: "score",
        revision: 1,
        per_model: false,
        lists: None,
        threads: None,
        resources: &["threads"],
        inputs: &["predictions", "rankings"],
        outputs: &["scores", "comparisons"],
    },
    Stage {
        name: "report",
        table: "report",
        revision: 2,
        per_model: false,
        lists: None,
        threads: None,
        resources: &["threads"],
        inputs: &[
            "sources",
            "rejected",
            "synthetic_pairs",
            "examples",
            "training_steps",
            "scores",
            "comparisons",
            "predictions",
            "rankings",
            "attention",
        ],
        outputs: &["pages"],
    },
];

/// Looks a stage up by name.
#[must_use]
pub fn stage(name: &str) -> Option<&'static Stage> {
    STAGES.iter().find(|s| s.name == name)
}

/// The config's table of a stage, by its name.
#[must_use]
pub fn table_of(name: &str) -> &str {
    stage(name).map_or(name, |stage| stage.table)
}

/// Whether a step, such as `train:attention`, writes a dataset: `tokens_NAME` is of `tokenize:NAME` alone.
#[must_use]
pub fn is_written_by(dataset: &str, step: &str) -> bool {
    let (stage, of) = step.split_once(':').map_or((step, None), |(stage, of)| (stage, Some(of)));
    let name = dataset.strip_prefix("tokens_");
    stage_of_dataset(dataset).any(|writer| writer.name == stage) && name.is_none_or(|name| of == Some(name))
}

/// The stages that write a dataset (or a kind of listed files).
pub fn stage_of_dataset(dataset: &str) -> impl Iterator<Item = &'static Stage> {
    let family = if dataset.starts_with("tokens_") { "tokens" } else { dataset }.to_owned();
    STAGES.iter().filter(move |s| s.outputs.contains(&family.as_str()))
}
