//! One request, and what came of it. Bodies are taken as raw bytes: what the server said is kept before anything parses it.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use async_openai::config::{Config as _, OpenAIConfig};
use bytes::Bytes;
use codepair_runtime::retry_after;
use futures::StreamExt as _;
use reqwest::multipart::Form;
use reqwest::{Body, RequestBuilder, StatusCode};

/// Bytes that go up at once.
const UPLOAD_PIECE: usize = 256 << 10;
/// Longer than any transfer takes.
const NO_LIMIT: Duration = Duration::from_secs(7 * 86_400);

/// Where to ask.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) base_url: String,
    /// Such as `/chat/completions`.
    pub(crate) path: &'static str,
    pub(crate) api_key: String,
    pub(crate) timeout: Duration,
}

/// What came of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Status 200 and a body of JSON.
    Answered(String),
    /// The server will not answer this request, in its own words.
    Refused { status: u16, body: String },
    /// No request would fare better: a wrong key or path, no credit left; in the server's own words.
    Hopeless { status: u16, words: String },
    /// Something passing.
    Fault(Fault),
}

/// Something that may be over at the next try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// What the server wants to be waited.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) words: String,
    pub(crate) status: Option<u16>,
}

/// The kinds that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// Status 429.
    RateLimited,
    /// Status 408 or 504, or no answer in time.
    TimedOut,
    /// Status 409 or 5xx.
    ServerError,
    /// There was no connection.
    Unreachable,
    /// The connection broke before the end of the answer.
    Cut,
    /// Status 200 and a body that is no JSON.
    MalformedJson,
    /// Status 200 and JSON without an answer, such as an error of a proxy's backend.
    NoAnswer,
}

impl FaultKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate limited",
            Self::TimedOut => "timed out",
            Self::ServerError => "server error",
            Self::Unreachable => "unreachable",
            Self::Cut => "cut off",
            Self::MalformedJson => "malformed JSON",
            Self::NoAnswer => "no answer",
        }
    }

    /// Whether fewer requests at once may help.
    pub(crate) fn is_overload(self) -> bool {
        matches!(self, Self::RateLimited | Self::ServerError | Self::TimedOut | Self::NoAnswer)
    }

    /// Whether the server may count the request as answered.
    pub(crate) fn may_be_paid(self) -> bool {
        matches!(self, Self::TimedOut | Self::Cut | Self::MalformedJson)
    }
}

