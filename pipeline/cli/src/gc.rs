//! `codepair gc`: attempts that never became an artifact or lost the race to, and checkpoints of finished training.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{ExitStatus, Store};

use crate::arguments::{Arguments, GcOptions};
use crate::table::{Table, print};

/// An attempt whose newest object is younger may still be running.
const KEPT_DAYS: i64 = 7;

/// An attempt that no manifest names, or checkpoints that nobody needs any more.
struct Leftover {
    prefix: String,
    paths: Vec<String>,
    bytes: u64,
    age_days: i64,
}

/// Shows what could be deleted, and with `--delete` deletes it.
pub(crate) fn gc(arguments: &Arguments, options: &GcOptions) -> Result<ExitStatus> {
    let (_, store) = arguments.pipeline.open()?;
    let leftovers = leftovers(&store, store_now(&store)?)?;
    let mut table = Table::new(&["left over", "MB", "age in days", ""]);
    for leftover in &leftovers {
        let old = leftover.age_days >= KEPT_DAYS;
        let verdict = match (old, options.delete) {
            (false, _) => "kept: it may still be running",
            (true, false) => "can be deleted",
            (true, true) => "deleted",
        };
        let megabytes = format!("{:.1}", leftover.bytes as f64 / 1e6);
        table.row(&[&leftover.prefix, &megabytes, &leftover.age_days.to_string(), verdict]);
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
    let mut attempts: BTreeMap<String, (Leftover, i64)> = BTreeMap::new();
    let mut winners = Vec::new();
    for (path, meta) in store.list("artifacts")? {
        if path.ends_with("/manifest.json") && path.split('/').count() == 4 {
            let manifest: codepair_runtime::Manifest = serde_json::from_slice(&store.get(&path)?)?;
            winners.push(path.replace("manifest.json", &format!("attempt-{}", manifest.attempt)));
        }
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() > 4 && (parts[3].starts_with("attempt-") || parts[3] == "checkpoints") {
            let prefix = parts[..4].join("/");
            let empty = Leftover { prefix: prefix.clone(), paths: Vec::new(), bytes: 0, age_days: 0 };
            let (leftover, newest) = attempts.entry(prefix).or_insert((empty, 0));
            leftover.bytes += meta.size;
            leftover.paths.push(path);
            *newest = (*newest).max(meta.last_modified.timestamp());
        }
    }
    let finished = |prefix: &str| {
        let artifact = prefix.trim_end_matches("checkpoints");
        winners.iter().any(|winner| winner.starts_with(artifact))
    };
    attempts.retain(
        |prefix, _| {
            if prefix.ends_with("/checkpoints") { finished(prefix) } else { !winners.contains(prefix) }
        },
    );
    Ok(attempts
        .into_values()
        .map(|(leftover, newest)| Leftover { age_days: (now - newest) / 86_400, ..leftover })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_manifest_names_is_left_over() {
        let store = Store::memory();
        let attempt = codepair_runtime::Attempt::new(&store, "report", "f1");
        let mut winner = codepair_runtime::Attempt::new(&store, "report", "f1");
        winner.add_file("pages", "a.html", vec![1]).unwrap();
        winner.publish(|_| {}).unwrap();
        store.put(&format!("{}/pages/a.html", attempt.prefix()), "half").unwrap();
        store.put("artifacts/train-a/f1/checkpoints/1/model", "going on").unwrap();
        let now = jiff::Timestamp::now().as_second() + 8 * 86_400;
        let found = leftovers(&store, now).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].prefix.clone(), found[0].bytes, found[0].age_days >= KEPT_DAYS),
            (attempt.prefix(), 4, true)
        );
    }
}
