//! Datasets in and out. The same rows give the same bytes: batches and parts are cut by row count alone, and the
//! writer's properties are fixed.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef, UInt64Type};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use arrow::row::{OwnedRow, RowConverter, SortField};
use codepair_schemas::{Dataset, rows::Row};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::{Manifest, Output, Store, sha256};

const BATCH_ROWS: usize = 8_192;
const ROW_GROUP_ROWS: usize = 65_536;
const PART_ROWS: usize = 131_072;

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by("codepair".to_owned())
        .build()
}

/// Writes one dataset, part by part; memory holds one part.
pub struct DatasetWriter {
    store: Store,
    dataset: &'static Dataset,
    folder: String,
    prefix: String,
    schema: SchemaRef,
    decoder: Decoder,
    undecoded: usize,
    pending: Vec<RecordBatch>,
    part: ArrowWriter<Vec<u8>>,
    part_rows: usize,
    outputs: Vec<Output>,
    keys: RowConverter,
    key_columns: Vec<usize>,
    last_key: Option<OwnedRow>,
}

impl DatasetWriter {
    pub(crate) fn new(
        store: &Store,
        dataset: &'static Dataset,
        folder: &str,
        prefix: &str,
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let schema = Arc::new(Schema::new_with_metadata(dataset.schema().fields().clone(), metadata));
        let key_columns: Vec<usize> = dataset.sort_key.iter().map(|k| schema.index_of(k)).collect::<Result<_, _>>()?;
        let fields = key_columns.iter().map(|&i| SortField::new(schema.field(i).data_type().clone())).collect();
        Ok(Self {
            store: store.clone(),
            dataset,
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            decoder: ReaderBuilder::new(dataset.schema()).with_batch_size(BATCH_ROWS).build_decoder()?,
            undecoded: 0,
            pending: Vec::new(),
            part: ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties()))?,
            part_rows: 0,
            outputs: Vec::new(),
            keys: RowConverter::new(fields)?,
            key_columns,
            last_key: None,
            schema,
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// It does not fit the schema, is out of order, or a part cannot be written.
    pub fn push<R: Row>(&mut self, row: &R) -> Result<()> {
        self.decoder.serialize(std::slice::from_ref(row))?;
        self.undecoded += 1;
        if self.undecoded == BATCH_ROWS { self.flush_rows() } else { Ok(()) }
    }

    fn flush_rows(&mut self) -> Result<()> {
        self.undecoded = 0;
        match self.decoder.flush()? {
            Some(batch) => self.write(batch),
            None => Ok(()),
        }
    }

    /// Adds a batch of the dataset's columns, however long.
    ///
    /// # Errors
    /// As [`DatasetWriter::push`].
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| {
                let column = batch.column_by_name(field.name());
                let column = column.with_context(|| format!("{} misses column {}", self.folder, field.name()))?;
                Ok(cast(column, field.data_type())?)
            })
            .collect::<Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.check_order(&batch)?;
        self.pending.push(batch);
        let mut rows: usize = self.pending.iter().map(RecordBatch::num_rows).sum();
        if rows < BATCH_ROWS {
            return Ok(());
        }
        let joined = concat_batches(&self.schema, &self.pending)?;
        self.pending.clear();
        let mut start = 0;
        while rows - start >= BATCH_ROWS {
            self.write_exact(&joined.slice(start, BATCH_ROWS))?;
            start += BATCH_ROWS;
        }
        rows -= start;
        if rows > 0 {
            self.pending.push(joined.slice(start, rows));
        }
        Ok(())
    }

    fn check_order(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns: Vec<_> = self.key_columns.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        let rows = self.keys.convert_columns(&columns)?;
        let mut last = self.last_key.as_ref().map(OwnedRow::row);
        for row in &rows {
            if last.is_some_and(|last| last > row) {
                bail!("{} is written out of its sort key's order ({})", self.folder, self.dataset.sort_key.join(", "));
            }
            last = Some(row);
        }
        self.last_key = last.map(|row| row.owned());
        Ok(())
    }

    fn write_exact(&mut self, batch: &RecordBatch) -> Result<()> {
        self.part.write(batch)?;
        self.part_rows += batch.num_rows();
        if self.part_rows >= PART_ROWS { self.close_part() } else { Ok(()) }
    }

    fn close_part(&mut self) -> Result<()> {
        let fresh = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), Some(properties()))?;
        let bytes = std::mem::replace(&mut self.part, fresh).into_inner()?;
        let name = format!("{}/part-{:05}.parquet", self.folder, self.outputs.len());
        let attempt = self.prefix.rsplit('/').next().unwrap_or_default();
        self.outputs.push(Output {
            dataset: self.folder.clone(),
            path: format!("{attempt}/{name}"),
            rows: Some(self.part_rows as u64),
            bytes: bytes.len() as u64,
            sha256: sha256(&bytes),
            schema_version: Some(self.dataset.version),
            volatile: self.dataset.volatile,
        });
        self.part_rows = 0;
        self.store.put(&format!("{}/{name}", self.prefix), bytes)
    }

    pub(crate) fn finish(mut self) -> Result<Vec<Output>> {
        self.flush_rows()?;
        for batch in std::mem::take(&mut self.pending) {
            self.write_exact(&batch)?;
        }
        // A dataset without rows still has one part: its schema.
        if self.part_rows > 0 || self.outputs.is_empty() {
            self.close_part()?;
        }
        Ok(self.outputs)
    }
}

