//! The one pass over the wide rows: examples, duplicates and rejected rows are written as decided.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};
use arrow::array::{Array, RecordBatch, StringArray};
use codepair_dedup::normal_code;
use codepair_runtime::{Context, Progress, RowWriter, float_column, integer_column, text_column};
use codepair_schemas::rows::{Duplicate, Example, Rejected};

use crate::candidates::text_of;
use crate::clusters::Near;
use crate::keys::CONTAMINATED;
use crate::verdicts::{Verdict, Verdicts};
use crate::{Prepare, TextPart};

/// So many tested texts are named that keep rows out.
const MOST_COSTLY: usize = 10;
/// One that keeps so many out is said on the terminal.
const COSTLY: u64 = 100;

/// The columns of a dataset that become an example's.
struct Dataset {
    name: &'static str,
    source: &'static str,
    text: &'static str,
    title: &'static str,
    url: Option<&'static str>,
    repo: Option<&'static str>,
    path: Option<&'static str>,
    language: Option<&'static str>,
    licence: Option<&'static str>,
    kind: Option<&'static str>,
    label: Option<&'static str>,
    parent: Option<&'static str>,
    parent_dataset: Option<&'static str>,
}

const PLAIN: Dataset = Dataset {
    name: "",
    source: "source",
    text: "text",
    title: "source",
    url: None,
    repo: None,
    path: None,
    language: None,
    licence: None,
    kind: None,
    label: None,
    parent: None,
    parent_dataset: None,
};

/// In the order of the ranks of `candidates`.
const DATASETS: [Dataset; 4] = [
    Dataset {
        name: "functions",
        text: "docstring",
        title: "name",
        url: Some("url"),
        repo: Some("repo"),
        path: Some("path"),
        language: Some("language"),
        licence: Some("licence"),
        ..PLAIN
    },
    Dataset { name: "problems", licence: Some("licence"), ..PLAIN },
    Dataset {
        name: "pairs",
        url: Some("url"),
        language: Some("language"),
        licence: Some("licence"),
        label: Some("label"),
        ..PLAIN
    },
    Dataset {
        name: "synthetic_pairs",
        language: Some("language"),
        source: "generator",
        title: "edit",
        kind: Some("kind"),
        parent: Some("parent_id"),
        parent_dataset: Some("parent_dataset"),
        ..PLAIN
    },
];

