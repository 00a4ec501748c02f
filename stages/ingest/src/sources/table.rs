//! Parquet and Arrow IPC files, a batch of rows at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};

use anyhow::Result;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use codepair_runtime::{input_error, what_it_is};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;

use super::mapped::Cell;
use crate::files::{Opened, has_end, unpacked};

const BATCH_ROWS: usize = 1024;
/// What a Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";

/// Some rows of a file, their columns as text.
pub(crate) struct Table {
    pub(crate) file: String,
    /// What the file's name says of the split.
    pub(crate) split: Option<crate::split::Named>,
    /// Number of the first row, from 1.
    first: usize,
    columns: Vec<(String, Texts)>,
    pub(crate) rows: usize,
}

/// A column as text.
struct Texts {
    values: StringArray,
    /// What cells are that are bytes and no text.
    broken: Vec<(usize, String)>,
    /// They were numbers, which serve as names and not as texts.
    are_numbers: bool,
}

/// Which columns are read.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// These, as far as they are there.
    Named(&'a [&'a str]),
    /// All that hold texts, those within others too.
    Texts,
}

impl Wanted<'_> {
    fn names(self, batch: &RecordBatch) -> Vec<String> {
        match self {
            Self::Named(names) => names.iter().map(|name| (*name).to_owned()).collect(),
            Self::Texts => {
                let mut names = Vec::new();
                batch.schema().fields().iter().for_each(|field| text_names("", field, &mut names));
                names
            }
        }
    }
}

fn text_names(outer: &str, field: &Field, names: &mut Vec<String>) {
    let name = if outer.is_empty() { field.name().clone() } else { format!("{outer}.{}", field.name()) };
    match field.data_type() {
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Dictionary(..) => names.push(name),
        DataType::Struct(inner) => inner.iter().for_each(|field| text_names(&name, field, names)),
        _ => {}
    }
}

/// Cuts a Parquet or Arrow file into tables of those columns of `wanted` that it has.
///
/// # Errors
/// Exit 3: it is damaged, or none; a wanted column can hold no text.
pub(crate) fn cut(file: &mut Opened, wanted: Wanted, emit: &mut dyn FnMut(Table) -> Result<()>) -> Result<()> {
    let is_arrow = has_end(unpacked(file.name()), ".arrow");
    match file.on_disk() {
        Some(path) => {
            let opened = File::open(path).map_err(|error| file.damaged(&error))?;
            if is_arrow {
                return arrow(file, BufReader::new(opened), wanted, emit);
            }
            read(file, opened, wanted, emit)
        }
        None => {
            let bytes = bytes::Bytes::from(file.read_all()?);
            if is_arrow {
                return arrow(file, Cursor::new(bytes), wanted, emit);
            }
            read(file, bytes, wanted, emit)
        }
    }
}

fn read(
    file: &Opened,
    content: impl ChunkReader + 'static,
    wanted: Wanted,
    emit: &mut dyn FnMut(Table) -> Result<()>,
) -> Result<()> {
    let damaged = |error: &dyn std::fmt::Display| file.damaged(error);
    let begin = content.get_bytes(0, content.len().min(MAGIC.len() as u64) as usize).map_err(|e| damaged(&e))?;
    if begin.is_empty() {
        return Err(input_error(format!("{} is empty", file.name())));
    }
    if *begin != *MAGIC {
        let begins = String::from_utf8_lossy(&begin).into_owned();
        return Err(input_error(format!(
            "{} is no Parquet file: it begins with {begins:?} and not with PAR1; is kind right, and are the patterns?",
            file.name()
        )));
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|e| damaged(&e))?;
    let mask = match wanted {
        Wanted::Named(names) => ProjectionMask::columns(reader.parquet_schema(), names.iter().copied()),
        Wanted::Texts => ProjectionMask::all(),
    };
    let batches = reader.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|e| damaged(&e))?;
    tables(file, batches, wanted, emit)
}

/// The form with a footer, or the stream that Hugging Face's library writes.
fn arrow(
    file: &Opened,
    mut content: impl Read + Seek,
    wanted: Wanted,
    emit: &mut dyn FnMut(Table) -> Result<()>,
) -> Result<()> {
    let damaged = |error: &dyn std::fmt::Display| file.damaged(error);
    let mut magic = [0; 6];
    content.read_exact(&mut magic).map_err(|e| damaged(&e))?;
    content.rewind().map_err(|e| damaged(&e))?;
    if magic == *b"ARROW1" {
        return tables(file, FileReader::try_new(content, None).map_err(|e| damaged(&e))?, wanted, emit);
    }
    tables(file, StreamReader::try_new(content, None).map_err(|e| damaged(&e))?, wanted, emit)
}

