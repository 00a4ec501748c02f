//! The object store that all stages share: local disk, memory (tests only), S3, Google Cloud or Azure, by URL.

use std::future::Future;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::config_error;

/// The stack of the threads that futures run on, bytes; a page of it is memory only once it is used. SQL engines descend
/// into expressions as deep as users write them.
pub const DEEP_STACK: usize = 256 << 20;

/// Runs a future to its end. Stages are written without `async`; what needs it goes through here.
///
/// # Panics
/// When called from within a future.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    #[allow(clippy::expect_used, reason = "without a runtime nothing can be read or written")]
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .thread_stack_size(DEEP_STACK)
            .enable_all()
            .build()
            .expect("the async runtime starts")
    });
    runtime.block_on(future)
}

/// What became of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was not there and is now.
    New,
    /// Something was there before, and still is.
    Existed,
}

/// An object store with a prefix; all paths are relative to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    url: String,
    local: Option<PathBuf>,
}

impl Store {
    /// Opens a store by URL: `file://`, `s3://`, `gs://`, `az://`; credentials come from the environment. A `file://`
    /// URL with a relative path is relative to `folder`.
    ///
    /// # Errors
    /// Exit 2: the URL is not understood, or names memory, which cannot cross processes.
    pub fn open(url: &str, folder: &LocalPath) -> Result<Self> {
        if url.starts_with("memory:") {
            return Err(config_error("[store] url = \"memory://\" cannot be shared between processes; use file://"));
        }
        if let Some(path) = url.strip_prefix("file://") {
            return Self::local(&folder.join(path));
        }
        if !url.contains("://") {
            return Err(config_error(format!(
                "[store] url = {url:?} is no URL; a local folder is written file://{url}"
            )));
        }
        let parsed = url::Url::parse(url).map_err(|error| config_error(format!("[store] url = {url:?}: {error}")))?;
        let options = std::env::vars().map(|(key, value)| (key.to_ascii_lowercase(), value));
        let (objects, root) = object_store::parse_url_opts(&parsed, options)
            .map_err(|error| config_error(format!("[store] url = {url:?}: {error}")))?;
        Ok(Self { objects: objects.into(), root, url: url.trim_end_matches('/').to_owned(), local: None })
    }

    /// A folder of the local disk, made when it is not there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn local(folder: &LocalPath) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot write the store {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let objects = object_store::local::LocalFileSystem::new_with_prefix(&folder)?;
        let url = format!("file://{}", folder.display());
        Ok(Self { objects: Arc::new(objects), root: Path::default(), url, local: Some(folder) })
    }

    /// A store in memory, for tests.
    #[must_use]
    pub fn memory() -> Self {
        let objects = Arc::new(object_store::memory::InMemory::new());
        Self { objects, root: Path::default(), url: "memory://".to_owned(), local: None }
    }

    /// The URL, for people and for the manifest of a run.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The object store behind it, and the full path of `path` in it, for libraries that read by themselves.
    #[must_use]
    pub fn object(&self, path: &str) -> (Arc<dyn ObjectStore>, Path) {
        (Arc::clone(&self.objects), self.full(path))
    }

    /// Where a path lies on the local disk, for stores that are there.
    #[must_use]
    pub fn local_path(&self, path: &str) -> Option<PathBuf> {
        self.local.as_ref().map(|folder| folder.join(path))
    }

    /// An error of the object store in one line: its own text repeats every cause, a server's whole answer included.
    fn failed(&self, verb: &str, path: &str, error: &object_store::Error) -> anyhow::Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        anyhow::anyhow!("cannot {verb} {}/{path}: {}", self.url, without_markup(&cause.to_string()))
    }

    fn full(&self, path: &str) -> Path {
        self.root.parts().chain(Path::from(path).parts()).collect()
    }

    /// Reads an object whole.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn get(&self, path: &str) -> Result<Bytes> {
        let read = async { self.objects.get(&self.full(path)).await?.bytes().await };
        block_on(read).map_err(|error| self.failed("read", path, &error))
    }

    /// Reads an object whole, or nothing where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find(&self, path: &str) -> Result<Option<Bytes>> {
        let read = async { self.objects.get(&self.full(path)).await?.bytes().await };
        match block_on(read) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", path, &error)),
        }
    }

    /// Writes an object under a path that nobody else uses. On a local disk it is synced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, path: &str, content: impl Into<PutPayload>) -> Result<()> {
        block_on(self.objects.put(&self.full(path), content.into()))
            .map_err(|error| self.failed("write", path, &error))?;
        if let (Some(folder), Some(file)) = (&self.local, self.local_path(path)) {
            // The file, and each folder that may have been made for it.
            for part in file.ancestors().take_while(|part| *part != folder) {
                sync(part)?;
            }
        }
        Ok(())
    }

    /// Creates an object if there is none, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_new(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Created> {
        let bytes = bytes.into();
        if let Some(file) = self.local_path(path) {
            return create_local(&file, &bytes).with_context(|| format!("cannot write {}/{path}", self.url));
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match block_on(self.objects.put_opts(&self.full(path), bytes.into(), options)) {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Existed),
            Err(error) => Err(self.failed("write", path, &error)),
        }
    }

    /// Every object under a folder, in order of path (relative to the store).
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>> {
        let prefix = self.full(folder);
        let found: Vec<ObjectMeta> = block_on(self.objects.list(Some(&prefix)).try_collect())
            .map_err(|error| self.failed("list", folder, &error))?;
        let skipped = self.root.parts().count();
        let name = |meta: &ObjectMeta| {
            let path: Path = meta.location.parts().skip(skipped).collect();
            path.to_string()
        };
        let mut found: Vec<_> = found.into_iter().map(|meta| (name(&meta), meta)).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The names of the folders in a folder, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let found = block_on(self.objects.list_with_delimiter(Some(&self.full(folder))))
            .map_err(|error| self.failed("list", folder, &error))?;
        let mut names: Vec<String> =
            found.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Deletes objects; those that are gone already do not matter.
    ///
    /// # Errors
    /// One cannot be deleted.
    pub fn delete(&self, paths: &[String]) -> Result<()> {
        for path in paths {
            match block_on(self.objects.delete(&self.full(path))) {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("delete", path, &error)),
            }
        }
        if let Some(folder) = &self.local {
            // Object stores know no empty folders; neither should a local one.
            for path in paths {
                let mut parent = folder.join(path);
                while parent.pop() && parent != *folder && std::fs::remove_dir(&parent).is_ok() {}
            }
        }
        Ok(())
    }
}

