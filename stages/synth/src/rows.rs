//! Rows in and out.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use codepair_runtime::{Attempt, Context, Digest, text_column};
use codepair_schemas::rows::{Rejected, Request, SyntheticPair};
use serde_json::Value;

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
    /// Repository and path, as far as they are known.
    pub(crate) context: String,
}

/// Reads the parents, in the order of the datasets.
pub(crate) fn read(context: &Context) -> Result<Vec<Parent>> {
    let mut parents = Vec::new();
    for (dataset, text) in [("functions", "docstring"), ("problems", "text")] {
        let mut columns = vec!["id", "source", text, "code", "group", "split"];
        if dataset == "functions" {
            columns.extend(["repo", "path"]);
        }
        for batch in context.stream(dataset, &columns) {
            let batch = batch?;
            let column = |name| text_column(&batch, name);
            let (ids, sources, texts, codes) = (column("id")?, column("source")?, column(text)?, column("code")?);
            let (groups, splits) = (column("group")?, column("split")?);
            let (repos, paths) = (column("repo").ok(), column("path").ok());
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
                        context: [repos, paths]
                            .into_iter()
                            .flatten()
                            .map(|c| c.value(row))
                            .collect::<Vec<_>>()
                            .join(" "),
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
    /// What each generator did, for the manifest.
    pub(crate) notes: BTreeMap<String, Value>,
    /// Pairs and rejected rows of each generator: the next ordinal.
    counts: HashMap<String, u64>,
}

/// A pair before it has its place.
pub(crate) struct Pair {
    pub(crate) kind: Kind,
    pub(crate) edit: String,
    pub(crate) text: String,
    pub(crate) code: String,
    pub(crate) provenance: Provenance,
}

/// Where a pair comes from; nothing where no model made it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Provenance {
    /// Hash of the API request.
    pub(crate) request: Option<String>,
    pub(crate) model: Option<String>,
    /// Digest of the prompt's files.
    pub(crate) prompt: Option<String>,
    /// Of sampling, as JSON.
    pub(crate) parameters: Option<String>,
    pub(crate) seed: Option<i64>,
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
        let request = pair.provenance.request.as_deref().unwrap_or_default();
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
            request: pair.provenance.request,
            model: pair.provenance.model,
            prompt: pair.provenance.prompt,
            parameters: pair.provenance.parameters,
            seed: pair.provenance.seed,
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
        for (generator, note) in self.notes {
            attempt.note(&generator, note);
        }
        for row in &self.rejected {
            attempt.count_rejected(&row.reason, 1);
        }
        attempt.write_rows(self.pairs)?;
        attempt.write_rows(self.requests)?;
        attempt.write_rows(self.rejected)
    }
}
