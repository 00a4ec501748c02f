//! Checkpoints: what is needed to go on as if nothing had happened, published like an artifact: own manifest last.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use codepair_runtime::{Store, sha256};
use codepair_schemas::rows::TrainingStep;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An attempt's older checkpoints are deleted once it has this many newer ones.
const KEPT: usize = 2;
const MANIFEST: &str = "manifest.json";

/// Where the training stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epoch, from 1.
    pub(crate) epoch: u32,
    /// Batches of the epoch that are done.
    pub(crate) batch: usize,
    /// Optimizer steps so far.
    pub(crate) step: u64,
    /// Of those, steps that were skipped since their gradients were no numbers.
    #[serde(default)]
    pub(crate) skipped: u64,
    /// Those of them since the last that was not.
    #[serde(default)]
    pub(crate) streak: u64,
    /// What is least of the best epoch, its validation loss or a score with its sign turned, as bits: text would round it.
    pub(crate) best_loss_bits: u64,
    /// The bits a byte of that validation, where the targets have bytes.
    #[serde(default)]
    pub(crate) best_bits_per_byte: Option<f64>,
    /// Its epoch; 0 before the first validation.
    pub(crate) best_epoch: u32,
    /// Training stopped early, or all epochs are done.
    pub(crate) finished: bool,
    /// Seconds of training so far, earlier attempts included.
    pub(crate) elapsed_seconds: f64,
    /// Rows of `training_steps` so far.
    pub(crate) rows: Vec<TrainingStep>,
}

/// Files of a checkpoint by name.
pub(crate) type Files = BTreeMap<String, Bytes>;

/// The version of the format that is written.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    progress: Progress,
    sha256: BTreeMap<String, String>,
}

/// Writes checkpoints while training goes on, one at a time.
pub(crate) struct Saver {
    checkpoints: Arc<Checkpoints>,
    under_way: Option<JoinHandle<Result<()>>>,
}

impl Saver {
    pub(crate) fn new(checkpoints: Arc<Checkpoints>) -> Self {
        Self { checkpoints, under_way: None }
    }

    /// Begins to write one, once the one before is written.
    ///
    /// # Errors
    /// That of the one before.
    pub(crate) fn save(&mut self, progress: Progress, files: Files) -> Result<()> {
        self.wait()?;
        let checkpoints = Arc::clone(&self.checkpoints);
        self.under_way = Some(std::thread::Builder::new().spawn(move || checkpoints.save(&progress, files))?);
        Ok(())
    }

    /// Waits for what is being written.
    ///
    /// # Errors
    /// It could not be.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let Some(thread) = self.under_way.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(anyhow!("writing a checkpoint panicked")))
    }
}

/// The checkpoints of one training, as one attempt at it sees them. Others may train the same: each deletes its own alone.
pub(crate) struct Checkpoints {
    pub(crate) store: Store,
    pub(crate) folder: String,
    pub(crate) attempt: Uuid,
}

impl Checkpoints {
    /// Writes a checkpoint, and deletes what this attempt wrote before its newest two.
    pub(crate) fn save(&self, progress: &Progress, files: Files) -> Result<()> {
        let place = format!("{}/{:010}-{}", self.folder, progress.step, self.attempt);
        // Its files would be others than its manifest says.
        ensure!(self.store.find(&format!("{place}/{MANIFEST}"))?.is_none(), "step {} has a checkpoint", progress.step);
        let sha256 = files.iter().map(|(name, bytes)| (name.clone(), sha256(bytes))).collect();
        for (name, bytes) in files {
            self.store.put(&format!("{place}/{name}"), bytes)?;
        }
        let manifest = Manifest { format: FORMAT, progress: progress.clone(), sha256 };
        self.store.put_new(&format!("{place}/{MANIFEST}"), serde_json::to_vec(&manifest)?)?;
        self.prune()
    }

