//! The object store that all stages share: local disk, memory (tests only), S3, Google Cloud or Azure, by URL.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::config_error;

/// The stack of the threads that futures run on, bytes; a page of it is memory only once it is used. SQL engines descend
/// into expressions as deep as users write them.
pub const DEEP_STACK: usize = 256 << 20;

/// Objects above this many bytes go up and come down in pieces of [`PIECE_BYTES`]. A request then has a bound in bytes, so that
/// its bound in time ([`REQUEST_SECONDS`]) is one on how slow the store is, some 70 kB/s, however large the object.
const WHOLE_BYTES: usize = 16 << 20;
/// S3 wants 5 MiB at least of each piece but the last, and takes 10,000 pieces.
const PIECE_BYTES: usize = 8 << 20;
const MOST_PIECES: usize = 10_000;
/// Pieces under way at once.
const PIECES_AT_ONCE: usize = 4;
/// Seconds that a request may take, unless `AWS_TIMEOUT` or its like says otherwise.
const REQUEST_SECONDS: &str = "120 seconds";

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
        Self::open_with(url, folder, options(std::env::vars_os()))
    }

    fn open_with(url: &str, folder: &LocalPath, options: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
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
        refuse_credentials(url)?;
        let parsed = url::Url::parse(url).map_err(|error| config_error(format!("[store] url = {url:?}: {error}")))?;
        let (objects, root) = object_store::parse_url_opts(&parsed, options).map_err(|error| {
            config_error(format!("[store] url = {url:?}: {error}; known are file://, s3://, gs:// and az://"))
        })?;
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
        block_on(self.download(&self.full(path))).map_err(|error| self.failed("read", path, &error))
    }

    /// Reads an object whole, or nothing where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find(&self, path: &str) -> Result<Option<Bytes>> {
        match block_on(self.download(&self.full(path))) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", path, &error)),
        }
    }

    /// A small object by one request, a large one piece by piece: what breaks off is asked for again alone.
    async fn download(&self, path: &Path) -> object_store::Result<Bytes> {
        let found = self.objects.get(path).await?;
        let (size, e_tag) = (found.meta.size, found.meta.e_tag.clone());
        if size <= WHOLE_BYTES as u64 || self.local.is_some() {
            return found.bytes().await;
        }
        drop(found);
        let piece = |start: u64| {
            let range = GetRange::Bounded(start..size.min(start + PIECE_BYTES as u64));
            let options = GetOptions { range: Some(range), if_match: e_tag.clone(), ..GetOptions::default() };
            async move { self.objects.get_opts(path, options).await?.bytes().await }
        };
        let mut whole = Vec::with_capacity(size as usize);
        let mut pieces = futures::stream::iter((0..size).step_by(PIECE_BYTES)).map(piece).buffered(PIECES_AT_ONCE);
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    /// Writes an object under a path that nobody else uses. On a local disk it is synced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, path: &str, content: impl Into<PutPayload>) -> Result<()> {
        block_on(self.upload(&self.full(path), content.into())).map_err(|error| self.failed("write", path, &error))?;
        match (&self.local, self.local_path(path)) {
            (Some(root), Some(file)) => sync_up_to(&file, root),
            _ => Ok(()),
        }
    }

    async fn upload(&self, path: &Path, content: PutPayload) -> object_store::Result<()> {
        if content.content_length() <= WHOLE_BYTES || self.local.is_some() {
            return self.objects.put(path, content).await.map(drop);
        }
        let mut upload = self.objects.put_multipart(path).await?;
        let sending: Vec<_> = pieces(content).into_iter().map(|piece| upload.put_part(piece)).collect();
        let sent: object_store::Result<()> =
            futures::stream::iter(sending).buffer_unordered(PIECES_AT_ONCE).try_collect().await;
        match sent {
            Ok(()) => upload.complete().await.map(drop),
            Err(error) => {
                // Where the store cannot be reached, it cannot be told either; what it keeps of the upload nobody sees.
                if let Err(abort) = upload.abort().await {
                    tracing::debug!("an upload could not be given up: {abort}");
                }
                Err(error)
            }
        }
    }

    /// Creates an object if there is none, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_new(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Created> {
        let bytes = bytes.into();
        if let Some(file) = self.local_path(path) {
            let root = self.local.as_deref().unwrap_or(LocalPath::new("/"));
            return create_local(&file, &bytes, root).with_context(|| format!("cannot write {}/{path}", self.url));
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
fn create_local(file: &LocalPath, bytes: &[u8], root: &LocalPath) -> Result<Created> {
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
            sync_up_to(folder, root)?;
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

/// The pieces of a large object, all but the last of one size.
fn pieces(content: PutPayload) -> Vec<PutPayload> {
    let size = PIECE_BYTES.max(content.content_length().div_ceil(MOST_PIECES));
    let (mut pieces, mut piece, mut room) = (Vec::new(), Vec::new(), size);
    for mut block in content {
        while !block.is_empty() {
            let part = block.split_to(block.len().min(room));
            room -= part.len();
            piece.push(part);
            if room == 0 {
                pieces.push(PutPayload::from_iter(std::mem::take(&mut piece)));
                room = size;
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(PutPayload::from_iter(piece));
    }
    pieces
}

/// What the environment says of object stores, by the documented names alone: `object_store` would take a bare `TOKEN` or
/// `ENDPOINT` as well, which anything may set.
fn options(environment: impl Iterator<Item = (OsString, OsString)>) -> impl Iterator<Item = (String, String)> {
    let documented = |key: &str| ["aws_", "google_", "azure_"].iter().any(|prefix| key.starts_with(prefix));
    let said = environment.filter_map(move |(key, value)| {
        let key = key.to_str()?.to_ascii_lowercase();
        documented(&key).then_some((key, value.into_string().ok()?))
    });
    std::iter::once(("timeout".to_owned(), REQUEST_SECONDS.to_owned())).chain(said)
}

/// A URL without a name or a password in it: what is written into configs ends up in plans, manifests and logs.
///
/// # Errors
/// Exit 2: there are some.
pub fn refuse_credentials(url: &str) -> Result<()> {
    if url.starts_with("file://") {
        return Ok(());
    }
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    match authority.rsplit_once('@') {
        None => Ok(()),
        Some((_, host)) => Err(config_error(format!(
            "the URL of {host} holds a name or a password, which would be kept in plans and manifests; keys belong into the \
             environment: AWS_…, GOOGLE_… and AZURE_… for object stores, HF_TOKEN for hf://, the variable that api_key_env \
             names for servers of models"
        ))),
    }
}

/// Syncs a file or folder, and each folder above it that may have been made for it, the store's root included.
fn sync_up_to(path: &LocalPath, root: &LocalPath) -> Result<()> {
    path.ancestors().take_while(|part| part.starts_with(root)).try_for_each(sync)
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

    /// Objects that are stored and read piece by piece are what was put in.
    fn large(store: &Store) {
        let block = |n: usize| Bytes::from((0..5_000_017).map(|at| (at * 31 + n) as u8).collect::<Vec<u8>>());
        let payload: PutPayload = (0..5).map(block).collect();
        store.put("large/a", payload.clone()).unwrap();
        assert_eq!(store.get("large/a").unwrap(), Bytes::from(payload));
        assert_eq!(store.find("large/none").unwrap(), None);
    }

    #[test]
    fn pieces_have_one_size_but_for_the_last() {
        let payload: PutPayload =
            [3, PIECE_BYTES, PIECE_BYTES + 5].map(|n| Bytes::from(vec![n as u8; n])).into_iter().collect();
        let sizes: Vec<usize> = pieces(payload.clone()).iter().map(PutPayload::content_length).collect();
        assert_eq!(sizes, [PIECE_BYTES, PIECE_BYTES, 8]);
        let whole: PutPayload = pieces(payload.clone()).into_iter().flatten().collect();
        assert_eq!(Bytes::from(whole), Bytes::from(payload));
    }

    #[test]
    fn only_documented_variables_configure_the_store() {
        use std::os::unix::ffi::OsStringExt as _;
        let environment =
            ["TOKEN", "ENDPOINT", "REGION", "TIMEOUT", "PROXY_URL", "ACCESS_KEY_ID", "AWS_REGION", "google_bucket"];
        let broken = (OsString::from_vec(vec![0xff]), OsString::from("x"));
        let environment = environment.into_iter().map(|key| (OsString::from(key), OsString::from("x"))).chain([broken]);
        let keys: Vec<String> = options(environment).map(|(key, _)| key).collect();
        assert_eq!(keys, ["timeout", "aws_region", "google_bucket"]);
    }

    /// A proxy in front of an HTTP server that lets a megabyte a second through, up and down together.
    fn slow_proxy(server: std::net::SocketAddr) -> std::net::SocketAddr {
        use std::io::{Read as _, Write as _};
        use std::net::{TcpListener, TcpStream};
        use std::sync::Mutex;
        use std::time::{Duration, Instant};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let free_at = Arc::new(Mutex::new(Instant::now()));
        let pump = move |mut from: TcpStream, mut to: TcpStream, free_at: Arc<Mutex<Instant>>| {
            let mut bytes = [0; 16 << 10];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let until = {
                    let mut free_at = free_at.lock().unwrap();
                    *free_at = (*free_at).max(Instant::now()) + Duration::from_micros(count as u64);
                    *free_at
                };
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Write);
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { return };
                let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (Arc::clone(&free_at), Arc::clone(&free_at));
                std::thread::spawn(move || pump(client, server, up));
                std::thread::spawn(move || pump(server_too, client_too, down));
            }
        });
        address
    }

    /// Forty megabytes at one a second take longer than any one request may: they go in pieces.
    #[test]
    fn large_objects_go_through_a_slow_network() {
        let (Ok(url), Ok(endpoint)) = (std::env::var("CODEPAIR_TEST_STORE"), std::env::var("AWS_ENDPOINT")) else {
            eprintln!("skipped: CODEPAIR_TEST_STORE and AWS_ENDPOINT name no store, such as s3://bucket");
            return;
        };
        let Some(server) = endpoint.strip_prefix("http://").and_then(|host| host.parse().ok()) else {
            eprintln!("skipped: AWS_ENDPOINT is no address, such as http://127.0.0.1:8080");
            return;
        };
        let proxied = format!("http://{}", slow_proxy(server));
        let environment = std::env::vars_os().filter(|(key, _)| key != "AWS_ENDPOINT" && key != "AWS_ENDPOINT_URL");
        // A time-out in which the whole of it cannot come through, and a piece among three others can.
        let more = [("aws_endpoint", proxied.as_str()), ("aws_timeout", "36 seconds")];
        let more = more.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let url = format!("{url}/test-{}", uuid::Uuid::now_v7());
        let store = Store::open_with(&url, LocalPath::new(""), options(environment).chain(more)).unwrap();
        let content: Bytes = (0..40_000_000u32).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>().into();
        let began = std::time::Instant::now();
        store.put("large", content.clone()).unwrap();
        assert!(began.elapsed().as_secs() >= 39, "the proxy is slow");
        assert!(store.get("large").unwrap() == content);
    }

    #[test]
    fn credentials_in_urls_are_refused() {
        for url in ["s3://key:secret@bucket/a", "https://token@host/v1", "http://a:b@h"] {
            let error = refuse_credentials(url).unwrap_err();
            assert_eq!(crate::exit_status(&error), crate::ExitStatus::WrongConfig);
            assert!(!error.to_string().contains("secret") && error.to_string().contains("environment"), "{error}");
        }
        for url in ["s3://bucket/a@b", "https://host/a?x=y@z", "hf://datasets/a/b", "file://a@b/c", "folder/a@b"] {
            refuse_credentials(url).unwrap();
        }
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
        large(&Store::memory());
        race(&Store::memory());
    }

    #[test]
    fn local_disk_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open("file://inner", folder.path()).unwrap();
        contract(&store);
        large(&store);
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
        large(&store);
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
