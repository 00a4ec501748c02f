//! Parquet files, a batch of rows at a time.

use anyhow::Result;
use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;

use crate::files::Opened;

const BATCH_ROWS: usize = 1024;

/// Some rows of a file, their columns as text.
pub(crate) struct Table {
    pub(crate) file: String,
    /// Number of the first row, from 1.
    first: usize,
    columns: Vec<(String, StringArray)>,
    pub(crate) rows: usize,
}

/// Cuts a Parquet file into tables of those columns of `wanted` that it has.
///
/// # Errors
/// Exit 3: it is damaged, or no Parquet.
pub(crate) fn cut(file: &mut Opened, wanted: &[&str], emit: &mut dyn FnMut(Table) -> Result<()>) -> Result<()> {
    match file.on_disk() {
        Some(path) => {
            let opened = std::fs::File::open(path).map_err(|error| file.damaged(&error))?;
            read(file, opened, wanted, emit)
        }
        None => {
            let bytes = bytes::Bytes::from(file.read_all()?);
            read(file, bytes, wanted, emit)
        }
    }
}

fn read(
    file: &Opened,
    content: impl ChunkReader + 'static,
    wanted: &[&str],
    emit: &mut dyn FnMut(Table) -> Result<()>,
) -> Result<()> {
    let damaged = |error: &dyn std::fmt::Display| file.damaged(error);
    let reader = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|e| damaged(&e))?;
    let mask = ProjectionMask::columns(reader.parquet_schema(), wanted.iter().copied());
    let batches = reader.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|e| damaged(&e))?;
    let mut first = 1;
    for batch in batches {
        let batch = batch.map_err(|e| damaged(&e))?;
        let rows = batch.num_rows();
        emit(Table { file: file.name().to_owned(), first, columns: texts(&batch), rows })?;
        first += rows;
    }
    Ok(())
}

/// Columns that cannot be text are as if they were not there.
fn texts(batch: &RecordBatch) -> Vec<(String, StringArray)> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let text = |(field, column): (&std::sync::Arc<arrow::datatypes::Field>, &std::sync::Arc<dyn Array>)| {
        Some((field.name().clone(), cast(column, &DataType::Utf8).ok()?.as_string().clone()))
    };
    columns.filter_map(text).collect()
}

impl Table {
    /// A cell; nothing where the column is not there or the cell is null.
    pub(crate) fn text(&self, column: &str, row: usize) -> Option<&str> {
        let (_, values) = self.columns.iter().find(|(name, _)| name == column)?;
        values.is_valid(row).then(|| values.value(row))
    }

    /// A cell, an empty text where it is null; nothing where the column is not there.
    pub(crate) fn cell(&self, column: &str, row: usize) -> Option<&str> {
        let (_, values) = self.columns.iter().find(|(name, _)| name == column)?;
        Some(if values.is_valid(row) { values.value(row) } else { "" })
    }

    /// Where a row stands.
    pub(crate) fn place(&self, row: usize) -> String {
        format!("{}:{}", self.file, self.first + row)
    }
}
