//! Sorted rows of several shards, put together in one order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::interleave_record_batch;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};

use crate::parquet_io::{BATCH_BYTES, row_sizes};
use crate::{Attempt, DatasetWriter, Shards, column, text_column};

/// Rows that are put together at once.
const ROWS: usize = 8192;

/// The column that numbers rows.
const ORDINAL: &str = "ordinal";

/// The rows of one dataset of one shard.
struct Stream<'a> {
    batches: Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>,
    keys: &'a [&'a str],
    converter: Option<RowConverter>,
    /// With the keys of its rows, and their bytes.
    batch: Option<(RecordBatch, Rows, Vec<usize>)>,
    row: usize,
    /// Where the batch is among those that a [`Gathered`] holds.
    held_at: Option<usize>,
}

impl Stream<'_> {
    /// The key of the row that is next; nothing at the end.
    fn key(&mut self) -> Result<Option<OwnedRow>> {
        while self.batch.as_ref().is_none_or(|(batch, ..)| self.row == batch.num_rows()) {
            let Some(batch) = self.batches.next().transpose()? else { return Ok(None) };
            let columns: Vec<ArrayRef> =
                self.keys.iter().map(|key| column(&batch, key).cloned()).collect::<Result<_>>()?;
            if self.converter.is_none() {
                let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                self.converter = Some(RowConverter::new(fields)?);
            }
            let converter = self.converter.as_ref().context("the converter was made")?;
            let keys = converter.convert_columns(&columns)?;
            let sizes = row_sizes(&batch);
            (self.batch, self.row, self.held_at) = (Some((batch, keys, sizes)), 0, None);
        }
        Ok(self.batch.as_ref().map(|(_, keys, _)| keys.row(self.row).owned()))
    }
}

/// Rows of a dataset in their new order, until they are written.
struct Gathered {
    writer: DatasetWriter,
    batches: Vec<RecordBatch>,
    rows: Vec<(usize, usize)>,
    bytes: usize,
    ordinals: Vec<u64>,
}

impl Gathered {
    fn flush(&mut self, is_numbered: bool, mend: &mut dyn FnMut(RecordBatch) -> Result<RecordBatch>) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut batch = interleave_record_batch(&batches, &self.rows)?;
        if is_numbered {
            batch = with_column(&batch, ORDINAL, Arc::new(UInt64Array::from(std::mem::take(&mut self.ordinals))))?;
        }
        self.batches.clear();
        self.rows.clear();
        self.bytes = 0;
        self.writer.write(mend(batch)?)
    }
}