fn tables(
    file: &Opened,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    wanted: Wanted,
    emit: &mut dyn FnMut(Table) -> Result<()>,
) -> Result<()> {
    let mut first = 1;
    for batch in batches {
        let batch = batch.map_err(|error| file.damaged(&error))?;
        for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
            let batch = batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start));
            let rows = batch.num_rows();
            let columns = wanted.names(&batch).into_iter().filter_map(|name| Some((column(&batch, &name)?, name)));
            let columns = columns.map(|(column, name)| texts(file, &name, &column).map(|texts| (name, texts)));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            emit(Table { file: file.name().to_owned(), split: file.split(), first, columns, rows })?;
            first += rows;
        }
    }
    Ok(())
}

/// A column by its name, or a field within others: `meta.code`.
fn column(batch: &RecordBatch, name: &str) -> Option<ArrayRef> {
    if let Some(column) = batch.column_by_name(name) {
        return Some(column.clone());
    }
    let mut parts = name.split('.');
    let mut column = batch.column_by_name(parts.next()?)?.clone();
    for part in parts {
        let outer = column.as_struct_opt()?;
        let inner = outer.column_by_name(part)?;
        // A field of nothing is nothing.
        let nulls = arrow::buffer::NullBuffer::union(inner.nulls(), outer.nulls());
        column = arrow::array::make_array(inner.to_data().into_builder().nulls(nulls).build().ok()?);
    }
    Some(column)
}

fn texts(file: &Opened, name: &str, column: &ArrayRef) -> Result<Texts> {
    let kind = column.data_type();
    if matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)) {
        let column = cast(column, &DataType::LargeBinary).map_err(|error| file.damaged(&error))?;
        let (mut values, mut broken) = (Vec::with_capacity(column.len()), Vec::new());
        for (row, bytes) in column.as_binary::<i64>().iter().enumerate() {
            values.push(match bytes.map(std::str::from_utf8) {
                Some(Ok(text)) => Some(text.to_owned()),
                Some(Err(_)) => {
                    broken.push((row, what_it_is(bytes.unwrap_or_default())));
                    None
                }
                None => None,
            });
        }
        return Ok(Texts { values: values.into(), broken, are_numbers: false });
    }
    let is_value = !kind.is_nested();
    let cast = is_value.then(|| cast(column, &DataType::Utf8).ok()).flatten();
    let cast = cast.ok_or_else(|| {
        let fields = match kind {
            DataType::Struct(fields) => {
                let names: Vec<String> = fields.iter().map(|field| format!("{name}.{}", field.name())).collect();
                format!("; it has {}", names.join(", "))
            }
            _ => String::new(),
        };
        input_error(format!("{}: the column {name} holds no text but {kind}{fields}", file.name()))
    })?;
    Ok(Texts { values: cast.as_string().clone(), broken: Vec::new(), are_numbers: kind.is_numeric() })
}

impl Table {
    fn column(&self, name: &str) -> Option<&Texts> {
        self.columns.iter().find(|(column, _)| column == name).map(|(_, texts)| texts)
    }

    /// A cell; nothing where the column is not there or the cell is null.
    pub(crate) fn text(&self, column: &str, row: usize) -> Option<&str> {
        let texts = self.column(column)?;
        texts.values.is_valid(row).then(|| texts.values.value(row))
    }

    /// A cell.
    pub(crate) fn cell(&self, column: &str, row: usize) -> Cell<'_> {
        let Some(texts) = self.column(column) else { return Cell::Other("there is no such column".to_owned()) };
        match texts.broken.iter().find(|(broken, _)| *broken == row) {
            Some((_, what)) => Cell::Other(what.clone()),
            None if texts.values.is_valid(row) && texts.are_numbers => Cell::Number(texts.values.value(row).to_owned()),
            None if texts.values.is_valid(row) => Cell::Text(Cow::Borrowed(texts.values.value(row))),
            None => Cell::Null,
        }
    }

    /// The texts of each row, by column.
    pub(crate) fn texts(&self) -> impl Iterator<Item = BTreeMap<String, String>> {
        let text = move |name: &str, row| self.text(name, row).unwrap_or_default().to_owned();
        (0..self.rows).map(move |row| self.columns.iter().map(|(name, _)| (name.clone(), text(name, row))).collect())
    }

    /// Where a row stands.
    pub(crate) fn place(&self, row: usize) -> String {
        format!("{}:{}", self.file, self.first + row)
    }
}
