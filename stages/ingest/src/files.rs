//! The files of a source: in a folder, in a zip, or behind a URL.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use codepair_runtime::{Config, cache_folder, file_digest, files_digest, input_error, sha256};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::sources::download;

/// A file of a source.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Path relative to the source; files are read in its order.
    pub(crate) name: String,
    place: Place,
    /// Bytes as stored.
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug)]
enum Place {
    Disk(PathBuf),
    Zip { archive: PathBuf, entry: String },
}

/// What a file holds.
pub(crate) struct Content {
    /// Decompressed.
    pub(crate) bytes: Vec<u8>,
    /// SHA-256 of what was stored; an archive is hashed as a whole, not by its entries.
    pub(crate) sha256: Option<String>,
}

impl SourceFile {
    /// Reads the file, decompressing `.gz`.
    ///
    /// # Errors
    /// Exit 3: it cannot be read, or the compressed data is cut off or damaged.
    pub(crate) fn read(&self) -> Result<Content> {
        let (stored, sha256) = match &self.place {
            Place::Disk(path) => {
                let bytes = std::fs::read(path)
                    .map_err(|error| input_error(format!("cannot read {}: {error}", path.display())))?;
                let digest = sha256(&bytes);
                (bytes, Some(digest))
            }
            Place::Zip { archive, entry } => (read_entry(archive, entry)?, None),
        };
        if !self.name.ends_with(".gz") {
            return Ok(Content { bytes: stored, sha256 });
        }
        let mut bytes = Vec::with_capacity(stored.len() * 5);
        flate2::read::MultiGzDecoder::new(stored.as_slice())
            .read_to_end(&mut bytes)
            .map_err(|error| input_error(format!("{} is cut off or damaged: {error}; fetch it again", self.name)))?;
        Ok(Content { bytes, sha256 })
    }

    /// The file on disk whose content decides about this one: itself, or its archive.
    pub(crate) fn on_disk(&self) -> (&Path, String) {
        match &self.place {
            Place::Disk(path) => (path, self.name.clone()),
            Place::Zip { archive, .. } => {
                (archive, archive.file_name().unwrap_or_default().to_string_lossy().into_owned())
            }
        }
    }
}

fn read_entry(archive: &Path, entry: &str) -> Result<Vec<u8>> {
    let damaged = |error: &dyn std::fmt::Display| input_error(format!("{}: {entry}: {error}", archive.display()));
    let file = std::fs::File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    let mut zip = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| damaged(&e))?;
    let mut reader = zip.by_name(entry).map_err(|e| damaged(&e))?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
    Ok(bytes)
}

/// The digest of a source's content: SHA-256 over its files in order of relative path. An archive counts as one file.
/// `read` holds the digests of files that were read since, by name; the others are hashed, or looked up in the cache.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn digest(files: &[SourceFile], mut read: BTreeMap<String, String>) -> Result<String> {
    for file in files {
        let (path, name) = file.on_disk();
        if let Entry::Vacant(place) = read.entry(name) {
            place.insert(file_digest(path)?);
        }
    }
    Ok(files_digest(&read))
}

/// Which files of a folder count, by patterns over the relative path.
pub(crate) struct Patterns {
    include: GlobSet,
    exclude: GlobSet,
}

impl Patterns {
    /// # Errors
    /// Exit 2: a pattern is malformed.
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        Ok(Self { include: globs(include)?, exclude: globs(exclude)? })
    }

    fn fits(&self, name: &str) -> bool {
        self.include.is_match(name) && !self.exclude.is_match(name)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(Glob::new(pattern).map_err(|e| codepair_runtime::config_error(format!("{pattern}: {e}")))?);
    }
    Ok(builder.build()?)
}

/// The files at `location`: a file, a folder, a zip, or a URL of one of them that is downloaded first.
///
/// # Errors
/// Exit 3: there is nothing.
pub(crate) fn find(config: &Config, location: &str, patterns: &Patterns) -> Result<Vec<SourceFile>> {
    let path = if download::is_url(location) {
        download::fetch(location, &cache_folder().join("downloads"))?
            .ok_or_else(|| input_error(format!("{location}: the server has no such file")))?
    } else {
        config.resolve(location)
    };
    let files = if path.is_dir() {
        in_folder(&path, patterns)?
    } else if location.ends_with(".zip") && path.is_file() {
        in_zip(&path, patterns)?
    } else if path.is_file() {
        vec![on_disk(&path, location.rsplit('/').next().unwrap_or(location).to_owned())?]
    } else {
        return Err(input_error(format!("{} does not exist", path.display())));
    };
    if files.is_empty() {
        return Err(input_error(format!("{} holds no file that fits", path.display())));
    }
    Ok(files)
}

/// A file of the disk under a name.
pub(crate) fn on_disk(path: &Path, name: String) -> Result<SourceFile> {
    let bytes = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    Ok(SourceFile { name, place: Place::Disk(path.to_owned()), bytes })
}

fn in_folder(folder: &Path, patterns: &Patterns) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    // Links are not followed: a tree that links to itself has an end.
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = entry.path().strip_prefix(folder)?.to_string_lossy().replace('\\', "/");
        if entry.file_type().is_file() && patterns.fits(&name) {
            files.push(on_disk(entry.path(), name)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn in_zip(archive: &Path, patterns: &Patterns) -> Result<Vec<SourceFile>> {
    let damaged = |e: &dyn std::fmt::Display| input_error(format!("{} is no whole zip: {e}", archive.display()));
    let file = std::fs::File::open(archive).map_err(|e| damaged(&e))?;
    let mut zip = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| damaged(&e))?;
    let mut files = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(|e| damaged(&e))?;
        let name = entry.name().map_err(|e| damaged(&e))?.into_owned();
        if entry.is_file() && patterns.fits(&name) {
            let place = Place::Zip { archive: archive.to_owned(), entry: name.clone() };
            files.push(SourceFile { name, place, bytes: entry.compressed_size() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
