//! Files behind http(s), kept in a cache keyed by (URL, `ETag`, size).

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use codepair_runtime::{Progress, block_on, input_error, sha256};
use futures::StreamExt as _;
use reqwest::{Client, Response, StatusCode};

/// Whether a location is a URL.
pub(crate) fn is_url(location: &str) -> bool {
    location.starts_with("http://") || location.starts_with("https://")
}

/// Downloads a file into `cache` unless it is there; nothing where the server has none.
///
/// # Errors
/// Exit 3: the server cannot be reached, or the download breaks off.
pub(crate) fn fetch(url: &str, cache: &Path) -> Result<Option<PathBuf>> {
    // Installing twice is an error that does not matter: the provider is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    block_on(fetch_to(url, cache)).map_err(|error| input_error(format!("{url}: {error:#}")))
}

async fn fetch_to(url: &str, cache: &Path) -> Result<Option<PathBuf>> {
    let client = Client::builder().user_agent(concat!("codepair/", env!("CARGO_PKG_VERSION"))).build()?;
    let head = client.head(url).send().await?;
    if head.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let head = head.error_for_status()?;
    let place =
        cache.join(sha256(format!("{url}\0{}\0{}", header(&head, "etag"), header(&head, "content-length")).as_bytes()));
    if place.is_file() {
        return Ok(Some(place));
    }
    std::fs::create_dir_all(cache).with_context(|| format!("cannot write the cache {}", cache.display()))?;
    let response = client.get(url).send().await?.error_for_status()?;
    let expected: Option<u64> = header(&response, "content-length").parse().ok();
    let progress = Progress::new(&format!("downloading {url}"), "bytes", expected.unwrap_or(0));
    let staged = place.with_extension(format!("{}.part", std::process::id()));
    let mut file = std::fs::File::create(&staged)?;
    let mut received = 0;
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        file.write_all(&piece)?;
        received += piece.len() as u64;
        progress.add(piece.len() as u64);
    }
    if expected.is_some_and(|expected| expected != received) {
        bail!("the download broke off after {received} bytes");
    }
    file.sync_all()?;
    std::fs::rename(&staged, &place)?;
    Ok(Some(place))
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
