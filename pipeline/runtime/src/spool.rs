//! What does not fit in memory, on local disk, to be read back piece by piece.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, Result};

/// Bytes that wait in memory to be written together.
const BUFFER: usize = 1 << 20;

/// Where a piece lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    start: u64,
    length: usize,
}

impl Place {
    /// The place of `length` bytes from `start` on.
    #[must_use]
    pub fn new(start: u64, length: usize) -> Self {
        Self { start, length }
    }

    /// Bytes before it.
    #[must_use]
    pub fn start(self) -> u64 {
        self.start
    }
}

/// Pieces of bytes in a file without a name, in the system's folder for such things (`TMPDIR`); it goes when the process
/// does, however that ends.
pub struct Spool {
    file: File,
    written: u64,
    buffer: Vec<u8>,
}

impl Spool {
    /// An empty one.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new() -> Result<Self> {
        let file = tempfile::tempfile();
        let file = file.with_context(|| format!("cannot write to {}; set TMPDIR", std::env::temp_dir().display()))?;
        Ok(Self { file, written: 0, buffer: Vec::new() })
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// The disk is full.
    pub fn put(&mut self, piece: &[u8]) -> Result<Place> {
        if self.buffer.len() + piece.len() > BUFFER {
            self.flush()?;
        }
        let place = Place { start: self.written + self.buffer.len() as u64, length: piece.len() };
        self.buffer.extend_from_slice(piece);
        Ok(place)
    }

    fn flush(&mut self) -> Result<()> {
        let full = || format!("cannot write to {}; set TMPDIR", std::env::temp_dir().display());
        self.file.write_all_at(&self.buffer, self.written).with_context(full)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Reads a piece.
    ///
    /// # Errors
    /// The disk fails.
    pub fn get(&self, place: Place) -> Result<Vec<u8>> {
        if place.start >= self.written {
            let start = (place.start - self.written) as usize;
            return Ok(self.buffer[start..start + place.length].to_vec());
        }
        let mut piece = vec![0; place.length];
        self.file.read_exact_at(&mut piece, place.start)?;
        Ok(piece)
    }

    /// Reads a piece that was text.
    ///
    /// # Errors
    /// The disk fails.
    pub fn text(&self, place: Place) -> Result<String> {
        Ok(String::from_utf8(self.get(place)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_from_memory_and_disk() {
        let mut spool = Spool::new().unwrap();
        let piece = |n: usize| n.to_string().repeat(n % 5 * 10_000);
        let places: Vec<Place> = (0..100).map(|n| spool.put(piece(n).as_bytes()).unwrap()).collect();
        assert!(spool.written > 0 && !spool.buffer.is_empty());
        for (n, place) in places.iter().enumerate() {
            assert_eq!(spool.text(*place).unwrap(), piece(n));
        }
        let huge = "x".repeat(3 * BUFFER);
        let place = spool.put(huge.as_bytes()).unwrap();
        assert_eq!((spool.text(place).unwrap(), spool.text(places[4]).unwrap()), (huge, piece(4)));
    }
}
