//! One request, with back-off. Bodies are taken as raw bytes: what the server said is kept before anything parses it.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use async_openai::config::{Config as _, OpenAIConfig};
use reqwest::StatusCode;

/// Where and how to ask.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) base_url: String,
    pub(crate) api_key: String,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Status 200 and the body.
    Answered(String),
    /// The server will not answer this request, in its own words.
    Refused { status: u16, words: String },
}

/// An HTTP client for one server.
pub(crate) struct Client {
    http: reqwest::Client,
    config: OpenAIConfig,
    settings: Settings,
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        // Installing twice is an error that does not matter: the provider is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(settings.timeout).build()?;
        let config =
            OpenAIConfig::new().with_api_base(settings.base_url.clone()).with_api_key(settings.api_key.clone());
        Ok(Self { http, config, settings })
    }

    /// The URL that requests go to.
    pub(crate) fn endpoint(&self) -> String {
        self.config.url("/chat/completions")
    }

    /// Sends a payload until it is answered or refused.
    ///
    /// # Errors
    /// The server cannot be reached, or wants another key or path: no request would fare better.
    pub(crate) async fn ask(&self, payload: &str) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            let failure = match self.send(payload).await {
                Ok((StatusCode::OK, _, body)) => return Ok(Answer::Answered(body)),
                Ok((status, retry_after, body)) => match judge(status) {
                    Judgement::Hopeless => bail!("{} answers {status}: {}", self.endpoint(), words(&body)),
                    Judgement::Refused => return Ok(Answer::Refused { status: status.as_u16(), words: words(&body) }),
                    Judgement::Again if attempt == self.settings.retries => {
                        return Ok(Answer::Refused { status: status.as_u16(), words: words(&body) });
                    }
                    Judgement::Again => (format!("{status}"), retry_after),
                },
                Err(error) if attempt == self.settings.retries => {
                    return Err(anyhow!("{}: {error} ({} tries)", self.endpoint(), attempt + 1));
                }
                Err(error) => (error.to_string(), None),
            };
            let pause = failure.1.unwrap_or_else(|| back_off(attempt));
            tracing::debug!("{}; again in {:.1} s", failure.0, pause.as_secs_f64());
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn send(&self, payload: &str) -> reqwest::Result<(StatusCode, Option<Duration>, String)> {
        let request = self.http.post(self.endpoint()).headers(self.config.headers());
        let response = request.header("content-type", "application/json").body(payload.to_owned()).send().await?;
        let status = response.status();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await?;
        Ok((status, after.map(Duration::from_secs), String::from_utf8_lossy(&body).into_owned()))
    }
}

enum Judgement {
    /// Wrong key, wrong path: stop.
    Hopeless,
    /// This request only.
    Refused,
    /// Busy or broken for the moment.
    Again,
}

fn judge(status: StatusCode) -> Judgement {
    match status.as_u16() {
        401..=405 => Judgement::Hopeless,
        408 | 409 | 429 | 500.. => Judgement::Again,
        _ => Judgement::Refused,
    }
}

/// Full jitter: anywhere up to half a second, doubled each time, a minute at most.
fn back_off(attempt: u32) -> Duration {
    let limit = 0.5 * 2f64.powi(attempt.min(7) as i32);
    Duration::from_secs_f64(limit.min(60.0) * rand::random::<f64>())
}

/// The server's own message, out of an error body.
fn words(body: &str) -> String {
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
    fn pauses_grow_and_end() {
        for attempt in 0..40 {
            assert!(back_off(attempt) <= Duration::from_secs_f64((0.5 * 2f64.powi(attempt.min(20) as i32)).min(60.0)));
        }
    }
}
