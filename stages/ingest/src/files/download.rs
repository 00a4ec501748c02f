//! Files behind http(s), kept in the cache by URL, `ETag` (else date) and size. A download that breaks off goes on where it
//! broke off, also in a later run.

use std::fs::File;
use std::io::{BufReader, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use codepair_runtime::{Failure, back_off, block_on, cache_folder, input_error, retry_after};
use futures::StreamExt as _;
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};

use super::cache::{Meter, Remote, cached, check, fetch_all, pinned};
use super::gzip::GzipReader;
use super::packing::has_end;
use super::source_file::SourceFile;

/// Tries after the first, where a server is busy or a download breaks off.
const RETRIES: u32 = 5;
/// Nothing comes for so long: the connection is dead.
const SILENCE: Duration = Duration::from_secs(30);

/// Where a file is on the web, and with what right it is read.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) url: String,
    /// What `Authorization` says.
    pub(super) token: Option<HeaderValue>,
    /// What to do where the server refuses.
    pub(super) advice: &'static str,
}

impl Address {
    /// One that everybody may read, or that holds what gives the right to.
    pub(super) fn plain(url: &str) -> Self {
        Self { url: url.to_owned(), token: None, advice: "" }
    }

    fn request(&self, client: &Client, method: Method) -> RequestBuilder {
        let request = client.request(method, &self.url);
        self.token.iter().fold(request, |request, token| request.header("authorization", token.clone()))
    }

    /// The answer, unless it is a refusal.
    fn accepted(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        Err(input_error(format!("the server says {status}{}", if is_refused { self.advice } else { "" })))
    }

    /// Whether what comes is the file packed by gzip for the way (RFC 9110, section 8.4). Of a file that is packed itself some
    /// servers say so too, and send it as it is.
    fn is_encoded(&self, response: &Response) -> Result<bool> {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        match header(response, "content-encoding").trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(false),
            "gzip" | "x-gzip" => Ok(!has_end(path, ".gz") && !has_end(path, ".tgz")),
            other => {
                Err(input_error(format!("the server packs it by {other:?}, which was not asked for and is not read")))
            }
        }
    }

    /// Reads it at once, as a list of files is.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub(super) async fn get(&self) -> Result<Response> {
        let client = client()?;
        self.accepted(send(&self.url, || self.request(client, Method::GET)).await?)
    }

    /// What the server says of it; nothing where it has none.
    ///
    /// # Errors
    /// Exit 3: the server cannot be reached, or refuses.
    pub(super) fn find(&self) -> Result<Option<WebFile>> {
        block_on(self.ask()).map_err(|error| input_error(format!("{}: {error:#}", self.url)))
    }

    async fn ask(&self) -> Result<Option<WebFile>> {
        let client = client()?;
        let mut answer = send(&self.url, || self.request(client, Method::HEAD)).await?;
        if answer.status().is_client_error() && !is_absent(answer.status())
            || answer.status() == StatusCode::NOT_IMPLEMENTED
        {
            // Signed addresses are for one method alone, and some servers do not know this one.
            answer = send(&self.url, || self.request(client, Method::GET)).await?;
        }
        if is_absent(answer.status()) {
            return Ok(None);
        }
        let answer = self.accepted(answer)?;
        // Some say 0 of what they do not know.
        let length = header(&answer, "content-length").parse().ok().filter(|length| *length > 0);
        let is_encoded = self.is_encoded(&answer)?;
        let validator = validator(&answer).to_owned();
        Ok(Some(WebFile { address: self.clone(), validator, pin: None, length, is_encoded }))
    }
}

/// Downloads one file, named by what follows the last `/`; a location may end in `#sha256=…`, which the file then must have.
///
/// # Errors
/// Exit 3: the server cannot be reached or has no such file, the download breaks off for good, or the file is another one.
pub(super) fn fetch(location: &str, address: Address, name: &str) -> Result<SourceFile> {
    let (plain, expected) = pinned(location);
    let mut file = address.find()?.ok_or_else(|| input_error(format!("{plain}: the server has no such file")))?;
    file.pin = expected.clone();
    let list = fetch_all(plain, vec![(name.to_owned(), file)])?;
    let file = list.into_iter().next().ok_or_else(|| anyhow!("{plain} was not downloaded"))?;
    expected.map_or(Ok(()), |expected| check(&file, &expected, plain))?;
    Ok(file)
}

