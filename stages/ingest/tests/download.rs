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

/// Serves files by their paths; the first answer to each `GET` of a file ends in the middle. What a path begins with says what
/// is wrong with the server.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    files: Arc<Mutex<Files>>,
}

impl Server {
    fn start<C: AsRef<[u8]>>(files: &[(&str, C)]) -> Self {
        let files: Files =
            files.iter().map(|(path, content)| ((*path).to_owned(), content.as_ref().to_vec())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let (log, files) = (Arc::clone(&seen), Arc::new(Mutex::new(files)));
        let served = Arc::clone(&files);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, served) = (Arc::clone(&log), Arc::clone(&served));
                std::thread::spawn(move || serve(stream.unwrap(), &served.lock().unwrap().clone(), &log));
            }
        });
        Self { port, seen, files }
    }

    fn replace(&self, path: &str, content: &str) {
        self.files.lock().unwrap().insert(path.to_owned(), content.as_bytes().to_vec());
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
    let refuse = |stream: &mut TcpStream, status: &str| {
        let head = format!("HTTP/1.1 {status}\r\nRetry-After: 0.3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
    };
    let range: Option<usize> = range;
    let line = range.map_or(format!("{method} {path}"), |start| format!("{method} {path} from {start}"));
    let is_first = !log.lock().unwrap().contains(&line);
    log.lock().unwrap().push(line);
    let is_private = path.contains("private") && !headers.iter().any(|line| line == "authorization: bearer secret");
    let status = match files.get(&path) {
        _ if path.starts_with("/forbidden") && path.ends_with("_1.jsonl.gz") => "403 Forbidden",
        _ if is_private => "401 Unauthorized",
        None => "404 Not Found",
        _ if is_first && path.starts_with("/busy") => "503 Busy",
        _ if path.starts_with("/nohead") && method == "HEAD" => "405 Method Not Allowed",
        _ if range.is_some() => "206 Partial Content",
        _ => "200 OK",
    };
    let Some(content) = files.get(&path).filter(|_| status.starts_with('2')) else {
        return refuse(&mut stream, status);
    };
    let start = range.unwrap_or(0);
    let rest = &content[start..];
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", rest.len());
    if !path.starts_with("/bare") {
        let version = if path.starts_with("/replaced") && method == "GET" { 2 } else { 1 };
        head += &format!("ETag: \"v{version}\"\r\n");
    }
    if path.starts_with("/encoded") && (method == "GET" || !path.contains("later")) {
        head += "Content-Encoding: gzip\r\n";
    }
    if range.is_some() {
        let shift = usize::from(path.starts_with("/shifted"));
        head += &format!("Content-Range: bytes {}-{}/{}\r\n", start - shift, content.len() - 1, content.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    if method == "GET" {
        let breaks = is_first && range.is_none() && !path.starts_with("/api");
        let sent = if breaks { &rest[..rest.len() / 2] } else { rest };
        let _ = stream.write_all(sent);
    }
}

fn ingest(folder: &Path, table: &str, hub: &str) -> Output {
    ingest_with(folder, table, hub, "")
}

fn ingest_with(folder: &Path, table: &str, hub: &str, token: &str) -> Output {
    let config = folder.join("c.toml");
    std::fs::write(
        &config,
        format!("name = \"t\"\n[store]\nurl = \"file://{}/store\"\n[ingest.s]\n{table}\n", folder.display()),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_codepair-ingest"));
    command.arg("--config").arg(&config).env("CODEPAIR_CACHE", folder.join("cache")).env("HF_ENDPOINT", hub);
    command.env("HF_TOKEN", token);
    command.output().unwrap()
}

fn said(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

/// A file of CodeSearchNet with one row.
fn packed(split: &str) -> Vec<u8> {
    let row = serde_json::json!({
        "repo": "r", "path": "p", "func_name": "f", "language": "python", "code": "def f(a):\n    return a",
        "docstring": "Say.", "partition": split, "url": "u"
    });
    gzipped(&row.to_string())
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish().unwrap()
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

/// Signed addresses are for `GET` alone.
#[test]
fn a_server_that_refuses_head_is_asked_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[("/nohead/rows.jsonl", ROWS)]);
    let ran = ingest(folder.path(), &format!("{COLUMNS}\npath = \"{}/nohead/rows.jsonl\"", server.url()), "");
    assert!(said(&ran).contains("s: 2 rows of 1 files, 0 of them rejected"), "{}", said(&ran));
}

/// A part that is another than was asked for is not appended to what is there.
/// Some servers pack what they send, also for those who did not ask for it; of others each file that is packed is called so.
#[test]
fn a_file_that_is_packed_for_the_way_is_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[
        ("/encoded/rows.jsonl", gzipped(ROWS)),
        ("/encoded/later.jsonl", gzipped(ROWS)),
        ("/encoded/packed.jsonl.gz", gzipped(ROWS)),
        ("/encoded/broken.jsonl", b"no gzip at all".to_vec()),
    ]);
    let read =
        |name: &str| ingest(folder.path(), &format!("{COLUMNS}\npath = \"{}/encoded/{name}\"", server.url()), "");
    for name in ["rows.jsonl", "later.jsonl", "packed.jsonl.gz"] {
        let said = said(&read(name));
        assert!(said.contains("s: 2 rows of 1 files, 0 of them rejected"), "{name}: {said}");
    }
    for _ in 0..2 {
        let said = said(&read("broken.jsonl"));
        assert!(said.contains("the server said that it is packed by gzip, and it is no gzip"), "{said}");
    }
}

#[test]
fn a_part_from_elsewhere_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[("/shifted/rows.jsonl", ROWS)]);
    let digest = codepair_runtime::sha256(ROWS.as_bytes());
    let ran = ingest(
        folder.path(),
        &format!("{COLUMNS}\npath = \"{}/shifted/rows.jsonl#sha256={digest}\"", server.url()),
        "",
    );
    let said = said(&ran);
    assert!(said.contains("the server sent the part") && said.contains("s: 2 rows of 1 files"), "{said}");
}