/// An HTTP client for one server.
pub(crate) struct Client {
    http: reqwest::Client,
    config: OpenAIConfig,
    path: &'static str,
    /// Of a request; of a file's transfer, how long nothing may come or go.
    pub(crate) timeout: Duration,
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        // Installing twice is an error that does not matter: the provider is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(settings.timeout).build()?;
        let config = OpenAIConfig::new().with_api_base(settings.base_url).with_api_key(settings.api_key);
        Ok(Self { http, config, path: settings.path, timeout: settings.timeout })
    }

    /// The URL that requests go to.
    pub(crate) fn endpoint(&self) -> String {
        self.config.url(self.path)
    }

    /// Its path under the base URL.
    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    /// The URL of another path.
    pub(crate) fn url(&self, path: &str) -> String {
        self.config.url(path)
    }

    /// A request with the key.
    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.url(path)).headers(self.config.headers())
    }

    /// A request with the key.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.url(path)).headers(self.config.headers())
    }

    /// Sends a payload once.
    pub(crate) async fn send(&self, payload: &str) -> Reply {
        let request = self.post(self.path).header("content-type", "application/json");
        let reply = self.exchange(request.body(payload.to_owned())).await;
        let Reply::Answered(body) = &reply else { return reply };
        match answers_nothing(self.path, payload, body) {
            Some(words) => Reply::Fault(Fault { kind: FaultKind::NoAnswer, retry_after: None, words, status: None }),
            None => reply,
        }
    }

    /// Uploads a file as a form, once: it may take as long as it wants while something goes up.
    pub(crate) async fn upload(&self, path: &str, file: &Bytes, form: impl FnOnce(Body, u64) -> Form) -> Reply {
        let taken = Arc::new(AtomicU64::new(0));
        let pieces: Vec<Bytes> = (0..file.len())
            .step_by(UPLOAD_PIECE)
            .map(|start| file.slice(start..file.len().min(start + UPLOAD_PIECE)))
            .collect();
        let counter = Arc::clone(&taken);
        let body = futures::stream::iter(pieces).map(move |piece| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        let form = form(Body::wrap_stream(body), file.len() as u64);
        let uploading = self.exchange(self.post(path).multipart(form).timeout(NO_LIMIT));
        tokio::pin!(uploading);
        let mut before = 0;
        loop {
            tokio::select! {
                reply = &mut uploading => return reply,
                () = tokio::time::sleep(self.timeout) => {}
            }
            let now = taken.load(Ordering::Relaxed);
            if now == before {
                return silent(self.timeout);
            }
            before = now;
        }
    }

    /// Appends to `file` what it lacks of the content of a file of the server, or writes it anew where the server sends all of
    /// it: it may take as long as it wants while something comes.
    pub(crate) async fn download(&self, path: &str, file: &mut File) -> std::io::Result<Result<(), Reply>> {
        let had = file.metadata()?.len();
        let mut request = self.get(path).timeout(NO_LIMIT);
        if had > 0 {
            request = request.header("range", format!("bytes={had}-"));
        }
        let response = match tokio::time::timeout(self.timeout, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Ok(Err(fault_of(&error, FaultKind::Unreachable))),
            Err(_) => return Ok(Err(silent(self.timeout))),
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT if had > 0 => {}
            StatusCode::OK => {
                file.set_len(0)?;
                file.rewind()?;
            }
            // All of it is there.
            StatusCode::RANGE_NOT_SATISFIABLE if had > 0 => return Ok(Ok(())),
            status => {
                let body = response.bytes().await.unwrap_or_default();
                return Ok(Err(judge(status, None, &body)));
            }
        }
        let mut body = response.bytes_stream();
        loop {
            match tokio::time::timeout(self.timeout, body.next()).await {
                Ok(None) => return Ok(Ok(())),
                Ok(Some(Ok(piece))) => file.write_all(&piece)?,
                Ok(Some(Err(error))) => return Ok(Err(fault_of(&error, FaultKind::Cut))),
                Err(_) => return Ok(Err(silent(self.timeout))),
            }
        }
    }

    /// Sends a request once.
    pub(crate) async fn exchange(&self, request: RequestBuilder) -> Reply {
        let response = match request.send().await {
            Ok(response) => response,
            // A connection that broke after the request was sent may have been answered, and paid for.
            Err(error) if error.is_connect() => return fault_of(&error, FaultKind::Unreachable),
            Err(error) => return fault_of(&error, FaultKind::Cut),
        };
        let status = response.status();
        let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(retry_after);
        match response.bytes().await {
            Ok(body) => judge(status, retry_after, &body),
            Err(error) => fault_of(&error, FaultKind::Cut),
        }
    }
}

/// What is said instead, where a body of status 200 has no answer in it: an error, no choice, too few or empty vectors. A body
/// that is no JSON, such as one that was cut off, may be the rest of an answer, and is none of these.
pub(crate) fn answers_nothing(endpoint: &str, payload: &str, body: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    let said = || if value["error"].is_null() { words(body) } else { words(&value.to_string()) };
    if endpoint.ends_with("/embeddings") {
        let vectors = value["data"].as_array().map_or(&[][..], Vec::as_slice);
        let is_vector = |vector: &serde_json::Value| match vector {
            serde_json::Value::String(text) => !text.is_empty(),
            serde_json::Value::Array(numbers) => {
                !numbers.is_empty() && numbers.iter().all(serde_json::Value::is_number)
            }
            _ => false,
        };
        let count = vectors.iter().filter(|entry| is_vector(&entry["embedding"])).count();
        // A row of a batch may be kept without its payload.
        let wanted = if payload.is_empty() { 1 } else { super::jobs::texts_of(payload) };
        return (count < wanted).then(|| match count {
            0 => said(),
            _ => format!("{count} vectors for {wanted} texts"),
        });
    }
    let has_choice = value["choices"][0]["message"].is_object();
    (endpoint.ends_with("/chat/completions") && !has_choice).then(said)
}

/// Nothing came or went for so long.
fn silent(time: Duration) -> Reply {
    let words = format!("nothing came or went for {} s", time.as_secs_f64());
    Reply::Fault(Fault { kind: FaultKind::TimedOut, retry_after: None, words, status: None })
}

fn fault_of(error: &reqwest::Error, otherwise: FaultKind) -> Reply {
    let kind = if error.is_timeout() { FaultKind::TimedOut } else { otherwise };
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Reply::Fault(Fault { kind, retry_after: None, words: format!("{error}{source}"), status: None })
}

