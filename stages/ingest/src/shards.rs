//! Shards put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{RecordBatch, StringArray};
use codepair_runtime::{Context, Shards, integer_column, text_column, with_column};
use codepair_schemas::rows::Source;

use crate::sink::Ids;
use crate::{Sources, check};

/// What is numbered within its source.
const NUMBERED: [(&str, &str); 6] = [
    ("functions", "source"),
    ("pairs", "source"),
    ("problems", "source"),
    ("queries", "source"),
    ("judgments", "source"),
    ("rejected", "source"),
];

/// Numbers the rows of all shards as one process does, and adds up what was counted.
pub(crate) fn merge(context: &mut Context, sources: &Sources, shards: &Shards) -> Result<()> {
    let summaries = summaries(shards)?;
    let splits = shards.notes().remove("splits").map_or(Ok(BTreeMap::new()), serde_json::from_value)?;
    check(&context.config, sources, &summaries, &splits, |source| first_rejection(shards, source))?;
    let mut ids = Ids::new()?;
    shards.merge_numbered(&mut context.attempt, &NUMBERED, |batch| renamed(batch, &mut ids))?;
    context.attempt.write_rows(summaries)?;
    shards.rejected().iter().for_each(|(reason, rows)| context.attempt.count_rejected(reason, *rows));
    Ok(())
}

/// Equal rows of several shards are told apart as those of one are. Judgments have no id, and that of a rejected row is its place.
fn renamed(batch: RecordBatch, ids: &mut Ids) -> Result<RecordBatch> {
    if batch.column_by_name("stage").is_some() || batch.column_by_name("id").is_none() {
        return Ok(batch);
    }
    let old = text_column(&batch, "id")?;
    let new = (0..batch.num_rows()).map(|row| ids.next(Ids::hash(old.value(row))?));
    let new = StringArray::from(new.collect::<Result<Vec<_>>>()?);
    with_column(&batch, "id", Arc::new(new))
}

fn summaries(shards: &Shards) -> Result<Vec<Source>> {
    let mut all: BTreeMap<String, Source> = BTreeMap::new();
    for batch in shards.batches("sources") {
        let batch = batch?;
        let counts = |name: &str| integer_column(&batch, name);
        let (files, read, functions) = (counts("files")?, counts("rows_read")?, counts("functions")?);
        let (pairs, problems, queries) = (counts("pairs")?, counts("problems")?, counts("queries")?);
        let (judgments, rejected) = (counts("judgments")?, counts("rejected")?);
        for row in 0..batch.num_rows() {
            let text = |name: &str| Ok::<_, anyhow::Error>(text_column(&batch, name)?.value(row).to_owned());
            let sum = all.entry(text("source")?).or_default();
            (sum.source, sum.kind, sum.digest) = (text("source")?, text("kind")?, text("digest")?);
            sum.files += files[row];
            sum.rows_read += read[row];
            sum.functions += functions[row];
            sum.pairs += pairs[row];
            sum.problems += problems[row];
            sum.queries += queries[row];
            sum.judgments += judgments[row];
            sum.rejected += rejected[row];
        }
    }
    Ok(all.into_values().collect())
}

/// The first rejection of a source, in words.
fn first_rejection(shards: &Shards, source: &str) -> Option<String> {
    let mut first: Option<(u64, String)> = None;
    for batch in shards.batches("rejected").map_while(Result::ok) {
        let (ordinals, sources) = (integer_column(&batch, "ordinal").ok()?, text_column(&batch, "source").ok()?);
        let words = ["id", "reason", "detail"].map(|name| text_column(&batch, name).ok());
        let [Some(ids), Some(reasons), Some(details)] = words else { return None };
        for row in (0..batch.num_rows()).filter(|row| sources.value(*row) == source) {
            if first.as_ref().is_none_or(|(ordinal, _)| ordinals[row] < *ordinal) {
                let words = format!("{}: {} ({})", ids.value(row), reasons.value(row), details.value(row));
                first = Some((ordinals[row], words));
            }
        }
    }
    first.map(|(_, words)| words)
}