/// Reads a dataset of an artifact, checked against its SHA-256, optionally only some columns.
///
/// # Errors
/// Exit 3 where it is missing or damaged.
pub fn read_output(store: &Store, manifest: &Manifest, dataset: &str, columns: &[&str]) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for output in manifest.files(dataset) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(manifest.read(store, output)?)?;
        let mask = match columns {
            [] => ProjectionMask::all(),
            columns => ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied()),
        };
        // The reader leaves the schema's metadata out of projected batches; the width of tokens is there.
        let metadata = reader.schema().metadata().clone();
        for batch in reader.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
            let batch = batch?;
            let schema = Schema::new_with_metadata(batch.schema().fields().clone(), metadata.clone());
            batches.push(batch.with_schema(Arc::new(schema))?);
        }
    }
    Ok(batches)
}

/// A column by name.
///
/// # Errors
/// There is none.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Arc<dyn Array>> {
    batch.column_by_name(name).with_context(|| format!("there is no column {name}"))
}

/// A text column by name.
///
/// # Errors
/// There is none, or it holds no text.
pub fn text_column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    column(batch, name)?.as_string_opt().with_context(|| format!("column {name} holds no text"))
}

/// A column of non-negative whole numbers by name, as 64 bits.
///
/// # Errors
/// There is none, or it holds no such numbers.
pub fn integer_column(batch: &RecordBatch, name: &str) -> Result<Vec<u64>> {
    let column = cast(column(batch, name)?, &DataType::UInt64)?;
    let column = column.as_primitive_opt::<UInt64Type>().with_context(|| format!("column {name} holds no numbers"))?;
    Ok(column.values().to_vec())
}

/// A column of floats by name.
///
/// # Errors
/// There is none, or it holds no floats.
pub fn float_column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Float64Array> {
    column(batch, name)?.as_primitive_opt().with_context(|| format!("column {name} holds no floats"))
}

/// A column of lists of texts by name.
///
/// # Errors
/// There is none, or it holds no such lists.
pub fn list_column(batch: &RecordBatch, name: &str) -> Result<Vec<Vec<String>>> {
    let column = column(batch, name)?.as_list_opt::<i32>().with_context(|| format!("column {name} holds no lists"))?;
    let values = column.values().as_string_opt::<i32>().with_context(|| format!("column {name} holds no texts"))?;
    let offsets = column.value_offsets();
    let slice = |w: &[i32]| (w[0]..w[1]).map(|i| values.value(i as usize).to_owned()).collect();
    Ok(offsets.windows(2).map(slice).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attempt, Published};
    use codepair_schemas::rows::Rejected;

    fn rejected(n: usize) -> Rejected {
        Rejected { stage: "s".into(), ordinal: n as u64, id: format!("{n:x}"), ..Rejected::default() }
    }

    /// However the rows arrive, the bytes are the same.
    #[test]
    fn bytes_do_not_depend_on_batches() {
        let total = 3 * BATCH_ROWS + 17;
        let store = Store::memory();
        let publish = |step: &str, fill: &dyn Fn(&mut DatasetWriter)| {
            let mut attempt = Attempt::new(&store, step, "f");
            let mut writer = attempt.writer("rejected").unwrap();
            fill(&mut writer);
            attempt.finish(writer).unwrap();
            let Published::Ours(manifest) = attempt.publish(|_| {}).unwrap() else { panic!() };
            assert_eq!(manifest.rows("rejected"), total as u64);
            manifest
        };
        let by_row = publish("rows", &|writer| (0..total).for_each(|n| writer.push(&rejected(n)).unwrap()));
        let batches = read_output(&store, &by_row, "rejected", &[]).unwrap();
        let all = concat_batches(&batches[0].schema(), &batches).unwrap();
        let by_slice = publish("slices", &|writer| {
            (0..total).step_by(1000).for_each(|s| writer.write(all.slice(s, 1000.min(total - s))).unwrap());
        });
        assert_eq!(by_row.digest, by_slice.digest);
    }
}