impl Dataset {
    fn columns(&self) -> Vec<&'static str> {
        let origin = self.licence.map(|_| "origin");
        let optional = [
            self.url,
            self.repo,
            self.path,
            self.language,
            self.licence,
            origin,
            self.kind,
            self.label,
            self.parent,
            self.parent_dataset,
        ];
        let optional = optional.into_iter().flatten();
        let mut columns = vec!["id", "source", "ordinal", "code", "group", "split", self.source, self.text, self.title];
        columns.extend(optional);
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// Writes `examples`, `duplicates` and `rejected`.
pub(crate) fn write(context: &mut Context, config: &Prepare, verdicts: &Verdicts) -> Result<()> {
    let mut pass = Pass {
        verdicts,
        text: config.text,
        examples: context.attempt.row_writer()?,
        rejected: context.attempt.row_writer()?,
        duplicates: context.attempt.row_writer()?,
        reasons: HashMap::new(),
        costs: HashMap::new(),
        splits: BTreeMap::new(),
        kept: 0,
    };
    let progress = Progress::new("writing examples", "rows", verdicts.keys().positions.total);
    let columns: Vec<Vec<&str>> = DATASETS.iter().map(Dataset::columns).collect();
    let mut cursors: Vec<Cursor> = Vec::new();
    for (dataset, columns) in DATASETS.iter().zip(&columns) {
        cursors.push(Cursor { batches: Box::new(context.stream(dataset.name, columns)), batch: None, row: 0 });
    }
    for source in verdicts.keys().positions.sources() {
        for (rank, (dataset, cursor)) in DATASETS.iter().zip(&mut cursors).enumerate() {
            while let Some((batch, rows)) = cursor.rows_of(source, dataset.source)? {
                let start = verdicts.keys().positions.start(source, rank as u8)?;
                progress.add(rows.len() as u64);
                pass.batch(batch, rows, start, dataset)?;
            }
        }
    }
    for (dataset, cursor) in DATASETS.iter().zip(&mut cursors) {
        // Rows of a source that was not numbered would be lost in silence.
        ensure!(cursor.is_used_up()?, "rows of {} are left over when all sources are written", dataset.name);
    }
    drop(cursors);
    let Pass { examples, rejected, duplicates, reasons, costs, splits, kept, .. } = pass;
    context.attempt.finish_all(vec![duplicates.into_writer()?, rejected.into_writer()?, examples.into_writer()?])?;
    note_costs(context, costs);
    let said: Vec<String> = splits.iter().map(|(split, rows)| format!("{split} {rows}")).collect();
    let rejected = reasons.values().sum::<u64>();
    tracing::info!("{kept} examples ({}), {rejected} rows rejected", said.join(", "));
    context.attempt.note("splits", serde_json::to_value(splits)?);
    reasons.into_iter().for_each(|(reason, rows)| context.attempt.count_rejected(&reason, rows));
    Ok(())
}

/// Says which tested texts keep the most rows out: boilerplate among them costs many rows and protects nothing.
fn note_costs(context: &mut Context, costs: HashMap<String, u64>) {
    let mut costs: Vec<(String, u64)> = costs.into_iter().collect();
    costs.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    costs.truncate(MOST_COSTLY);
    if let Some((id, rows)) = costs.first().filter(|(_, rows)| *rows >= COSTLY) {
        tracing::info!(
            "the text of {id}, which is tested on, keeps {rows} rows out; prepare.boilerplate_texts bounds that"
        );
    }
    let costs = costs.into_iter().map(|(id, rows)| serde_json::json!({ "id": id, "rows": rows }));
    context.attempt.note("costliest_tested_texts", costs.collect::<Vec<_>>());
}

/// A dataset being read in order.
struct Cursor<'a> {
    batches: Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>,
    batch: Option<RecordBatch>,
    row: usize,
}

