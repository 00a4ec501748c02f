//! A step divided among processes: each makes a shard, and who sees that all are there puts them together, to the same bytes as
//! one process would have written.
//!
//! A row's `ordinal` in a shard is its [`Position`] among the rows of all shards, not its number: which number that is is known
//! only when all rows are there.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use anyhow::Result;
use arrow::array::RecordBatch;
use serde_json::{Map, Value};

use crate::{Manifest, Store, artifact_path, input_error, parquet_io};

/// More would have next to nothing to do each.
const MOST_SHARDS: u32 = 4096;

/// One of so many processes that share a step's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Default for Shard {
    /// All of the work.
    fn default() -> Self {
        Self { index: 1, of: 1 }
    }
}

impl Shard {
    /// Whether this is all of the work.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.of == 1
    }

    /// Whether what has this hash is its share.
    #[must_use]
    pub fn has(self, hash: u64) -> bool {
        hash % u64::from(self.of) == u64::from(self.index - 1)
    }

    /// The name of its record.
    pub(crate) fn file(self) -> String {
        format!("shard-{}-of-{}.json", self.index, self.of)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) && of <= MOST_SHARDS => Ok(Self { index, of }),
            _ => Err(format!("expected I/N, the I-th of N shards, from 1/N to N/N, with N at most {MOST_SHARDS}")),
        }
    }
}

/// Where a row stands among those of all shards: what it was made of, counted alike by all, and which of several made of that
/// it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// Bits for what was made of one thing.
const WITHIN_BITS: u32 = 32;

impl Position {
    /// The place of what is made of the `of`-th thing: before it others, of things before it.
    #[must_use]
    pub fn of(of: u64) -> Self {
        Self(of << WITHIN_BITS)
    }

    /// The next place within the same thing.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As an ordinal.
    #[must_use]
    pub fn ordinal(self) -> u64 {
        self.0
    }
}

/// The shards of a step's artifact.
pub struct Shards {
    pub(crate) store: Store,
    step: String,
    fingerprint: String,
    of: u32,
    /// Those that are there.
    pub(crate) made: Vec<Manifest>,
    missing: Vec<u32>,
}

impl Shards {
    /// Those of `of` shards that are there.
    ///
    /// # Errors
    /// Exit 3: one is damaged, or is not what its name says.
    pub(crate) fn find(store: &Store, step: &str, fingerprint: &str, of: u32) -> Result<Self> {
        let (step, fingerprint) = (step.to_owned(), fingerprint.to_owned());
        let mut own = Self { store: store.clone(), step, fingerprint, of, made: Vec::new(), missing: Vec::new() };
        let mut attempts = BTreeSet::new();
        for index in 1..=of {
            let shard = Shard { index, of };
            let path = own.path(shard);
            let place = format!("{}/{path}", store.url());
            let Some(bytes) = store.find(&path)? else {
                own.missing.push(index);
                continue;
            };
            let made = Manifest::parse(&bytes, &own.step, &place)?;
            let is_it = made.shard.as_deref() == Some(shard.to_string().as_str())
                && (&made.step, &made.fingerprint) == (&own.step, &own.fingerprint)
                && attempts.insert(made.attempt.clone());
            if !is_it {
                return Err(input_error(format!(
                    "{place} is no shard {shard} of {} {}, or another's twice; delete it and make the shard again",
                    own.step, own.fingerprint
                )));
            }
            own.made.push(made);
        }
        Ok(own)
    }

    fn path(&self, shard: Shard) -> String {
        format!("{}/{}", artifact_path(&self.step, &self.fingerprint), shard.file())
    }

    /// Whether a shard is there.
    pub(crate) fn has(&self, shard: Shard) -> bool {
        !self.missing.contains(&shard.index)
    }

    /// The numbers of those that are not there, in words; nothing where all are.
    pub(crate) fn missing(&self) -> Option<String> {
        let missing = self.missing.iter().map(|index| Shard { index: *index, of: self.of }.to_string());
        (!self.missing.is_empty()).then(|| missing.collect::<Vec<_>>().join(", "))
    }

