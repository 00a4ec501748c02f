//! What does not fit in memory, on local disk, for the time of one run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::{MutableBuffer, ScalarBuffer};
use arrow::datatypes::SchemaRef;
use bytemuck::{Pod, Zeroable};
use codepair_runtime::block_on;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::paged::Paged;

/// A folder that goes when the run ends; the next run clears away what a killed one left.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
    memory: u64,
    /// Locked while the run lives.
    _lock: File,
}

const PREFIX: &str = "codepair-prepare-";
const LOCK: &str = "lock";

impl Scratch {
    /// In the system's folder for such things (`TMPDIR`), for a stage that should do with so much memory.
    pub(crate) fn new(memory_limit: Option<u64>) -> Result<Self> {
        let place = std::env::temp_dir();
        clear(&place);
        let memory = memory_limit.unwrap_or(WITHOUT_LIMIT);
        Self::within(&place, memory).with_context(|| format!("cannot write to {}; set TMPDIR", place.display()))
    }

    fn within(place: &Path, memory: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
        // It gets its name once it is locked, so that nobody finds it open.
        let unnamed = folder.path().join("lock.new");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        std::fs::rename(unnamed, folder.path().join(LOCK))?;
        Ok(Self { folder, memory, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Begins a table of narrow rows, to be sorted by SQL.
    pub(crate) fn table(&self, name: &'static str, schema: SchemaRef) -> Result<ScratchTable> {
        let path = self.path().join(format!("{name}.parquet"));
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let writer = ArrowWriter::try_new(BufWriter::new(File::create(&path)?), Arc::clone(&schema), Some(properties))?;
        Ok(ScratchTable { name, path, schema, writer })
    }

    /// A share of the memory that the stage may use, in bytes.
    pub(crate) fn share(&self, of: u64) -> u64 {
        self.memory / of
    }

    /// A value for each row; so large a share of the memory may hold them.
    pub(crate) fn rows<T: Pod>(&self, share: u64) -> Result<Paged<T>> {
        Ok(Paged::new(tempfile::tempfile_in(self.path())?, self.share(share)))
    }

    /// Begins a file of records.
    pub(crate) fn records(&self) -> Result<RecordWriter> {
        let file = tempfile::tempfile_in(self.path())?;
        Ok(RecordWriter { file: BufWriter::new(file), places: self.rows(OFTEN)?, words: 0 })
    }
}

/// What a stage does with that has no limit.
const WITHOUT_LIMIT: u64 = 8 << 30;
/// The share of what is asked for with every two rows that are compared: all shares together are a fifth.
pub(crate) const OFTEN: u64 = 32;
/// The share of what is asked for once a row.
pub(crate) const SELDOM: u64 = 64;

/// Deletes the folders whose runs have ended.
fn clear(place: &Path) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let is_left = File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        // Another run may clear it away as well.
        if is_left && std::fs::remove_dir_all(entry.path()).is_ok() {
            tracing::info!("{} of a run that was killed is deleted", entry.path().display());
        }
    }
}

/// A table being written.
pub(crate) struct ScratchTable {
    name: &'static str,
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<BufWriter<File>>,
}

impl ScratchTable {
    pub(crate) fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        Ok(self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?)
    }

    /// Makes it a table of the session.
    pub(crate) fn register(self, session: &SessionContext) -> Result<()> {
        self.writer.close()?;
        let path = self.path.to_string_lossy();
        block_on(session.register_parquet(self.name, path.as_ref(), ParquetReadOptions::default()))?;
        Ok(())
    }
}

/// Bytes of rows, a record each, written in any order, to be read by the row's position.
pub(crate) struct RecordWriter {
    file: BufWriter<File>,
    places: Paged<Place>,
    words: u64,
}

/// Where a record begins, in words, and how many bytes it has; both 0 of a row that has none.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Place(u64);

const LENGTH_BITS: u32 = 24;
const WORD: usize = size_of::<u64>();

impl Place {
    /// Bytes of the record.
    pub(crate) fn bytes(self) -> usize {
        (self.0 & ((1 << LENGTH_BITS) - 1)) as usize
    }
}

impl RecordWriter {
    pub(crate) fn add(&mut self, row: u64, record: &[u8]) -> Result<()> {
        ensure!(record.len() < 1 << LENGTH_BITS, "a record of {} bytes", record.len());
        self.places.set(row, Place(self.words << LENGTH_BITS | record.len() as u64))?;
        let words = record.len().div_ceil(WORD);
        self.words += words as u64;
        self.file.write_all(record)?;
        Ok(self.file.write_all(&[0; WORD][..words * WORD - record.len()])?)
    }

