//! Files behind http(s) and `hf://`, kept in a cache keyed by (URL, `ETag`, size). A download that breaks off goes on where
//! it broke off, also in a later run.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use codepair_runtime::{Progress, back_off, block_on, file_digest, input_error, retry_after, sha256};
use futures::StreamExt as _;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

/// Tries after the first, where a server is busy or a download breaks off.
const RETRIES: u32 = 5;
/// Nothing comes for so long: the connection is dead.
const SILENCE: Duration = Duration::from_secs(60);

/// Whether a location is a URL.
pub(crate) fn is_url(location: &str) -> bool {
    ["http://", "https://", "hf://"].iter().any(|scheme| location.starts_with(scheme))
}

/// Downloads a file into `cache` unless it is there; nothing where the server has none. A location may end in
/// `#sha256=…`, which the file then must have.
///
/// # Errors
/// Exit 3: the server cannot be reached, the download breaks off for good, or the file is another one.
pub(crate) fn fetch(location: &str, cache: &Path) -> Result<Option<PathBuf>> {
    fetch_unless(location, cache, &[StatusCode::NOT_FOUND])
}

/// [`fetch`] from a server that may say otherwise that it has no file: a bucket that may not be listed answers 403.
///
/// # Errors
/// As [`fetch`].
pub(crate) fn fetch_next(location: &str, cache: &Path) -> Result<Option<PathBuf>> {
    fetch_unless(location, cache, &[StatusCode::NOT_FOUND, StatusCode::FORBIDDEN])
}

fn fetch_unless(location: &str, cache: &Path, absent: &[StatusCode]) -> Result<Option<PathBuf>> {
    let (url, expected) = pinned(location);
    let url = web_address(url);
    let place = block_on(fetch_to(&url, cache, absent)).map_err(|error| input_error(format!("{url}: {error:#}")))?;
    if let (Some(place), Some(expected)) = (&place, expected) {
        check(place, &expected, &url)?;
    }
    Ok(place)
}

/// A location, and the SHA-256 that its file must have where it ends in `#sha256=…`.
pub(crate) fn pinned(location: &str) -> (&str, Option<String>) {
    match location.split_once("#sha256=") {
        Some((location, digest)) => (location, Some(digest.to_ascii_lowercase())),
        None => (location, None),
    }
}

/// That a downloaded file has a digest; one that has another is deleted.
///
/// # Errors
/// Exit 3: it has another one.
pub(crate) fn check(file: &Path, expected: &str, location: &str) -> Result<()> {
    let digest = file_digest(file)?;
    if digest != expected {
        std::fs::remove_file(file)?;
        return Err(input_error(format!("{location} has the SHA-256 {digest}, and not {expected}")));
    }
    Ok(())
}

/// The files of a dataset at Hugging Face: `hf://datasets/OWNER/NAME[/FOLDER]`, by their paths in it.
///
/// # Errors
/// Exit 3: it cannot be listed.
pub(crate) fn list_hugging_face(location: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Entry {
        path: String,
        r#type: String,
    }
    let (repository, folder) = split_hugging_face(location);
    let url = format!("{}/api/{repository}/tree/main?recursive=true", hugging_face());
    let list = || async {
        let (client, mut entries, mut next) = (client()?, Vec::new(), Some(url.clone()));
        while let Some(page) = next {
            let response = send(|| client.get(&page)).await?.error_for_status()?;
            next = next_page(header(&response, "link"));
            entries.extend(response.json::<Vec<Entry>>().await?);
        }
        anyhow::Ok(entries)
    };
    let entries = block_on(list()).map_err(|error| input_error(format!("{url}: {error:#}")))?;
    let files = entries.into_iter().filter(|entry| entry.r#type == "file").map(|entry| entry.path);
    Ok(files.filter_map(|path| within(&path, folder).map(str::to_owned)).collect())
}

/// The address of the next page in a `Link` header (RFC 8288).
fn next_page(header: &str) -> Option<String> {
    let next = header.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// A path below a folder; the folder may be empty.
fn within<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    if folder.is_empty() { Some(path) } else { path.strip_prefix(folder)?.strip_prefix('/') }
}

/// `datasets/OWNER/NAME` and what follows it.
fn split_hugging_face(location: &str) -> (String, &str) {
    let path = location.trim_start_matches("hf://").trim_end_matches('/');
    let end = path.match_indices('/').nth(2).map_or(path.len(), |(at, _)| at);
    (path[..end].to_owned(), path[end..].trim_start_matches('/'))
}

fn hugging_face() -> String {
    std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned())
}

/// Where a location is on the web.
fn web_address(location: &str) -> String {
    if !location.starts_with("hf://") {
        return location.to_owned();
    }
    let (repository, path) = split_hugging_face(location);
    format!("{}/{repository}/resolve/main/{path}", hugging_face())
}

fn client() -> Result<Client> {
    // Installing twice is an error that does not matter: the provider is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent = concat!("codepair/", env!("CARGO_PKG_VERSION"));
    Ok(Client::builder().user_agent(agent).connect_timeout(SILENCE).read_timeout(SILENCE).build()?)
}