/// A conditional create on the local disk: the bytes are synced before the name appears, and the name before we return.
/// `object_store` does the same by a hard link, without syncing.
fn create_local(file: &LocalPath, bytes: &[u8]) -> Result<Created> {
    let Some(folder) = file.parent() else { bail!("{} has no folder", file.display()) };
    std::fs::create_dir_all(folder)?;
    if file.exists() {
        return Ok(Created::Existed);
    }
    // object_store leaves names of this form out of its listings.
    let staged = PathBuf::from(format!("{}#{}", file.display(), uuid::Uuid::new_v4().as_u128() as u32));
    std::fs::write(&staged, bytes)?;
    sync(&staged)?;
    let linked = std::fs::hard_link(&staged, file);
    std::fs::remove_file(&staged)?;
    match linked {
        Ok(()) => {
            sync(folder)?;
            Ok(Created::New)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Created::Existed),
        Err(error) => Err(error.into()),
    }
}

/// What a server says, without the XML around it: `404 Not Found: NoSuchBucket`.
fn without_markup(text: &str) -> String {
    let Some((before, xml)) = text.split_once("<?xml") else { return text.to_owned() };
    let tag = |name: &str| Some(xml.split_once(&format!("<{name}>"))?.1.split_once('<')?.0);
    let said = [tag("Code"), tag("Message")].into_iter().flatten().filter(|part| !part.is_empty());
    format!("{before}{}", said.collect::<Vec<_>>().join(", "))
}

fn sync(path: &LocalPath) -> Result<()> {
    std::fs::File::open(path)?.sync_all().with_context(|| format!("cannot sync {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract every kind of store keeps.
    fn contract(store: &Store) {
        assert_eq!(store.find("a/b").unwrap(), None);
        assert!(store.get("a/b").is_err());
        assert_eq!(store.put_new("a/b", "one").unwrap(), Created::New);
        assert_eq!(store.put_new("a/b", "two").unwrap(), Created::Existed);
        assert_eq!(store.get("a/b").unwrap(), "one");
        store.put("a/c/d", "three").unwrap();
        let names: Vec<String> = store.list("a").unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a/b", "a/c/d"]);
        assert_eq!(store.folders("a").unwrap(), ["c"]);
        store.delete(&["a/c/d".into(), "a/none".into()]).unwrap();
        assert_eq!(store.folders("a").unwrap(), [""; 0]);
    }

    /// Of many that create one name, one wins.
    fn race(store: &Store) {
        let wins: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..16)
                .map(|n| scope.spawn(move || store.put_new("race", format!("{n}")).unwrap() == Created::New))
                .collect();
            racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum()
        });
        assert_eq!(wins, 1);
        assert_eq!(store.list("").unwrap().iter().filter(|(name, _)| name.contains("race")).count(), 1);
    }

    #[test]
    fn memory_keeps_the_contract() {
        contract(&Store::memory());
        race(&Store::memory());
    }

    #[test]
    fn local_disk_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("file://inner", folder.path()).unwrap();
        contract(&store);
        race(&store);
    }

    /// Runs against a real S3 (or compatible) bucket where `CODEPAIR_TEST_STORE` names one.
    #[test]
    fn remote_store_keeps_the_contract() {
        let Ok(url) = std::env::var("CODEPAIR_TEST_STORE") else {
            eprintln!("skipped: CODEPAIR_TEST_STORE names no store, such as s3://bucket");
            return;
        };
        let url = format!("{url}/test-{}", uuid::Uuid::now_v7());
        let store = Store::open(&url, LocalPath::new("")).unwrap();
        contract(&store);
        race(&store);
    }

    #[test]
    fn a_servers_answer_is_one_line() {
        let answer = "status code: 404 Not Found: <?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message></Message></Error>";
        assert_eq!(without_markup(answer), "status code: 404 Not Found: NoSuchBucket");
        let answer = "403: <?xml?><Code>AccessDenied</Code><Message>not yours</Message>";
        assert_eq!(without_markup(answer), "403: AccessDenied, not yours");
        assert_eq!(without_markup("Permission denied (os error 13)"), "Permission denied (os error 13)");
    }

    #[test]
    fn urls_that_cannot_be_are_config_errors() {
        for url in ["memory://", "folder", "ftp://host/path"] {
            let error = Store::open(url, LocalPath::new("")).unwrap_err();
            assert_eq!(crate::exit_status(&error), crate::ExitStatus::WrongConfig, "{url}");
        }
    }
}
