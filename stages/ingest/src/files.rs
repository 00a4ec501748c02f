//! The files of a source: in a folder or a git checkout, in archives, behind a URL, or in an object store.

mod archive;
mod bucket;
mod cache;
mod checkout;
mod download;
mod gzip;
mod hub;
mod listing;
mod packing;
mod patterns;
mod source_file;

use std::path::{Path, PathBuf};

use anyhow::Result;
use codepair_runtime::{Config, config_error, input_error, ordered};

use checkout::Checkout;
use download::Address;
use packing::{Packing, packing};
use source_file::{is_file, shown_path};

pub(crate) use listing::{Files, Item, Opened};
pub(crate) use packing::{has_end, unpacked};
pub(crate) use patterns::Patterns;
pub(crate) use source_file::{SourceFile, damaged};

/// What counts besides plain files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Archives in a folder.
    pub(crate) archives: bool,
    /// In a git checkout what git knows of, and nothing else.
    pub(crate) checkouts: bool,
}

/// Whether a location is a URL of the web.
pub(crate) fn is_url(location: &str) -> bool {
    ["http://", "https://", hub::SCHEME].iter().any(|scheme| location.starts_with(scheme))
}

/// The files at `location`: a file, a folder, an archive, or a URL of one of them that is downloaded first.
///
/// # Errors
/// Exit 2: there is no location. Exit 3: there is nothing there.
pub(crate) fn find(config: &Config, location: &str, patterns: Patterns, look: Look) -> Result<Files> {
    if location.is_empty() {
        return Err(config_error("path is missing: a file, a folder, an archive, or a URL"));
    }
    let scheme = location.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| !["http", "https", "hf", "s3", "gs", "az"].contains(&scheme)) {
        return Err(config_error(format!("{location}: known are paths, http(s)://, hf://, s3://, gs:// and az://")));
    }
    let mut checkout = None;
    let plain = file_name(location);
    if location.starts_with("http") && is_url(location) && plain.ends_with('/') {
        return Err(config_error(format!("{location} names a folder, and a web server lists nothing: name the file")));
    }
    let name = plain.rsplit('/').next().unwrap_or(plain).to_owned();
    let wanted = |name: &str| patterns.wants(name, look.archives);
    let list = if let Some(path) = location.strip_prefix(hub::SCHEME) {
        let is_file = packing(plain) != Packing::None || patterns.fits(plain);
        match (is_file, path.contains("#sha256=")) {
            (true, _) => vec![hub::fetch(location, &name)?],
            (false, false) => hub::fetch_folder(location, wanted)?,
            _ => return Err(input_error(format!("{location} names a folder; a SHA-256 is of one file"))),
        }
    } else if bucket::is_bucket(location) {
        bucket::fetch(location, wanted)?
    } else if is_url(location) {
        vec![download::fetch(location, Address::plain(cache::pinned(location).0), &name)?]
    } else {
        let path = config.resolve(location);
        checkout = if look.checkouts { Checkout::find(&path)? } else { None };
        match &checkout {
            Some(_) => checkout::tracked_files(&path, wanted)?,
            None if path.is_dir() => in_folder(&path, &own_store(config), wanted)?,
            None if path.is_file() => vec![SourceFile::new(&path, name)?],
            None => return Err(input_error(format!("{} does not exist", path.display()))),
        }
    };
    if list.is_empty() {
        return Err(input_error(format!("{location} holds no file that fits: {}", patterns.said())));
    }
    Ok(Files::new(list, patterns, checkout))
}

/// The files below a web address that are there, of those that may be: a web server lists nothing. Each run of names ends with
/// the first that is not there.
///
/// # Errors
/// Exit 3: the server cannot be reached, or refuses one of them.
pub(crate) fn find_on_web(base: &str, runs: Vec<Box<dyn Iterator<Item = String> + Send>>) -> Result<Vec<SourceFile>> {
    let mut found = Vec::new();
    let there = |run: Box<dyn Iterator<Item = String> + Send>| {
        let mut files = Vec::new();
        for name in run {
            let address = Address { advice: REFUSED, ..Address::plain(&format!("{base}/{name}")) };
            match address.find()? {
                Some(file) => files.push((name, file)),
                None => break,
            }
        }
        Ok(files)
    };
    ordered(
        runs.len(),
        |emit| runs.into_iter().try_for_each(emit),
        there,
        |files| {
            found.extend(files);
            Ok(())
        },
    )?;
    cache::fetch_all(base, found)
}

/// What a refusal within a tree means.
const REFUSED: &str = ": whether the file is there it does not say, so that nobody knows whether the tree ends here. A bucket says \
                       it where it may be listed; else download the files and name their folder";

/// A location without what follows its file's name: a digest, and of a URL the query.
pub(crate) fn file_name(location: &str) -> &str {
    let plain = cache::pinned(location).0;
    if is_url(plain) { plain.split(['?', '#']).next().unwrap_or(plain) } else { plain }
}

/// The folder of the pipeline's own store, where that is on this disk: what is in it is no source, also where it lies in one.
fn own_store(config: &Config) -> Option<PathBuf> {
    let url = config.store_url().ok()?;
    config.resolve(url.strip_prefix("file://")?).canonicalize().ok()
}

fn in_folder(folder: &Path, own_store: &Option<PathBuf>, wanted: impl Fn(&str) -> bool) -> Result<Vec<SourceFile>> {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let store = own_store.as_ref().and_then(|store| store.strip_prefix(&whole).ok()).map(|store| folder.join(store));
    let mut files = Vec::new();
    // Links to files are read, for the caches of Hugging Face, DVC and git-annex have nothing else; links to folders are not
    // followed: a tree that links to itself has an end.
    let outside = |entry: &walkdir::DirEntry| store.as_deref() != Some(entry.path());
    for entry in walkdir::WalkDir::new(folder).into_iter().filter_entry(outside) {
        let entry = entry.map_err(|error| input_error(format!("cannot read {}: {error}", folder.display())))?;
        let name = shown_path(entry.path().strip_prefix(folder)?);
        if wanted(&name) && is_file(entry.path(), entry.file_type())? {
            files.push(SourceFile::new(entry.path(), name)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
