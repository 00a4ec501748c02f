//! The record that makes an artifact exist: written last, created once.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::Store;
use crate::{artifact_path, sha256};

/// `manifest.json` of an artifact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// The step, such as `train:attention`.
    pub step: String,
    /// The stage's revision.
    pub revision: u32,
    /// Identity, known before the step ran.
    pub fingerprint: String,
    /// Digest over the outputs that are not volatile: equal runs have equal digests.
    pub digest: String,
    /// The attempt that won.
    pub attempt: String,
    /// How many attempts had begun when this one ended.
    pub attempts: usize,
    /// Name of the pipeline that made it; others with the same config share it.
    pub pipeline: String,
    /// What was read.
    pub inputs: Vec<InputRecord>,
    /// The resolved config.
    pub config: Value,
    /// Digest of each source.
    pub sources: BTreeMap<String, String>,
    /// What was written.
    pub outputs: Vec<Output>,
    /// Rows left out, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// What the stage wants to be known: parameters, seconds of training and the like.
    pub notes: BTreeMap<String, Value>,
    /// RFC 3339.
    pub started_at: jiff::Timestamp,
    /// RFC 3339.
    pub ended_at: jiff::Timestamp,
    /// Largest resident memory of the process, bytes.
    pub peak_memory_bytes: u64,
    /// Name of the machine.
    pub host: String,
    /// Commit of the checkout that holds the config, where there is one.
    pub git_commit: Option<String>,
    /// The engine's id of the job, such as Slurm's.
    pub job_id: Option<String>,
    /// Version of codepair.
    pub version: String,
}

/// An input as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The step that wrote it.
    pub step: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its digest.
    pub digest: String,
}

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The dataset, or the kind of listed files.
    pub dataset: String,
    /// Path within the artifact's folder.
    pub path: String,
    /// Rows, for Parquet.
    pub rows: Option<u64>,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
    /// Version of the dataset's schema, for Parquet.
    pub schema_version: Option<u32>,
    /// Left out of the digest.
    pub volatile: bool,
}

impl Output {
    /// The path without the attempt's folder: `functions/part-00000.parquet`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.split_once('/').map_or(&self.path, |(_, rest)| rest)
    }
}

impl Manifest {
    /// Reads the manifest of a step's artifact, if it exists.
    ///
    /// # Errors
    /// The store cannot be read, or the manifest is damaged.
    pub fn find(store: &Store, step: &str, fingerprint: &str) -> Result<Option<Self>> {
        let path = format!("{}/manifest.json", artifact_path(step, fingerprint));
        let Some(bytes) = store.find(&path)? else { return Ok(None) };
        let manifest = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}/{path} is damaged; make it anew with --force {step}", store.url()))?;
        Ok(Some(manifest))
    }

    /// The files of a dataset, in order.
    pub fn files<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = &'a Output> {
        self.outputs.iter().filter(move |output| output.dataset == dataset)
    }

    /// Rows of a dataset.
    #[must_use]
    pub fn rows(&self, dataset: &str) -> u64 {
        self.files(dataset).filter_map(|output| output.rows).sum()
    }

    /// The store's path of one of its files.
    #[must_use]
    pub fn path(&self, output: &Output) -> String {
        format!("{}/{}", artifact_path(&self.step, &self.fingerprint), output.path)
    }

    /// Reads a file and checks it against its SHA-256.
    ///
    /// # Errors
    /// Exit 3: missing or damaged.
    pub fn read(&self, store: &Store, output: &Output) -> Result<bytes::Bytes> {
        let path = self.path(output);
        let damaged = |what: &str| {
            crate::input_error(format!(
                "{}/{path} of {} is {what}; make it anew with: codepair run --force {}",
                store.url(),
                self.step,
                self.step
            ))
        };
        let bytes = store.find(&path)?.ok_or_else(|| damaged("missing"))?;
        if sha256(&bytes) == output.sha256 { Ok(bytes) } else { Err(damaged("damaged: its SHA-256 differs")) }
    }

    /// Reads the listed file `name`, such as `tokenizers/code.json`.
    ///
    /// # Errors
    /// Exit 3: missing or damaged.
    pub fn read_named(&self, store: &Store, name: &str) -> Result<bytes::Bytes> {
        let output = self
            .outputs
            .iter()
            .find(|output| output.name() == name)
            .ok_or_else(|| crate::input_error(format!("{} {} has no file {name}", self.step, self.fingerprint)))?;
        self.read(store, output)
    }

    /// Seconds from start to end.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.ended_at.duration_since(self.started_at).as_secs_f64()
    }
}

/// The digest of a set of files: names without the attempt's folder, and their SHA-256; volatile ones left out.
pub(crate) fn outputs_digest(outputs: &[Output]) -> String {
    let kept = outputs.iter().filter(|o| !o.volatile).map(|o| (o.name().to_owned(), o.sha256.clone())).collect();
    crate::files_digest(&kept)
}