impl Cursor<'_> {
    fn is_used_up(&mut self) -> Result<bool> {
        while self.batch.as_ref().is_none_or(|batch| self.row == batch.num_rows()) {
            match self.batches.next() {
                Some(batch) => (self.batch, self.row) = (Some(batch?), 0),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The next rows, as long as they are of `source`.
    fn rows_of(&mut self, source: &str, column: &str) -> Result<Option<(&RecordBatch, std::ops::Range<usize>)>> {
        if self.is_used_up()? {
            return Ok(None);
        }
        let Some(batch) = &self.batch else { return Ok(None) };
        let sources = text_column(batch, column)?;
        let start = self.row;
        while self.row < batch.num_rows() && sources.value(self.row) == source {
            self.row += 1;
        }
        Ok((self.row > start).then_some((batch, start..self.row)))
    }
}

/// A cell of a column that the dataset may not have.
fn cell(column: Option<&StringArray>, row: usize) -> String {
    column.map_or(String::new(), |column| column.value(row).to_owned())
}

struct Pass<'a> {
    verdicts: &'a Verdicts,
    text: TextPart,
    examples: RowWriter<Example>,
    rejected: RowWriter<Rejected>,
    duplicates: RowWriter<Duplicate>,
    reasons: HashMap<String, u64>,
    /// Rows that each tested text keeps out, by its id.
    costs: HashMap<String, u64>,
    /// Examples of each split that models can learn from or are tested on.
    splits: BTreeMap<String, u64>,
    kept: u64,
}

impl Pass<'_> {
    fn batch(
        &mut self,
        batch: &RecordBatch,
        rows: std::ops::Range<usize>,
        start: u64,
        dataset: &Dataset,
    ) -> Result<()> {
        let column = |name| text_column(batch, name);
        let (ids, texts, codes) = (column("id")?, column(dataset.text)?, column("code")?);
        let (titles, groups, splits) = (column(dataset.title)?, column("group")?, column("split")?);
        let (sources, own_sources) = (column(dataset.source)?, column("source")?);
        let optional = |name: Option<&'static str>| name.map(column).transpose();
        let (urls, kinds, parents) = (optional(dataset.url)?, optional(dataset.kind)?, optional(dataset.parent)?);
        let (repos, paths, languages) = (optional(dataset.repo)?, optional(dataset.path)?, optional(dataset.language)?);
        let (licences, origins) = (optional(dataset.licence)?, optional(dataset.licence.map(|_| "origin"))?);
        let parent_datasets = optional(dataset.parent_dataset)?;
        let labels = dataset.label.map(|name| float_column(batch, name)).transpose()?;
        let ordinals = integer_column(batch, "ordinal")?;
        let part = if dataset.name == "functions" { self.text } else { TextPart::Full };
        for row in rows {
            let position = start + ordinals[row];
            let parent = parents.map(|parents| parents.value(row));
            let (id, source) = (ids.value(row), sources.value(row));
            // Queries are no candidates, so nothing is decided about them.
            let decisive = parent.filter(|_| parent_datasets.is_none_or(|names| names.value(row) != "queries"));
            let verdict = self.verdicts.of(position, decisive)?;
            if let Verdict::Marked(near) = &verdict {
                self.mark(id, position, near)?;
            }
            match verdict {
                Verdict::Kept | Verdict::Marked(_) => {
                    self.kept += 1;
                    let wrong = labels.is_some_and(|labels| labels.is_valid(row) && labels.value(row) == 0.0);
                    let kind = kinds.map_or(if wrong { "negative" } else { "original" }, |kinds| kinds.value(row));
                    // Of what was made from others, training alone may read it.
                    if kind == "original" || (kind == "positive" && splits.value(row) == "train") {
                        *self.splits.entry(splits.value(row).to_owned()).or_default() += 1;
                    }
                    self.examples.push(Example {
                        id: id.to_owned(),
                        ordinal: position,
                        source: own_sources.value(row).to_owned(),
                        dataset: dataset.name.to_owned(),
                        kind: kind.to_owned(),
                        parent_id: parent.map(str::to_owned),
                        name: titles.value(row).to_owned(),
                        url: cell(urls, row),
                        repo: cell(repos, row),
                        path: cell(paths, row),
                        language: languages.map_or("python", |languages| languages.value(row)).to_owned(),
                        licence: cell(licences, row),
                        origin: cell(origins, row),
                        text: text_of(texts.value(row), part),
                        code: normal_code(codes.value(row)),
                        group: groups.value(row).to_owned(),
                        split: splits.value(row).to_owned(),
                    })?;
                }
                Verdict::Duplicate(near) => self.duplicate(id, source, position, &near)?,
                Verdict::Out { reason, detail } => {
                    if reason == CONTAMINATED {
                        *self.costs.entry(self.verdicts.keys().collision(position)?).or_default() += 1;
                    }
                    self.reject(id, source, position, reason, detail)?;
                }
            }
        }
        Ok(())
    }

    /// Says in `duplicates` what a row resembles; gives the ids of its neighbour and of the row that is kept for both.
    fn mark(&mut self, id: &str, position: u64, near: &Near) -> Result<(String, String)> {
        let ids = &self.verdicts.keys().ids;
        let (kept_id, neighbour_id) = (ids.text(near.kept)?, ids.text(near.neighbour)?);
        self.duplicates.push(Duplicate {
            id: id.to_owned(),
            ordinal: position,
            kind: near.kind.to_owned(),
            neighbour_id: neighbour_id.clone(),
            jaccard: near.jaccard,
            kept_id: kept_id.clone(),
        })?;
        Ok((neighbour_id, kept_id))
    }

    fn duplicate(&mut self, id: &str, source: &str, position: u64, near: &Near) -> Result<()> {
        let (neighbour_id, kept_id) = self.mark(id, position, near)?;
        let leaks = self.verdicts.is_for_evaluation(near.kept)? && !self.verdicts.is_for_evaluation(position)?;
        let leak = if leaks { ", a test row" } else { "" };
        let detail = format!("of {neighbour_id}; {kept_id}{leak} is kept");
        self.reject(id, source, position, format!("{}_duplicate", near.kind), detail)
    }

    fn reject(&mut self, id: &str, source: &str, position: u64, reason: String, detail: String) -> Result<()> {
        *self.reasons.entry(reason.clone()).or_default() += 1;
        self.rejected.push(Rejected {
            stage: "prepare".to_owned(),
            source: source.to_owned(),
            ordinal: position,
            id: id.to_owned(),
            reason,
            detail,
        })
    }
}
