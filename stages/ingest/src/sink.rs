//! Where sources put their rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use anyhow::Result;
use codepair_runtime::{Attempt, PagedMap, Position, RowWriter, Shard};
use codepair_schemas::rows::{Function, Judgment, Pair, Problem, Query, Rejected, Source};

use twox_hash::XxHash3_64;

use crate::found::{Found, Identified};

/// Rows of one source so far; read = those of all datasets + rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Rows found.
    pub read: u64,
    /// Written to `functions`.
    pub functions: u64,
    /// Written to `pairs`.
    pub pairs: u64,
    /// Written to `problems`.
    pub problems: u64,
    /// Written to `queries`.
    pub queries: u64,
    /// Written to `judgments`.
    pub judgments: u64,
    /// Written to `rejected`.
    pub rejected: u64,
}

/// Rows of each split, by source.
pub(crate) type Splits = BTreeMap<String, BTreeMap<String, u64>>;

/// Writes the rows of all sources, numbers them and counts.
pub(crate) struct Sink {
    functions: RowWriter<Function>,
    pairs: RowWriter<Pair>,
    problems: RowWriter<Problem>,
    queries: RowWriter<Query>,
    judgments: RowWriter<Judgment>,
    rejected: RowWriter<Rejected>,
    reasons: BTreeMap<String, u64>,
    source: String,
    counts: Counts,
    /// Functions and pairs of each split, by source.
    splits: Splits,
    groups: BTreeMap<String, Groups>,
    ids: Ids,
    /// In words, of each source that has one.
    first_rejections: BTreeMap<String, String>,
    /// Where the next row stands, where this is one of several shards.
    position: Option<Position>,
}

/// Names rows: by a hash of the source's name and the row's content; equal rows are told apart by a count.
pub(crate) struct Ids {
    /// How often each hash came; empty once there are so many that they lie on disk.
    few: HashMap<u64, u64, BuildHasherDefault<AsItIs>>,
    many: Option<PagedMap>,
}

/// The groups of a split, told apart as long as they are few.
#[derive(Default)]
struct Groups {
    seen: HashSet<u64, BuildHasherDefault<AsItIs>>,
    /// The last one, for rows of one group mostly follow each other.
    last: String,
}

/// So many groups are told apart.
const MOST_GROUPS: usize = 100_000;

impl Groups {
    fn add(&mut self, group: &str) {
        if (self.last == group && !self.seen.is_empty()) || self.seen.len() > MOST_GROUPS {
            return;
        }
        group.clone_into(&mut self.last);
        self.seen.insert(XxHash3_64::oneshot(group.as_bytes()));
    }
}

impl std::fmt::Display for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seen.len() {
            1 => write!(f, "1 group"),
            count if count > MOST_GROUPS => write!(f, "more than {MOST_GROUPS} groups"),
            count => write!(f, "{count} groups"),
        }
    }
}

/// Hashes that are counted in memory at most, and bytes of those on disk that may be in memory.
const FEW: usize = 2 << 20;
const IDS_BYTES: u64 = 64 << 20;

/// A hash is hashed already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Ids {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { few: HashMap::default(), many: None })
    }

    fn count(&mut self, hash: u64) -> Result<u64> {
        if let Some(many) = &mut self.many {
            return many.update(hash, |times| times + 1);
        }
        let count = self.few.entry(hash).or_default();
        *count += 1;
        let count = *count;
        if self.few.len() > FEW {
            let mut many = PagedMap::new(IDS_BYTES)?;
            for (hash, count) in std::mem::take(&mut self.few) {
                many.update(hash, |_| count)?;
            }
            self.many = Some(many);
        }
        Ok(count)
    }

    pub(crate) fn next(&mut self, hash: u64) -> Result<String> {
        let count = self.count(hash)?;
        Ok(if count == 1 { format!("{hash:016x}") } else { format!("{hash:016x}-{count}") })
    }

    /// The hash that an id was made of.
    pub(crate) fn hash(id: &str) -> Result<u64> {
        Ok(u64::from_str_radix(id.split('-').next().unwrap_or_default(), 16)?)
    }
}

impl Sink {
    /// A sink into an attempt.
    ///
    /// # Errors
    /// None in practice: the datasets exist.
    pub(crate) fn new(attempt: &Attempt, shard: Shard) -> Result<Self> {
        Ok(Self {
            functions: attempt.row_writer()?,
            pairs: attempt.row_writer()?,
            problems: attempt.row_writer()?,
            queries: attempt.row_writer()?,
            judgments: attempt.row_writer()?,
            rejected: attempt.row_writer()?,
            reasons: BTreeMap::new(),
            source: String::new(),
            counts: Counts::default(),
            splits: BTreeMap::new(),
            groups: BTreeMap::new(),
            ids: Ids::new()?,
            first_rejections: BTreeMap::new(),
            position: (!shard.is_all()).then(Position::default),
        })
    }

