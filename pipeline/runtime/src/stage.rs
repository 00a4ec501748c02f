//! What a stage is, and what it runs with.

use std::cell::Cell;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use codepair_schemas::Stage as StageEntry;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Attempt, Config, Description, Interrupt, Manifest, ResolvedInput, Shard, Shards, Step, Store, parquet_io};

/// A stage: what it is configured by, the steps this makes, and the work.
pub trait Stage {
    /// The stage's name in the table of stages.
    const NAME: &'static str;
    /// Its table of the config.
    type Config: DeserializeOwned + JsonSchema + Sync;

    /// The steps that the config asks for.
    ///
    /// # Errors
    /// Exit 2 where the config contradicts itself, exit 3 where a source is missing.
    fn steps(config: &Self::Config, whole: &Config) -> Result<Vec<Step>>;

    /// What running a step would cost, as JSON objects with a `text` to read; asked where [`Step::forecasts`] says so.
    ///
    /// # Errors
    /// An input is missing or damaged.
    fn forecast(_context: &Context, _config: &Self::Config) -> Result<Vec<serde_json::Value>> {
        Ok(Vec::new())
    }

    /// Runs one step, or the shard of it that the context names.
    ///
    /// # Errors
    /// The step failed; nothing is published.
    fn run(context: &mut Context, config: &Self::Config) -> Result<()>;

    /// How what shards made is put together; nothing where the stage cannot be divided.
    fn merge() -> Option<Merge<Self::Config>> {
        None
    }
}

/// Puts together what all shards of a step made.
pub type Merge<C> = fn(&mut Context, &C, &Shards) -> Result<()>;

/// What a step runs with.
pub struct Context {
    /// The store.
    pub store: Store,
    /// The whole config, to resolve paths with.
    pub config: Config,
    /// The step's name, such as `train:attention`.
    pub step: String,
    /// The model, for per-model stages.
    pub model: Option<String>,
    /// The artifact being made.
    pub attempt: Attempt,
    /// Worker threads.
    pub threads: usize,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Bytes of memory that the stage should do with.
    pub memory_limit: Option<u64>,
    /// What `--describe` says of the step.
    pub description: Step,
    /// Whether the process was asked to end.
    pub interrupt: Interrupt,
    /// The share of the work that is this process's.
    pub shard: Shard,
    pub(crate) inputs: Vec<ResolvedInput>,
    /// The fingerprints that `--force` left behind, which publishing supersedes.
    pub(crate) older: Vec<String>,
}

impl Context {
    /// The same for another attempt, of all of the work.
    pub(crate) fn afresh(&self) -> Self {
        Self {
            store: self.store.clone(),
            config: self.config.clone(),
            step: self.step.clone(),
            model: self.model.clone(),
            attempt: Attempt::new(&self.store, &self.step, self.attempt.fingerprint()),
            threads: self.threads,
            device: self.device.clone(),
            memory_limit: self.memory_limit,
            description: self.description.clone(),
            interrupt: Interrupt::default(),
            shard: Shard::default(),
            inputs: self.inputs.clone(),
            older: self.older.clone(),
        }
    }

    /// The artifacts that hold a dataset (several for `scores` and the like).
    pub fn inputs<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = &'a Arc<Manifest>> {
        self.inputs.iter().filter(move |i| i.dataset == dataset).map(|i| &i.manifest)
    }

    /// Every artifact the step reads, with the dataset it is read for.
    #[must_use]
    pub fn all_inputs(&self) -> &[ResolvedInput] {
        &self.inputs
    }

    /// Reads a dataset of all artifacts that hold it; no columns named means all.
    ///
    /// # Errors
    /// Exit 3 where a file is missing or damaged.
    pub fn read(&self, dataset: &str, columns: &[&str]) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for manifest in self.inputs(dataset) {
            batches.extend(parquet_io::read_output(&self.store, manifest, dataset, columns)?);
        }
        Ok(batches)
    }

    /// As [`Context::read`], one part in memory at a time.
    pub fn stream<'a>(
        &'a self,
        dataset: &'a str,
        columns: &'a [&'a str],
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let parts = self.inputs(dataset).flat_map(move |manifest| manifest.files(dataset).map(move |o| (manifest, o)));
        parts.flat_map(move |(manifest, output)| parquet_io::batches(manifest.read(&self.store, output), columns))
    }

    /// Reads a listed file, such as `tokenizers/code.json`.
    ///
    /// # Errors
    /// Exit 3 where it is missing or damaged.
    pub fn read_file(&self, kind: &str, name: &str) -> Result<bytes::Bytes> {
        let path = format!("{kind}/{name}");
        let holds = |manifest: &&Arc<Manifest>| manifest.outputs.iter().any(|output| output.name() == path);
        let manifest = self.inputs(kind).find(holds).or_else(|| self.inputs(kind).next());
        let manifest = manifest.with_context(|| format!("{} reads no {kind}", self.step))?;
        manifest.read_named(&self.store, &path)
    }
}

/// Which step is to be run, and with what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The model; needed where the stage has several steps.
    pub model: Option<&'a str>,
    /// The run whose plan it carries out.
    pub plan: Option<&'a str>,
    /// Artifacts to read instead of the plan's, by dataset.
    pub given: &'a [(String, String)],
    /// Instead of the config's.
    pub device: Option<&'a str>,
}

/// What a stage answers to `--describe`.
///
/// # Errors
/// Exit 2 or 3, as [`Stage::steps`].
pub fn describe<S: Stage>(config: &Config) -> Result<Description> {
    let entry = entry::<S>()?;
    let mut steps = S::steps(&config.section(S::NAME)?, config)?;
    for step in &mut steps {
        let datasets = entry.outputs.iter().filter_map(|name| codepair_schemas::dataset(name));
        step.schemas = datasets.map(|d| (d.name.to_owned(), d.version)).collect();
    }
    Ok(Description { stage: entry.name.to_owned(), revision: entry.revision, steps })
}

thread_local! {
    /// Whether the defaults of all keys are wanted.
    static SHOWS_ALL: Cell<bool> = const { Cell::new(false) };
}

/// For `skip_serializing_if`, of keys that cannot change the output, such as paths and limits: they are in no fingerprint, and
/// only the documentation of the keys shows their defaults.
pub fn is_unrecorded<T>(_: &T) -> bool {
    !SHOWS_ALL.get()
}

/// The JSON schema of a table of the config, with the documentation and the default of each key.
#[must_use]
pub fn keys<T: JsonSchema>() -> schemars::Schema {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    SHOWS_ALL.set(true);
    let schema = settings.into_generator().into_root_schema_for::<T>();
    SHOWS_ALL.set(false);
    schema
}

pub(crate) fn entry<S: Stage>() -> Result<&'static StageEntry> {
    codepair_schemas::stage(S::NAME).with_context(|| format!("{} is not in the table of stages", S::NAME))
}