fn judge(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Reply {
    let text = || String::from_utf8_lossy(body).into_owned();
    let fault = |kind| {
        let words = format!("status {status}: {}", words(&text()));
        Reply::Fault(Fault { kind, retry_after, words, status: Some(status.as_u16()) })
    };
    let hopeless = || Reply::Hopeless { status: status.as_u16(), words: format!("{status}: {}", words(&text())) };
    match status.as_u16() {
        200 if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() && !has_broken_text(body) => {
            fault(FaultKind::MalformedJson)
        }
        200 => Reply::Answered(text()),
        401..=405 => hopeless(),
        // OpenAI's word for an account without credit.
        429 if text().contains("insufficient_quota") => hopeless(),
        408 | 504 => fault(FaultKind::TimedOut),
        429 => fault(FaultKind::RateLimited),
        409 | 500.. => fault(FaultKind::ServerError),
        status => Reply::Refused { status, body: text() },
    }
}

/// Whether the body would be JSON if its text were UTF-8: some servers send the bytes of half a character.
fn has_broken_text(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_err()
        && serde_json::from_str::<serde::de::IgnoredAny>(&String::from_utf8_lossy(body)).is_ok()
}

/// The server's own message, out of an error body.
pub(crate) fn words(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().and_then(|v| v["error"]["message"].as_str().or(v["message"].as_str()));
    message.unwrap_or(body).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_found() {
        assert_eq!(words("{\"error\": {\"message\": \"no such model\"}}"), "no such model");
        assert_eq!(words("Bad gateway"), "Bad gateway");
    }

    #[test]
    fn an_answer_is_told_from_none() {
        let chat = |body: &str| answers_nothing("http://x/v1/chat/completions", "{}", body);
        assert_eq!(chat(r#"{"choices": [{"message": {"content": "a"}}]}"#), None);
        assert_eq!(chat(r#"{"choices": [{"message": {"content": null, "refusal": "no"}}]}"#), None);
        assert_eq!(chat(r#"{"error": {"message": "slow down"}}"#).as_deref(), Some("slow down"));
        assert_eq!(chat(r#"{"choices": []}"#).as_deref(), Some(r#"{"choices": []}"#));
        assert_eq!(chat(r#"{"custom_id": "k", "respo"#), None, "the rest of what was paid for");
        let two = r#"{"input": ["a", "b"]}"#;
        let vectors = |body: &str| answers_nothing("http://x/v1/embeddings", two, body);
        assert_eq!(vectors(r#"{"data": [{"embedding": [1, 2]}, {"embedding": "AAAA"}]}"#), None);
        assert_eq!(vectors(r#"{"data": [{"embedding": [1, 2]}]}"#).as_deref(), Some("1 vectors for 2 texts"));
        assert!(vectors(r#"{"data": [{"embedding": [1, null]}, {"embedding": null}]}"#).is_some());
        assert_eq!(vectors(r#"{"error": {"message": "busy"}}"#).as_deref(), Some("busy"));
    }

    #[test]
    fn replies_are_told_apart() {
        let judge = |status: u16, body: &str| judge(StatusCode::from_u16(status).unwrap(), None, body.as_bytes());
        let kind = |reply| match reply {
            Reply::Fault(fault) => Some(fault.kind),
            _ => None,
        };
        assert_eq!(judge(200, "{\"a\": 1}"), Reply::Answered("{\"a\": 1}".to_owned()));
        assert_eq!(kind(judge(200, "{\"a\": ")), Some(FaultKind::MalformedJson));
        assert_eq!(kind(judge(429, "slow")), Some(FaultKind::RateLimited));
        assert_eq!([408, 504].map(|status| kind(judge(status, ""))), [Some(FaultKind::TimedOut); 2]);
        assert_eq!(kind(judge(503, "")), Some(FaultKind::ServerError));
        assert_eq!(judge(400, "{}"), Reply::Refused { status: 400, body: "{}".to_owned() });
        let quota = "{\"error\": {\"code\": \"insufficient_quota\", \"message\": \"no credit\"}}";
        let words = "429 Too Many Requests: no credit".to_owned();
        assert_eq!(judge(429, quota), Reply::Hopeless { status: 429, words });
        let half = [b"{\"a\": \"".as_slice(), &[0xe2, 0x82], b"\"}"].concat();
        assert!(matches!(super::judge(StatusCode::OK, None, &half), Reply::Answered(_)));
    }
}
