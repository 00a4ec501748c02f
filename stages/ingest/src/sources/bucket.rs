//! Files in an object store, `s3://`, `gs://` or `az://`, kept in the cache of downloads. Credentials come from the
//! environment, as for the store.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use codepair_runtime::{Progress, Store, block_on, input_error, sha256};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};

use super::download::{check, pinned};

/// Bytes of one ranged read; what broke off goes on after the last whole one.
const RANGE: u64 = 8 << 20;

/// Whether a location is in an object store.
pub(crate) fn is_bucket(location: &str) -> bool {
    ["s3://", "gs://", "az://"].iter().any(|scheme| location.starts_with(scheme))
}

/// Downloads what is at a location, unless it is in `cache`: the objects below it whose names are wanted, by their relative
/// paths, or the one object of that name, which may be pinned by `#sha256=…`.
///
/// # Errors
/// Exit 2: the location is not understood. Exit 3: there is nothing, or it cannot be read.
pub(crate) fn fetch(location: &str, wanted: impl Fn(&str) -> bool, cache: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (location, digest) = pinned(location);
    let store = Store::open(location, Path::new(""))?;
    let (objects, root) = store.object("");
    let unreadable = |error: anyhow::Error| input_error(format!("{location}: {error:#}"));
    if let Ok(meta) = block_on(objects.head(&root)) {
        let path = download(&*objects, &meta, location, cache).map_err(unreadable)?;
        digest.map_or(Ok(()), |digest| check(&path, &digest, location))?;
        let name = root.filename().unwrap_or_default().to_owned();
        return Ok(vec![(name, path)]);
    }
    ensure!(digest.is_none(), input_error(format!("{location} is no file, so it has no SHA-256 to check")));
    let found = store.list("").map_err(unreadable)?.into_iter().filter(|(name, _)| wanted(name));
    let downloaded = found.map(|(name, meta)| {
        let path = download(&*objects, &meta, &format!("{location}/{name}"), cache).map_err(unreadable)?;
        Ok((name, path))
    });
    let files = downloaded.collect::<Result<Vec<_>>>()?;
    ensure!(!files.is_empty(), input_error(format!("{location} holds no file that fits")));
    Ok(files)
}

fn download(objects: &dyn ObjectStore, meta: &ObjectMeta, url: &str, cache: &Path) -> Result<PathBuf> {
    let version = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    let place = cache.join(sha256(format!("{url}\0{version}\0{}", meta.size).as_bytes()));
    std::fs::create_dir_all(cache).with_context(|| format!("cannot write the cache {}", cache.display()))?;
    if place.is_file() {
        return Ok(place);
    }
    let staged = place.with_extension("part");
    let mut file = OpenOptions::new().create(true).append(true).open(&staged)?;
    // Two runs want the same file: the second waits, and finds it.
    file.lock()?;
    if place.is_file() {
        return Ok(place);
    }
    // A piece that was cut while it was written is read again.
    let mut received = file.metadata()?.len() / RANGE * RANGE;
    file.set_len(received)?;
    let progress = Progress::new(&format!("downloading {url}"), "bytes", meta.size);
    progress.resume(received);
    while received < meta.size {
        let piece = range(objects, &meta.location, received..meta.size.min(received + RANGE))?;
        file.write_all(&piece)?;
        received += piece.len() as u64;
        progress.set(received);
    }
    file.sync_all()?;
    std::fs::rename(&staged, &place)?;
    Ok(place)
}

fn range(objects: &dyn ObjectStore, path: &ObjectPath, range: std::ops::Range<u64>) -> Result<bytes::Bytes> {
    let wanted = range.end - range.start;
    let piece = block_on(objects.get_range(path, range))?;
    ensure!(piece.len() as u64 == wanted, "{} bytes came instead of {wanted}", piece.len());
    Ok(piece)
}
