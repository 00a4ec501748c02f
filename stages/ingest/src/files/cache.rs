//! The cache of downloads, shared by all pipelines of a machine, and how it is filled: several files at once, under one bar.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use codepair_runtime::{Progress, cache_folder, file_digest, input_error, ordered, sha256};

use super::source_file::SourceFile;

/// Files that are downloaded at once.
const AT_ONCE: usize = 8;

/// A file that lies elsewhere.
pub(super) trait Remote: Send {
    /// Its bytes; 0 where nobody says.
    fn bytes(&self) -> u64;
    /// Its place in the cache, where it is put unless it is there.
    ///
    /// # Errors
    /// Exit 3: it cannot be read, or was replaced meanwhile.
    fn fetch(&self, meter: &mut Meter) -> Result<PathBuf>;
}

/// Counts the bytes of one file, under a bar that it shares with others.
pub(super) struct Meter<'a> {
    progress: &'a Progress,
    counted: u64,
}

impl Meter<'_> {
    /// So much is there of an earlier run.
    pub(super) fn begin(&mut self, received: u64) {
        if self.counted == 0 {
            self.progress.resume(received);
            self.counted = received;
        }
    }
    /// So much of the file is there now. What had to be thrown away is not counted twice.
    pub(super) fn reach(&mut self, received: u64) {
        self.progress.add(received.saturating_sub(self.counted));
        self.counted = self.counted.max(received);
    }
}

/// Downloads files, several at once, and lists them by name.
///
/// # Errors
/// As [`Remote::fetch`].
pub(super) fn fetch_all<R: Remote>(from: &str, files: Vec<(String, R)>) -> Result<Vec<SourceFile>> {
    let what = if files.len() == 1 { from.to_owned() } else { format!("{} files of {from}", files.len()) };
    let bytes = files.iter().map(|(_, file)| file.bytes()).sum();
    let progress = Progress::new(&format!("downloading {what}"), "bytes", bytes);
    let mut list = Vec::with_capacity(files.len());
    let fetch = |(name, file): (String, R)| {
        let mut meter = Meter { progress: &progress, counted: 0 };
        let path = file.fetch(&mut meter)?;
        // What was in the cache took no time.
        meter.begin(file.bytes());
        SourceFile::new(&path, name)
    };
    ordered(
        AT_ONCE,
        |emit| files.into_iter().try_for_each(emit),
        fetch,
        |file| {
            list.push(file);
            Ok(())
        },
    )?;
    list.sort_by(|a: &SourceFile, b| a.name.cmp(&b.name));
    Ok(list)
}

/// The file of a key; where it is not there, `fill` appends to what an earlier try left of it. Of a key that does not say
/// whether the content is still the same, `is_sure` is false: such a file is read again, once a process.
///
/// # Errors
/// Those of `fill`; the cache cannot be written.
pub(super) fn cached(key: &str, is_sure: bool, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<PathBuf> {
    static READ_AGAIN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let read_again = |place: &Path| READ_AGAIN.lock().is_ok_and(|seen| seen.contains(place));
    let folder = cache_folder().join("downloads");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot write the cache {}", folder.display()))?;
    let place = folder.join(sha256(key.as_bytes()));
    let is_there = || place.is_file() && (is_sure || read_again(&place));
    if is_there() {
        return Ok(place);
    }
    let staged = place.with_extension("part");
    let mut file = lock(&staged)?;
    // Another run may have had it meanwhile.
    if is_there() {
        return Ok(place);
    }
    if !is_sure {
        file.set_len(0)?;
    }
    fill(&mut file)?;
    file.sync_all()?;
    std::fs::rename(&staged, &place)?;
    if let Ok(mut seen) = READ_AGAIN.lock() {
        seen.insert(place.clone());
    }
    Ok(place)
}

/// Opens a file that nobody else writes: who comes second waits. What was renamed meanwhile is no longer it.
fn lock(path: &Path) -> Result<File> {
    loop {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        file.lock()?;
        if path.metadata().is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino())) {
            return Ok(file);
        }
    }
}

/// A location, and the SHA-256 that its file must have where it ends in `#sha256=…`.
pub(super) fn pinned(location: &str) -> (&str, Option<String>) {
    match location.split_once("#sha256=") {
        Some((location, digest)) => (location, Some(digest.to_ascii_lowercase())),
        None => (location, None),
    }
}

/// That a downloaded file has a digest; one that has another is deleted.
///
/// # Errors
/// Exit 3: it has another one.
pub(super) fn check(file: &SourceFile, expected: &str, location: &str) -> Result<()> {
    let digest = file_digest(&file.path)?;
    if digest != expected {
        std::fs::remove_file(&file.path)?;
        return Err(input_error(format!("{location} has the SHA-256 {digest}, and not {expected}")));
    }
    Ok(())
}