/// Sends a request until the server has an answer other than that it is busy: after the time it names, else with full jitter.
async fn send(request: impl Fn() -> RequestBuilder) -> reqwest::Result<Response> {
    let mut attempt = 0;
    loop {
        let answer = request().send().await;
        let pause = match &answer {
            Ok(response) if is_busy(response.status()) => retry_after(header(response, "retry-after")),
            Err(error) if error.is_connect() || error.is_timeout() || error.is_request() => None,
            _ => return answer,
        };
        if attempt == RETRIES {
            return answer;
        }
        let pause = pause.unwrap_or_else(|| back_off(attempt + 1));
        let what = answer.map_or_else(|error| error.to_string(), |response| response.status().to_string());
        tracing::warn!("{what}; again in {:.1} s", pause.as_secs_f64());
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

async fn fetch_to(url: &str, cache: &Path, absent: &[StatusCode]) -> Result<Option<PathBuf>> {
    let client = client()?;
    let head = send(|| client.head(url)).await?;
    if absent.contains(&head.status()) {
        return Ok(None);
    }
    let head = head.error_for_status()?;
    let length = header(&head, "content-length").to_owned();
    // What says that the file is still the same.
    let validator = match (header(&head, "etag"), header(&head, "last-modified")) {
        ("", modified) => modified,
        (etag, _) => etag,
    };
    let validator = validator.to_owned();
    let place = cache.join(sha256(format!("{url}\0{validator}\0{length}").as_bytes()));
    std::fs::create_dir_all(cache).with_context(|| format!("cannot write the cache {}", cache.display()))?;
    if place.is_file() {
        return Ok(Some(place));
    }
    let staged = place.with_extension("part");
    let mut file = OpenOptions::new().create(true).append(true).open(&staged)?;
    // Two runs want the same file: the second waits, and finds it.
    file.lock()?;
    if place.is_file() {
        return Ok(Some(place));
    }
    let expected: Option<u64> = length.parse().ok();
    let progress = Progress::new(&format!("downloading {url}"), "bytes", expected.unwrap_or(0));
    let (mut attempt, mut had) = (0, file.metadata()?.len());
    while let Err(error) = receive(&client, url, &validator, &mut file, expected, &progress).await {
        let received = file.metadata()?.len();
        // What comes on is not lost, however often it breaks off.
        attempt = if received > had { 0 } else { attempt + 1 };
        had = received;
        let status = error.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::status);
        if attempt == RETRIES || status.is_some() {
            return Err(error.context(format!("the download broke off after {received} bytes; run it again to go on")));
        }
        tracing::warn!("{url}: {error:#}; going on");
        tokio::time::sleep(back_off(attempt)).await;
    }
    file.sync_all()?;
    std::fs::rename(&staged, &place)?;
    Ok(Some(place))
}

/// Appends what is missing.
async fn receive(
    client: &Client,
    url: &str,
    validator: &str,
    file: &mut File,
    expected: Option<u64>,
    progress: &Progress,
) -> Result<()> {
    let mut received = file.metadata()?.len();
    // Without a validator nobody knows whether what is there is of the same file.
    let is_sure = !validator.is_empty() && !validator.starts_with("W/");
    if !is_sure || expected.is_some_and(|expected| received > expected) {
        file.set_len(0)?;
        received = 0;
    }
    if expected == Some(received) && received > 0 {
        return Ok(());
    }
    let request = || match received {
        0 => client.get(url),
        _ => client.get(url).header("range", format!("bytes={received}-")).header("if-range", validator),
    };
    let response = send(request).await?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        file.set_len(0)?;
        bail!("the server has no more of it than {received} bytes");
    }
    let response = response.error_for_status()?;
    if response.status() != StatusCode::PARTIAL_CONTENT {
        // The server sends all of it, whatever was asked for.
        file.set_len(0)?;
        received = 0;
    }
    progress.resume(received);
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| anyhow!("{error}"))?;
        file.write_all(&piece)?;
        received += piece.len() as u64;
        progress.add(piece.len() as u64);
    }
    if expected.is_some_and(|expected| expected != received) {
        bail!("it ended after {received} bytes");
    }
    Ok(())
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hugging_faces_addresses_are_read() {
        let location = "hf://datasets/o/n/python/train.parquet";
        assert_eq!(split_hugging_face(location), ("datasets/o/n".to_owned(), "python/train.parquet"));
        assert_eq!(split_hugging_face("hf://datasets/o/n/"), ("datasets/o/n".to_owned(), ""));
        let link = r#"<https://h/api?cursor=a>; rel="prev", <https://h/api?cursor=b>; rel="next""#;
        assert_eq!((next_page(link).as_deref(), next_page("")), (Some("https://h/api?cursor=b"), None));
        assert!(web_address(location).ends_with("/datasets/o/n/resolve/main/python/train.parquet"));
        assert_eq!((within("a/b", "a"), within("ab", "a"), within("a/b", "")), (Some("b"), None, Some("a/b")));
    }
}
