//! The files of a source: in a folder or a git checkout, in archives, behind a URL, or in an object store.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use codepair_runtime::{Config, Digest, cache_folder, config_error, file_digest, files_digest, input_error, sha256};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::checkout::Checkout;
use crate::gzip::GzipReader;
use crate::sources::{bucket, download};

const BUFFER_BYTES: usize = 256 << 10;

/// The files of a source on disk, archives as one file each, and which entries of the archives count.
pub(crate) struct Files {
    pub(crate) list: Vec<SourceFile>,
    pub(crate) patterns: Patterns,
    pub(crate) checkout: Option<Checkout>,
}

/// A file on disk: one of the source's, or an archive of them.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Path relative to the source; files are read in its order.
    pub(crate) name: String,
    path: PathBuf,
    /// Bytes as stored.
    pub(crate) bytes: u64,
}

/// How a file's name says that it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Zip,
    Tar,
}

fn packing(name: &str) -> Packing {
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    match name {
        _ if ends(&[".zip", ".whl"]) => Packing::Zip,
        _ if ends(&[".tar", ".tar.gz", ".tgz"]) => Packing::Tar,
        _ => Packing::None,
    }
}

/// A file being read, `.gz` decompressed.
pub(crate) struct Opened<'a> {
    name: String,
    /// The archive it is in.
    archive: Option<&'a str>,
    /// The place on disk, where it is in no archive and not packed.
    path: Option<&'a Path>,
    reader: Box<dyn Read + 'a>,
    /// What else the source has.
    files: &'a Files,
}

impl Opened<'_> {
    /// Path relative to the source, or within the archive.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
    /// The name of the archive it is in.
    pub(crate) fn archive(&self) -> Option<&str> {
        self.archive
    }
    /// The git checkout it is in.
    pub(crate) fn checkout(&self) -> Option<&Checkout> {
        self.files.checkout.as_ref()
    }
    /// The place on disk, for formats that are not read from start to end.
    pub(crate) fn on_disk(&self) -> Option<&Path> {
        self.path
    }
    /// Reads another file of the source, found by its name.
    pub(crate) fn other<T>(
        &self,
        is_it: impl Fn(&str) -> bool,
        read: impl FnOnce(&mut Opened) -> Result<T>,
    ) -> Result<T> {
        let other = self.files.list.iter().find(|file| is_it(&file.name));
        let other = other.ok_or_else(|| input_error(format!("{} has no counterpart", self.name)))?;
        let reader = decompressed(other.open()?, &other.name);
        read(&mut Opened { name: other.name.clone(), archive: None, path: None, reader, files: self.files })
    }
    /// All of it.
    pub(crate) fn read_all(&mut self) -> Result<Vec<u8>> {
        self.read_at_most(u64::MAX)
    }
    /// The first so many bytes of it.
    pub(crate) fn read_at_most(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| self.damaged(&error))?;
        Ok(bytes)
    }
    pub(crate) fn damaged(&self, error: &dyn std::fmt::Display) -> anyhow::Error {
        damaged(&self.name, error)
    }
}

impl Read for Opened<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

pub(crate) fn damaged(name: &str, error: &dyn std::fmt::Display) -> anyhow::Error {
    input_error(format!("{name} is cut off or damaged: {error}; fetch it again"))
}

impl Files {
    /// Opens every file in turn, those within archives too, and counts the stored bytes of each when it is done with.
    /// Returns the digest of what was read.
    ///
    /// # Errors
    /// Exit 3: a file cannot be read, or is cut off or damaged.
    pub(crate) fn read(&self, mut each: impl FnMut(&mut Opened) -> Result<()>, done: impl Fn(u64)) -> Result<String> {
        let mut digests = BTreeMap::new();
        for file in &self.list {
            if let Some(sha256) = file.read(self, &mut each)? {
                digests.insert(file.name.clone(), sha256);
            }
            done(file.bytes);
        }
        self.digest_with(digests)
    }