/// A batch with another column of that name.
///
/// # Errors
/// There is no such column, or it is of another type.
pub fn with_column(batch: &RecordBatch, name: &str, values: ArrayRef) -> Result<RecordBatch> {
    let at = batch.schema().index_of(name)?;
    let mut columns = batch.columns().to_vec();
    columns[at] = values;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

impl Shards {
    /// Puts together datasets whose rows share one numbering: `group` names the column of each within whose values rows are
    /// numbered. Their `ordinal`, a [`Position`](crate::Position) in a shard, becomes the number; `mend` sees each batch before it is
    /// written.
    ///
    /// # Errors
    /// A shard is damaged, or the store cannot be written.
    pub fn merge_numbered(
        &self,
        attempt: &mut Attempt,
        datasets: &[(&str, &str)],
        mut mend: impl FnMut(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<()> {
        let keys: Vec<[&str; 2]> = datasets.iter().map(|(_, group)| [*group, ORDINAL]).collect();
        let datasets: Vec<(&str, &[&str])> =
            datasets.iter().zip(&keys).map(|((dataset, _), keys)| (*dataset, keys.as_slice())).collect();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let number = |batch: &RecordBatch, row: usize, keys: &[&str]| {
            let group = text_column(batch, keys[0])?.value(row);
            if !counts.contains_key(group) {
                counts.insert(group.to_owned(), 0);
            }
            let count = counts.get_mut(group).context("it was put there")?;
            *count += 1;
            Ok(Some(*count - 1))
        };
        self.merge(attempt, &datasets, number, |_, _| true, &mut mend)
    }

    /// Puts a dataset together by its keys; of rows whose first `same` keys are equal the first counts.
    ///
    /// # Errors
    /// As [`Shards::merge_numbered`].
    pub fn merge_distinct(&self, attempt: &mut Attempt, dataset: &str, keys: &[&str], same: usize) -> Result<()> {
        let mut last: Option<Vec<String>> = None;
        let mut is_new = |batch: &RecordBatch, row: usize| {
            let text = |key: &&str| {
                let column = column(batch, key).ok()?.slice(row, 1);
                arrow::util::display::array_value_to_string(&column, 0).ok()
            };
            let now: Vec<String> = keys[..same].iter().filter_map(text).collect();
            let is_new = last.as_ref() != Some(&now);
            last = Some(now);
            is_new
        };
        self.merge(attempt, &[(dataset, keys)], |_, _, _| Ok(None), |batch, row| is_new(batch, row), &mut Ok)
    }

    fn merge(
        &self,
        attempt: &mut Attempt,
        datasets: &[(&str, &[&str])],
        mut number: impl FnMut(&RecordBatch, usize, &[&str]) -> Result<Option<u64>>,
        mut takes: impl FnMut(&RecordBatch, usize) -> bool,
        mend: &mut dyn FnMut(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<()> {
        let (mut streams, mut gathered) = (Vec::new(), Vec::new());
        for (at, (dataset, keys)) in datasets.iter().enumerate() {
            let writer = attempt.writer(dataset)?;
            gathered.push(Gathered { writer, batches: Vec::new(), rows: Vec::new(), bytes: 0, ordinals: Vec::new() });
            for made in &self.made {
                let batches = Box::new(self.batches_of(made, dataset));
                streams.push((at, Stream { batches, keys, converter: None, batch: None, row: 0, held_at: None }));
            }
        }
        let mut heap = BinaryHeap::new();
        for (at, (_, stream)) in streams.iter_mut().enumerate() {
            heap.extend(stream.key()?.map(|key| Reverse((key, at))));
        }
        while let Some(Reverse((_, at))) = heap.pop() {
            let (dataset, stream) = &mut streams[at];
            let (dataset, keys) = (*dataset, stream.keys);
            let own = &mut gathered[dataset];
            if let Some((batch, _, sizes)) = stream.batch.as_ref().filter(|(batch, ..)| takes(batch, stream.row)) {
                let held_at = *stream.held_at.get_or_insert_with(|| {
                    own.batches.push(batch.clone());
                    own.batches.len() - 1
                });
                own.rows.push((held_at, stream.row));
                own.bytes += sizes[stream.row];
                own.ordinals.extend(number(batch, stream.row, keys)?);
            }
            stream.row += 1;
            heap.extend(stream.key()?.map(|key| Reverse((key, at))));
            if own.rows.len() == ROWS || own.bytes >= BATCH_BYTES {
                own.flush(keys.contains(&ORDINAL), mend)?;
                streams.iter_mut().filter(|(of, _)| *of == dataset).for_each(|(_, stream)| stream.held_at = None);
            }
        }
        for (own, (_, keys)) in gathered.iter_mut().zip(datasets) {
            own.flush(keys.contains(&ORDINAL), mend)?;
        }
        attempt.finish_all(gathered.into_iter().map(|own| own.writer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, Position, Published, Shard, Store, read_output};
    use codepair_schemas::rows::{Query, Rejected, Request};

    fn query(ordinal: u64, text: String) -> Query {
        Query { source: "s".into(), ordinal, id: format!("{ordinal:x}"), text, ..Query::default() }
    }

    fn rejected(ordinal: u64) -> Rejected {
        Rejected { stage: "ingest".into(), source: "s".into(), ordinal, ..Rejected::default() }
    }

    /// Writes what one of so many shards has of `rows` things, of which every seventh is rejected and every fifth is two rows.
    fn write(attempt: &mut Attempt, shard: Shard, rows: u64, text: &dyn Fn(u64) -> String) {
        let (mut queries, mut others) = (Vec::new(), Vec::new());
        let mut next = 0;
        for thing in (0..rows).filter(|thing| shard.has(*thing / 3)) {
            let mut position = Position::of(thing);
            for _ in 0..1 + u64::from(thing % 5 == 0) {
                let ordinal = if shard.is_all() { next } else { position.ordinal() };
                match thing % 7 {
                    0 => others.push(rejected(ordinal)),
                    _ => queries.push(query(ordinal, text(thing))),
                }
                (position, next) = (position.next(), next + 1);
            }
        }
        // What an id is made of is the same wherever the row stands.
        queries.iter_mut().for_each(|query| query.id = query.text.chars().take(9).collect());
        attempt.write_rows(queries).unwrap();
        attempt.write_rows(others).unwrap();
    }

    fn published(attempt: Attempt, file: &str, shard: Option<String>) -> Manifest {
        let Published::Ours(made) = attempt.publish_as(file, |manifest| manifest.shard = shard).unwrap() else {
            panic!()
        };
        made
    }

    fn merged(rows: u64, of: u32, text: &dyn Fn(u64) -> String) -> (Manifest, Manifest) {
        let store = Store::memory();
        let mut whole = Attempt::new(&store, "ingest", "whole");
        write(&mut whole, Shard::default(), rows, text);
        let whole = published(whole, "manifest.json", None);
        for index in 1..=of {
            let (shard, mut attempt) = (Shard { index, of }, Attempt::new(&store, "ingest", "f"));
            write(&mut attempt, shard, rows, text);
            published(attempt, &shard.file(), Some(shard.to_string()));
        }
        let mut attempt = Attempt::new(&store, "ingest", "f");
        let shards = Shards::find(&store, "ingest", "f", of).unwrap();
        assert_eq!(shards.missing(), None);
        shards.merge_numbered(&mut attempt, &[("queries", "source"), ("rejected", "source")], Ok).unwrap();
        let made = published(attempt, "manifest.json", None);
        let texts = read_output(&store, &made, "queries", &["text"]).unwrap();
        assert_eq!(texts.iter().map(RecordBatch::num_rows).sum::<usize>() as u64, made.rows("queries"));
        (whole, made)
    }

    /// More rows than are put together at once, over and over.
    #[test]
    fn many_rows_of_several_shards_are_numbered_as_one_process_does() {
        for of in [2, 5] {
            let (whole, made) = merged(40_000, of, &|n| format!("text {n}"));
            assert_eq!((&made.digest, made.rows("queries") > 3 * ROWS as u64), (&whole.digest, true));
        }
    }

    /// Rows of a mebibyte: what is put together at once has a bound.
    #[test]
    fn long_rows_are_put_together() {
        let (whole, made) = merged(60, 3, &|n| format!("{n} ").repeat(300_000));
        assert_eq!(made.digest, whole.digest);
    }

    /// Of what several shards hold, the first by all keys counts.
    #[test]
    fn rows_with_equal_keys_are_one() {
        let store = Store::memory();
        let row = |request: &str, generator: &str| Request {
            request: request.into(),
            generator: generator.into(),
            ..Request::default()
        };
        for (index, rows) in [(1, vec![row("a", "x"), row("b", "y")]), (2, vec![row("b", "x"), row("c", "x")])] {
            let (shard, mut attempt) = (Shard { index, of: 2 }, Attempt::new(&store, "synth", "f"));
            attempt.write_rows(rows).unwrap();
            published(attempt, &shard.file(), Some(shard.to_string()));
        }
        let mut attempt = Attempt::new(&store, "synth", "f");
        let shards = Shards::find(&store, "synth", "f", 2).unwrap();
        shards.merge_distinct(&mut attempt, "requests", &["request", "attempt", "generator"], 2).unwrap();
        let made = published(attempt, "manifest.json", None);
        let batches = read_output(&store, &made, "requests", &[]).unwrap();
        let column = |name| {
            batches
                .iter()
                .flat_map(|b| text_column(b, name).unwrap().iter().flatten().map(str::to_owned).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (column("request"), column("generator")),
            (vec!["a".into(), "b".into(), "c".into()], vec!["x".into(), "x".to_owned(), "x".into()])
        );
    }
}
