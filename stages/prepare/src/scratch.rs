//! What does not fit in memory, on local disk, for the time of one run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use arrow::buffer::{MutableBuffer, ScalarBuffer};
use arrow::datatypes::{SchemaRef, ToByteSlice as _};
use codepair_runtime::block_on;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// A folder that goes when the run ends; the next run clears away what a killed one left.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
    /// Locked while the run lives.
    _lock: File,
}

const PREFIX: &str = "codepair-prepare-";
const LOCK: &str = "lock";

impl Scratch {
    /// In the system's folder for such things (`TMPDIR`).
    pub(crate) fn new() -> Result<Self> {
        let place = std::env::temp_dir();
        clear(&place);
        Self::within(&place).with_context(|| format!("cannot write to {}; set TMPDIR", place.display()))
    }

    fn within(place: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
        // It gets its name once it is locked, so that nobody finds it open.
        let unnamed = folder.path().join("lock.new");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        std::fs::rename(unnamed, folder.path().join(LOCK))?;
        Ok(Self { folder, _lock: lock })
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
        Ok(ScratchTable { name, path, writer })
    }

    /// Begins the file of shingles.
    pub(crate) fn shingles(&self) -> Result<ShingleWriter> {
        let path = self.path().join("shingles");
        Ok(ShingleWriter { file: BufWriter::new(File::create(&path)?), path, places: Vec::new(), words: 0 })
    }
}

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
    writer: ArrowWriter<BufWriter<File>>,
}

impl ScratchTable {
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(self.writer.write(batch)?)
    }

    /// Makes it a table of the session.
    pub(crate) fn register(self, session: &SessionContext) -> Result<()> {
        self.writer.close()?;
        let path = self.path.to_string_lossy();
        block_on(session.register_parquet(self.name, path.as_ref(), ParquetReadOptions::default()))?;
        Ok(())
    }
}

/// Sets of shingles, written in any order, to be read by their row's position.
pub(crate) struct ShingleWriter {
    file: BufWriter<File>,
    path: PathBuf,
    places: Vec<Place>,
    words: u64,
}

/// Where a set begins and how many shingles it has, in one word for each row.
#[derive(Clone, Copy, Default)]
struct Place(u64);

const LENGTH_BITS: u32 = 24;

impl ShingleWriter {
    pub(crate) fn add(&mut self, position: u64, shingles: &[u64]) -> Result<()> {
        let position = position as usize;
        if self.places.len() <= position {
            self.places.resize(position + 1, Place::default());
        }
        // Rows are at most a mebibyte long, so their shingles are fewer than 2²⁴.
        self.places[position] = Place(self.words << LENGTH_BITS | shingles.len() as u64);
        self.words += shingles.len() as u64;
        Ok(self.file.write_all(shingles.to_byte_slice())?)
    }

    pub(crate) fn finish(mut self) -> Result<Shingles> {
        self.file.flush()?;
        Ok(Shingles { file: File::open(&self.path)?, places: self.places })
    }
}

/// Sets of shingles on disk.
pub(crate) struct Shingles {
    file: File,
    places: Vec<Place>,
}

impl Shingles {
    /// Number of shingles of a row.
    pub(crate) fn count(&self, position: u64) -> usize {
        self.places.get(position as usize).map_or(0, |place| (place.0 & ((1 << LENGTH_BITS) - 1)) as usize)
    }

    /// The shingles of a row, ascending.
    pub(crate) fn read(&self, position: u64) -> Result<ScalarBuffer<u64>> {
        let mut bytes = MutableBuffer::from_len_zeroed(self.count(position) * size_of::<u64>());
        let start = self.places.get(position as usize).map_or(0, |place| place.0 >> LENGTH_BITS);
        self.file.read_exact_at(bytes.as_slice_mut(), start * size_of::<u64>() as u64)?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_cleared_away() {
        let place = tempfile::tempdir().unwrap();
        let (killed, alive) = (Scratch::within(place.path()).unwrap(), Scratch::within(place.path()).unwrap());
        let left = killed.path().to_owned();
        let Scratch { folder, _lock } = killed;
        let kept = folder.keep();
        std::fs::write(kept.join("shingles"), "x").unwrap();
        drop(_lock);
        clear(place.path());
        assert!(!left.exists() && alive.path().exists());
    }

    #[test]
    fn shingles_are_read_by_position() {
        let scratch = Scratch::new().unwrap();
        let mut writer = scratch.shingles().unwrap();
        writer.add(7, &[1, 2, 3]).unwrap();
        writer.add(2, &[9]).unwrap();
        let shingles = writer.finish().unwrap();
        assert_eq!((shingles.read(7).unwrap().to_vec(), shingles.count(7)), (vec![1, 2, 3], 3));
        assert_eq!(shingles.read(2).unwrap().to_vec(), [9]);
        assert!(shingles.read(5).unwrap().is_empty() && shingles.read(100).unwrap().is_empty());
    }
}
