//! SHA-256 of bytes and files, with a cache for large files.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Files below this are hashed each time: that is as fast as looking them up.
const CACHED_BYTES: u64 = 256 << 10;

/// Hexadecimal digits of a hash.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// SHA-256 as 64 hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The first 128 bits of the SHA-256 of fields, each with its length, so that neighbouring ones cannot run together.
#[must_use]
pub fn short_digest(fields: &[&str]) -> u128 {
    let mut digest = Digest::default();
    fields.iter().for_each(|field| digest.field(field));
    let bytes: [u8; 32] = digest.0.finalize().into();
    bytes[..16].iter().fold(0, |short, byte| short << 8 | u128::from(*byte))
}

/// A SHA-256 fed piece by piece.
#[derive(Clone, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// Adds a text and its length, so that neighbouring texts cannot run together.
    pub fn field(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }
    /// 64 hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Bytes of which each has a digest of its own beside that of the whole file, so that what is read in part can be checked.
pub const DIGEST_BLOCK: usize = 4 << 20;

/// The SHA-256 of a file and of each of its blocks of [`DIGEST_BLOCK`] bytes, fed piece by piece.
#[derive(Clone, Default)]
pub(crate) struct FileDigest {
    whole: Digest,
    block: Digest,
    /// Bytes of the block so far.
    filled: usize,
    blocks: Vec<String>,
}

impl FileDigest {
    /// Adds bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        while !bytes.is_empty() {
            if self.filled == DIGEST_BLOCK {
                self.end_block();
            }
            let (now, later) = bytes.split_at(bytes.len().min(DIGEST_BLOCK - self.filled));
            self.block.update(now);
            self.filled += now.len();
            bytes = later;
        }
    }

    fn end_block(&mut self) {
        self.blocks.push(std::mem::take(&mut self.block).finish());
        self.filled = 0;
    }

    /// Of the whole, and of the blocks where there are several.
    pub(crate) fn finish(mut self) -> (String, Vec<String>) {
        if !self.blocks.is_empty() {
            self.end_block();
        }
        (self.whole.finish(), self.blocks)
    }
}

/// SHA-256 of a file. For large files a cache saves reading them again: it is keyed by path, size, the times of the last changes
/// of content and of anything else, and the file's number on its disk, and lies in `CODEPAIR_CACHE`, else `~/.cache/codepair`.
///
/// # Errors
/// The file cannot be read.
pub fn file_digest(path: &Path) -> Result<String> {
    let Some(place) = cached_at(path)? else { return hash_file(path) };
    if let Ok(known) = std::fs::read_to_string(&place)
        && known.len() == 64
    {
        return Ok(known);
    }
    let digest = hash_file(path)?;
    cache(&place, &digest);
    Ok(digest)
}

/// Hashes a file whatever the cache says, and keeps that there: for a file that was changed and kept all its marks.
///
/// # Errors
/// The file cannot be read.
pub fn remember_digest(path: &Path) -> Result<()> {
    if let Some(place) = cached_at(path)? {
        cache(&place, &hash_file(path)?);
    }
    Ok(())
}

/// Where the digest of a file is cached; nothing for small ones.
fn cached_at(path: &Path) -> Result<Option<PathBuf>> {
    let metadata = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.len() < CACHED_BYTES {
        return Ok(None);
    }
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    let full = std::path::absolute(path)?;
    let marks = format!("{}\0{modified}\0{changed:?}\0{}\0{}", metadata.len(), metadata.dev(), metadata.ino());
    let key = sha256(format!("{}\0{marks}", full.display()).as_bytes());
    Ok(Some(cache_folder().join("digests").join(key)))
}

fn cache(place: &Path, digest: &str) {
    if let Some(folder) = place.parent()
        && std::fs::create_dir_all(folder).and_then(|()| std::fs::write(place, digest)).is_err()
    {
        tracing::debug!(cache = %place.display(), "the digest cache cannot be written");
    }
}

/// The digest of several files: their relative paths and SHA-256, in order of path.
#[must_use]
pub fn files_digest(files: &BTreeMap<String, String>) -> String {
    let mut digest = Digest::default();
    for (path, sha256) in files {
        digest.field(path);
        digest.field(sha256);
    }
    digest.finish()
}

/// Where downloads and digests are cached.
#[must_use]
pub fn cache_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(std::env::temp_dir, |home| PathBuf::from(home).join(".cache"));
    std::env::var_os("CODEPAIR_CACHE").map_or_else(|| home().join("codepair"), PathBuf::from)
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut digest = Digest::default();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            return Ok(digest.finish());
        }
        digest.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_hashed_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..2 * DIGEST_BLOCK + 7).map(|at| (at * 31 % 251) as u8).collect();
        let digest = |bytes: &[u8], piece: usize| {
            let mut digest = FileDigest::default();
            bytes.chunks(piece).for_each(|piece| digest.update(piece));
            digest.finish()
        };
        let blocks: Vec<String> = bytes.chunks(DIGEST_BLOCK).map(sha256).collect();
        for piece in [bytes.len(), 1_000_003, DIGEST_BLOCK] {
            assert_eq!(digest(&bytes, piece), (sha256(&bytes), blocks.clone()));
        }
        let one = &bytes[..DIGEST_BLOCK];
        assert_eq!(digest(one, 1 << 20), (sha256(one), Vec::new()));
        assert_eq!(digest(&[], 1), (sha256(&[]), Vec::new()));
    }
}
