//! Rows in and out.

use std::collections::HashMap;

use anyhow::Result;
use codepair_runtime::{Attempt, Context, Digest, text_column};
use codepair_schemas::rows::{Rejected, Request, SyntheticPair};

/// A row that pairs are made from: a documented function or a problem, of the training or validation split.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parent {
    pub(crate) id: String,
    pub(crate) dataset: &'static str,
    pub(crate) source: String,
    pub(crate) text: String,
    pub(crate) code: String,
    pub(crate) group: String,
    pub(crate) split: String,
}

/// Reads the parents, in the order of the datasets.
pub(crate) fn read(context: &Context) -> Result<Vec<Parent>> {
    let mut parents = Vec::new();
    for (dataset, text) in [("functions", "docstring"), ("problems", "text")] {
        for batch in context.read(dataset, &["id", "source", text, "code", "group", "split"])? {
            let column = |name| text_column(&batch, name);
            let (ids, sources, texts, codes) = (column("id")?, column("source")?, column(text)?, column("code")?);
            let (groups, splits) = (column("group")?, column("split")?);
            for row in 0..batch.num_rows() {
                let seen = matches!(splits.value(row), "train" | "validation");
                if seen && !texts.value(row).trim().is_empty() {
                    parents.push(Parent {
                        id: ids.value(row).to_owned(),
                        dataset,
                        source: sources.value(row).to_owned(),
                        text: texts.value(row).to_owned(),
                        code: codes.value(row).to_owned(),
                        group: groups.value(row).to_owned(),
                        split: splits.value(row).to_owned(),
                    });
                }
            }
        }
    }
    Ok(parents)
}

/// What a pair says of its parent's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The code does what the text says.
    Positive,
    /// It does not.
    Negative,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
        }
    }
}

/// All that the generators made.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) pairs: Vec<SyntheticPair>,
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) requests: Vec<Request>,
    /// Pairs and rejected rows of each generator: the next ordinal.
    counts: HashMap<String, u64>,
}

/// A pair before it has its place.
pub(crate) struct Pair {
    pub(crate) kind: Kind,
    pub(crate) edit: String,
    pub(crate) text: String,
    pub(crate) code: String,
    pub(crate) request: Option<String>,
}

impl Made {
    fn next(&mut self, generator: &str) -> u64 {
        let count = self.counts.entry(generator.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    pub(crate) fn pair(&mut self, generator: &str, parent: &Parent, pair: Pair) {
        let ordinal = self.next(generator);
        let mut digest = Digest::default();
        let request = pair.request.as_deref().unwrap_or_default();
        for field in [generator, &parent.id, pair.kind.name(), &pair.edit, &pair.text, &pair.code, request] {
            digest.field(field);
        }
        digest.field(&ordinal.to_string());
        self.pairs.push(SyntheticPair {
            id: digest.finish()[..16].to_owned(),
            generator: generator.to_owned(),
            ordinal,
            kind: pair.kind.name().to_owned(),
            edit: pair.edit,
            parent_id: parent.id.clone(),
            parent_dataset: parent.dataset.to_owned(),
            source: parent.source.clone(),
            text: pair.text,
            code: pair.code,
            group: parent.group.clone(),
            split: parent.split.clone(),
            request: pair.request,
        });
    }

    /// A pair that could not be made.
    pub(crate) fn reject(&mut self, generator: &str, parent: &Parent, reason: &str, detail: impl Into<String>) {
        let ordinal = self.next(generator);
        self.rejected.push(Rejected {
            stage: "synth".to_owned(),
            source: generator.to_owned(),
            ordinal,
            id: parent.id.clone(),
            reason: reason.to_owned(),
            detail: detail.into(),
        });
    }

    pub(crate) fn write(mut self, attempt: &mut Attempt) -> Result<()> {
        self.requests.sort_by(|a, b| a.request.cmp(&b.request));
        self.requests.dedup_by(|a, b| a.request == b.request);
        for row in &self.rejected {
            attempt.count_rejected(&row.reason, 1);
        }
        attempt.write_rows(self.pairs)?;
        attempt.write_rows(self.requests)?;
        attempt.write_rows(self.rejected)
    }
}