    fn prune(&self) -> Result<()> {
        let own = format!("-{}", self.attempt);
        let mut whole: Vec<String> = self.whole()?.into_iter().filter(|name| name.ends_with(&own)).collect();
        whole.truncate(whole.len().saturating_sub(KEPT));
        for old in whole {
            let paths = self.store.list(&format!("{}/{old}", self.folder))?;
            self.store.delete(&paths.into_iter().map(|(path, _)| path).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The names of those that have their manifest, oldest first: torn ones count for nothing.
    fn whole(&self) -> Result<Vec<String>> {
        let name = |path: &str| Some(path.strip_suffix(&format!("/{MANIFEST}"))?.rsplit_once('/')?.1.to_owned());
        Ok(self.store.list(&self.folder)?.iter().filter_map(|(path, _)| name(path)).collect())
    }

    /// Goes on from the newest checkpoint that `restore` takes; one that is damaged, or of another version, is passed over with
    /// a warning. burn panics at what does not fit, which is to say no more than that.
    ///
    /// # Errors
    /// The store cannot be read: what it holds may be whole.
    pub(crate) fn resume(&self, mut restore: impl FnMut(Progress, &Files) -> Result<()>) -> Result<()> {
        for name in self.whole()?.into_iter().rev() {
            let restored = match self.read(&name)? {
                Ok((progress, files)) => catch_unwind(AssertUnwindSafe(|| restore(progress, &files)))
                    .unwrap_or_else(|_| Err(anyhow!("it was not written by this version"))),
                Err(fault) => Err(fault),
            };
            match restored {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!("the checkpoint {name} is passed over: {error:#}"),
            }
        }
        Ok(())
    }

    /// A checkpoint, or what is wrong with it.
    fn read(&self, name: &str) -> Result<Result<(Progress, Files)>> {
        let place = format!("{}/{name}", self.folder);
        let mut found = Files::new();
        let Some(manifest) = self.store.find(&format!("{place}/{MANIFEST}"))? else {
            return Ok(Err(anyhow!("it was deleted meanwhile")));
        };
        let manifest = match parse(&manifest) {
            Ok(manifest) => manifest,
            Err(fault) => return Ok(Err(fault)),
        };
        for (name, digest) in &manifest.sha256 {
            match self.store.find(&format!("{place}/{name}"))? {
                Some(bytes) if sha256(&bytes) == *digest => drop(found.insert(name.clone(), bytes)),
                Some(_) => return Ok(Err(anyhow!("{name} is damaged"))),
                None => return Ok(Err(anyhow!("{name} is missing"))),
            }
        }
        Ok(Ok((manifest.progress, found)))
    }
}

fn parse(bytes: &[u8]) -> Result<Manifest> {
    let manifest: Manifest = serde_json::from_slice(bytes)?;
    ensure!(manifest.format == FORMAT, "its format is {}, and this codepair writes {FORMAT}", manifest.format);
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoints(store: &Store) -> Checkpoints {
        Checkpoints { store: store.clone(), folder: "c".to_owned(), attempt: Uuid::now_v7() }
    }

    /// A step whose checkpoint makes whoever loads it panic.
    const PANICS: u64 = 99;

    fn save(to: &Checkpoints, step: u64) {
        let progress = Progress { step, best_loss_bits: 1.5f64.to_bits(), ..Progress::default() };
        to.save(&progress, Files::from([("model".into(), Bytes::from(vec![step as u8]))])).unwrap();
    }

    /// The step from which a training would go on; those in `refused` cannot be loaded.
    fn resumed(store: &Store, refused: &[u64]) -> Option<u64> {
        let mut step = None;
        let restore = |progress: Progress, files: &Files| {
            ensure!(!refused.contains(&progress.step), "another version");
            assert!(progress.step != PANICS, "as burn does at bytes that it did not write");
            assert_eq!(files["model"].to_vec(), [progress.step as u8]);
            step = Some(progress.step);
            Ok(())
        };
        checkpoints(store).resume(restore).unwrap();
        step
    }

    #[test]
    fn the_newest_whole_checkpoint_counts() {
        let store = Store::memory();
        assert_eq!(resumed(&store, &[]), None);
        let own = checkpoints(&store);
        (1..=3).for_each(|step| save(&own, step));
        assert_eq!(store.folders("c").unwrap().len(), KEPT);
        assert_eq!((resumed(&store, &[]), resumed(&store, &[3]), resumed(&store, &[2, 3])), (Some(3), Some(2), None));
        let damaged = store.folders("c").unwrap()[1].clone();
        store.put(&format!("c/{damaged}/model"), vec![0]).unwrap();
        assert_eq!(resumed(&store, &[]), Some(2));
        save(&checkpoints(&store), PANICS);
        assert_eq!(resumed(&store, &[]), Some(2));
    }

    #[test]
    fn a_step_has_one_checkpoint() {
        let store = Store::memory();
        let own = checkpoints(&store);
        save(&own, 1);
        let again =
            own.save(&Progress { step: 1, ..Progress::default() }, Files::from([("model".into(), Bytes::new())]));
        assert!(again.unwrap_err().to_string().contains("step 1 has a checkpoint"));
        assert_eq!(resumed(&store, &[]), Some(1));
    }

    #[test]
    fn torn_ones_push_out_nothing() {
        let store = Store::memory();
        let own = checkpoints(&store);
        save(&own, 1);
        // Two that were killed before their manifests, by this attempt and by another.
        store.put(&format!("c/0000000008-{}/model", own.attempt), vec![8]).unwrap();
        store.put("c/0000000009-torn/model", vec![9]).unwrap();
        save(&own, 2);
        save(&own, 3);
        assert_eq!((resumed(&store, &[]), resumed(&store, &[3])), (Some(3), Some(2)));
    }

    #[test]
    fn two_trainings_of_the_same_do_not_prune_each_other() {
        let store = Store::memory();
        let (slow, quick) = (checkpoints(&store), checkpoints(&store));
        save(&slow, 1);
        (10..=15).for_each(|step| save(&quick, step));
        save(&slow, 2);
        assert_eq!(resumed(&store, &[14, 15]), Some(2));
    }

    /// Later versions read the checkpoints of an old store, or pass them over: a change of this text needs a new format.
    #[test]
    fn the_format_is_frozen() {
        let progress = Progress { epoch: 2, batch: 3, step: 4, ..Progress::default() };
        let manifest = Manifest { format: FORMAT, progress, sha256: BTreeMap::from([("model".into(), "aa".into())]) };
        insta::assert_snapshot!(serde_json::to_string_pretty(&manifest).unwrap());
    }
}