    /// Deletes what they wrote, once it is part of an artifact.
    pub(crate) fn delete(&self) -> Result<()> {
        // The records first: one without its parts would stand for a shard that is not there.
        let mut paths: Vec<String> = (1..=self.of).map(|index| self.path(Shard { index, of: self.of })).collect();
        for made in &self.made {
            let attempt = format!("{}/attempt-{}", artifact_path(&self.step, &self.fingerprint), made.attempt);
            paths.extend(self.store.list(&attempt)?.into_iter().map(|(path, _)| path));
        }
        self.store.delete(&paths)
    }

    /// The batches of a dataset, shard by shard.
    pub fn batches<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        self.made.iter().flat_map(move |made| self.batches_of(made, dataset))
    }

    pub(crate) fn batches_of<'a>(
        &'a self,
        made: &'a Manifest,
        dataset: &'a str,
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        made.files(dataset).flat_map(move |output| {
            let read = made.read(&self.store, output).map_err(|error| {
                let record = format!("{}/{}", artifact_path(&self.step, &self.fingerprint), shard_file(made));
                let place = format!("{}/{record}", self.store.url());
                input_error(format!("{error}; or delete {place} and make the shard again with --shard"))
            });
            parquet_io::batches_on_disk(read)
        })
    }

    /// Rows that all left out, by reason.
    #[must_use]
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (reason, rows) in self.made.iter().flat_map(|made| &made.rejected) {
            *all.entry(reason.clone()).or_default() += rows;
        }
        all
    }

    /// What is missing in them, in words.
    #[must_use]
    pub fn incomplete(&self) -> Option<String> {
        let said: BTreeSet<&str> = self.made.iter().filter_map(|made| made.incomplete.as_deref()).collect();
        (!said.is_empty()).then(|| said.into_iter().collect::<Vec<_>>().join("; "))
    }

    /// What they noted: numbers are added up, of other values the first counts.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<String, Value> {
        let mut all = Value::Object(Map::new());
        for made in &self.made {
            add_up(&mut all, &made.notes.clone().into_iter().collect::<Map<_, _>>().into());
        }
        let Value::Object(all) = all else { return BTreeMap::new() };
        all.into_iter().collect()
    }
}

/// The name of a shard's record.
fn shard_file(made: &Manifest) -> String {
    let shard = made.shard.as_deref().and_then(|shard| shard.parse::<Shard>().ok());
    shard.map_or_else(|| "manifest.json".to_owned(), Shard::file)
}

fn add_up(sum: &mut Value, more: &Value) {
    match (sum, more) {
        (Value::Object(sum), Value::Object(more)) => {
            for (key, value) in more {
                match sum.get_mut(key) {
                    Some(there) => add_up(there, value),
                    None => drop(sum.insert(key.clone(), value.clone())),
                }
            }
        }
        (sum @ Value::Number(_), Value::Number(more)) => {
            *sum = match (sum.as_u64(), more.as_u64()) {
                (Some(one), Some(other)) => (one + other).into(),
                _ => (sum.as_f64().unwrap_or(0.0) + more.as_f64().unwrap_or(0.0)).into(),
            };
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_and_share_the_work() {
        for wrong in ["", "1", "0/2", "3/2", "a/b", "1/0", "1/2/3", "1/4097"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].map(|text| text.parse().unwrap()).into();
        assert_eq!(shards[1].to_string(), "2/3");
        assert!((0..30).all(|hash| shards.iter().filter(|shard| shard.has(hash)).count() == 1));
        assert!(Shard::default().is_all() && Shard::default().has(7));
        assert!(Position::of(1) > Position::of(0).next() && Position::of(1).next() > Position::of(1));
    }

    #[test]
    fn numbers_are_added_up() {
        let mut sum = serde_json::json!({"a": {"cost": 0.5, "sent": 2, "model": "m"}, "b": 1});
        add_up(&mut sum, &serde_json::json!({"a": {"cost": 0.25, "sent": 3, "model": "n", "new": 1}, "c": 2}));
        let wanted = serde_json::json!({"a": {"cost": 0.75, "sent": 5, "model": "m", "new": 1}, "b": 1, "c": 2});
        assert_eq!(sum, wanted);
    }
}