    /// The digest of a source's content: SHA-256 over its files in order of relative path. An archive is one file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn digest(&self) -> Result<String> {
        self.digest_with(BTreeMap::new())
    }

    /// `read` holds the digests of files that were read since, by name; the others are hashed, or looked up in the cache.
    fn digest_with(&self, mut read: BTreeMap<String, String>) -> Result<String> {
        for file in &self.list {
            if let Entry::Vacant(place) = read.entry(file.name.clone()) {
                place.insert(file_digest(&file.path)?);
            }
        }
        if let Some(checkout) = &self.checkout {
            read.insert(".git".to_owned(), sha256(checkout.url("").as_bytes()));
        }
        Ok(files_digest(&read))
    }
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

    /// What nobody wanted to read counts too, and may be damaged.
    fn read_rest(&self, mut rest: impl Read) -> Result<()> {
        std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| damaged(&self.name, &error))?;
        Ok(())
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|error| input_error(format!("cannot read {}: {error}", self.path.display())))
    }

    /// Opens it, or what is in it, and returns its SHA-256 where it was read from start to end.
    fn read(&self, files: &Files, each: &mut dyn FnMut(&mut Opened) -> Result<()>) -> Result<Option<String>> {
        let file = self.open()?;
        if packing(&self.name) == Packing::Zip {
            self.read_zip(file, files, each)?;
            return Ok(None);
        }
        let digest = Rc::new(RefCell::new(Digest::default()));
        let mut raw = Hashing { file, digest: Rc::clone(&digest) };
        if packing(&self.name) == Packing::Tar {
            let mut tar = decompressed(&mut raw, &self.name);
            self.read_tar(&mut tar, files, each)?;
            self.read_rest(tar)?;
        } else {
            let reader = decompressed(&mut raw, &self.name);
            let path = (!self.name.ends_with(".gz")).then_some(self.path.as_path());
            let mut opened = Opened { name: self.name.clone(), archive: None, path, reader, files };
            each(&mut opened)?;
            self.read_rest(opened)?;
        }
        self.read_rest(raw)?;
        Ok(Some(Rc::unwrap_or_clone(digest).into_inner().finish()))
    }

    fn read_zip(&self, file: File, files: &Files, each: &mut dyn FnMut(&mut Opened) -> Result<()>) -> Result<()> {
        let broken = |error: &dyn std::fmt::Display| damaged(&self.name, error);
        let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| broken(&e))?;
        let mut entries = Vec::new();
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(|e| broken(&e))?;
            let name = entry.name().map_err(|e| broken(&e))?.into_owned();
            if entry.is_file() && files.patterns.fits(&name) {
                entries.push((name, index));
            }
        }
        entries.sort();
        for (name, index) in entries {
            let entry = zip.by_index(index).map_err(|e| broken(&e))?;
            let reader = decompressed(entry, &name);
            each(&mut Opened { name, archive: Some(&self.name), path: None, reader, files })?;
        }
        Ok(())
    }

    /// Entries come in the order of the archive, for it can only be read from start to end.
    fn read_tar(&self, tar: impl Read, files: &Files, each: &mut dyn FnMut(&mut Opened) -> Result<()>) -> Result<()> {
        let broken = |error: &dyn std::fmt::Display| damaged(&self.name, error);
        for entry in tar::Archive::new(tar).entries().map_err(|e| broken(&e))? {
            let entry = entry.map_err(|e| broken(&e))?;
            let name = entry.path().map_err(|e| broken(&e))?.to_string_lossy().into_owned();
            if entry.header().entry_type().is_file() && files.patterns.fits(&name) {
                let reader = decompressed(entry, &name);
                each(&mut Opened { name, archive: Some(&self.name), path: None, reader, files })?;
            }
        }
        Ok(())
    }
}

fn decompressed<'a>(raw: impl Read + 'a, name: &str) -> Box<dyn Read + 'a> {
    let buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
    let packed = name.ends_with(".gz") || name.ends_with(".tgz");
    if packed { Box::new(GzipReader::new(buffered)) } else { Box::new(buffered) }
}

/// Hashes what is read.
struct Hashing {
    file: File,
    digest: Rc<RefCell<Digest>>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.digest.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// Which files of a folder count, by patterns over the relative path.
pub(crate) struct Patterns {
    include: GlobSet,
    exclude: GlobSet,
}

impl Patterns {
    /// # Errors
    /// Exit 2: a pattern is malformed.
    pub(crate) fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self> {
        Ok(Self { include: globs(include)?, exclude: globs(exclude)? })
    }