/// What a server says of a file.
pub(super) struct WebFile {
    address: Address,
    /// What says that the file is still the same: its `ETag`, else the date of its last change.
    validator: String,
    /// The SHA-256 that it must have, so that no other version can be taken for it.
    pin: Option<String>,
    /// Of what the server sends.
    length: Option<u64>,
    /// What it sends is packed for the way, and is kept unpacked.
    is_encoded: bool,
}

impl Remote for WebFile {
    fn bytes(&self) -> u64 {
        self.length.unwrap_or(0)
    }

    fn fetch(&self, meter: &mut Meter) -> Result<PathBuf> {
        let length = self.length.map_or(String::new(), |length| length.to_string());
        let version = if self.validator.is_empty() { self.pin.as_deref().unwrap_or_default() } else { &self.validator };
        let key = format!("{}\0{version}\0{length}", self.address.url);
        let is_sure = !version.is_empty();
        let place = cached(&key, is_sure, |file| block_on(self.download(file, meter)));
        place.map_err(|error| input_error(format!("{}: {error:#}", self.address.url)))
    }
}

impl WebFile {
    async fn download(&self, file: &mut File, meter: &mut Meter<'_>) -> Result<()> {
        let client = client()?;
        let (mut attempt, mut had) = (0, file.metadata()?.len());
        let is_encoded = loop {
            let error = match self.receive(client, file, meter).await {
                Ok(is_encoded) => break is_encoded,
                Err(error) => error,
            };
            let received = file.metadata()?.len();
            // What comes on is not lost, however often it breaks off.
            attempt = if received > had { 0 } else { attempt + 1 };
            had = had.max(received);
            if error.is::<Failure>() {
                return Err(error);
            }
            if attempt == RETRIES {
                let context = format!("the download broke off after {received} bytes; run it again to go on");
                return Err(error.context(context));
            }
            tracing::warn!("{}: {error:#}; going on", self.address.url);
            tokio::time::sleep(back_off(attempt)).await;
        };
        if is_encoded {
            unpack(file)
                .map_err(|error| input_error(format!("the server said that it is packed by gzip, and {error}")))?;
        }
        Ok(())
    }

    /// Appends what is missing, and says whether it is packed for the way.
    async fn receive(&self, client: &Client, file: &mut File, meter: &mut Meter<'_>) -> Result<bool> {
        let mut received = file.metadata()?.len();
        // Without a strong validator nobody knows whether what is there is of the same file.
        let is_sure = self.validator.starts_with('"') || self.validator.ends_with("GMT");
        if !is_sure || self.length.is_some_and(|length| received > length) {
            file.set_len(0)?;
            received = 0;
        }
        if self.length == Some(received) {
            return Ok(self.is_encoded);
        }
        let request = || {
            let request = self.address.request(client, Method::GET);
            match received {
                0 => request,
                _ => request.header("range", format!("bytes={received}-")).header("if-range", &self.validator),
            }
        };
        let response = send(&self.address.url, request).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            file.set_len(0)?;
            bail!("the server has no more of it than {received} bytes");
        }
        let response = self.address.accepted(response)?;
        self.check_version(&response, file)?;
        let is_encoded = self.address.is_encoded(&response)?;
        // Of another form the length is another.
        let length = self.length.filter(|_| is_encoded == self.is_encoded);
        if response.status() == StatusCode::PARTIAL_CONTENT {
            check_range(header(&response, "content-range"), received, length).or_else(|error| {
                // It is begun anew, without asking for a part.
                file.set_len(0)?;
                Err(error)
            })?;
        } else {
            // The server sends all of it, whatever was asked for.
            file.set_len(0)?;
            received = 0;
        }
        meter.begin(received);
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| anyhow!("{}", cause(&error)))?;
            file.write_all(&piece)?;
            received += piece.len() as u64;
            meter.reach(received);
        }
        if length.is_some_and(|length| length != received) {
            bail!("it ended after {received} bytes");
        }
        Ok(is_encoded)
    }

    /// That what comes is what the server spoke of: it is kept under that name.
    fn check_version(&self, response: &Response, file: &File) -> Result<()> {
        let (known, now) = (self.validator.trim_start_matches("W/"), validator(response).trim_start_matches("W/"));
        let is_same_kind = known.starts_with('"') == now.starts_with('"');
        if known.is_empty() || now.is_empty() || !is_same_kind || known == now {
            return Ok(());
        }
        file.set_len(0)?;
        Err(input_error("it was replaced while it was read; run it again"))
    }
}

