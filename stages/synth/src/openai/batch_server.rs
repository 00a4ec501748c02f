//! What a server is asked about files and batches, and the lines of a batch's output.

use std::collections::HashMap;
use std::fs::File;
use std::io::Seek as _;

use anyhow::{Result, anyhow};
use async_openai::types::batches::{BatchCompletionWindow, BatchEndpoint, BatchRequest};
use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::asker::Asker;
use super::client::{Reply, words};

/// The key of a batch's metadata that says which it is.
const MARK: &str = "codepair";

/// A batch as the server describes it.
#[derive(Deserialize)]
pub(super) struct State {
    pub(super) id: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) output_file_id: Option<String>,
    #[serde(default)]
    pub(super) error_file_id: Option<String>,
    #[serde(default)]
    pub(super) errors: Value,
    #[serde(default)]
    pub(super) request_counts: Value,
    #[serde(default)]
    pub(super) metadata: Option<HashMap<String, Value>>,
}

/// What the server was asked for, or what it says instead where it knows nothing of it.
pub(super) enum Found<T> {
    Here(T),
    Gone(String),
}

/// The server took no batch, so there is none to look for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotMade(String);

/// One line of a batch's output.
pub(super) struct Answer {
    pub(super) key: String,
    pub(super) status: u64,
    pub(super) body: String,
}

/// Reads a line; the body of the response as it came. A line that is no JSON is the answer of the request it names, as it
/// came: whatever it says, it was paid for.
pub(super) fn read(line: &str) -> Option<Answer> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        let (_, rest) = line.split_once("\"custom_id\":")?;
        let (key, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        return Some(Answer { key: key.to_owned(), status: 200, body: line.to_owned() });
    };
    let key = value["custom_id"].as_str()?.to_owned();
    let response = &value["response"];
    let Some(status) = response["status_code"].as_u64() else {
        return Some(Answer { key, status: 0, body: json!({ "error": value["error"] }).to_string() });
    };
    let raw = line.find("\"body\":").map(|at| &line[at + "\"body\":".len()..]).and_then(|rest| {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        Some(rest[..values.byte_offset()].trim())
    });
    let raw = raw.filter(|raw| serde_json::from_str::<Value>(raw).is_ok_and(|raw| raw == response["body"]));
    Some(Answer { key, status, body: raw.map_or_else(|| response["body"].to_string(), str::to_owned) })
}