    pub(crate) fn fits(&self, name: &str) -> bool {
        self.include.is_match(name) && !self.exclude.is_match(name)
    }
}

fn globs<S: AsRef<str>>(patterns: &[S]) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns.iter().map(AsRef::as_ref) {
        builder.add(Glob::new(pattern).map_err(|e| codepair_runtime::config_error(format!("{pattern}: {e}")))?);
    }
    Ok(builder.build()?)
}

/// What counts besides plain files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Archives in a folder.
    pub(crate) archives: bool,
    /// In a git checkout what git knows of, and nothing else.
    pub(crate) checkouts: bool,
}

/// The files at `location`: a file, a folder, an archive, or a URL of one of them that is downloaded first.
///
/// # Errors
/// Exit 2: there is no location. Exit 3: there is nothing there.
pub(crate) fn find(config: &Config, location: &str, patterns: Patterns, look: Look) -> Result<Files> {
    let Look { archives, checkouts } = look;
    if location.is_empty() {
        return Err(config_error("path is missing: a file, a folder, an archive, or a URL"));
    }
    let plain = file_name(location);
    if location.starts_with("hf://") && packing(plain) == Packing::None && !patterns.fits(plain) {
        return hugging_face(location, patterns, archives);
    }
    if bucket::is_bucket(location) {
        let found = bucket::fetch(location, |name| is_wanted(name, &patterns, archives), &downloads())?;
        let list = found.into_iter().map(|(name, path)| SourceFile::new(&path, name)).collect::<Result<Vec<_>>>()?;
        return Ok(Files { list, patterns, checkout: None });
    }
    let path = if download::is_url(location) {
        download::fetch(location, &downloads())?
            .ok_or_else(|| input_error(format!("{location}: the server has no such file")))?
    } else {
        config.resolve(location)
    };
    let checkout = if checkouts { Checkout::find(&path)? } else { None };
    let list = if let Some(checkout) = &checkout {
        checkout.files(&path, |name| is_wanted(name, &patterns, archives))?
    } else if path.is_dir() {
        in_folder(&path, &patterns, archives)?
    } else if path.is_file() {
        vec![SourceFile::new(&path, plain.rsplit('/').next().unwrap_or(plain).to_owned())?]
    } else {
        return Err(input_error(format!("{} does not exist", path.display())));
    };
    if list.is_empty() {
        return Err(input_error(format!("{} holds no file that fits", path.display())));
    }
    Ok(Files { list, patterns, checkout })
}

/// A location without what follows its file's name: a digest, and of a URL the query.
pub(crate) fn file_name(location: &str) -> &str {
    let plain = download::pinned(location).0;
    if download::is_url(plain) { plain.split(['?', '#']).next().unwrap_or(plain) } else { plain }
}

/// The files of a dataset at Hugging Face that fit, downloaded.
fn hugging_face(location: &str, patterns: Patterns, archives: bool) -> Result<Files> {
    if location.contains("#sha256=") {
        return Err(input_error(format!("{location} names a folder; a SHA-256 is of one file")));
    }
    let mut list = Vec::new();
    let names = download::list_hugging_face(location)?;
    for name in names.into_iter().filter(|name| is_wanted(name, &patterns, archives)) {
        let file = format!("{}/{name}", location.trim_end_matches('/'));
        let path = download::fetch(&file, &downloads())?;
        list.push(SourceFile::new(&path.ok_or_else(|| input_error(format!("{file} is gone")))?, name)?);
    }
    if list.is_empty() {
        return Err(input_error(format!("{location} holds no file that fits")));
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Files { list, patterns, checkout: None })
}

/// Whether a file of a folder counts: by its name, or as an archive of such files.
fn is_wanted(name: &str, patterns: &Patterns, archives: bool) -> bool {
    let packed = archives && packing(name) != Packing::None && !patterns.exclude.is_match(name);
    packed || patterns.fits(name)
}

/// Where downloads are kept.
pub(crate) fn downloads() -> PathBuf {
    cache_folder().join("downloads")
}

fn in_folder(folder: &Path, patterns: &Patterns, archives: bool) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    // Links are not followed: a tree that links to itself has an end.
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.map_err(|error| input_error(format!("cannot read {}: {error}", folder.display())))?;
        let name = entry.path().strip_prefix(folder)?.to_string_lossy().replace('\\', "/");
        if entry.file_type().is_file() && is_wanted(&name, patterns, archives) {
            files.push(SourceFile::new(entry.path(), name)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
