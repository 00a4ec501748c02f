//! What does not fit in memory, on local disk, to be read back piece by piece.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, Result, ensure};
use bytemuck::{Pod, Zeroable};

/// Bytes that wait in memory to be written together.
const BUFFER: usize = 1 << 20;

/// Where a piece lies: in words of eight bytes from the start, and its bytes. The default is a piece of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Piece(u64);

/// 256 MiB at most, and half a terabyte of pieces.
const LENGTH_BITS: u32 = 28;
const WORD: usize = size_of::<u64>();

impl Piece {
    fn new(start: u64, bytes: usize) -> Result<Self> {
        let words = start / WORD as u64;
        ensure!(bytes < 1 << LENGTH_BITS, "a piece of {bytes} bytes does not fit; at most {}", (1 << LENGTH_BITS) - 1);
        ensure!(words < 1 << (u64::BITS - LENGTH_BITS), "{start} bytes of pieces are too many for one file");
        Ok(Self(words << LENGTH_BITS | bytes as u64))
    }

    fn start(self) -> u64 {
        (self.0 >> LENGTH_BITS) * WORD as u64
    }

    /// Bytes of it.
    #[must_use]
    pub fn bytes(self) -> usize {
        (self.0 & ((1 << LENGTH_BITS) - 1)) as usize
    }
}

/// A file without a name in the system's folder for such things (`TMPDIR`); it goes when the process does.
pub(crate) fn unnamed() -> Result<File> {
    tempfile::tempfile().with_context(|| format!("cannot write to {}; set TMPDIR", std::env::temp_dir().display()))
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
        Ok(Self { file: unnamed()?, written: 0, buffer: Vec::new() })
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// The disk is full, or the piece is too large.
    pub fn put(&mut self, bytes: &[u8]) -> Result<Piece> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        let piece = Piece::new(self.written + self.buffer.len() as u64, bytes.len())?;
        self.buffer.extend_from_slice(bytes);
        self.buffer.resize(self.buffer.len().next_multiple_of(WORD), 0);
        Ok(piece)
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
    pub fn get(&self, piece: Piece) -> Result<Vec<u8>> {
        let mut bytes = vec![0; piece.bytes()];
        self.read(piece, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a piece into memory of its length. Several threads may read at once.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read(&self, piece: Piece, into: &mut [u8]) -> Result<()> {
        match piece.start().checked_sub(self.written) {
            Some(start) => into.copy_from_slice(&self.buffer[start as usize..][..piece.bytes()]),
            None => self.file.read_exact_at(into, piece.start())?,
        }
        Ok(())
    }

    /// Reads a piece that was text.
    ///
    /// # Errors
    /// The disk fails.
    pub fn text(&self, piece: Piece) -> Result<String> {
        Ok(String::from_utf8(self.get(piece)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_from_memory_and_disk() {
        let mut spool = Spool::new().unwrap();
        let piece = |n: usize| n.to_string().repeat(n % 5 * 10_000);
        let places: Vec<Piece> = (0..100).map(|n| spool.put(piece(n).as_bytes()).unwrap()).collect();
        assert!(spool.written > 0 && !spool.buffer.is_empty());
        for (n, place) in places.iter().enumerate() {
            assert_eq!(spool.text(*place).unwrap(), piece(n));
        }
        let huge = "x".repeat(3 * BUFFER);
        let place = spool.put(huge.as_bytes()).unwrap();
        assert_eq!((spool.text(place).unwrap(), spool.text(places[4]).unwrap()), (huge, piece(4)));
        assert_eq!((place.bytes(), spool.get(Piece::default()).unwrap()), (3 * BUFFER, Vec::new()));
        assert!(Piece::new(0, 1 << LENGTH_BITS).is_err() && Piece::new(1 << 39, 1).is_err());
    }
}
