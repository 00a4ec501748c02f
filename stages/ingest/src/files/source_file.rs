//! A file on disk.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use codepair_runtime::input_error;

use super::packing::{Packing, packing};

/// A file on disk: one of the source's, or an archive of them.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Path relative to the source; files are read in its order.
    pub(crate) name: String,
    pub(super) path: PathBuf,
    /// Bytes as stored.
    pub(crate) bytes: u64,
}

impl SourceFile {
    /// A file of the disk under a name.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn new(path: &Path, name: String) -> Result<Self> {
        let bytes = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        Ok(Self { name, path: path.to_owned(), bytes })
    }

    /// Whether it holds other files.
    pub(crate) fn is_archive(&self) -> bool {
        packing(&self.name) != Packing::None
    }

    pub(super) fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|error| input_error(format!("cannot read {}: {error}", self.path.display())))
    }
}

pub(crate) fn damaged(name: &str, error: &dyn std::fmt::Display) -> anyhow::Error {
    input_error(format!("{name} is cut off or damaged: {error}; fetch it again"))
}

/// A path's bytes as text: what is no UTF-8 as `%E9`, so that two paths are never one.
pub(super) fn shown(path: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in path.utf8_chunks() {
        shown.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("%{byte:02X}")));
    }
    shown
}

/// [`shown`] of a path on disk.
pub(super) fn shown_path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

/// Whether this is a file, or a link to one. A link to nothing would be a file that is missing in silence.
pub(super) fn is_file(path: &Path, kind: std::fs::FileType) -> Result<bool> {
    if !kind.is_symlink() {
        return Ok(kind.is_file());
    }
    let aim = path.metadata().map_err(|error| {
        input_error(format!("{} is a link to what is not there: {error}; fetch it, or exclude it", path.display()))
    })?;
    Ok(aim.is_file())
}
