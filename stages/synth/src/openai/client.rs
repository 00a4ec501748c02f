//! One request, and what came of it. Bodies are taken as raw bytes: what the server said is kept before anything parses it.

use std::time::Duration;

use anyhow::Result;
use async_openai::config::{Config as _, OpenAIConfig};
use codepair_runtime::retry_after;
use reqwest::{RequestBuilder, StatusCode};

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
    Hopeless(String),
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
        }
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
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        // Installing twice is an error that does not matter: the provider is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(settings.timeout).build()?;
        let config = OpenAIConfig::new().with_api_base(settings.base_url).with_api_key(settings.api_key);
        Ok(Self { http, config, path: settings.path })
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
        self.exchange(request.body(payload.to_owned()), true).await
    }

    /// Sends a request once; some answers are no JSON.
    pub(crate) async fn exchange(&self, request: RequestBuilder, is_json: bool) -> Reply {
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
            Ok(body) if status == StatusCode::OK && !is_json => {
                Reply::Answered(String::from_utf8_lossy(&body).into_owned())
            }
            Ok(body) => judge(status, retry_after, &body),
            Err(error) => fault_of(&error, FaultKind::Cut),
        }
    }
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
    match status.as_u16() {
        200 if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() && !has_broken_text(body) => {
            fault(FaultKind::MalformedJson)
        }
        200 => Reply::Answered(text()),
        401..=405 => Reply::Hopeless(format!("{status}: {}", words(&text()))),
        // OpenAI's word for an account without credit.
        429 if text().contains("insufficient_quota") => Reply::Hopeless(format!("{status}: {}", words(&text()))),
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
        assert_eq!(judge(429, quota), Reply::Hopeless("429 Too Many Requests: no credit".to_owned()));
        let half = [b"{\"a\": \"".as_slice(), &[0xe2, 0x82], b"\"}"].concat();
        assert!(matches!(super::judge(StatusCode::OK, None, &half), Reply::Answered(_)));
    }
}