impl Asker<'_> {
    /// Uploads the file, makes the batch, and returns its id.
    pub(super) async fn make_batch(&self, mark: &str, file: Bytes) -> Result<String> {
        let form = |body, length| {
            let part = Part::stream_with_length(body, length).file_name(format!("{mark}.jsonl"));
            Form::new().text("purpose", "batch").part("file", part)
        };
        let mut attempt = 0;
        let uploaded = loop {
            match self.client.upload("/files", &file, form).await {
                Reply::Answered(body) => break body,
                Reply::Fault(fault) if attempt < self.retries => self.pause(&fault, attempt).await,
                other => {
                    let error = self.refusal("/files", other);
                    let advice = "where the server knows no batches, set batches = false";
                    return Err(anyhow!(NotMade(format!("{error}; {advice}"))));
                }
            }
            attempt += 1;
        };
        drop(file);
        let uploaded: Value = serde_json::from_str(&uploaded)?;
        let input_file_id = uploaded["id"].as_str().ok_or_else(|| anyhow!("the uploaded file has no id"))?.to_owned();
        let endpoint = match self.client.path() {
            "/embeddings" => BatchEndpoint::V1Embeddings,
            _ => BatchEndpoint::V1ChatCompletions,
        };
        let request = serde_json::to_string(&BatchRequest {
            input_file_id,
            endpoint,
            completion_window: BatchCompletionWindow::W24H,
            metadata: Some(HashMap::from([(MARK.to_owned(), mark.into())])),
            output_expires_after: None,
        })?;
        self.made(mark, &request).await
    }

    /// Makes a batch once: where the answer to an attempt got lost, the batch may be there.
    async fn made(&self, mark: &str, request: &str) -> Result<String> {
        let mut attempt = 0;
        loop {
            let post = self.client.post("/batches").header("content-type", "application/json");
            match self.client.exchange(post.body(request.to_owned())).await {
                Reply::Answered(body) => return Ok(serde_json::from_str::<State>(&body)?.id),
                Reply::Fault(fault) if attempt < self.retries => {
                    self.pause(&fault, attempt).await;
                    if let Found::Here(Some(id)) = self.find_batch(mark).await? {
                        return Ok(id);
                    }
                }
                Reply::Fault(fault) => return Err(self.refusal("/batches", Reply::Fault(fault))),
                other => return Err(anyhow!(NotMade(self.refusal("/batches", other).to_string()))),
            }
            attempt += 1;
        }
    }

    /// The batch that carries a mark.
    pub(super) async fn find_batch(&self, mark: &str) -> Result<Found<Option<String>>> {
        let mut after = String::new();
        loop {
            let list: Value = match self.answer_to(&format!("/batches?limit=100{after}")).await? {
                Found::Here(list) => list,
                Found::Gone(words) => return Ok(Found::Gone(words)),
            };
            let batches: Vec<State> = serde_json::from_value(list["data"].clone())?;
            let marked = |batch: &&State| batch.metadata.as_ref().and_then(|m| m.get(MARK)?.as_str()) == Some(mark);
            if let Some(found) = batches.iter().find(marked) {
                return Ok(Found::Here(Some(found.id.clone())));
            }
            match batches.last().map(|last| format!("&after={}", last.id)) {
                // A server that does not know `after` lists the same again.
                Some(next) if list["has_more"] == true && next != after => after = next,
                _ => return Ok(Found::Here(None)),
            }
        }
    }

    /// What the server answers to a `GET`, after as many tries as it takes.
    pub(super) async fn answer_to<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Found<T>> {
        let mut attempt = 0;
        loop {
            match self.client.exchange(self.client.get(path)).await {
                Reply::Answered(body) => return Ok(Found::Here(serde_json::from_str(&body)?)),
                Reply::Fault(fault) if attempt < self.retries => self.pause(&fault, attempt).await,
                other => return self.gone(path, other),
            }
            attempt += 1;
        }
    }

    /// The content of a file of the server, on disk, after as many tries as it takes: each goes on where the last one broke off.
    pub(super) async fn download_file(&self, path: &str) -> Result<Found<File>> {
        let mut file = tempfile::tempfile()?;
        let (mut attempt, mut most) = (0, 0);
        loop {
            let reply = match self.client.download(path, &mut file).await? {
                Ok(()) => {
                    file.rewind()?;
                    return Ok(Found::Here(file));
                }
                Err(reply) => reply,
            };
            let has = file.metadata()?.len();
            attempt = if has > most { 0 } else { attempt + 1 };
            most = most.max(has);
            match reply {
                Reply::Fault(fault) if attempt <= self.retries => self.pause(&fault, attempt).await,
                other => return self.gone(path, other),
            }
        }
    }

    /// What is not there at all, and no error that a later run may not meet.
    fn gone<T>(&self, path: &str, reply: Reply) -> Result<Found<T>> {
        match reply {
            Reply::Hopeless { status: 404 | 405, words } => Ok(Found::Gone(words)),
            Reply::Refused { status: 410, body } => Ok(Found::Gone(words(&body))),
            other => Err(self.refusal(path, other)),
        }
    }

    fn refusal(&self, path: &str, reply: Reply) -> anyhow::Error {
        let said = match reply {
            Reply::Answered(body) => body,
            Reply::Refused { status, body } => format!("status {status}: {}", words(&body)),
            Reply::Hopeless { words, .. } => words,
            Reply::Fault(fault) => fault.words,
        };
        anyhow!("{} answers {said}", self.client.url(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_kept_as_they_came() {
        let line = r#"{"id": "r", "custom_id": "k", "response": {"status_code": 200, "body": {"b": 1.50, "a": "x"} }, "error": null}"#;
        let answer = read(line).unwrap();
        assert_eq!((answer.key.as_str(), answer.status, answer.body.as_str()), ("k", 200, r#"{"b": 1.50, "a": "x"}"#));
        let failed = read(r#"{"custom_id": "k", "response": null, "error": {"message": "expired"}}"#).unwrap();
        assert_eq!((failed.status, words(&failed.body).as_str()), (0, "expired"));
        assert!(read("{").is_none());
        let cut = read(r#"{"custom_id": "k", "respo"#).unwrap();
        assert_eq!((cut.key.as_str(), cut.status, cut.body.as_str()), ("k", 200, r#"{"custom_id": "k", "respo"#));
    }
}