    pub(crate) fn finish(self) -> Result<Records> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        Ok(Records { data: RecordData(file), places: self.places })
    }
}

/// Records on disk.
pub(crate) struct Records {
    places: Paged<Place>,
    pub(crate) data: RecordData,
}

/// What all threads may read of records.
pub(crate) struct RecordData(File);

impl Records {
    pub(crate) fn place(&self, row: u64) -> Result<Place> {
        self.places.get(row)
    }

    /// The record of a row as text.
    pub(crate) fn text(&self, row: u64) -> Result<String> {
        let bytes = self.data.read(self.place(row)?)?;
        Ok(std::str::from_utf8(&bytes)?.to_owned())
    }
}

impl RecordData {
    fn read(&self, place: Place) -> Result<MutableBuffer> {
        let mut bytes = MutableBuffer::from_len_zeroed(place.bytes());
        self.0.read_exact_at(&mut bytes, (place.0 >> LENGTH_BITS) * WORD as u64)?;
        Ok(bytes)
    }

    /// A record of hashes.
    pub(crate) fn hashes(&self, place: Place) -> Result<ScalarBuffer<u64>> {
        Ok(self.read(place)?.into())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray as _, FixedSizeBinaryArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::candidates::each_batch;

    #[test]
    fn what_a_killed_run_left_is_cleared_away() {
        let place = tempfile::tempdir().unwrap();
        let within = || Scratch::within(place.path(), 1 << 20).unwrap();
        let (killed, alive) = (within(), within());
        let left = killed.path().to_owned();
        let Scratch { folder, _lock, .. } = killed;
        let kept = folder.keep();
        std::fs::write(kept.join("keys.parquet"), "x").unwrap();
        drop(_lock);
        clear(place.path());
        assert!(!left.exists() && alive.path().exists());
    }

    #[test]
    fn records_are_read_by_row() {
        let scratch = Scratch::new(None).unwrap();
        let mut writer = scratch.records().unwrap();
        writer.add(7, bytemuck::cast_slice(&[1u64, 2, 3])).unwrap();
        writer.add(2, "five!".as_bytes()).unwrap();
        writer.add(1, bytemuck::cast_slice(&[9u64])).unwrap();
        let error = writer.add(3, &vec![0; 1 << LENGTH_BITS]).unwrap_err();
        assert_eq!(error.to_string(), "a record of 16777216 bytes");
        let records = writer.finish().unwrap();
        let hashes = |row| records.data.hashes(records.place(row).unwrap()).unwrap().to_vec();
        assert_eq!((hashes(7), hashes(1), hashes(100)), (vec![1, 2, 3], vec![9], vec![]));
        assert_eq!((records.text(2).unwrap(), records.text(5).unwrap()), ("five!".to_owned(), String::new()));
        assert_eq!(records.place(7).unwrap().bytes(), 24);
    }

    #[test]
    fn sorts_of_many_rows_go_on_on_disk() {
        const ROWS: u64 = 1_000_000;
        let scratch = Scratch::new(Some(32 << 20)).unwrap();
        let session = codepair_sql::bounded_session(2, Some(32 << 20), scratch.path()).unwrap();
        let schema = Schema::new(vec![
            Field::new("key", DataType::FixedSizeBinary(16), false),
            Field::new("position", DataType::UInt64, false),
        ]);
        let mut table = scratch.table("many", Arc::new(schema)).unwrap();
        for first in (0..ROWS).step_by(10_000) {
            let positions = first..first + 10_000;
            let key = |n: u64| u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8).to_be_bytes();
            let keys = FixedSizeBinaryArray::try_from_iter(positions.clone().map(key)).unwrap();
            table.write(vec![Arc::new(keys), Arc::new(UInt64Array::from_iter_values(positions))]).unwrap();
        }
        table.register(&session).unwrap();
        let (mut last, mut rows) = (Vec::new(), 0);
        each_batch(&session, "select key, position from many order by key, position", |batch| {
            let keys = batch.column(0).as_fixed_size_binary();
            for key in keys.iter().flatten() {
                assert!(last.as_slice() < key);
                last = key.to_vec();
            }
            rows += batch.num_rows() as u64;
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, ROWS);
    }
}
