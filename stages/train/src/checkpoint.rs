//! Checkpoints: what is needed to go on as if nothing had happened, published like an artifact: own manifest last.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use codepair_runtime::{Store, sha256};
use codepair_schemas::rows::TrainingStep;
use serde::{Deserialize, Serialize};

/// Older whole checkpoints are deleted once this many newer ones exist.
const KEPT: usize = 2;

/// Where the training stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epoch, from 1.
    pub(crate) epoch: u32,
    /// Batches of the epoch that are done.
    pub(crate) batch: usize,
    /// Optimizer steps so far.
    pub(crate) step: u64,
    /// The best validation loss, as bits: text would round it.
    pub(crate) best_loss_bits: u64,
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

#[derive(Serialize, Deserialize)]
struct Manifest {
    progress: Progress,
    sha256: BTreeMap<String, String>,
}

/// Writes a checkpoint and deletes the oldest.
pub(crate) fn save(store: &Store, folder: &str, progress: &Progress, files: Files) -> Result<()> {
    let place = format!("{folder}/{:010}-{}", progress.step, uuid::Uuid::now_v7());
    let digests = files.iter().map(|(name, bytes)| (name.clone(), sha256(bytes))).collect();
    for (name, bytes) in files {
        store.put(&format!("{place}/{name}"), bytes)?;
    }
    let manifest = Manifest { progress: progress.clone(), sha256: digests };
    store.put_new(&format!("{place}/manifest.json"), serde_json::to_vec(&manifest)?)?;
    let mut all = store.folders(folder)?;
    all.truncate(all.len().saturating_sub(KEPT));
    for old in all {
        let paths = store.list(&format!("{folder}/{old}"))?;
        store.delete(&paths.into_iter().map(|(path, _)| path).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The newest whole checkpoint; torn and damaged ones are passed over with a warning.
pub(crate) fn newest(store: &Store, folder: &str) -> Result<Option<(Progress, Files)>> {
    let mut all = store.folders(folder)?;
    all.reverse();
    for name in all {
        match read(store, &format!("{folder}/{name}")) {
            Ok(found) => return Ok(Some(found)),
            Err(error) => tracing::warn!("the checkpoint {name} is passed over: {error:#}"),
        }
    }
    Ok(None)
}

fn read(store: &Store, place: &str) -> Result<(Progress, Files)> {
    let manifest: Manifest = serde_json::from_slice(&store.get(&format!("{place}/manifest.json"))?)?;
    let mut files = Files::new();
    for (name, digest) in &manifest.sha256 {
        let bytes = store.get(&format!("{place}/{name}"))?;
        (sha256(&bytes) == *digest).then_some(()).with_context(|| format!("{name} is damaged"))?;
        files.insert(name.clone(), bytes);
    }
    Ok((manifest.progress, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_checkpoint_counts() {
        let store = Store::memory();
        let make = |step| {
            let progress = Progress { step, best_loss_bits: 1.5f64.to_bits(), ..Progress::default() };
            save(&store, "c", &progress, Files::from([("model".into(), Bytes::from(vec![step as u8]))])).unwrap();
        };
        assert!(newest(&store, "c").unwrap().is_none());
        (1..=3).for_each(make);
        assert_eq!(store.folders("c").unwrap().len(), KEPT);
        let (progress, files) = newest(&store, "c").unwrap().unwrap();
        assert_eq!((progress.step, files["model"].to_vec()), (3, vec![3]));
        // A torn one, without manifest, and a damaged one are passed over.
        store.put("c/0000000009-torn/model", vec![9]).unwrap();
        let damaged = store.folders("c").unwrap()[1].clone();
        store.put(&format!("c/{damaged}/model"), vec![0]).unwrap();
        assert_eq!(newest(&store, "c").unwrap().unwrap().0.step, 2);
    }
}
