//! The publish protocol: parts under the attempt's own prefix, then the manifest by conditional create.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use bytes::Bytes;
use codepair_schemas::rows::Row;
use serde_json::Value;
use uuid::Uuid;

use crate::digest::FileDigest;
use crate::manifest::{FORMAT, outputs_digest};
use crate::paths::artifact_path;
use crate::writes::Writes;
use crate::{Created, DatasetWriter, Manifest, Output, RowWriter, Store, parquet_io};

/// The generation that counts for a step: 0, or one more for each time `--force` superseded it, or a run went on with what
/// another one left open. `fingerprint_of` gives the fingerprint of a generation. The next one's manifest supersedes as well as
/// the marker does, which a run that is killed in between has not written.
///
/// # Errors
/// The store cannot be read.
pub fn newest_generation(store: &Store, step: &str, fingerprint_of: impl Fn(u32) -> String) -> Result<u32> {
    let is_there = |generation, file| -> Result<bool> {
        let path = format!("{}/{file}", artifact_path(step, &fingerprint_of(generation)));
        Ok(store.find(&path)?.is_some())
    };
    let mut generation = 0;
    while is_there(generation, "superseded.json")? || is_there(generation + 1, "manifest.json")? {
        generation += 1;
    }
    Ok(generation)
}

/// Marks an artifact as superseded, so that the next generation counts from now on.
///
/// # Errors
/// The store cannot be written.
pub fn supersede(store: &Store, step: &str, fingerprint: &str) -> Result<()> {
    let marker = format!("{}/superseded.json", artifact_path(step, fingerprint));
    let content = serde_json::json!({ "superseded_at": jiff::Timestamp::now() });
    store.put_new(&marker, content.to_string())?;
    Ok(())
}

/// Who won the race to publish.
#[derive(Debug)]
pub enum Published {
    /// This attempt.
    Ours(Manifest),
    /// Another attempt with the same fingerprint, whose artifact serves as well.
    Theirs(Manifest),
}

/// An artifact being made. Nothing of it exists for readers until [`Attempt::publish`].
pub struct Attempt {
    store: Store,
    step: String,
    fingerprint: String,
    id: Uuid,
    started_at: jiff::Timestamp,
    writes: Arc<Writes>,
    outputs: Vec<Output>,
    rejected: BTreeMap<String, u64>,
    incomplete: Option<String>,
    notes: BTreeMap<String, Value>,
}

impl Attempt {
    /// Begins an attempt at a step's artifact.
    #[must_use]
    pub fn new(store: &Store, step: &str, fingerprint: &str) -> Self {
        Self {
            store: store.clone(),
            step: step.to_owned(),
            fingerprint: fingerprint.to_owned(),
            id: Uuid::now_v7(),
            started_at: jiff::Timestamp::now(),
            writes: Arc::default(),
            outputs: Vec::new(),
            rejected: BTreeMap::new(),
            incomplete: None,
            notes: BTreeMap::new(),
        }
    }

