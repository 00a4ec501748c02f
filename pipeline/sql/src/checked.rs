//! The files of artifacts as queries see them: whatever is read of one is compared with its manifest first. A file that is gone or
//! damaged would else be an empty table, or wrong rows.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use codepair_runtime::{DIGEST_BLOCK, Manifest, Output, Store, sha256};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Bytes of blocks that were checked and are kept, for columns that lie in the same one; the newest is kept in any case.
const KEPT_BYTES: usize = 4 * DIGEST_BLOCK;
/// Blocks under way at once.
const BLOCKS_AT_ONCE: usize = 4;

/// A file that a manifest lists.
struct Listed {
    bytes: u64,
    /// One of each block.
    digests: Vec<String>,
    /// What to say where it is missing, and where it is damaged.
    faults: [String; 2],
    /// Held while a file of one block is read: others that want another range of it wait, and find it kept.
    reading: tokio::sync::Mutex<()>,
}

/// A file that is missing or damaged, and what to do.
#[derive(Debug)]
struct FileFault(String);

impl fmt::Display for FileFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for FileFault {}

/// What is wrong with a file, where that is what an error comes from.
pub(crate) fn fault(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(FileFault(words)) = error.downcast_ref() {
            return Some(words.clone());
        }
        cause = error.source();
    }
    None
}

/// A read-only store of files that manifests list, each read checked.
pub(crate) struct Checked {
    inner: Arc<dyn ObjectStore>,
    files: HashMap<Path, Listed>,
    kept: Mutex<VecDeque<(Path, u64, Bytes)>>,
}

impl Checked {
    pub(crate) fn new(store: &Store) -> Self {
        Self { inner: store.object("").0, files: HashMap::new(), kept: Mutex::default() }
    }

    /// Lets a file be read; its path in the store is returned.
    pub(crate) fn admit(&mut self, store: &Store, manifest: &Manifest, output: &Output) -> Path {
        let (_, path) = store.object(&manifest.path(output));
        let whole = || vec![output.sha256.clone()];
        let digests = if output.blocks.is_empty() { whole() } else { output.blocks.clone() };
        let faults = ["missing", "damaged: its SHA-256 differs"].map(|what| manifest.fault(store, output, what));
        let listed = Listed { bytes: output.bytes, digests, faults, reading: tokio::sync::Mutex::default() };
        self.files.insert(path.clone(), listed);
        path
    }

    fn listed(&self, path: &Path) -> Result<&Listed> {
        let unknown = || Error::NotFound { path: path.to_string(), source: "no manifest lists it".into() };
        self.files.get(path).ok_or_else(unknown)
    }

    fn kept(&self, path: &Path, block: u64) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(of, at, _)| of == path && *at == block).map(|(.., bytes)| bytes.clone())
    }

    fn keep(&self, path: &Path, block: u64, bytes: &Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = bytes.len() + kept.iter().map(|(.., bytes)| bytes.len()).sum::<usize>();
        while all > KEPT_BYTES
            && let Some((.., oldest)) = kept.pop_front()
        {
            all -= oldest.len();
        }
        kept.push_back((path.clone(), block, bytes.clone()));
    }

    /// A block of a file. Of files that an older codepair wrote there is one digest alone: they are one block.
    async fn block(&self, path: &Path, listed: &Listed, block: u64) -> Result<Bytes> {
        let _reading = match listed.digests.len() {
            1 => Some(listed.reading.lock().await),
            _ => None,
        };
        if let Some(bytes) = self.kept(path, block) {
            return Ok(bytes);
        }
        let size = listed.block_bytes();
        let range = block * size..listed.bytes.min((block + 1) * size);
        let fault =
            |at: usize| Error::Generic { store: "artifact", source: FileFault(listed.faults[at].clone()).into() };
        let read = match range.is_empty() {
            true => self.inner.get(path).await?.bytes().await,
            false => self.inner.get_range(path, range).await,
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Err(fault(0)),
            // A file that was cut short has no such range.
            Err(_) if self.inner.head(path).await.is_ok_and(|meta| meta.size != listed.bytes) => return Err(fault(1)),
            Err(error) => return Err(error),
        };
        if sha256(&bytes) != listed.digests[block as usize] {
            return Err(fault(1));
        }
        self.keep(path, block, &bytes);
        Ok(bytes)
    }

    /// A range of a file, out of the blocks that it lies in.
    async fn range(&self, path: &Path, range: Range<u64>) -> Result<Bytes> {
        let listed = self.listed(path)?;
        let size = listed.block_bytes();
        let (first, last) = (range.start / size, range.end.saturating_sub(1).max(range.start) / size);
        let last = last.min(listed.digests.len() as u64 - 1);
        let blocks = stream::iter(first..=last).map(|block| self.block(path, listed, block)).buffered(BLOCKS_AT_ONCE);
        let blocks: Vec<Bytes> = blocks.try_collect().await?;
        let (start, length) = ((range.start - first * size) as usize, (range.end - range.start) as usize);
        if let [block] = blocks.as_slice() {
            return Ok(block.slice(start..start + length));
        }
        let mut joined = BytesMut::with_capacity(blocks.iter().map(Bytes::len).sum());
        blocks.iter().for_each(|block| joined.extend_from_slice(block));
        Ok(joined.freeze().slice(start..start + length))
    }
}