    /// Begins a source; sources come in the order of their names.
    pub(crate) fn begin(&mut self, source: &str) {
        source.clone_into(&mut self.source);
        self.counts = Counts::default();
        self.groups.clear();
        self.position = self.position.map(|_| Position::default());
    }

    /// Begins a file of the current source, the `number`-th.
    pub(crate) fn begin_file(&mut self, number: u64) {
        self.position = self.position.map(|position| position.max(Position::of(number)));
    }

    /// What was read of the current source.
    pub(crate) fn summary(&self, kind: &str, digest: String, files: u64) -> Source {
        let counts = self.counts;
        Source {
            source: self.source.clone(),
            kind: kind.to_owned(),
            digest,
            files,
            rows_read: counts.read,
            functions: counts.functions,
            pairs: counts.pairs,
            problems: counts.problems,
            queries: counts.queries,
            judgments: counts.judgments,
            rejected: counts.rejected,
        }
    }

    /// Functions and pairs of each split, of each source so far.
    pub(crate) fn splits(&self) -> &Splits {
        &self.splits
    }

    /// The first rejection of a source, in words.
    pub(crate) fn first_rejection(&self, source: &str) -> Option<String> {
        self.first_rejections.get(source).cloned()
    }

    /// Adds a row; id, source and ordinal are filled in.
    pub(crate) fn add(&mut self, row: Identified) -> Result<()> {
        let (source, mut ordinal) = (self.source.clone(), self.counts.read);
        if let Some(position) = &mut self.position {
            ordinal = position.ordinal();
            *position = position.next();
        }
        self.counts.read += 1;
        match row.found {
            Found::Function(found) => {
                self.counts.functions += 1;
                self.count_split(&found.split, &found.group);
                let id = self.ids.next(row.hash)?;
                self.functions.push(Function { id, source, ordinal, ..found })
            }
            Found::Pair(found) => {
                self.counts.pairs += 1;
                self.count_split(&found.split, &found.group);
                let id = self.ids.next(row.hash)?;
                self.pairs.push(Pair { id, source, ordinal, ..found })
            }
            Found::Problem(found) => {
                self.counts.problems += 1;
                let id = self.ids.next(row.hash)?;
                self.problems.push(Problem { id, source, ordinal, ..found })
            }
            Found::Query(found) => {
                self.counts.queries += 1;
                let id = self.ids.next(row.hash)?;
                self.queries.push(Query { id, source, ordinal, ..found })
            }
            Found::Judgment(found) => {
                self.counts.judgments += 1;
                self.judgments.push(Judgment { source, ordinal, ..found })
            }
            Found::Rejected { place, reason, detail } => {
                self.counts.rejected += 1;
                *self.reasons.entry(reason.to_owned()).or_default() += 1;
                let words = || format!("{place}: {reason} ({detail})");
                self.first_rejections.entry(source.clone()).or_insert_with(words);
                let (stage, reason) = ("ingest".to_owned(), reason.to_owned());
                self.rejected.push(Rejected { stage, source, ordinal, id: place, reason, detail })
            }
        }
    }

    /// The splits of the current source in words: rows and groups of each.
    pub(crate) fn say_splits(&self) {
        let counts = self.splits.get(&self.source).into_iter().flatten();
        let said: Vec<String> = counts
            .map(|(split, rows)| match self.groups.get(split) {
                Some(groups) => format!("{split} {rows} rows of {groups}"),
                None => format!("{split} {rows} rows"),
            })
            .collect();
        if !said.is_empty() {
            tracing::info!("{}: {}", self.source, said.join(", "));
        }
    }

    fn count_split(&mut self, split: &str, group: &str) {
        match self.groups.get_mut(split) {
            Some(groups) => groups.add(group),
            None => self.groups.entry(split.to_owned()).or_default().add(group),
        }
        if !self.splits.contains_key(&self.source) {
            self.splits.insert(self.source.clone(), BTreeMap::new());
        }
        let Some(own) = self.splits.get_mut(&self.source) else { return };
        match own.get_mut(split) {
            Some(count) => *count += 1,
            None => drop(own.insert(split.to_owned(), 1)),
        }
    }

    /// Ends all datasets.
    ///
    /// # Errors
    /// The last parts cannot be written.
    pub(crate) fn finish(self, attempt: &mut Attempt) -> Result<()> {
        attempt.finish_all(vec![
            self.functions.into_writer()?,
            self.pairs.into_writer()?,
            self.problems.into_writer()?,
            self.queries.into_writer()?,
            self.judgments.into_writer()?,
            self.rejected.into_writer()?,
        ])?;
        self.reasons.into_iter().for_each(|(reason, count)| attempt.count_rejected(&reason, count));
        Ok(())
    }
}
