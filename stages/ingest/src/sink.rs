//! Where sources put their rows.

use std::collections::HashMap;

use anyhow::Result;
use codepair_runtime::{Attempt, DatasetWriter, Digest};
use codepair_schemas::rows::{Function, Problem, Rejected};

/// Rows of one source so far; read = functions + problems + rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows found.
    pub read: u64,
    /// Written to `functions`.
    pub functions: u64,
    /// Written to `problems`.
    pub problems: u64,
    /// Written to `rejected`.
    pub rejected: u64,
}

/// Writes the rows of all sources, numbers them and counts.
pub struct Sink {
    functions: DatasetWriter,
    problems: DatasetWriter,
    rejected: DatasetWriter,
    reasons: HashMap<String, u64>,
    source: String,
    counts: Counts,
    seen: HashMap<String, u32>,
    first_rejection: Option<String>,
}

impl Sink {
    /// A sink into an attempt.
    ///
    /// # Errors
    /// None in practice: the datasets exist.
    pub fn new(attempt: &Attempt) -> Result<Self> {
        Ok(Self {
            functions: attempt.writer("functions")?,
            problems: attempt.writer("problems")?,
            rejected: attempt.writer("rejected")?,
            reasons: HashMap::new(),
            source: String::new(),
            counts: Counts::default(),
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

    /// The first rejection of the current source, in words.
    #[must_use]
    pub fn first_rejection(&self) -> Option<String> {
        self.first_rejection.clone()
    }

    /// Adds a function; id, source and ordinal are filled in.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn function(&mut self, mut row: Function) -> Result<()> {
        row.id = self.identity(&[&row.repo, &row.path, &row.name, &row.url, &row.code, &row.docstring]);
        row.source.clone_from(&self.source);
        row.ordinal = self.next();
        self.counts.functions += 1;
        self.functions.push(&row)
    }

    /// Adds a problem; id, source and ordinal are filled in.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn problem(&mut self, mut row: Problem) -> Result<()> {
        row.id = self.identity(&[&row.task_id.to_string(), &row.text, &row.code]);
        row.source.clone_from(&self.source);
        row.ordinal = self.next();
        self.counts.problems += 1;
        self.problems.push(&row)
    }

    /// Rejects a row that stands at `place` (file and line).
    ///
    /// # Errors
    /// It cannot be written.
    pub fn reject(&mut self, place: &str, reason: &str, detail: impl Into<String>) -> Result<()> {
        let row = Rejected {
            stage: "ingest".to_owned(),
            source: self.source.clone(),
            ordinal: self.next(),
            id: place.to_owned(),
            reason: reason.to_owned(),
            detail: detail.into(),
        };
        self.counts.rejected += 1;
        *self.reasons.entry(row.reason.clone()).or_default() += 1;
        self.first_rejection.get_or_insert_with(|| format!("{}: {} ({})", row.id, row.reason, row.detail));
        self.rejected.push(&row)
    }

    fn next(&mut self) -> u64 {
        self.counts.read += 1;
        self.counts.read - 1
    }

    /// A hash of the source's name and the row's content; equal rows are told apart by a count.
    fn identity(&mut self, fields: &[&str]) -> String {
        let mut digest = Digest::default();
        digest.field(&self.source);
        fields.iter().for_each(|field| digest.field(field));
        let id = digest.finish()[..16].to_owned();
        let count = self.seen.entry(id.clone()).or_default();
        *count += 1;
        if *count == 1 { id } else { format!("{id}-{count}") }
    }

    /// Ends all datasets.
    ///
    /// # Errors
    /// The last parts cannot be written.
    pub fn finish(self, attempt: &mut Attempt) -> Result<()> {
        attempt.finish(self.functions)?;
        attempt.finish(self.problems)?;
        attempt.finish(self.rejected)?;
        self.reasons.into_iter().for_each(|(reason, count)| attempt.count_rejected(&reason, count));
        Ok(())
    }
}
