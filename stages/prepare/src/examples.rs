//! The one pass over the wide rows: examples, duplicates and rejected rows are written as decided.

use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use codepair_runtime::{Context, RowWriter, text_column};
use codepair_schemas::rows::{Duplicate, Example, Rejected};

use crate::candidates::{Key, normal_code, normal_text};
use crate::verdicts::Verdict;
use crate::{Prepare, TextPart};

/// The columns of the three datasets that become an example's.
struct Columns {
    dataset: &'static str,
    name: &'static str,
    url: Option<&'static str>,
    text: &'static str,
}

const DATASETS: [Columns; 3] = [
    Columns { dataset: "functions", name: "name", url: Some("url"), text: "docstring" },
    Columns { dataset: "problems", name: "source", url: None, text: "text" },
    Columns { dataset: "synthetic_pairs", name: "edit", url: None, text: "text" },
];

/// Writes `examples`, `duplicates` and `rejected`, and returns the examples.
pub(crate) fn write(
    context: &mut Context,
    config: &Prepare,
    keys: &[Key],
    verdicts: &[Verdict],
) -> Result<Vec<Example>> {
    let mut pass = Pass {
        keys,
        verdicts,
        examples: Vec::new(),
        rejected: Vec::new(),
        duplicates: context.attempt.row_writer()?,
        position: 0,
    };
    for columns in &DATASETS {
        let part = if columns.dataset == "functions" { config.text } else { TextPart::Full };
        for batch in context.read(columns.dataset, &[])? {
            pass.batch(&batch, columns, part)?;
        }
    }
    ensure!(pass.position == keys.len(), "{} rows were read and {} judged", pass.position, keys.len());
    let Pass { examples, mut rejected, duplicates, .. } = pass;
    rejected.sort_by(|a, b| (&a.source, a.ordinal).cmp(&(&b.source, b.ordinal)));
    for row in &rejected {
        context.attempt.count_rejected(&row.reason, 1);
    }
    context.attempt.finish_rows(duplicates)?;
    tracing::info!("{} examples, {} rows rejected", examples.len(), rejected.len());
    context.attempt.write_rows(rejected)?;
    context.attempt.write_rows(examples.iter().cloned())?;
    Ok(examples)
}

struct Pass<'a> {
    keys: &'a [Key],
    verdicts: &'a [Verdict],
    examples: Vec<Example>,
    rejected: Vec<Rejected>,
    duplicates: RowWriter<Duplicate>,
    position: usize,
}

impl Pass<'_> {
    fn batch(&mut self, batch: &RecordBatch, columns: &Columns, part: TextPart) -> Result<()> {
        let column = |name| text_column(batch, name);
        let (ids, texts, codes) = (column("id")?, column(columns.text)?, column("code")?);
        let (names, groups, splits) = (column(columns.name)?, column("group")?, column("split")?);
        let urls = columns.url.map(column).transpose()?;
        for row in 0..batch.num_rows() {
            let key = &self.keys[self.position];
            ensure!(key.id == ids.value(row), "row {} is {} and not {}", self.position, ids.value(row), key.id);
            match &self.verdicts[self.position] {
                Verdict::Kept => self.examples.push(Example {
                    id: key.id.clone(),
                    ordinal: self.position as u64,
                    source: key.source.clone(),
                    dataset: key.dataset.clone(),
                    kind: key.kind.clone(),
                    parent_id: key.parent_id.clone(),
                    name: names.value(row).to_owned(),
                    url: urls.map_or(String::new(), |urls| urls.value(row).to_owned()),
                    text: normal_text(texts.value(row), part),
                    code: normal_code(codes.value(row)),
                    group: groups.value(row).to_owned(),
                    split: splits.value(row).to_owned(),
                }),
                Verdict::Duplicate { kind, near } => {
                    let (kept_id, neighbour_id) = (&self.keys[near.kept].id, &self.keys[near.neighbour].id);
                    self.duplicates.push(Duplicate {
                        id: key.id.clone(),
                        ordinal: self.position as u64,
                        kind: (*kind).to_owned(),
                        neighbour_id: neighbour_id.clone(),
                        jaccard: near.jaccard,
                        kept_id: kept_id.clone(),
                    })?;
                    self.reject(key, &format!("{kind}_duplicate"), format!("of {neighbour_id}; {kept_id} is kept"));
                }
                Verdict::Out { reason, detail } => self.reject(key, reason, detail.clone()),
            }
            self.position += 1;
        }
        Ok(())
    }

    fn reject(&mut self, key: &Key, reason: &str, detail: String) {
        self.rejected.push(Rejected {
            stage: "prepare".to_owned(),
            source: key.source.clone(),
            ordinal: self.position as u64,
            id: key.id.clone(),
            reason: reason.to_owned(),
            detail,
        });
    }
}