    /// The identity of the artifact being made.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What tells this attempt from others at the same artifact.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The folder of this attempt's files.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}/attempt-{}", artifact_path(&self.step, &self.fingerprint), self.id)
    }

    /// Begins a dataset in the folder `folder` (its name, or `tokens_NAME`).
    ///
    /// # Errors
    /// No dataset has that name.
    pub fn writer(&self, folder: &str) -> Result<DatasetWriter> {
        self.writer_with(folder, &[])
    }

    /// As [`Attempt::writer`], with metadata in the Parquet schema.
    ///
    /// # Errors
    /// No dataset has that name.
    pub fn writer_with(&self, folder: &str, metadata: &[(&str, String)]) -> Result<DatasetWriter> {
        let dataset = codepair_schemas::dataset(folder).with_context(|| format!("no dataset is named {folder}"))?;
        DatasetWriter::new(&self.store, &self.writes, dataset, folder, &self.prefix(), metadata)
    }

    /// Begins a dataset of rows.
    ///
    /// # Errors
    /// None in practice: every kind of row has its dataset.
    pub fn row_writer<R: Row>(&self) -> Result<RowWriter<R>> {
        Ok(RowWriter::new(self.writer(R::DATASET)?))
    }

    /// Ends a dataset of rows.
    ///
    /// # Errors
    /// As [`Attempt::finish`].
    pub fn finish_rows<R: Row>(&mut self, writer: RowWriter<R>) -> Result<()> {
        self.finish(writer.into_writer()?)
    }

    /// Ends a dataset: its files become part of the artifact.
    ///
    /// # Errors
    /// The last part cannot be written.
    pub fn finish(&mut self, writer: DatasetWriter) -> Result<()> {
        self.finish_all(vec![writer])
    }

    /// Ends several datasets at once.
    ///
    /// # Errors
    /// As [`Attempt::finish`].
    pub fn finish_all(&mut self, writers: Vec<DatasetWriter>) -> Result<()> {
        let endings: Vec<_> = writers.into_iter().map(DatasetWriter::end).collect();
        for ending in endings {
            self.outputs.extend(ending.outputs()?);
        }
        Ok(())
    }

    /// Writes a whole dataset of rows, which must be in the order of its sort key.
    ///
    /// # Errors
    /// It cannot be written, or is out of order.
    pub fn write_rows<R: Row>(&mut self, rows: impl IntoIterator<Item = R>) -> Result<()> {
        let mut writer = self.row_writer()?;
        for row in rows {
            writer.push(row)?;
        }
        self.finish_rows(writer)
    }

    /// The batches of a dataset that this attempt has finished, one part in memory at a time; no columns named means all.
    pub fn read_back<'a>(
        &'a self,
        dataset: &'a str,
        columns: &'a [&'a str],
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let parts = self.outputs.iter().filter(move |output| output.dataset == dataset);
        parts.flat_map(move |output| {
            let path = format!("{}/{}", artifact_path(&self.step, &self.fingerprint), output.path);
            parquet_io::batches(self.store.get(&path), columns)
        })
    }

    /// Adds a listed file, such as `models/model.safetensors`; `kind` is the part before the slash.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add_file(&mut self, kind: &str, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes = bytes.into();
        let mut digest = FileDigest::default();
        digest.update(&bytes);
        let (sha256, blocks) = digest.finish();
        let (path, length) = (format!("{kind}/{name}"), bytes.len() as u64);
        self.writes.note()?;
        self.store.put(&format!("{}/{path}", self.prefix()), bytes)?;
        self.outputs.push(Output {
            dataset: kind.to_owned(),
            path: format!("attempt-{}/{path}", self.id),
            rows: None,
            bytes: length,
            sha256,
            blocks,
            schema_version: None,
            volatile: false,
        });
        Ok(())
    }

    /// Marks the listed files of a kind as volatile: they hold times or other things that differ between equal runs.
    pub fn mark_volatile(&mut self, kind: &str) {
        self.outputs.iter_mut().filter(|o| o.dataset == kind).for_each(|o| o.volatile = true);
    }

    /// Counts rows left out for a reason.
    pub fn count_rejected(&mut self, reason: &str, rows: u64) {
        *self.rejected.entry(reason.to_owned()).or_default() += rows;
    }

    /// Says what is missing that a later run may still make: `plan` will make the next generation of it.
    pub fn mark_incomplete(&mut self, missing: String) {
        self.incomplete = Some(missing);
    }

    /// Notes something for the manifest.
    pub fn note(&mut self, key: &str, value: impl Into<Value>) {
        self.notes.insert(key.to_owned(), value.into());
    }

    /// The folder of this artifact's checkpoints; it outlives attempts.
    #[must_use]
    pub fn checkpoints(&self) -> String {
        format!("{}/checkpoints", artifact_path(&self.step, &self.fingerprint))
    }

    /// Publishes: creates the manifest only if there is none. `complete` fills in what the attempt does not know.
    ///
    /// # Errors
    /// The store cannot be written, or the attempt lay idle for so long that `gc` may have taken its parts.
    pub fn publish(self, complete: impl FnOnce(&mut Manifest)) -> Result<Published> {
        self.publish_as("manifest.json", complete)
    }

    /// As [`Attempt::publish`], under another name: a shard of an artifact.
    pub(crate) fn publish_as(mut self, file: &str, complete: impl FnOnce(&mut Manifest)) -> Result<Published> {
        let now = jiff::Timestamp::now();
        self.writes.note_at(now)?;
        self.outputs.sort_by(|a, b| a.path.cmp(&b.path));
        let folder = artifact_path(&self.step, &self.fingerprint);
        let attempts = self.store.folders(&folder)?.iter().filter(|name| name.starts_with("attempt-")).count();
        let mut manifest = Manifest {
            format: FORMAT,
            step: self.step.clone(),
            revision: 0,
            fingerprint: self.fingerprint.clone(),
            digest: outputs_digest(&self.outputs),
            attempt: self.id.to_string(),
            attempts,
            pipeline: String::new(),
            inputs: Vec::new(),
            config: Value::Null,
            sources: BTreeMap::new(),
            outputs: std::mem::take(&mut self.outputs),
            rejected: std::mem::take(&mut self.rejected),
            incomplete: self.incomplete.take(),
            shard: None,
            notes: std::mem::take(&mut self.notes),
            started_at: self.started_at,
            ended_at: now,
            peak_memory_bytes: 0,
            host: String::new(),
            git_commit: None,
            job_id: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        complete(&mut manifest);
        let path = format!("{folder}/{file}");
        let created = self.store.put_new(&path, serde_json::to_vec_pretty(&manifest)?)?;
        if created == Created::New {
            return Ok(Published::Ours(manifest));
        }
        // A retried request may have found the manifest that its first try created.
        let there = Manifest::parse(&self.store.get(&path)?, &self.step, &format!("{}/{path}", self.store.url()))?;
        if there.attempt == manifest.attempt {
            return Ok(Published::Ours(there));
        }
        self.discard()?;
        Ok(Published::Theirs(there))
    }

    /// Deletes what the attempt wrote.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn discard(&self) -> Result<()> {
        let written = self.store.list(&self.prefix())?;
        self.store.delete(&written.into_iter().map(|(path, _)| path).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_schemas::rows::Source;

    fn row(name: &str) -> Source {
        Source { source: name.into(), kind: "jsonl".into(), rows_read: 3, rejected: 3, ..Source::default() }
    }

    fn stores() -> (tempfile::TempDir, Vec<Store>) {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::local(folder.path()).unwrap();
        (folder, vec![Store::memory(), local])
    }

    #[test]
    fn equal_attempts_have_equal_digests_and_one_wins() {
        let (_folder, stores) = stores();
        for store in stores {
            let make = || {
                let mut attempt = Attempt::new(&store, "ingest", "f1");
                attempt.write_rows([row("a"), row("b")]).unwrap();
                attempt
            };
            let (one, two) = (make(), make());
            let Published::Ours(first) = one.publish(|_| {}).unwrap() else { panic!("the first wins") };
            let Published::Theirs(second) = two.publish(|_| {}).unwrap() else { panic!("the second loses") };
            assert_eq!(first.attempt, second.attempt);
            let mut other = Attempt::new(&store, "ingest", "f2");
            other.write_rows([row("a"), row("b")]).unwrap();
            let Published::Ours(other) = other.publish(|_| {}).unwrap() else { panic!("nobody else was there") };
            assert_eq!(first.digest, other.digest);
            // The loser leaves nothing behind.
            assert_eq!(store.folders("artifacts/ingest/f1").unwrap().len(), 1);
            assert_eq!(first.rows("sources"), 2);
        }
    }

    #[test]
    fn a_flipped_byte_is_found_and_named() {
        let store = Store::memory();
        let mut attempt = Attempt::new(&store, "ingest", "f1");
        attempt.write_rows([row("a")]).unwrap();
        let Published::Ours(manifest) = attempt.publish(|_| {}).unwrap() else { panic!() };
        let output = &manifest.outputs[0];
        let mut bytes = manifest.read(&store, output).unwrap().to_vec();
        bytes[40] ^= 1;
        store.put(&manifest.path(output), bytes).unwrap();
        let error = manifest.read(&store, output).unwrap_err();
        assert_eq!(crate::exit_status(&error), crate::ExitStatus::MissingInput);
        assert!(error.to_string().contains("codepair run --force ingest"), "{error}");
    }

    #[test]
    fn rows_out_of_order_are_an_error() {
        let mut attempt = Attempt::new(&Store::memory(), "ingest", "f1");
        let error = attempt.write_rows([row("b"), row("a")]).unwrap_err();
        assert!(error.to_string().contains("sort key"), "{error}");
    }

    #[test]
    fn force_raises_the_generation() {
        let store = Store::memory();
        let name = |generation: u32| format!("g{generation}");
        assert_eq!(newest_generation(&store, "ingest", name).unwrap(), 0);
        supersede(&store, "ingest", "g0").unwrap();
        supersede(&store, "ingest", "g1").unwrap();
        assert_eq!(newest_generation(&store, "ingest", name).unwrap(), 2);
        // One that was published by a run that was killed before it marked the one before.
        store.put("artifacts/ingest/g3/manifest.json", "{}").unwrap();
        assert_eq!(newest_generation(&store, "ingest", name).unwrap(), 3);
    }
}
