//! Datasets in and out. The same rows give the same bytes: batches and parts are cut by the rows alone, and the writer's
//! properties are fixed.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, bail};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema, SchemaRef, UInt64Type};
use arrow::row::{OwnedRow, RowConverter, SortField};
use codepair_schemas::{Dataset, rows::Row};
use object_store::PutPayloadMut;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnPath;

use crate::digest::FileDigest;
use crate::spool::unnamed;
use crate::writes::Writes;
use crate::{Manifest, Output, Store};

const BATCH_ROWS: usize = 8_192;
const ROW_GROUP_ROWS: usize = 65_536;
const PART_ROWS: usize = 131_072;
/// Batches and parts of long rows are cut earlier, so that memory has a bound: text of a batch, encoded bytes of a part.
pub(crate) const BATCH_BYTES: usize = 16 << 20;
const PART_BYTES: usize = 96 << 20;
const BLOCK_BYTES: usize = 1 << 20;

/// Columns whose values hardly ever repeat, and that nobody looks for by range: a dictionary and the least and greatest
/// value of each page would be made for nothing.
const DISTINCT: &[&str] = &["id", "url", "code", "docstring", "text", "payload", "response", "request", "detail"];

fn properties() -> WriterProperties {
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by("codepair".to_owned());
    let distinct = DISTINCT.iter().fold(builder, |builder, &column| {
        let column = ColumnPath::from(column);
        let builder = builder.set_column_dictionary_enabled(column.clone(), false);
        builder.set_column_statistics_enabled(column, EnabledStatistics::None)
    });
    distinct.build()
}

/// Writes one dataset, part by part, on a thread of its own; memory holds one part.
pub struct DatasetWriter {
    folder: String,
    work: SyncSender<Work>,
    thread: JoinHandle<Result<Vec<Output>>>,
}

enum Work {
    Batch(RecordBatch),
    /// Without it the writer was dropped: what is written counts for nothing.
    Finish,
}

impl DatasetWriter {
    pub(crate) fn new(
        store: &Store,
        writes: &Arc<Writes>,
        dataset: &'static Dataset,
        folder: &str,
        prefix: &str,
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let parts = Parts::new(store, writes, dataset, folder, prefix, metadata)?;
        let (work, todo) = sync_channel(2);
        let thread = std::thread::Builder::new().name(format!("write {folder}")).spawn(move || parts.run(&todo))?;
        Ok(Self { folder: folder.to_owned(), work, thread })
    }

    /// Adds a batch of the dataset's columns, however long. An error of the writing comes with a later batch or the end.
    ///
    /// # Errors
    /// A batch does not fit the schema, is out of order, or a part cannot be written.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if self.work.send(Work::Batch(batch)).is_ok() {
            return Ok(());
        }
        let (closed, _) = sync_channel(0);
        self.work = closed;
        let idle = std::thread::spawn(|| Ok(Vec::new()));
        join(std::mem::replace(&mut self.thread, idle)).map(|_| ())?;
        Err(anyhow!("writing {} ended early", self.folder))
    }

    /// Ends the writing; the last part is stored while the caller goes on.
    pub(crate) fn end(self) -> Ending {
        // Where the thread has ended already, joining it says why.
        let _ = self.work.send(Work::Finish);
        Ending(self.thread)
    }
}

/// A dataset whose last part is being stored.
pub(crate) struct Ending(JoinHandle<Result<Vec<Output>>>);

