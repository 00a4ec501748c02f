//! Where sources put their rows.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use codepair_runtime::{Attempt, RowWriter};
use codepair_schemas::rows::{Function, Judgment, Pair, Problem, Query, Rejected};

use crate::found::{Found, Identified};

/// Rows of one source so far; read = those of all datasets + rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
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

/// Writes the rows of all sources, numbers them and counts.
pub struct Sink {
    functions: RowWriter<Function>,
    pairs: RowWriter<Pair>,
    problems: RowWriter<Problem>,
    queries: RowWriter<Query>,
    judgments: RowWriter<Judgment>,
    rejected: RowWriter<Rejected>,
    reasons: BTreeMap<String, u64>,
    source: String,
    counts: Counts,
    /// Functions and pairs of each split, of all sources.
    splits: BTreeMap<String, u64>,
    /// How often each id came.
    seen: HashMap<u64, u32>,
    first_rejection: Option<String>,
}

impl Sink {
    /// A sink into an attempt.
    ///
    /// # Errors
    /// None in practice: the datasets exist.
    pub fn new(attempt: &Attempt) -> Result<Self> {
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
            seen: HashMap::new(),
            first_rejection: None,
        })
    }

    /// Begins a source; sources come in the order of their names.
    pub fn begin(&mut self, source: &str) {
        source.clone_into(&mut self.source);
        self.counts = Counts::default();
        self.first_rejection = None;
    }

    /// The counts of the current source.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Functions and pairs of all sources so far: those of a split, and of all.
    #[must_use]
    pub fn in_split(&self, split: &str) -> (u64, u64) {
        (self.splits.get(split).copied().unwrap_or(0), self.splits.values().sum())
    }

    /// The first rejection of the current source, in words.
    #[must_use]
    pub fn first_rejection(&self) -> Option<String> {
        self.first_rejection.clone()
    }

    /// Adds a row; id, source and ordinal are filled in.
    pub(crate) fn add(&mut self, row: Identified) -> Result<()> {
        let (source, ordinal) = (self.source.clone(), self.counts.read);
        self.counts.read += 1;
        match row.found {
            Found::Function(found) => {
                self.counts.functions += 1;
                *self.splits.entry(found.split.clone()).or_default() += 1;
                let id = self.id(row.hash);
                self.functions.push(Function { id, source, ordinal, ..found })
            }
            Found::Pair(found) => {
                self.counts.pairs += 1;
                *self.splits.entry(found.split.clone()).or_default() += 1;
                let id = self.id(row.hash);
                self.pairs.push(Pair { id, source, ordinal, ..found })
            }
            Found::Problem(found) => {
                self.counts.problems += 1;
                let id = self.id(row.hash);
                self.problems.push(Problem { id, source, ordinal, ..found })
            }
            Found::Query(found) => {
                self.counts.queries += 1;
                let id = self.id(row.hash);
                self.queries.push(Query { id, source, ordinal, ..found })
            }
            Found::Judgment(found) => {
                self.counts.judgments += 1;
                self.judgments.push(Judgment { source, ordinal, ..found })
            }
            Found::Rejected { place, reason, detail } => {
                self.counts.rejected += 1;
                *self.reasons.entry(reason.to_owned()).or_default() += 1;
                self.first_rejection.get_or_insert_with(|| format!("{place}: {reason} ({detail})"));
                let (stage, reason) = ("ingest".to_owned(), reason.to_owned());
                self.rejected.push(Rejected { stage, source, ordinal, id: place, reason, detail })
            }
        }
    }

    /// A hash of the source's name and the row's content; equal rows are told apart by a count.
    fn id(&mut self, hash: u64) -> String {
        let count = self.seen.entry(hash).or_default();
        *count += 1;
        if *count == 1 { format!("{hash:016x}") } else { format!("{hash:016x}-{count}") }
    }

    /// Ends all datasets.
    ///
    /// # Errors
    /// The last parts cannot be written.
    pub fn finish(self, attempt: &mut Attempt) -> Result<()> {
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
