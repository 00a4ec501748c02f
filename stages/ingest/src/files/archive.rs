//! The files of archives.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::Result;

use super::packing::{decompressed, unknown_packing};
use super::patterns::Patterns;
use super::source_file::{damaged, shown};

/// One file of an archive.
pub(super) struct Entry<'a> {
    /// Its path in the archive.
    pub(super) name: String,
    /// Its content, decompressed; or why nobody here can read it.
    pub(super) content: Result<Box<dyn Read + 'a>, String>,
}

type Each<'e> = &'e mut dyn FnMut(Entry) -> Result<()>;

/// The names of the files that a zip archive's directory lists; none of what is no archive.
pub(super) fn zip_names(path: &Path, patterns: &Patterns) -> Vec<String> {
    let archive = File::open(path).ok().and_then(|file| zip::ZipArchive::new(BufReader::new(file)).ok());
    let names = archive.iter().flat_map(zip::ZipArchive::file_names).filter_map(Result::ok);
    names.filter(|name| patterns.fits(name)).map(std::borrow::Cow::into_owned).collect()
}

/// The files of a zip archive that fit, in order of their names.
///
/// # Errors
/// Exit 3: the archive is damaged.
pub(super) fn read_zip(file: File, archive: &str, patterns: &Patterns, each: Each) -> Result<()> {
    let broken = |error: &dyn std::fmt::Display| damaged(archive, error);
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| broken(&e))?;
    let mut entries = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(|e| broken(&e))?;
        let name = entry.name().map_or_else(|_| shown(entry.name_raw()), std::borrow::Cow::into_owned);
        if entry.is_file() && patterns.fits(&name) {
            entries.push((name, index));
        }
    }
    entries.sort();
    for (name, index) in entries {
        let entry = match zip.by_index(index) {
            _ if unknown_packing(&name).is_some() => unreadable(name),
            // This one fails only when it is read.
            Ok(entry)
                if !matches!(
                    entry.compression(),
                    zip::CompressionMethod::Stored | zip::CompressionMethod::Deflated
                ) =>
            {
                let packer = entry.compression();
                Entry {
                    name,
                    content: Err(format!("it is packed by {packer}, which is not read; pack it with deflate")),
                }
            }
            Ok(entry) => Entry { content: Ok(decompressed(entry, &name)), name },
            // One that is encrypted, or packed in a way that is not known, says nothing of the others.
            Err(error @ zip::result::ZipError::UnsupportedArchive(_)) => {
                Entry { name, content: Err(format!("{error}; pack it with deflate, without a password")) }
            }
            Err(error) => return Err(broken(&error)),
        };
        each(entry)?;
    }
    Ok(())
}

/// The files of a tar archive that fit, in the order of the archive, for it can only be read from start to end.
///
/// # Errors
/// Exit 3: the archive is damaged.
pub(super) fn read_tar(tar: impl Read, archive: &str, patterns: &Patterns, each: Each) -> Result<()> {
    let broken = |error: &dyn std::fmt::Display| damaged(archive, error);
    for entry in tar::Archive::new(tar).entries().map_err(|e| broken(&e))? {
        let entry = entry.map_err(|e| broken(&e))?;
        let name = shown(&entry.path_bytes());
        if !entry.header().entry_type().is_file() || !patterns.fits(&name) {
            continue;
        }
        let is_known = unknown_packing(&name).is_none();
        each(if is_known { Entry { content: Ok(decompressed(entry, &name)), name } } else { unreadable(name) })?;
    }
    Ok(())
}

fn unreadable(name: String) -> Entry<'static> {
    let packer = unknown_packing(&name).unwrap_or_default();
    Entry { content: Err(format!("it is packed by {packer}, which is not read")), name }
}
