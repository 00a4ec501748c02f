//! What does not fit in memory, on local disk, for the time of one run.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::{MutableBuffer, ScalarBuffer};
use arrow::datatypes::SchemaRef;
use bytemuck::Pod;
use codepair_runtime::{Paged, Piece, Spool, block_on};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

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
        Paged::new(self.share(share))
    }

    /// Bytes for each row.
    pub(crate) fn by_row(&self) -> Result<ByRow> {
        Ok(ByRow { pieces: self.rows(OFTEN)?, spool: Spool::new()? })
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

/// Bytes of rows, a piece each, put in any order, to be read by the row's position.
pub(crate) struct ByRow {
    pieces: Paged<Piece>,
    /// What all threads may read of them.
    pub(crate) spool: Spool,
}

impl ByRow {
    pub(crate) fn put(&mut self, row: u64, bytes: &[u8]) -> Result<()> {
        self.pieces.set(row, self.spool.put(bytes)?)
    }

    /// The piece of a row; one of nothing where it has none.
    pub(crate) fn piece(&self, row: u64) -> Result<Piece> {
        self.pieces.get(row)
    }

    /// The bytes of a row as text.
    pub(crate) fn text(&self, row: u64) -> Result<String> {
        self.spool.text(self.piece(row)?)
    }
}

/// A piece of hashes.
pub(crate) fn hashes(spool: &Spool, piece: Piece) -> Result<ScalarBuffer<u64>> {
    let mut bytes = MutableBuffer::from_len_zeroed(piece.bytes());
    spool.read(piece, &mut bytes)?;
    Ok(bytes.into())
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
    fn pieces_are_read_by_row() {
        let mut rows = Scratch::new(None).unwrap().by_row().unwrap();
        rows.put(7, bytemuck::cast_slice(&[1u64, 2, 3])).unwrap();
        rows.put(2, "five!".as_bytes()).unwrap();
        rows.put(1, bytemuck::cast_slice(&[9u64])).unwrap();
        let read = |row| hashes(&rows.spool, rows.piece(row).unwrap()).unwrap().to_vec();
        assert_eq!((read(7), read(1), read(100)), (vec![1, 2, 3], vec![9], vec![]));
        assert_eq!((rows.text(2).unwrap(), rows.text(5).unwrap()), ("five!".to_owned(), String::new()));
        assert_eq!(rows.piece(7).unwrap().bytes(), 24);
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
