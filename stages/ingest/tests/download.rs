//! Downloads from a server that breaks off, and a hub that lists its files.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// Contents by path.
type Files = BTreeMap<String, Vec<u8>>;

/// Serves files by their paths; the first answer to each `GET` of a file ends in the middle.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start<C: AsRef<[u8]>>(files: &[(&str, C)]) -> Self {
        let files: Files =
            files.iter().map(|(path, content)| ((*path).to_owned(), content.as_ref().to_vec())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &files, &log);
            }
        });
        Self { port, seen }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What was asked for since the last time, with the range.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, files: &Files, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap().split('?').next().unwrap().to_owned());
    let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
    let Some(content) = files.get(&path) else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let range: Option<usize> = range;
    let line = range.map_or(format!("{method} {path}"), |start| format!("{method} {path} from {start}"));
    let is_first = !log.lock().unwrap().contains(&line);
    log.lock().unwrap().push(line);
    if is_first && path.starts_with("/busy") {
        let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 0.3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(busy);
        return;
    }
    let start = range.unwrap_or(0);
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let rest = &content[start..];
    let head =
        format!("HTTP/1.1 {status}\r\nETag: \"v1\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
    stream.write_all(head.as_bytes()).unwrap();
    if method == "GET" {
        let breaks = range.is_none() && !path.starts_with("/api");
        let sent = if breaks { &rest[..rest.len() / 2] } else { rest };
        let _ = stream.write_all(sent);
    }
}

fn ingest(folder: &Path, table: &str, hub: &str) -> Output {
    let config = folder.join("c.toml");
    std::fs::write(
        &config,
        format!("name = \"t\"\n[store]\nurl = \"file://{}/store\"\n[ingest.s]\n{table}\n", folder.display()),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_codepair-ingest"));
    command.arg("--config").arg(&config).env("CODEPAIR_CACHE", folder.join("cache")).env("HF_ENDPOINT", hub);
    command.output().unwrap()
}

const ROWS: &str = concat!(
    "{\"code\": \"def f(a):\\n    return a\", \"doc\": \"First.\"}\n",
    "{\"code\": \"def g(a):\\n    return a\", \"doc\": \"Second.\"}\n",
);
const COLUMNS: &str = "kind = \"jsonl\"\ncolumns = { code = \"code\", docstring = \"doc\" }";

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[("/rows.jsonl", ROWS)]);
    let digest = codepair_runtime::sha256(ROWS.as_bytes());
    let table = |digest: &str| format!("{COLUMNS}\npath = \"{}/rows.jsonl#sha256={digest}\"", server.url());
    let ran = ingest(folder.path(), &table(&digest), "");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && said.contains("s: 2 rows of 1 files, 0 of them rejected"), "{said}");
    let gets: Vec<String> = server.seen().into_iter().filter(|line| line.starts_with("GET")).collect();
    assert_eq!(gets, ["GET /rows.jsonl".to_owned(), format!("GET /rows.jsonl from {}", ROWS.len() / 2)]);
    // The cache has it now.
    assert!(ingest(folder.path(), &table(&digest), "").status.success());
    assert!(server.seen().iter().all(|line| line.starts_with("HEAD")));
    let wrong = ingest(folder.path(), &table(&"0".repeat(64)), "");
    assert_eq!(wrong.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("has the SHA-256"), "{wrong:?}");
}

/// A server that is busy is asked again, when it says so, whatever is asked.
#[test]
fn a_busy_server_is_asked_again_when_it_wants_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[("/busy/rows.jsonl", ROWS)]);
    let began = std::time::Instant::now();
    let ran = ingest(folder.path(), &format!("{COLUMNS}\npath = \"{}/busy/rows.jsonl\"", server.url()), "");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && said.contains("503") && said.contains("again in 0.3 s"), "{said}");
    assert!(began.elapsed().as_secs_f64() > 0.6, "two requests waited");
    let heads = server.seen().iter().filter(|line| line.starts_with("HEAD")).count();
    assert!(heads >= 2, "{heads}");
}

