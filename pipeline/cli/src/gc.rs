//! `codepair gc`: attempts that never became an artifact or lost the race to, artifacts that `--force` superseded, and checkpoints
//! that nobody goes on from: of finished trainings, and of those that no pipeline's newest plan names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use codepair_runtime::{ExitStatus, Manifest, Store, artifact_path, newest_plan};

use crate::arguments::{Arguments, GcOptions};
use crate::table::{Table, print};

/// What has a younger object may still be in use: an attempt that wrote nothing for three days gives up.
const KEPT_DAYS: i64 = 7;

/// Objects that no artifact needs any more.
struct Leftover {
    prefix: String,
    /// Why.
    what: &'static str,
    paths: Vec<String>,
    bytes: u64,
    age_days: i64,
}

/// Shows what could be deleted, and with `--delete` deletes it.
pub(crate) fn gc(arguments: &Arguments, options: &GcOptions) -> Result<ExitStatus> {
    arguments.pipeline.refuse_sets(&["name", "store"])?;
    let (_, store) = arguments.pipeline.open()?;
    // Only who deletes needs the store's own clock, and may write to ask for it.
    let now = if options.delete { store_now(&store)? } else { jiff::Timestamp::now().as_second() };
    let leftovers = leftovers(&store, now)?;
    let mut table = Table::new(&["left over", "what", "MB", "age in days", ""]);
    for leftover in &leftovers {
        let old = leftover.age_days >= KEPT_DAYS;
        let verdict = match (old, options.delete) {
            (false, _) => "kept: it may still be in use",
            (true, false) => "can be deleted",
            (true, true) => "deleted",
        };
        let megabytes = format!("{:.1}", leftover.bytes as f64 / 1e6);
        table.row(&[&leftover.prefix, leftover.what, &megabytes, &leftover.age_days.to_string(), verdict]);
        if old && options.delete {
            store.delete(&leftover.paths)?;
        }
    }
    if leftovers.is_empty() {
        print("nothing is left over");
    } else {
        print(&table.to_string());
    }
    Ok(ExitStatus::Done)
}

/// The time by the store's own clock: that of an object written just now.
fn store_now(store: &Store) -> Result<i64> {
    let probe = format!("runs/gc-{}", uuid::Uuid::now_v7());
    store.put(&probe, "")?;
    let written = store.list("runs")?.into_iter().find(|(path, _)| *path == probe);
    store.delete(&[probe])?;
    Ok(written.map_or_else(|| jiff::Timestamp::now().as_second(), |(_, meta)| meta.last_modified.timestamp()))
}

fn leftovers(store: &Store, now: i64) -> Result<Vec<Leftover>> {
    let mut artifacts: BTreeMap<String, Vec<(String, u64, i64)>> = BTreeMap::new();
    for (path, meta) in store.list("artifacts")? {
        let folder = path.split('/').take(3).collect::<Vec<_>>().join("/");
        artifacts.entry(folder).or_default().push((path, meta.size, meta.last_modified.timestamp()));
    }
    let planned = planned(store)?;
    let mut found = Vec::new();
    for (folder, objects) in artifacts {
        let has = |name: &str| objects.iter().any(|(path, ..)| *path == format!("{folder}/{name}"));
        let winner = if has("manifest.json") { winner(store, &folder)? } else { Winner::None };
        let shards = shards(store, &folder, objects.iter().map(|(path, ..)| path.as_str()))?;
        let mut groups: BTreeMap<String, (&'static str, Vec<usize>)> = BTreeMap::new();
        for (at, (path, ..)) in objects.iter().enumerate() {
            let rest = &path[folder.len() + 1..];
            let (first, deeper) = rest.split_once('/').map_or((rest, false), |(first, _)| (first, true));
            let what = match first {
                "superseded.json" => continue,
                _ if has("superseded.json") => "superseded artifact",
                "checkpoints" if deeper && winner != Winner::None => "checkpoints of a finished training",
                "checkpoints" if deeper && !planned.contains(&folder) => "checkpoints that no plan needs",
                _ if deeper && first.starts_with("attempt-") && winner.is_other_than(first) => "attempt",
                // It goes with its attempt: one without its parts would stand for a shard that is not there.
                _ if shards.contains_key(first) && winner != Winner::Unknown => "attempt",
                _ => continue,
            };
            let first = shards.get(first).map_or(first, String::as_str);
            let prefix = if what == "superseded artifact" { folder.clone() } else { format!("{folder}/{first}") };
            groups.entry(prefix).or_insert((what, Vec::new())).1.push(at);
        }
        found.extend(groups.into_iter().map(|(prefix, (what, members))| {
            // Who reads a superseded artifact may have begun to before it was superseded.
            let is_all = what == "superseded artifact";
            let times = objects.iter().enumerate().filter(|(at, _)| is_all || members.contains(at));
            let newest = times.map(|(_, object)| object.2).max().unwrap_or(now);
            Leftover {
                prefix,
                what,
                bytes: members.iter().map(|&at| objects[at].1).sum(),
                paths: records_first(members.iter().map(|&at| objects[at].0.clone()).collect()),
                age_days: (now - newest) / 86_400,
            }
        }));
    }
    Ok(found)
}

/// A record without its parts would stand for a shard that is not there.
fn records_first(mut paths: Vec<String>) -> Vec<String> {
    paths.sort_by_key(|path| !path.ends_with(".json"));
    paths
}

/// The records of shards in an artifact's folder, and the attempt that each names; a damaged one is left, with a warning.
fn shards<'a>(store: &Store, folder: &str, paths: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>> {
    let mut shards = BTreeMap::new();
    for path in paths {
        let name = &path[folder.len() + 1..];
        if !name.starts_with("shard-") {
            continue;
        }
        match Manifest::parse(&store.get(path)?, "", &format!("{}/{path}", store.url())) {
            Ok(made) => drop(shards.insert(name.to_owned(), format!("attempt-{}", made.attempt))),
            Err(error) => tracing::warn!("{error:#}; it is passed over"),
        }
    }
    Ok(shards)
}