/// Replaces what a file holds by what it was packed from; one that cannot be unpacked is empty afterwards, and so is begun anew.
fn unpack(file: &mut File) -> std::io::Result<()> {
    let mut plain = tempfile::tempfile_in(cache_folder())?;
    file.rewind()?;
    let unpacked = std::io::copy(&mut GzipReader::new(BufReader::new(&*file)), &mut plain);
    file.set_len(0)?;
    unpacked?;
    plain.rewind()?;
    std::io::copy(&mut plain, file).map(drop)
}

/// That a part is the one that was asked for (RFC 9110, section 14.4).
fn check_range(header: &str, start: u64, length: Option<u64>) -> Result<()> {
    let parts = header.strip_prefix("bytes ").and_then(|range| {
        let (range, all) = range.split_once('/')?;
        Some((range.split_once('-')?.0.parse::<u64>().ok()?, all.parse::<u64>().ok()))
    });
    match parts {
        Some((first, all)) if first == start && (all.is_none() || length.is_none() || all == length) => Ok(()),
        _ => bail!("the server sent the part {header:?} where the bytes from {start} on were asked for"),
    }
}

/// One for all files: it holds the certificates and the connections.
fn client() -> Result<&'static Client> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    // Installing twice is an error that does not matter: the provider is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent = concat!("codepair/", env!("CARGO_PKG_VERSION"));
    let client = Client::builder().user_agent(agent).connect_timeout(SILENCE).read_timeout(SILENCE).build()?;
    Ok(CLIENT.get_or_init(|| client))
}

/// Sends a request until the server has an answer other than that it is busy: after the time it names, else with full jitter.
async fn send(url: &str, request: impl Fn() -> RequestBuilder) -> Result<Response> {
    let mut attempt = 0;
    loop {
        let answer = request().send().await.map_err(reqwest::Error::without_url);
        let pause = match &answer {
            Ok(response) if is_busy(response.status()) => retry_after(header(response, "retry-after")),
            Err(error) if error.is_connect() || error.is_timeout() || error.is_request() => None,
            _ => return answer.map_err(|error| anyhow!("{}", cause(&error))),
        };
        if attempt == RETRIES {
            return answer.map_err(|error| anyhow!("{}", cause(&error)));
        }
        let pause = pause.unwrap_or_else(|| back_off(attempt + 1));
        let what = answer.map_or_else(|error| cause(&error), |response| response.status().to_string());
        // What follows a question mark may be what gives the right to read it.
        let place = url.split('?').next().unwrap_or(url);
        tracing::warn!(
            "{place}: {what}; again in {:.1} s, try {} of {}",
            pause.as_secs_f64(),
            attempt + 2,
            RETRIES + 1
        );
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

/// What is at the bottom of an error, such as that nobody listens.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("nothing came for {} s", SILENCE.as_secs());
    }
    let mut bottom: &dyn std::error::Error = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    bottom.to_string()
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

fn validator(response: &Response) -> &str {
    match (header(response, "etag"), header(response, "last-modified")) {
        ("", modified) => modified,
        (etag, _) => etag,
    }
}

pub(super) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_one_that_was_asked_for() {
        for (header, good) in [
            ("bytes 5-9/10", true),
            ("bytes 5-9/*", true),
            ("bytes 4-9/10", false),
            ("bytes 5-10/11", false),
            ("bytes */10", false),
            ("", false),
        ] {
            assert_eq!(check_range(header, 5, Some(10)).is_ok(), good, "{header}");
        }
        assert!(check_range("bytes 5-9/10", 5, None).is_ok());
    }
}
