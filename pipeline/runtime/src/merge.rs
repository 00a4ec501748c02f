//! Sorted rows of several shards, put together in one order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::interleave_record_batch;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};

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
    batch: Option<(RecordBatch, Rows)>,
    row: usize,
    /// Where the batch is among those that a [`Gathered`] holds.
    held_at: Option<usize>,
}

impl Stream<'_> {
    /// The key of the row that is next; nothing at the end.
    fn key(&mut self) -> Result<Option<OwnedRow>> {
        while self.batch.as_ref().is_none_or(|(batch, _)| self.row == batch.num_rows()) {
            let Some(batch) = self.batches.next().transpose()? else { return Ok(None) };
            let columns: Vec<ArrayRef> =
                self.keys.iter().map(|key| column(&batch, key).cloned()).collect::<Result<_>>()?;
            if self.converter.is_none() {
                let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                self.converter = Some(RowConverter::new(fields)?);
            }
            let converter = self.converter.as_ref().context("the converter was made")?;
            let keys = converter.convert_columns(&columns)?;
            (self.batch, self.row, self.held_at) = (Some((batch, keys)), 0, None);
        }
        Ok(self.batch.as_ref().map(|(_, keys)| keys.row(self.row).owned()))
    }
}

/// Rows of a dataset in their new order, until they are written.
struct Gathered {
    writer: DatasetWriter,
    batches: Vec<RecordBatch>,
    rows: Vec<(usize, usize)>,
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
            gathered.push(Gathered { writer, batches: Vec::new(), rows: Vec::new(), ordinals: Vec::new() });
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
            if let Some((batch, _)) = stream.batch.as_ref().filter(|(batch, _)| takes(batch, stream.row)) {
                let held_at = *stream.held_at.get_or_insert_with(|| {
                    own.batches.push(batch.clone());
                    own.batches.len() - 1
                });
                own.rows.push((held_at, stream.row));
                own.ordinals.extend(number(batch, stream.row, keys)?);
            }
            stream.row += 1;
            heap.extend(stream.key()?.map(|key| Reverse((key, at))));
            if own.rows.len() == ROWS {
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