/// Which attempt became the artifact.
#[derive(PartialEq)]
enum Winner {
    None,
    Attempt(String),
    /// The manifest cannot be read, so nobody knows: all attempts stay.
    Unknown,
}

impl Winner {
    fn is_other_than(&self, attempt: &str) -> bool {
        match self {
            Self::None => true,
            Self::Attempt(winner) => winner != attempt,
            Self::Unknown => false,
        }
    }
}

fn winner(store: &Store, folder: &str) -> Result<Winner> {
    let path = format!("{folder}/manifest.json");
    let step = folder.split('/').nth(1).unwrap_or_default();
    Ok(match Manifest::parse(&store.get(&path)?, step, &format!("{}/{path}", store.url())) {
        Ok(manifest) => Winner::Attempt(format!("attempt-{}", manifest.attempt)),
        Err(error) => {
            tracing::warn!("{error:#}; it is passed over");
            Winner::Unknown
        }
    })
}

/// The folders of the artifacts that the newest plan of some pipeline names.
fn planned(store: &Store) -> Result<BTreeSet<String>> {
    let mut planned = BTreeSet::new();
    for pipeline in store.folders("runs")? {
        for step in newest_plan(store, &pipeline)?.into_iter().flat_map(|plan| plan.steps) {
            planned.insert(artifact_path(&step.name, &step.fingerprint));
        }
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_runtime::{Attempt, supersede};

    fn artifact(store: &Store, step: &str, fingerprint: &str) -> String {
        let mut attempt = Attempt::new(store, step, fingerprint);
        attempt.add_file("pages", "a.html", vec![1]).unwrap();
        let prefix = attempt.prefix();
        attempt.publish(|_| {}).unwrap();
        prefix
    }

    #[test]
    fn only_what_nobody_needs_is_left_over() {
        let store = Store::memory();
        let attempt = Attempt::new(&store, "report", "f1");
        artifact(&store, "report", "f1");
        store.put(&format!("{}/pages/a.html", attempt.prefix()), "half").unwrap();
        // Going on, and named by the newest plan of a pipeline.
        store.put("artifacts/train-a/f1/checkpoints/1/model", "on").unwrap();
        let step = r#"{"name": "train:a", "stage": "train", "revision": 1, "fingerprint": "f1", "generation": 0, "upstream": {},
            "description": {"model": "a", "config": null, "overrides": null, "sources": {}, "inputs": [], "schemas": {}}}"#;
        let plan = format!(
            r#"{{"format": 1, "run": "r", "pipeline": "p", "created_at": "1970-01-01T00:00:00Z", "tables": {{}}, "steps": [{step}]}}"#
        );
        store.put("runs/p/r/plan.json", plan).unwrap();
        store.put("artifacts/train-a/f2/checkpoints/1/model", "left").unwrap();
        let old = artifact(&store, "ingest", "f1");
        supersede(&store, "ingest", "f1").unwrap();
        artifact(&store, "ingest", "f2");
        // Of an artifact that was never put together.
        let shard = artifact(&store, "ingest", "f3");
        let record = store.get("artifacts/ingest/f3/manifest.json").unwrap();
        store.put("artifacts/ingest/f3/shard-1-of-2.json", record).unwrap();
        store.delete(&["artifacts/ingest/f3/manifest.json".to_owned()]).unwrap();
        // Nobody knows which attempt a damaged manifest names.
        artifact(&store, "synth", "f1");
        store.put("artifacts/synth/f1/manifest.json", "{").unwrap();

        let now = jiff::Timestamp::now().as_second() + 8 * 86_400;
        let found = leftovers(&store, now).unwrap();
        let said: Vec<(&str, &str, usize)> =
            found.iter().map(|left| (left.prefix.as_str(), left.what, left.paths.len())).collect();
        let attempt = attempt.prefix();
        assert_eq!(
            said,
            [
                ("artifacts/ingest/f1", "superseded artifact", 2),
                (shard.as_str(), "attempt", 2),
                (attempt.as_str(), "attempt", 1),
                ("artifacts/train-a/f2/checkpoints", "checkpoints that no plan needs", 1),
            ]
        );
        assert!(found[0].paths.iter().any(|path| path.starts_with(&old)));
        assert!(found.iter().all(|left| left.age_days >= KEPT_DAYS));
        assert!(leftovers(&store, now - 2 * 86_400).unwrap().iter().all(|left| left.age_days < KEPT_DAYS));
    }
}
