//! Files in an object store, `s3://`, `gs://` or `az://`, kept in the cache of downloads. Credentials come from the
//! environment, as for the store.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use codepair_runtime::{Store, block_on, input_error};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};

use super::cache::{Meter, Remote, cached, check, fetch_all, pinned};
use super::source_file::SourceFile;

/// Bytes of one ranged read; what broke off goes on after the last whole one.
const RANGE: u64 = 8 << 20;

/// Whether a location is in an object store.
pub(super) fn is_bucket(location: &str) -> bool {
    ["s3://", "gs://", "az://"].iter().any(|scheme| location.starts_with(scheme))
}

/// An object of a bucket, as it was listed.
struct Object {
    objects: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    url: String,
}

/// Downloads what is at a location, unless it is in the cache: the objects below it whose names are wanted, by their relative
/// paths, or the one object of that name, which may be pinned by `#sha256=…`.
///
/// # Errors
/// Exit 2: the location is not understood. Exit 3: there is nothing, or it cannot be read.
pub(super) fn fetch(location: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<SourceFile>> {
    let (location, digest) = pinned(location);
    let store = Store::open(location, Path::new(""))?;
    let (objects, root) = store.object("");
    if let Ok(meta) = block_on(objects.head(&root)) {
        let name = root.filename().unwrap_or_default().to_owned();
        let list = fetch_all(location, vec![(name, Object { objects, meta, url: location.to_owned() })])?;
        if let (Some(digest), [file]) = (digest, list.as_slice()) {
            check(file, &digest, location)?;
        }
        return Ok(list);
    }
    ensure!(digest.is_none(), input_error(format!("{location} is no file, so it has no SHA-256 to check")));
    let listed = store.list("").map_err(|error| input_error(format!("{location}: {error:#}")))?;
    let files = listed.into_iter().filter(|(name, _)| wanted(name)).map(|(name, meta)| {
        let url = format!("{location}/{name}");
        (name, Object { objects: Arc::clone(&objects), meta, url })
    });
    let files = files.collect::<Vec<_>>();
    ensure!(!files.is_empty(), input_error(format!("{location} holds no file that fits")));
    fetch_all(location, files)
}

impl Remote for Object {
    fn bytes(&self) -> u64 {
        self.meta.size
    }

    fn fetch(&self, meter: &mut Meter) -> Result<PathBuf> {
        let version = self.meta.e_tag.clone().unwrap_or_else(|| self.meta.last_modified.to_rfc3339());
        let fill = |file: &mut std::fs::File| {
            // A piece that was cut while it was written is read again.
            let mut received = file.metadata()?.len() / RANGE * RANGE;
            file.set_len(received)?;
            meter.begin(received);
            while received < self.meta.size {
                let piece = self.range(received..self.meta.size.min(received + RANGE))?;
                file.write_all(&piece)?;
                received += piece.len() as u64;
                meter.reach(received);
            }
            Ok(())
        };
        let place = cached(&format!("{}\0{version}\0{}", self.url, self.meta.size), true, fill);
        place.map_err(|error| input_error(format!("{}: {error:#}", self.url)))
    }
}

impl Object {
    /// A range of the object that was listed, and of no other that took its place since.
    fn range(&self, range: std::ops::Range<u64>) -> Result<bytes::Bytes> {
        let wanted = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let piece = block_on(async {
            let found = self.objects.get_opts(&self.meta.location, options).await?;
            // The answer says of which version it is; `If-Match` would say no more, and Ceph refuses the right one.
            let (one, other) = (&self.meta, &found.meta);
            let is_same = match (&one.e_tag, &other.e_tag) {
                (Some(one), Some(other)) => one == other,
                _ => one.last_modified == other.last_modified,
            };
            ensure!(is_same && one.size == other.size, "it was replaced while it was read; run it again");
            anyhow::Ok(found.bytes().await?)
        })?;
        ensure!(piece.len() as u64 == wanted, "{} bytes came instead of {wanted}", piece.len());
        Ok(piece)
    }
}
