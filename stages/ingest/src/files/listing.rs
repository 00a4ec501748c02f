//! The files of a source, opened one after another.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use anyhow::Result;
use codepair_runtime::{Digest, Shard, TextReader, file_digest, files_digest, input_error, remember_digest, sha256};

use super::archive::{Entry, read_tar, read_zip, zip_names};
use super::checkout::Checkout;
use super::packing::{Packing, decompressed, packing, unknown_packing, unpacked};
use super::patterns::Patterns;
use super::source_file::{SourceFile, damaged};
use crate::split::{Named, split_of_file, split_of_word};

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
            self.files.read_file(file, &mut |item| {
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

impl Files {
    pub(crate) fn new(list: Vec<SourceFile>, patterns: Patterns, checkout: Option<Checkout>) -> Self {
        let mut splits: BTreeSet<&'static str> = list.iter().filter_map(|file| split_of_file(&file.name)).collect();
        let zips = list.iter().filter(|file| packing(&file.name) == Packing::Zip);
        splits.extend(zips.flat_map(|zip| zip_names(&zip.path, &patterns)).filter_map(|name| split_of_file(&name)));
        let tops = list.iter().map(|file| file.name.split_once('/').map(|(top, _)| top));
        let tops: BTreeSet<Option<&str>> = tops.collect();
        let is_one_module = tops.len() == 1 && !tops.contains(&None);
        Self { list, patterns, checkout, splits, is_one_module }
    }

    /// Whether the files' names say which splits they are.
    pub(crate) fn says_splits(&self) -> bool {
        self.splits.len() > 1
    }

    /// The numbers of the files that a shard reads: the largest first, each to the shard that has the fewest bytes by then.
    pub(crate) fn of_shard(&self, shard: Shard) -> Vec<usize> {
        let mut by_size: Vec<usize> = (0..self.list.len()).collect();
        by_size.sort_by_key(|number| Reverse(self.list[*number].bytes));
        let mut loads: BTreeSet<(u64, u32)> = (1..=shard.of).map(|index| (0, index)).collect();
        let mut own = Vec::new();
        for number in by_size {
            if let Some((bytes, index)) = loads.pop_first() {
                loads.insert((bytes + self.list[number].bytes.max(1), index));
                own.extend((index == shard.index).then_some(number));
            }
        }
        own.sort_unstable();
        own
    }

    /// Opens the files of these numbers in turn, those within archives too, and counts the stored bytes of each when it is done
    /// with. Returns the digest of all files.
    ///
    /// # Errors
    /// Exit 3: a file cannot be read, or is cut off or damaged.
    pub(crate) fn read(
        &self,
        numbers: &[usize],
        mut each: impl FnMut(u64, Item) -> Result<()>,
        done: impl Fn(u64),
    ) -> Result<String> {
        let mut digests = BTreeMap::new();
        for &number in numbers {
            let file = &self.list[number];
            if let Some(sha256) = self.read_file(file, &mut |item| each(number as u64, item))? {
                digests.insert(file.name.clone(), sha256);
            }
            done(file.bytes);
        }
        self.digest_with(digests)
    }

    /// Opens one file, or what is in it, to look at its beginning.
    ///
    /// # Errors
    /// Exit 3: it cannot be read, or is cut off or damaged.
    pub(crate) fn peek(&self, number: usize, mut each: impl FnMut(u64, Item) -> Result<()>) -> Result<()> {
        self.read_file(&self.list[number], &mut |item| each(number as u64, item)).map(drop)
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
            if let Slot::Vacant(place) = read.entry(file.name.clone()) {
                place.insert(file_digest(&file.path)?);
            }
        }
        if let Some(checkout) = &self.checkout {
            read.insert(".git".to_owned(), sha256(checkout.url("").as_bytes()));
        }
        Ok(files_digest(&read))
    }

    /// Opens a file, or what is in it, and returns its SHA-256 where it was read from start to end.
    fn read_file(&self, file: &SourceFile, each: Each) -> Result<Option<String>> {
        let name = &file.name;
        if let Some(packer) = unknown_packing(name) {
            let why = format!("it is packed by {packer}, which is not read: unpack it, or pack it with gzip or zstd");
            each(Item::Unreadable { place: name.clone(), why })?;
            return Ok(None);
        }
        let opened = file.open()?;
        let mut entry = |entry: Entry| match entry.content {
            Ok(reader) => {
                each(Item::File(&mut Opened { name: entry.name, archive: Some(name), path: None, reader, files: self }))
            }
            Err(why) => each(Item::Unreadable { place: format!("{name}/{}", entry.name), why }),
        };
        if packing(name) == Packing::Zip {
            read_zip(opened, name, &self.patterns, &mut entry)?;
            return Ok(None);
        }
        let digest = Rc::new(RefCell::new(Digest::default()));
        let mut raw = Hashing { file: opened, digest: Rc::clone(&digest) };
        if packing(name) == Packing::Tar {
            let mut tar = decompressed(&mut raw, name);
            read_tar(&mut tar, name, &self.patterns, &mut entry)?;
            read_rest(tar, name)?;
        } else {
            let reader = decompressed(&mut raw, name);
            let path = (unpacked(name) == name).then_some(file.path.as_path());
            let mut opened = Opened { name: name.clone(), archive: None, path, reader, files: self };
            each(Item::File(&mut opened))?;
            read_rest(opened, name)?;
        }
        read_rest(raw, name)?;
        Ok(Some(Rc::unwrap_or_clone(digest).into_inner().finish()))
    }
}

/// What nobody wanted to read counts too, and may be damaged.
fn read_rest(mut rest: impl Read, name: &str) -> Result<()> {
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(|error| damaged(name, &error))?;
    Ok(())
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

#[cfg(test)]
impl Files {
    /// No files.
    pub(crate) fn none() -> Self {
        let none: [&str; 0] = [];
        let none = Patterns::new(&none, &none).unwrap();
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