impl Ending {
    pub(crate) fn outputs(self) -> Result<Vec<Output>> {
        join(self.0)
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Writes one dataset row by row.
pub struct RowWriter<R: Row> {
    writer: DatasetWriter,
    rows: Vec<R>,
    bytes: usize,
}

impl<R: Row> RowWriter<R> {
    pub(crate) fn new(writer: DatasetWriter) -> Self {
        Self { writer, rows: Vec::new(), bytes: 0 }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// As [`DatasetWriter::write`].
    pub fn push(&mut self, row: R) -> Result<()> {
        self.bytes += row.text_bytes();
        self.rows.push(row);
        if self.rows.len() == BATCH_ROWS || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = R::batch(&self.rows)?;
        self.rows.clear();
        self.bytes = 0;
        self.writer.write(batch)
    }

    /// Writes the rows that are left; the dataset is to be finished then.
    ///
    /// # Errors
    /// As [`DatasetWriter::write`].
    pub fn into_writer(mut self) -> Result<DatasetWriter> {
        self.flush()?;
        Ok(self.writer)
    }
}

/// What is written of a part. In blocks, for one piece of memory that grows would be copied each time.
struct Part {
    blocks: PutPayloadMut,
    digest: FileDigest,
}

impl Default for Part {
    fn default() -> Self {
        Self { blocks: PutPayloadMut::new().with_block_size(BLOCK_BYTES), digest: FileDigest::default() }
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.blocks.extend_from_slice(bytes);
        self.digest.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The parts of a dataset, made one after another.
struct Parts {
    store: Store,
    writes: Arc<Writes>,
    dataset: &'static Dataset,
    folder: String,
    prefix: String,
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    part: ArrowWriter<Part>,
    part_rows: usize,
    outputs: Vec<Output>,
    /// Storing the last part goes on while the next is made.
    storing: Option<JoinHandle<Result<()>>>,
    order: Order,
}

impl Parts {
    fn new(
        store: &Store,
        writes: &Arc<Writes>,
        dataset: &'static Dataset,
        folder: &str,
        prefix: &str,
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let schema = Arc::new(Schema::new_with_metadata(dataset.schema().fields().clone(), metadata));
        Ok(Self {
            store: store.clone(),
            writes: Arc::clone(writes),
            dataset,
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            part: ArrowWriter::try_new(Part::default(), Arc::clone(&schema), Some(properties()))?,
            part_rows: 0,
            outputs: Vec::new(),
            storing: None,
            order: Order::new(dataset, &schema)?,
            schema,
        })
    }

    fn run(mut self, todo: &Receiver<Work>) -> Result<Vec<Output>> {
        while let Ok(work) = todo.recv() {
            match work {
                Work::Batch(batch) => self.add(&batch)?,
                Work::Finish => return self.finish(),
            }
        }
        Ok(Vec::new())
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
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
        if !self.order.goes_on(&batch)? {
            bail!("{} is written out of its sort key's order ({})", self.folder, self.dataset.sort_key.join(", "));
        }
        let sizes = row_sizes(&batch);
        let mut start = 0;
        for (row, size) in sizes.into_iter().enumerate() {
            self.pending_rows += 1;
            self.pending_bytes += size;
            if self.pending_rows == BATCH_ROWS || self.pending_bytes >= BATCH_BYTES {
                self.pending.push(batch.slice(start, row + 1 - start));
                self.write_pending()?;
                start = row + 1;
            }
        }
        if start < batch.num_rows() {
            self.pending.push(batch.slice(start, batch.num_rows() - start));
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<()> {
        if self.pending_rows > 0 {
            self.part.write(&concat_batches(&self.schema, &self.pending)?)?;
        }
        self.part_rows += self.pending_rows;
        self.pending.clear();
        (self.pending_rows, self.pending_bytes) = (0, 0);
        let bytes = self.part.bytes_written() + self.part.in_progress_size();
        if self.part_rows >= PART_ROWS || bytes >= PART_BYTES { self.close_part() } else { Ok(()) }
    }

    fn close_part(&mut self) -> Result<()> {
        let fresh = ArrowWriter::try_new(Part::default(), Arc::clone(&self.schema), Some(properties()))?;
        let part = std::mem::replace(&mut self.part, fresh).into_inner()?;
        let name = format!("{}/part-{:05}.parquet", self.folder, self.outputs.len());
        let attempt = self.prefix.rsplit('/').next().unwrap_or_default();
        let (sha256, blocks) = part.digest.finish();
        self.outputs.push(Output {
            dataset: self.folder.clone(),
            path: format!("{attempt}/{name}"),
            rows: Some(self.part_rows as u64),
            bytes: part.blocks.content_length() as u64,
            sha256,
            blocks,
            schema_version: Some(self.dataset.version),
            volatile: self.dataset.volatile,
        });
        self.part_rows = 0;
        self.stored()?;
        self.writes.note()?;
        let (store, path) = (self.store.clone(), format!("{}/{name}", self.prefix));
        self.storing = Some(std::thread::spawn(move || store.put(&path, part.blocks)));
        Ok(())
    }

    /// Waits until the last part is stored.
    fn stored(&mut self) -> Result<()> {
        self.storing.take().map_or(Ok(()), join)
    }

    fn finish(mut self) -> Result<Vec<Output>> {
        self.write_pending()?;
        // A dataset without rows still has one part: its schema.
        if self.part_rows > 0 || self.outputs.is_empty() {
            self.close_part()?;
        }
        self.stored()?;
        Ok(self.outputs)
    }
}

/// Bytes of text and vectors in each row.
pub(crate) fn row_sizes(batch: &RecordBatch) -> Vec<usize> {
    let mut sizes = vec![0; batch.num_rows()];
    for column in batch.columns() {
        let (offsets, width): (&[i32], usize) = match column.data_type() {
            DataType::Utf8 => (column.as_string::<i32>().value_offsets(), 1),
            DataType::Binary => (column.as_binary::<i32>().value_offsets(), 1),
            DataType::List(item) if item.data_type() == &DataType::Float32 => {
                (column.as_list::<i32>().value_offsets(), size_of::<f32>())
            }
            _ => continue,
        };
        sizes.iter_mut().zip(offsets.windows(2)).for_each(|(size, w)| *size += (w[1] - w[0]) as usize * width);
    }
    sizes
}

/// Watches that rows come in the order of the sort key.
struct Order {
    rows: RowConverter,
    columns: Vec<usize>,
    last: Option<OwnedRow>,
}

impl Order {
    fn new(dataset: &Dataset, schema: &Schema) -> Result<Self> {
        let columns: Vec<usize> = dataset.sort_key.iter().map(|k| schema.index_of(k)).collect::<Result<_, _>>()?;
        let fields = columns.iter().map(|&i| SortField::new(schema.field(i).data_type().clone())).collect();
        Ok(Self { rows: RowConverter::new(fields)?, columns, last: None })
    }

    fn goes_on(&mut self, batch: &RecordBatch) -> Result<bool> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        let rows = self.rows.convert_columns(&columns)?;
        let mut last = self.last.as_ref().map(OwnedRow::row);
        for row in &rows {
            if last.is_some_and(|last| last > row) {
                return Ok(false);
            }
            last = Some(row);
        }
        self.last = last.map(|row| row.owned());
        Ok(true)
    }
}

/// Reads a dataset of an artifact, checked against its SHA-256, optionally only some columns.
///
/// # Errors
/// Exit 3 where it is missing or damaged.
pub fn read_output(store: &Store, manifest: &Manifest, dataset: &str, columns: &[&str]) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for output in manifest.files(dataset) {
        for batch in read_part(manifest.read(store, output)?, columns)? {
            batches.push(batch?);
        }
    }
    Ok(batches)
}

/// The batches of a part that was read, or why it was not.
pub(crate) fn batches(part: Result<bytes::Bytes>, columns: &[&str]) -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
    match part.and_then(|bytes| read_part(bytes, columns)) {
        Ok(batches) => Box::new(batches),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// As [`batches`], of all columns, with the part in a file without a name: many may be open at once.
pub(crate) fn batches_on_disk(part: Result<bytes::Bytes>) -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
    let on_disk = part.and_then(|bytes| {
        let mut file = unnamed()?;
        file.write_all(&bytes)?;
        read_part(file, &[])
    });
    match on_disk {
        Ok(batches) => Box::new(batches),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// So many rows that a batch of long ones has a bound: a text column of more than 2 GiB could not be read at all.
fn rows_of_a_batch(rows: i64, bytes: i64) -> usize {
    let fit = BATCH_BYTES as i64 * rows / bytes.max(1);
    usize::try_from(fit).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
}

/// The batches of one part; no columns named means all.
fn read_part<R: ChunkReader + 'static>(
    content: R,
    columns: &[&str],
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<R>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(content)?;
    let mask = match columns {
        [] => ProjectionMask::all(),
        columns => ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied()),
    };
    // The reader leaves the schema's metadata out of projected batches; the width of tokens is there.
    let metadata = reader.schema().metadata().clone();
    let groups = reader.metadata().row_groups().iter();
    let rows = groups.map(|group| rows_of_a_batch(group.num_rows(), group.total_byte_size())).min();
    let batches = reader.with_projection(mask).with_batch_size(rows.unwrap_or(BATCH_ROWS)).build()?;
    Ok(batches.map(move |batch| {
        let batch = batch?;
        let schema = Schema::new_with_metadata(batch.schema().fields().clone(), metadata.clone());
        Ok(batch.with_schema(Arc::new(schema))?)
    }))
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
        let publish = |step: &str, fill: &dyn Fn(&mut Attempt)| {
            let mut attempt = Attempt::new(&store, step, "f");
            fill(&mut attempt);
            let Published::Ours(manifest) = attempt.publish(|_| {}).unwrap() else { panic!() };
            assert_eq!(manifest.rows("rejected"), total as u64);
            manifest
        };
        let by_row =
            publish("rows", &|attempt| attempt.write_rows((0..total).map(rejected).collect::<Vec<_>>()).unwrap());
        let batches = read_output(&store, &by_row, "rejected", &[]).unwrap();
        let all = concat_batches(&batches[0].schema(), &batches).unwrap();
        let by_slice = publish("slices", &|attempt| {
            let mut writer = attempt.writer("rejected").unwrap();
            (0..total).step_by(1000).for_each(|s| writer.write(all.slice(s, 1000.min(total - s))).unwrap());
            attempt.finish(writer).unwrap();
        });
        assert_eq!(by_row.digest, by_slice.digest);
    }

    /// Rows of a mebibyte each: a part is never much larger than its bound, however few rows that are.
    #[test]
    fn parts_of_long_rows_are_cut_by_size() {
        let store = Store::memory();
        let mut attempt = Attempt::new(&store, "s", "f");
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b' ' + (state >> 33) as u8 % 90)
        };
        let rows = (0..130).map(|n| Rejected { detail: (0..1 << 20).map(|_| noise()).collect(), ..rejected(n) });
        attempt.write_rows(rows).unwrap();
        let Published::Ours(manifest) = attempt.publish(|_| {}).unwrap() else { panic!() };
        let sizes: Vec<u64> = manifest.files("rejected").map(|output| output.bytes).collect();
        assert_eq!((sizes.len(), manifest.rows("rejected")), (2, 130));
        assert!(sizes[0] < (PART_BYTES + BATCH_BYTES) as u64, "{sizes:?}");
    }

    #[test]
    fn long_rows_are_read_a_few_at_a_time() {
        let store = Store::memory();
        let mut attempt = Attempt::new(&store, "s", "f");
        let rows = (0..64).map(|n| Rejected { detail: "x".repeat(1 << 20), ..rejected(n) });
        attempt.write_rows(rows).unwrap();
        let Published::Ours(manifest) = attempt.publish(|_| {}).unwrap() else { panic!() };
        let batches = read_output(&store, &manifest, "rejected", &[]).unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 64);
        assert!(batches.iter().all(|batch| batch.num_rows() <= 16), "{}", batches[0].num_rows());
        assert_eq!((rows_of_a_batch(100, 0), rows_of_a_batch(0, 7), rows_of_a_batch(100, 1 << 40)), (BATCH_ROWS, 1, 1));
    }

    #[test]
    fn errors_of_the_writing_thread_come_out() {
        let store = Store::memory();
        let mut attempt = Attempt::new(&store, "s", "f");
        let mut writer = attempt.writer("rejected").unwrap();
        let wrong = RecordBatch::try_from_iter([("x", Arc::new(StringArray::from(vec!["y"])) as ArrayRef)]).unwrap();
        let told = (0..50).find_map(|_| writer.write(wrong.clone()).err());
        let told = told.unwrap_or_else(|| attempt.finish(writer).unwrap_err());
        assert!(told.to_string().contains("misses column stage"), "{told}");
    }
}
