//! The record that makes an artifact exist: written last, created once.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::paths::artifacts_folder;
use crate::{Store, artifact_path, input_error, sha256};

/// The version of the format that is written.
pub(crate) const FORMAT: u32 = 1;

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
    /// What is missing that a later run may still make, in words; nothing in an artifact that is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// Which shard this is of an artifact that is still to be put together, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
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
    /// SHA-256 of each [`DIGEST_BLOCK`](crate::DIGEST_BLOCK) bytes, where there are more than that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<String>,
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
        Self::parse(&bytes, step, &format!("{}/{path}", store.url())).map(Some)
    }

    /// Reads the content of a manifest; `place` is for the error.
    ///
    /// # Errors
    /// Exit 3: it is damaged, or of a newer codepair.
    pub fn parse(bytes: &[u8], step: &str, place: &str) -> Result<Self> {
        let damaged = || format!("{place} is damaged; make it anew with: codepair run --force {step}");
        crate::plan::parse_format(bytes, FORMAT, place, damaged)
    }

    /// The artifact of a step whose fingerprint begins like this: `plan` and `status` print the first digits.
    ///
    /// # Errors
    /// Exit 3: there is none, or several; the store cannot be read.
    pub fn find_short(store: &Store, step: &str, fingerprint: &str) -> Result<Self> {
        let folder = artifacts_folder(step);
        let all = store.folders(&folder)?;
        let (mut fitting, mut begun) = (Vec::new(), None);
        for name in all.iter().filter(|name| !fingerprint.is_empty() && name.starts_with(fingerprint)) {
            match Self::find(store, step, name)? {
                Some(manifest) => fitting.push(manifest),
                None => begun = Some(name),
            }
        }
        match fitting.len() {
            1 => Ok(fitting.remove(0)),
            0 => {
                let mut whole = Vec::new();
                for name in &all {
                    let manifest = format!("{}/manifest.json", artifact_path(step, name));
                    whole.extend(store.find(&manifest)?.is_some().then_some(name.as_str()));
                }
                let begun = begun.map(|name| format!("; {name} was begun and not finished, or deleted since"));
                Err(input_error(format!(
                    "{}/{folder} holds no artifact whose fingerprint begins with {fingerprint:?}{}; it holds {}",
                    store.url(),
                    begun.unwrap_or_default(),
                    if whole.is_empty() { "none".to_owned() } else { whole.join(", ") }
                )))
            }
            _ => {
                let names: Vec<&str> = fitting.iter().map(|manifest| manifest.fingerprint.as_str()).collect();
                Err(input_error(format!("{fingerprint:?} may be several artifacts of {step}: {}", names.join(", "))))
            }
        }
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
        let bytes = store.find(&path)?.ok_or_else(|| input_error(self.fault(store, output, "missing")))?;
        if sha256(&bytes) == output.sha256 {
            return Ok(bytes);
        }
        Err(input_error(self.fault(store, output, "damaged: its SHA-256 differs")))
    }

    /// What is wrong with one of its files, and what to do.
    #[must_use]
    pub fn fault(&self, store: &Store, output: &Output, what: &str) -> String {
        let (url, path, step) = (store.url(), self.path(output), &self.step);
        format!("{url}/{path} of {step} is {what}; make it anew with: codepair run --force {step}")
    }

    /// Checks that the artifacts it was made from, where they are still there, hold what they held then: one that was deleted and
    /// made again may not, such as answers of a language model.
    ///
    /// # Errors
    /// Exit 3: one holds something else.
    pub fn check_inputs(&self, store: &Store) -> Result<()> {
        for input in &self.inputs {
            let Some(now) = Self::find(store, &input.step, &input.fingerprint)? else { continue };
            if now.digest != input.digest {
                return Err(input_error(format!(
                    "{} {} was made from another {} than is there now (digest {}, now {}); make it anew with: codepair run \
                     --force {}",
                    self.step, self.fingerprint, input.step, input.digest, now.digest, self.step
                )));
            }
        }
        Ok(())
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
            .ok_or_else(|| input_error(format!("{} {} has no file {name}", self.step, self.fingerprint)))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attempt, ExitStatus, Published, exit_status};

    fn publish(store: &Store, step: &str, fingerprint: &str, content: &str, inputs: Vec<InputRecord>) -> Manifest {
        let mut attempt = Attempt::new(store, step, fingerprint);
        attempt.add_file("pages", "a.html", content.to_owned()).unwrap();
        let Published::Ours(manifest) = attempt.publish(|manifest| manifest.inputs = inputs).unwrap() else { panic!() };
        manifest
    }

    /// The files of an old store are read by every later version: a change of this text needs a new format.
    #[test]
    fn the_format_is_frozen() {
        let manifest = Manifest {
            format: FORMAT,
            step: "train:a".into(),
            revision: 1,
            fingerprint: "f1".into(),
            digest: "d1".into(),
            attempt: "01".into(),
            attempts: 2,
            pipeline: "p".into(),
            inputs: vec![InputRecord { step: "prepare".into(), fingerprint: "f0".into(), digest: "d0".into() }],
            config: serde_json::json!({ "epochs": 1 }),
            sources: BTreeMap::from([("s".into(), "00".into())]),
            outputs: vec![Output {
                dataset: "models".into(),
                path: "attempt-01/models/model.safetensors".into(),
                rows: None,
                bytes: 5_000_000,
                sha256: "aa".into(),
                blocks: vec!["b1".into(), "b2".into()],
                schema_version: None,
                volatile: false,
            }],
            rejected: BTreeMap::from([("no_text".into(), 3)]),
            incomplete: None,
            shard: None,
            notes: BTreeMap::from([("parameters".into(), 7.into())]),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            ended_at: jiff::Timestamp::UNIX_EPOCH,
            peak_memory_bytes: 1,
            host: "h".into(),
            git_commit: None,
            job_id: None,
            version: "0.1.0".into(),
        };
        let text = serde_json::to_string_pretty(&manifest).unwrap();
        insta::assert_snapshot!(text);
        let read = Manifest::parse(text.as_bytes(), "train:a", "m").unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&manifest).unwrap());
    }

    #[test]
    fn a_newer_format_is_not_called_damaged() {
        for (text, words) in [
            (r#"{"format": 9, "step": {}}"#, "newer codepair"),
            (r#"{"format": 1, "step": {}}"#, "damaged"),
            ("{", "damaged"),
        ] {
            let error = Manifest::parse(text.as_bytes(), "ingest", "m").unwrap_err();
            assert!(format!("{error:#}").contains(words), "{error:#}");
            assert_eq!(exit_status(&error), ExitStatus::MissingInput);
        }
    }

    #[test]
    fn fingerprints_may_be_shortened_where_that_is_clear() {
        let store = Store::memory();
        for fingerprint in ["abc1", "abc2", "d0"] {
            publish(&store, "report", fingerprint, "x", Vec::new());
        }
        assert_eq!(Manifest::find_short(&store, "report", "abc2").unwrap().fingerprint, "abc2");
        assert_eq!(Manifest::find_short(&store, "report", "d").unwrap().fingerprint, "d0");
        for (short, words) in [("abc", "several"), ("e", "it holds abc1, abc2, d0"), ("", "no artifact")] {
            let error = Manifest::find_short(&store, "report", short).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn inputs_that_were_made_again_with_other_content_are_found() {
        let store = Store::memory();
        let made_from = |manifest: &Manifest| InputRecord {
            step: manifest.step.clone(),
            fingerprint: manifest.fingerprint.clone(),
            digest: manifest.digest.clone(),
        };
        let first = publish(&store, "ingest", "f0", "one", Vec::new());
        let second = publish(&store, "report", "f1", "page", vec![made_from(&first)]);
        second.check_inputs(&store).unwrap();
        let all = store.list("artifacts/ingest").unwrap().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        store.delete(&all).unwrap();
        second.check_inputs(&store).unwrap();
        publish(&store, "ingest", "f0", "two", Vec::new());
        let error = second.check_inputs(&store).unwrap_err();
        assert!(error.to_string().contains("--force report"), "{error}");
        assert_eq!(exit_status(&error), ExitStatus::MissingInput);
    }

    /// The golden file without the header of its tool.
    fn golden() -> Vec<u8> {
        let text = include_str!("snapshots/codepair_runtime__manifest__tests__the_format_is_frozen.snap");
        text.splitn(3, "---\n").nth(2).unwrap().as_bytes().to_vec()
    }

    proptest::proptest! {
        /// However a manifest is damaged, it is read or refused, with advice.
        #[test]
        fn fuzz_manifest(bytes in codepair_mutations::mutated(
            vec![golden()], &["{", "}", "\"", ":", ",", "null", "\"format\": 2", "-1", "1e999"],
        )) {
            assert!(Manifest::parse(&golden(), "ingest", "m.json").is_ok());
            if let Err(error) = Manifest::parse(&bytes, "ingest", "m.json") {
                let said = error.to_string();
                let has_advice = said.contains("--force ingest") || said.contains("newer");
                proptest::prop_assert!(said.contains("m.json") && has_advice, "{}", said);
            }
        }
    }
}
