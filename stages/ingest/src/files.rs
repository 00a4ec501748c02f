//! The files of a source: in a folder or a git checkout, in archives, behind a URL, or in an object store.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use codepair_runtime::{
    Config, Digest, TextReader, cache_folder, config_error, file_digest, files_digest, input_error, remember_digest,
    sha256,
};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::checkout::Checkout;
use crate::gzip::GzipReader;
use crate::sources::{bucket, download};
use crate::split::{Named, split_of_file, split_of_word};

const BUFFER_BYTES: usize = 256 << 10;
/// What has to be held in memory as a whole is at most so large, however little of a disk it takes packed.
const WHOLE_BYTES: u64 = 256 << 20;

/// The files of a source on disk, archives as one file each, and which entries of the archives count.
pub(crate) struct Files {
    pub(crate) list: Vec<SourceFile>,
    pub(crate) patterns: Patterns,
    pub(crate) checkout: Option<Checkout>,
    /// What their names say; several splits, where it is meant.
    splits: BTreeSet<&'static str>,
    /// All are in one folder at the top, or in none.
    is_one_module: bool,
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
        _ if ends(&[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"]) => Packing::Tar,
        _ => Packing::None,
    }
}

/// One thing that a source has.
pub(crate) enum Item<'a, 'b> {
    /// A file, to be read.
    File(&'b mut Opened<'a>),
    /// A file that nobody here can read, such as an encrypted one: why.
    Unreadable { place: String, why: String },
}

type Each<'e> = &'e mut dyn FnMut(Item) -> Result<()>;

/// A file being read, `.gz` and `.zst` decompressed.
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
    /// The split that its name says. Of `train.jsonl` or `my-test.jsonl` alone nobody knows whether it is meant, so such names count
    /// where others say other splits, and in an archive whose names are known only when it is read; `test.jsonl` always does.
    pub(crate) fn split(&self) -> Option<Named> {
        let said = split_of_file(&self.name).or_else(|| split_of_file(self.archive?));
        let is_in_tar = self.archive.is_some_and(|archive| packing(archive) == Packing::Tar);
        let file = self.name.rsplit('/').next().unwrap_or_default();
        let first = file.split(|c: char| !c.is_ascii_alphanumeric()).next().and_then(split_of_word);
        let is_meant = self.files.splits.len() > 1 || is_in_tar || first.is_some_and(|split| split != "train");
        let split = said.filter(|_| is_meant)?;
        Some(Named { split, lacks_validation: !self.files.splits.contains("validation") })
    }
    /// Whether all files of the source are of one top-level module.
    pub(crate) fn is_one_module(&self) -> bool {
        self.files.is_one_module
    }
    /// Whether the source is one archive.
    pub(crate) fn is_one_archive(&self) -> bool {
        self.archive.is_some() && self.files.list.len() == 1
    }
    /// The git checkout it is in.
    pub(crate) fn checkout(&self) -> Option<&Checkout> {
        self.files.checkout.as_ref()
    }
    /// The place on disk, for formats that are not read from start to end.
    pub(crate) fn on_disk(&self) -> Option<&Path> {
        self.path
    }
    /// Reads another file of the source, found by its name: of the same archive, where this one is in one. Nothing where there
    /// is none.
    pub(crate) fn other<T>(
        &self,
        is_it: impl Fn(&str) -> bool,
        mut read: impl FnMut(&mut Opened) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(archive) = self.archive else {
            let Some(other) = self.files.list.iter().find(|file| is_it(&file.name)) else { return Ok(None) };
            let reader = decompressed(other.open()?, &other.name);
            let mut opened = Opened { name: other.name.clone(), archive: None, path: None, reader, files: self.files };
            return read(&mut opened).map(Some);
        };
        let mut found = None;
        for file in self.files.list.iter().filter(|file| file.name == archive) {
            file.read(self.files, &mut |item| {
                if let Item::File(opened) = item
                    && found.is_none()
                    && is_it(opened.name())
                {
                    found = Some(read(opened)?);
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
    /// All of it, which has a bound.
    pub(crate) fn read_all(&mut self) -> Result<Vec<u8>> {
        let bytes = self.read_at_most(WHOLE_BYTES + 1)?;
        if bytes.len() as u64 > WHOLE_BYTES {
            return Err(input_error(format!(
                "{} has more than {} MiB unpacked, and would have to be held in memory as a whole; cut it into several files",
                self.name,
                WHOLE_BYTES >> 20
            )));
        }
        Ok(bytes)
    }
    /// From here on it is read as text: as UTF-8 without a byte order mark, whatever it is stored as.
    pub(crate) fn as_text(&mut self) {
        let raw = std::mem::replace(&mut self.reader, Box::new(std::io::empty()));
        self.reader = Box::new(TextReader::new(raw));
    }
    /// All of it, as text.
    pub(crate) fn read_text(&mut self) -> Result<String> {
        let bytes = self.read_all()?;
        codepair_runtime::decode(bytes).map_err(|what| input_error(format!("{}: {what}", self.name)))
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
    pub(crate) fn new(list: Vec<SourceFile>, patterns: Patterns, checkout: Option<Checkout>) -> Self {
        let mut splits: BTreeSet<&'static str> = list.iter().filter_map(|file| split_of_file(&file.name)).collect();
        let zips = list.iter().filter(|file| packing(&file.name) == Packing::Zip);
        splits.extend(zips.flat_map(|zip| zip.entries(&patterns)).filter_map(|name| split_of_file(&name)));
        let tops = list.iter().map(|file| file.name.split_once('/').map(|(top, _)| top));
        let tops: BTreeSet<Option<&str>> = tops.collect();
        let is_one_module = tops.len() == 1 && !tops.contains(&None);
        Self { list, patterns, checkout, splits, is_one_module }
    }

    /// Opens every file in turn, those within archives too, and counts the stored bytes of each when it is done with.
    /// Returns the digest of what was read.
    ///
    /// # Errors
    /// Exit 3: a file cannot be read, or is cut off or damaged.
    pub(crate) fn read(&self, mut each: impl FnMut(Item) -> Result<()>, done: impl Fn(u64)) -> Result<String> {
        let mut digests = BTreeMap::new();
        for file in &self.list {
            if let Some(sha256) = file.read(self, &mut each)? {
                digests.insert(file.name.clone(), sha256);
            }
            done(file.bytes);
        }
        self.digest_with(digests)
    }

    /// Takes the digests of the files anew, for those of the cache were other ones. The next time these count.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn forget_digests(&self) -> Result<()> {
        self.list.iter().try_for_each(|file| remember_digest(&file.path))
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

    /// The names of a zip archive's files. What is wrong with it is said when it is read.
    fn entries(&self, patterns: &Patterns) -> Vec<String> {
        let archive = File::open(&self.path).ok().and_then(|file| zip::ZipArchive::new(BufReader::new(file)).ok());
        let names = archive.iter().flat_map(zip::ZipArchive::file_names).filter_map(Result::ok);
        names.filter(|name| patterns.fits(name)).map(std::borrow::Cow::into_owned).collect()
    }

    /// Whether it holds other files.
    pub(crate) fn is_archive(&self) -> bool {
        packing(&self.name) != Packing::None
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
    fn read(&self, files: &Files, each: Each) -> Result<Option<String>> {
        if let Some(packer) = unknown_packing(&self.name) {
            let why = format!("it is packed by {packer}, which is not read: unpack it, or pack it with gzip or zstd");
            each(Item::Unreadable { place: self.name.clone(), why })?;
            return Ok(None);
        }
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
            let path = (unpacked(&self.name) == self.name).then_some(self.path.as_path());
            let mut opened = Opened { name: self.name.clone(), archive: None, path, reader, files };
            each(Item::File(&mut opened))?;
            self.read_rest(opened)?;
        }
        self.read_rest(raw)?;
        Ok(Some(Rc::unwrap_or_clone(digest).into_inner().finish()))
    }

    fn read_zip(&self, file: File, files: &Files, each: Each) -> Result<()> {
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
            let place = format!("{}/{name}", self.name);
            if let Some(packer) = unknown_packing(&name) {
                each(Item::Unreadable { place, why: format!("it is packed by {packer}, which is not read") })?;
                continue;
            }
            match zip.by_index(index) {
                // This one fails only when it is read.
                Ok(entry)
                    if !matches!(
                        entry.compression(),
                        zip::CompressionMethod::Stored | zip::CompressionMethod::Deflated
                    ) =>
                {
                    let why =
                        format!("it is packed by {}, which is not read; pack it with deflate", entry.compression());
                    each(Item::Unreadable { place, why })?;
                }
                Ok(entry) => {
                    let reader = decompressed(entry, &name);
                    each(Item::File(&mut Opened { name, archive: Some(&self.name), path: None, reader, files }))?;
                }
                // One that is encrypted, or packed in a way that is not known, says nothing of the others.
                Err(error @ zip::result::ZipError::UnsupportedArchive(_)) => {
                    each(Item::Unreadable {
                        place,
                        why: format!("{error}; pack it with deflate, without a password"),
                    })?;
                }
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(())
    }

    /// Entries come in the order of the archive, for it can only be read from start to end.
    fn read_tar(&self, tar: impl Read, files: &Files, each: Each) -> Result<()> {
        let broken = |error: &dyn std::fmt::Display| damaged(&self.name, error);
        for entry in tar::Archive::new(tar).entries().map_err(|e| broken(&e))? {
            let entry = entry.map_err(|e| broken(&e))?;
            let name = entry.path().map_err(|e| broken(&e))?.to_string_lossy().into_owned();
            if !entry.header().entry_type().is_file() || !files.patterns.fits(&name) {
                continue;
            }
            if let Some(packer) = unknown_packing(&name) {
                let (place, why) =
                    (format!("{}/{name}", self.name), format!("it is packed by {packer}, which is not read"));
                each(Item::Unreadable { place, why })?;
                continue;
            }
            let reader = decompressed(entry, &name);
            each(Item::File(&mut Opened { name, archive: Some(&self.name), path: None, reader, files }))?;
        }
        Ok(())
    }
}

fn decompressed<'a>(raw: impl Read + 'a, name: &str) -> Box<dyn Read + 'a> {
    let buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
    if name.ends_with(".gz") || name.ends_with(".tgz") {
        return Box::new(GzipReader::new(buffered));
    }
    if !name.ends_with(".zst") && !name.ends_with(".tzst") {
        return Box::new(buffered);
    }
    match zstd::Decoder::with_buffer(buffered) {
        Ok(decoder) => Box::new(decoder),
        Err(error) => Box::new(Failing(Some(error))),
    }
}

/// What could not even begin to be decompressed says so when it is read.
struct Failing(Option<std::io::Error>);

impl Read for Failing {
    fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// How a file's name says that it is packed in a way that nobody here reads.
fn unknown_packing(name: &str) -> Option<&'static str> {
    let packers =
        [(".xz", "xz"), (".bz2", "bzip2"), (".lz4", "lz4"), (".lzma", "lzma"), (".br", "brotli"), (".7z", "7-Zip")];
    packers.into_iter().find(|(end, _)| name.ends_with(end)).map(|(_, packer)| packer)
}

/// A file's name without the end that says how it is packed.
pub(crate) fn unpacked(name: &str) -> &str {
    let ends = [".gz", ".zst", ".xz", ".bz2", ".lz4", ".lzma", ".br", ".7z"];
    ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
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
    pub(crate) fn new<S: AsRef<str>, T: AsRef<str>>(include: &[S], exclude: &[T]) -> Result<Self> {
        Ok(Self { include: globs(include)?, exclude: globs(exclude)? })
    }

    /// What is packed counts by the name it has unpacked.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let is_included = self.include.is_match(name) || self.include.is_match(unpacked(name));
        is_included && !self.exclude.is_match(name) && !is_of_system(name)
    }
}

/// What macOS puts beside the files of an archive: it has their names, and is none of them.
fn is_of_system(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with("._") || part == "__MACOSX")
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
        return Ok(Files::new(list, patterns, None));
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
        in_folder(&path, &own_store(config), &patterns, archives)?
    } else if path.is_file() {
        vec![SourceFile::new(&path, plain.rsplit('/').next().unwrap_or(plain).to_owned())?]
    } else {
        return Err(input_error(format!("{} does not exist", path.display())));
    };
    if list.is_empty() {
        return Err(input_error(format!("{} holds no file that fits", path.display())));
    }
    Ok(Files::new(list, patterns, checkout))
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
    Ok(Files::new(list, patterns, None))
}

/// Whether a file of a folder counts: by its name, or as an archive of such files.
fn is_wanted(name: &str, patterns: &Patterns, archives: bool) -> bool {
    // An archive that nobody here can unpack is named when it is read.
    let is_archive = packing(unpacked(name)) != Packing::None || packing(name) != Packing::None;
    let packed = archives && is_archive && !patterns.exclude.is_match(name) && !is_of_system(name);
    packed || patterns.fits(name)
}

/// Where downloads are kept.
pub(crate) fn downloads() -> PathBuf {
    cache_folder().join("downloads")
}

/// A path as text: bytes that are no UTF-8 as `%E9`, so that two paths are never one.
pub(crate) fn shown(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        shown.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("%{byte:02X}")));
    }
    shown
}