#[test]
fn a_file_that_is_replaced_meanwhile_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[("/replaced/rows.jsonl", ROWS)]);
    let ran = ingest(folder.path(), &format!("{COLUMNS}\npath = \"{}/replaced/rows.jsonl\"", server.url()), "");
    assert_eq!(ran.status.code(), Some(3));
    assert!(said(&ran).contains("it was replaced while it was read; run it again"), "{}", said(&ran));
}

/// Of a file without `ETag` and date nobody knows whether it is still the same, also where it is as long as before.
#[test]
fn a_file_without_a_version_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&[("/bare/rows.jsonl", ROWS)]);
    let table = format!("{COLUMNS}\npath = \"{}/bare/rows.jsonl\"", server.url());
    let ran = ingest(folder.path(), &table, "");
    assert!(said(&ran).contains("s: 2 rows of 1 files"), "{}", said(&ran));
    let gets = |server: &Server| server.seen().iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(gets(&server), 2, "once, broken off and begun anew, for what is planned and what is read");
    server.replace("/bare/rows.jsonl", &ROWS.replace("Second", "Third!"));
    let ran = ingest(folder.path(), &table, "");
    assert!(said(&ran).contains("s: 2 rows of 1 files"), "{}", said(&ran));
    assert_eq!(gets(&server), 2);
    let digest = codepair_runtime::sha256(ROWS.replace("Second", "Third!").as_bytes());
    let pinned = format!("{COLUMNS}\npath = \"{}/bare/rows.jsonl#sha256={digest}\"", server.url());
    assert!(ingest(folder.path(), &pinned, "").status.success());
    server.seen();
    assert!(ingest(folder.path(), &pinned, "").status.success());
    assert_eq!(gets(&server), 0, "the digest says that it is the same");
}

/// A refusal in the middle of a tree is not its end: the training files behind it would be missing in silence.
#[test]
fn a_refusal_within_a_tree_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let train = "/forbidden/python/final/jsonl/train/python_train_0.jsonl.gz";
    let server = Server::start(&[(train, packed("train"))]);
    let ran = ingest(folder.path(), &format!("kind = \"codesearchnet\"\npath = \"{}/forbidden\"", server.url()), "");
    assert_eq!(ran.status.code(), Some(3));
    assert!(said(&ran).contains("403 Forbidden: whether the file is there it does not say"), "{}", said(&ran));
}

#[test]
fn a_revision_and_a_private_dataset_of_the_hub_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let listing = r#"[{"type": "file", "path": "data/a b.jsonl", "size": 90}]"#;
    let server = Server::start(&[
        ("/api/datasets/o/private/tree/refs%2Fpr%2F1/data", listing),
        ("/datasets/o/private/resolve/refs%2Fpr%2F1/data/a%20b.jsonl", ROWS),
    ]);
    let table = format!("{COLUMNS}\npath = \"hf://datasets/o/private@refs/pr/1/data\"");
    let ran = ingest_with(folder.path(), &table, &server.url(), "secret\n");
    assert!(said(&ran).contains("s: 2 rows of 1 files"), "{}", said(&ran));
    let refused = ingest_with(folder.path(), &table, &server.url(), "");
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("401 Unauthorized: HF_TOKEN is to hold a token"), "{}", said(&refused));
    let wrong = ingest(folder.path(), &format!("{COLUMNS}\npath = \"hf://o/name\""), &server.url());
    assert_eq!(wrong.status.code(), Some(2));
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