impl Listed {
    fn block_bytes(&self) -> u64 {
        if self.digests.len() > 1 { DIGEST_BLOCK as u64 } else { self.bytes.max(1) }
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} files of artifacts in {}", self.files.len(), self.inner)
    }
}

/// What nobody does to artifacts.
fn read_only<T>() -> Result<T> {
    Err(Error::NotSupported { source: "artifacts are read-only".into() })
}

#[async_trait]
impl ObjectStore for Checked {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let bytes = self.listed(path)?.bytes;
        let meta = ObjectMeta {
            location: path.clone(),
            last_modified: Default::default(),
            size: bytes,
            e_tag: None,
            version: None,
        };
        let range = match options.range {
            None => 0..bytes,
            Some(GetRange::Bounded(range)) => range.start.min(bytes)..range.end.min(bytes),
            Some(GetRange::Offset(from)) => from.min(bytes)..bytes,
            Some(GetRange::Suffix(last)) => bytes.saturating_sub(last)..bytes,
        };
        let content = if options.head { Bytes::new() } else { self.range(path, range.clone()).await? };
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(content) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { read_only() }).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        read_only()
    }

    async fn put_opts(&self, _path: &Path, _payload: PutPayload, _options: PutOptions) -> Result<PutResult> {
        read_only()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only()
    }

    fn delete_stream(&self, _paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { read_only() }).boxed()
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        read_only()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_runtime::{Attempt, Published, block_on};

    /// A file of two blocks and a bit, and one that an older codepair wrote, with one digest alone.
    fn files(store: &Store) -> (Manifest, Bytes) {
        let content: Bytes = (0..2 * DIGEST_BLOCK + 9).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>().into();
        let mut attempt = Attempt::new(store, "report", "f1");
        attempt.add_file("pages", "a", content.clone()).unwrap();
        attempt.add_file("pages", "b", content.clone()).unwrap();
        let Published::Ours(mut manifest) = attempt.publish(|_| {}).unwrap() else { panic!() };
        assert_eq!(manifest.outputs[0].blocks.len(), 3);
        manifest.outputs[1].blocks.clear();
        (manifest, content)
    }

    #[test]
    fn every_range_is_what_it_was() {
        let store = Store::memory();
        let (manifest, content) = files(&store);
        let mut checked = Checked::new(&store);
        let block = DIGEST_BLOCK as u64;
        for output in &manifest.outputs {
            let path = checked.admit(&store, &manifest, output);
            for range in [0..1, block - 3..block + 3, block..2 * block, 5..2 * block + 9, 2 * block + 8..2 * block + 9]
            {
                let read = block_on(checked.get_range(&path, range.clone())).unwrap();
                assert!(read == content.slice(range.start as usize..range.end as usize), "{range:?}");
            }
            assert_eq!(block_on(checked.head(&path)).unwrap().size, content.len() as u64);
            assert!(block_on(checked.get(&path)).is_ok_and(|read| block_on(read.bytes()).unwrap() == content));
        }
    }

    #[test]
    fn damage_is_found_where_it_is_read() {
        let store = Store::memory();
        let (manifest, content) = files(&store);
        let read = |at: usize, range: Range<u64>| {
            let mut checked = Checked::new(&store);
            let path = checked.admit(&store, &manifest, &manifest.outputs[at]);
            block_on(checked.get_range(&path, range)).map_err(|error| error.to_string())
        };
        let mut flipped = content.to_vec();
        flipped[DIGEST_BLOCK + 7] ^= 1;
        for output in &manifest.outputs {
            store.put(&manifest.path(output), flipped.clone()).unwrap();
        }
        assert!(read(0, 3..9).is_ok(), "another block");
        assert!(read(0, DIGEST_BLOCK as u64 - 1..DIGEST_BLOCK as u64 + 1).unwrap_err().contains("--force report"));
        assert!(read(1, 3..9).unwrap_err().contains("SHA-256 differs"));
        store.put(&manifest.path(&manifest.outputs[0]), content.slice(..100)).unwrap();
        assert!(read(0, 3..9).unwrap_err().contains("damaged"));
        store.delete(&[manifest.path(&manifest.outputs[0])]).unwrap();
        assert!(read(0, 3..9).unwrap_err().contains("missing"));
    }
}