/// Whether this is a file, or a link to one. A link to nothing would be a file that is missing in silence.
pub(crate) fn is_file(path: &Path, kind: std::fs::FileType) -> Result<bool> {
    if !kind.is_symlink() {
        return Ok(kind.is_file());
    }
    let aim = path.metadata().map_err(|error| {
        input_error(format!("{} is a link to what is not there: {error}; fetch it, or exclude it", path.display()))
    })?;
    Ok(aim.is_file())
}

/// The folder of the pipeline's own store, where that is on this disk: what is in it is no source, also where it lies in one.
fn own_store(config: &Config) -> Option<PathBuf> {
    let url = config.store_url().ok()?;
    config.resolve(url.strip_prefix("file://")?).canonicalize().ok()
}

fn in_folder(
    folder: &Path,
    own_store: &Option<PathBuf>,
    patterns: &Patterns,
    archives: bool,
) -> Result<Vec<SourceFile>> {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let store = own_store.as_ref().and_then(|store| store.strip_prefix(&whole).ok()).map(|store| folder.join(store));
    let mut files = Vec::new();
    // Links to files are read, for the caches of Hugging Face, DVC and git-annex have nothing else; links to folders are not
    // followed: a tree that links to itself has an end.
    let outside = |entry: &walkdir::DirEntry| store.as_deref() != Some(entry.path());
    for entry in walkdir::WalkDir::new(folder).into_iter().filter_entry(outside) {
        let entry = entry.map_err(|error| input_error(format!("cannot read {}: {error}", folder.display())))?;
        let name = shown(entry.path().strip_prefix(folder)?);
        if is_wanted(&name, patterns, archives) && is_file(entry.path(), entry.file_type())? {
            files.push(SourceFile::new(entry.path(), name)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
impl Files {
    /// No files.
    pub(crate) fn none() -> Self {
        let none = Patterns { include: GlobSet::empty(), exclude: GlobSet::empty() };
        Self::new(Vec::new(), none, None)
    }
}

#[cfg(test)]
impl<'a> Opened<'a> {
    /// A file that holds these bytes.
    pub(crate) fn of_bytes(files: &'a Files, name: &str, bytes: &'a [u8]) -> Self {
        Self { name: name.to_owned(), archive: None, path: None, reader: Box::new(bytes), files }
    }
}