#[test]
fn a_dataset_of_the_hub_is_listed_and_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let listing = r#"[{"type": "directory", "path": "data"}, {"type": "file", "path": "data/b.jsonl"},
        {"type": "file", "path": "data/a.jsonl"}, {"type": "file", "path": "README.md"}]"#;
    let server = Server::start(&[
        ("/api/datasets/owner/name/tree/main", listing),
        ("/datasets/owner/name/resolve/main/data/a.jsonl", ROWS),
        ("/datasets/owner/name/resolve/main/data/b.jsonl", ROWS),
    ]);
    let pinned = format!("datasets/owner/name/data/a.jsonl#sha256={}", codepair_runtime::sha256(ROWS.as_bytes()));
    for (location, files) in [("datasets/owner/name", 2), ("datasets/owner/name/data/a.jsonl", 1), (pinned.as_str(), 1)]
    {
        let ran = ingest(folder.path(), &format!("{COLUMNS}\npath = \"hf://{location}\""), &server.url());
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        // The same content has the same artifact, pinned or not.
        let is_known = location == pinned && said.contains("is there already");
        assert!(is_known || said.contains(&format!("s: {} rows of {files} files", 2 * files)), "{said}");
    }
    let none = ingest(folder.path(), &format!("{COLUMNS}\npath = \"hf://datasets/owner/other\""), &server.url());
    assert_eq!(none.status.code(), Some(3));
}

/// A web server lists nothing: the files are numbered, and the others have known names.
#[test]
fn the_tree_of_codesearchnet_is_found_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let packed = |split: &str| {
        let row = serde_json::json!({
            "repo": "r", "path": "p", "func_name": "f", "language": "python", "code": "def f(a):\n    return a",
            "docstring": "Say.", "partition": split, "url": "u"
        });
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(row.to_string().as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let server = Server::start(&[
        ("/csn/python/final/jsonl/train/python_train_0.jsonl.gz", packed("train")),
        ("/csn/python/final/jsonl/train/python_train_1.jsonl.gz", packed("train")),
        ("/csn/python/final/jsonl/valid/python_valid_0.jsonl.gz", packed("valid")),
        ("/csn/queries.csv", b"query\nsay it\n".to_vec()),
        ("/csn/annotationStore.csv", b"Language,Query,GitHubUrl,Relevance,Notes\nPython,say it,u,2,\n".to_vec()),
    ]);
    let ran = ingest(folder.path(), &format!("kind = \"codesearchnet\"\npath = \"{}/csn\"", server.url()), "");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("s: 5 rows of 5 files, 0 of them rejected"), "{said}");
    let none = ingest(folder.path(), &format!("kind = \"codesearchnet\"\npath = \"{}/other\"", server.url()), "");
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("has no python/final/jsonl/train/python_train_0.jsonl.gz"), "{said}");
    assert_eq!(none.status.code(), Some(3));
}

/// A real bucket, where `CODEPAIR_TEST_STORE` names one.
#[test]
fn a_folder_and_a_file_of_a_bucket_are_downloaded() {
    let Ok(url) = std::env::var("CODEPAIR_TEST_STORE") else {
        eprintln!("skipped: CODEPAIR_TEST_STORE names no bucket");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
    let url = format!("{}/{name}", url.trim_end_matches('/'));
    let store = codepair_runtime::Store::open(&url, folder.path()).unwrap();
    for file in ["data/a.jsonl", "data/deep/b.jsonl", "data/c.txt"] {
        store.put(file, ROWS.as_bytes().to_vec()).unwrap();
    }
    let digest = codepair_runtime::sha256(ROWS.as_bytes());
    let file = format!("data/a.jsonl#sha256={digest}");
    for (place, files) in [("data", 2), ("data/deep/", 1), (file.as_str(), 1)] {
        let ran = ingest(folder.path(), &format!("{COLUMNS}\npath = \"{url}/{place}\""), "");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(said.contains(&format!("s: {} rows of {files} files", 2 * files)), "{said}");
    }
    let other = "0".repeat(64);
    for wrong in ["nothing", &format!("data/a.jsonl#sha256={other}"), &format!("data#sha256={other}")] {
        let ran = ingest(folder.path(), &format!("{COLUMNS}\npath = \"{url}/{wrong}\""), "");
        assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    }
}
