//! Asking by batches (`/v1/batches`): all requests in one file, answered within a day at half the price. A batch is in the
//! ledger before it is made, so that a run that was killed finds it again, by its id or by the mark it carries.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use async_openai::types::batches::{BatchCompletionWindow, BatchEndpoint, BatchRequest};
use codepair_runtime::Progress;
use codepair_schemas::rows::Request;
use futures::StreamExt as _;
use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::asker::{Asker, Tally, Unanswered};
use super::budget::Usage;
use super::client::{Reply, words};
use super::jobs::{Job, Jobs};
use super::ledger::Ledger;

/// Requests of a batch at most, and bytes of its file; OpenAI takes five times and twice as many.
const REQUESTS: usize = 10_000;
const BYTES: usize = 100 << 20;
/// Texts to embed that OpenAI takes in a batch.
const TEXTS: usize = 50_000;
/// Answers that are stored at once.
const STORED_AT_ONCE: usize = 512;
/// The key of a batch's metadata that says which it is.
const MARK: &str = "codepair";

/// A batch under way.
struct Batch<'j> {
    id: String,
    mark: String,
    /// All that it asks, as JSON; a run may want less.
    keys: String,
    jobs: Vec<&'j Job>,
}

/// A batch as the server describes it.
#[derive(Deserialize)]
struct State {
    id: String,
    status: String,
    #[serde(default)]
    output_file_id: Option<String>,
    #[serde(default)]
    error_file_id: Option<String>,
    #[serde(default)]
    errors: Value,
    #[serde(default)]
    request_counts: Value,
    #[serde(default)]
    metadata: Option<HashMap<String, Value>>,
}

/// What a batch asks, and how often to look.
pub(super) struct Asking<'a, 'j> {
    pub(super) asker: &'a Asker<'a>,
    pub(super) ledger: &'a Ledger,
    pub(super) jobs: &'j Jobs,
    pub(super) tally: &'a Tally,
    pub(super) progress: &'a Progress,
    pub(super) poll: Duration,
}

impl<'j> Asking<'_, 'j> {
    /// Waits for the batches of earlier runs that hold open jobs; returns the jobs that none holds.
    pub(super) async fn collect_known(
        &self,
        open: Vec<&'j Job>,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<Vec<&'j Job>> {
        let (batches, open) = self.resume(open).await?;
        self.collect_all(batches, unanswered).await?;
        Ok(open)
    }

    /// Has the open jobs answered, but for those that end up in `unanswered`.
    pub(super) async fn ask_all(
        &self,
        open: Vec<&'j Job>,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<()> {
        let mut batches = Vec::new();
        let mut jobs = open.into_iter().peekable();
        while jobs.peek().is_some() {
            let (batch, file) = self.fill(&mut jobs, unanswered)?;
            if !batch.is_empty() {
                batches.push(self.create(batch, file).await?);
            }
        }
        self.collect_all(batches, unanswered).await
    }

    async fn collect_all(&self, batches: Vec<Batch<'j>>, unanswered: &mut BTreeMap<String, Unanswered>) -> Result<()> {
        for batch in batches {
            let state = self.wait(&batch).await?;
            self.collect(&batch, &state, unanswered).await?;
        }
        Ok(())
    }

    fn url(&self) -> String {
        self.asker.client.url("/batches")
    }

    fn worst(&self, payload: &str) -> Usage {
        Usage::worst(payload, self.asker.answer_tokens)
    }

    /// The batches of earlier runs that hold open jobs, and the jobs that none holds.
    async fn resume(&self, open: Vec<&'j Job>) -> Result<(Vec<Batch<'j>>, Vec<&'j Job>)> {
        let (mut batches, mut left) = (Vec::new(), open);
        for known in self.ledger.batches() {
            let keys: HashSet<String> = serde_json::from_str(&known.payload).unwrap_or_default();
            let (jobs, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|job| keys.contains(&job.key));
            left = others;
            if jobs.is_empty() {
                continue;
            }
            let id = if known.response.is_empty() { self.find(&known.request).await? } else { Some(known.response) };
            let Some(id) = id else {
                left.extend(jobs);
                continue;
            };
            tracing::info!("{}: going on with batch {id}, {} requests", self.asker.generator, jobs.len());
            for job in &jobs {
                self.asker.budget.owe(self.worst(&self.jobs.payload(job)?));
            }
            batches.push(Batch { id, mark: known.request, keys: known.payload, jobs });
        }
        Ok((batches, left))
    }

    /// Takes jobs for one batch, as far as the budget goes, and writes its file.
    fn fill(
        &self,
        jobs: &mut std::iter::Peekable<impl Iterator<Item = &'j Job>>,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<(Vec<&'j Job>, String)> {
        let (mut batch, mut file, mut texts) = (Vec::new(), String::new(), 0);
        while let Some(job) = jobs.peek().filter(|_| batch.len() < REQUESTS && file.len() < BYTES) {
            let payload = self.jobs.payload(job)?;
            texts += texts_of(&payload);
            if texts > TEXTS && !batch.is_empty() {
                break;
            }
            let Some(job) = jobs.next() else { break };
            if !self.asker.budget.set_aside(self.worst(&payload)) {
                unanswered.insert(job.key.clone(), Asker::over_budget());
                continue;
            }
            let url = format!("/v1{}", self.asker.client.path());
            let head = json!({ "custom_id": job.key, "method": "POST", "url": url }).to_string();
            // The payload goes in as it was hashed.
            file.push_str(&format!("{},\"body\":{payload}}}\n", &head[..head.len() - 1]));
            batch.push(job);
        }
        Ok((batch, file))
    }

    async fn create(&self, jobs: Vec<&'j Job>, file: String) -> Result<Batch<'j>> {
        let keys: Vec<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
        // The same requests may be asked again in another batch, when this one had no answer to them.
        let mark = uuid::Uuid::now_v7().simple().to_string();
        let keys = serde_json::to_string(&keys)?;
        self.ledger.store_batch(&mark, self.asker.generator, &keys, "", false).await?;
        let uploaded: Value = self
            .answer(|| {
                let name = format!("{mark}.jsonl");
                let part = Part::text(file.clone()).file_name(name);
                self.asker.client.post("/files").multipart(Form::new().text("purpose", "batch").part("file", part))
            })
            .await?;
        let input_file_id = uploaded["id"].as_str().ok_or_else(|| anyhow!("the uploaded file has no id"))?.to_owned();
        let endpoint = match self.asker.client.path() {
            "/embeddings" => BatchEndpoint::V1Embeddings,
            _ => BatchEndpoint::V1ChatCompletions,
        };
        let request = serde_json::to_string(&BatchRequest {
            input_file_id,
            endpoint,
            completion_window: BatchCompletionWindow::W24H,
            metadata: Some(HashMap::from([(MARK.to_owned(), mark.clone().into())])),
            output_expires_after: None,
        })?;
        let id = self.made(&mark, &request).await?;
        self.ledger.store_batch(&mark, self.asker.generator, &keys, &id, false).await?;
        self.tally.count_sent(jobs.len() as u64);
        tracing::info!("{}: batch {id}, {} requests", self.asker.generator, jobs.len());
        Ok(Batch { id, mark, keys, jobs })
    }

    /// Makes a batch once: where the answer to an attempt got lost, the batch may be there.
    async fn made(&self, mark: &str, request: &str) -> Result<String> {
        for attempt in 0.. {
            let post = self.asker.client.post("/batches").header("content-type", "application/json");
            match self.asker.client.exchange(post.body(request.to_owned()), true).await {
                Reply::Answered(body) => return Ok(serde_json::from_str::<State>(&body)?.id),
                Reply::Fault(fault) if attempt < self.asker.retries => {
                    self.asker.pause(&fault, attempt).await;
                    if let Some(id) = self.find(mark).await? {
                        return Ok(id);
                    }
                }
                other => return Err(self.refusal(other)),
            }
        }
        bail!("no batch could be made")
    }

    /// The batch that carries a mark.
    async fn find(&self, mark: &str) -> Result<Option<String>> {
        let mut after = String::new();
        loop {
            let list: Value = self.answer(|| self.asker.client.get(&format!("/batches?limit=100{after}"))).await?;
            let batches: Vec<State> = serde_json::from_value(list["data"].clone())?;
            let marked = |batch: &&State| batch.metadata.as_ref().and_then(|m| m.get(MARK)?.as_str()) == Some(mark);
            if let Some(found) = batches.iter().find(marked) {
                return Ok(Some(found.id.clone()));
            }
            match batches.last().map(|last| format!("&after={}", last.id)) {
                // A server that does not know `after` lists the same again.
                Some(next) if list["has_more"] == true && next != after => after = next,
                _ => return Ok(None),
            }
        }
    }

    async fn wait(&self, batch: &Batch<'_>) -> Result<State> {
        loop {
            let state: State = serde_json::from_value(
                self.answer(|| self.asker.client.get(&format!("/batches/{}", batch.id))).await?,
            )?;
            if matches!(state.status.as_str(), "completed" | "failed" | "expired" | "cancelled") {
                return Ok(state);
            }
            let done = state.request_counts["completed"].as_u64().unwrap_or(0);
            self.progress.remark(&format!("batch {} is {}, {done} of {}", batch.id, state.status, batch.jobs.len()));
            tokio::time::sleep(self.poll).await;
        }
    }

    /// Keeps the answers of a batch that has ended.
    async fn collect(
        &self,
        batch: &Batch<'_>,
        state: &State,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<()> {
        let mut open: HashMap<&str, &Job> = batch.jobs.iter().map(|job| (job.key.as_str(), *job)).collect();
        let mut unread = 0;
        for file in [&state.output_file_id, &state.error_file_id].into_iter().flatten() {
            let get = || self.asker.client.get(&format!("/files/{file}/content"));
            let text = self.body(get, false).await?;
            let mut rows = Vec::new();
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let Some(answer) = read(line) else {
                    unread += 1;
                    continue;
                };
                let Some(job) = open.remove(answer.key.as_str()) else {
                    // Nobody wants it now; it was paid for.
                    if answer.status == 200 && !self.ledger.has(&answer.key) {
                        rows.push(self.asker.row(&answer.key, "", 200, answer.body));
                    }
                    continue;
                };
                let payload = self.jobs.payload(job)?;
                let worst = self.worst(&payload);
                if answer.status == 200 {
                    self.asker.budget.settle(worst, Usage::of_response(&answer.body, worst));
                    rows.push(self.asker.row(&job.key, &payload, 200, answer.body));
                } else {
                    self.asker.budget.settle(worst, Usage::default());
                    let is_passing = matches!(answer.status, 0 | 408 | 409 | 429 | 500..);
                    let reason = if is_passing { "request_failed" } else { "request_refused" };
                    let why = format!("status {}: {}", answer.status, words(&answer.body));
                    unanswered.insert(answer.key, (reason, why));
                }
            }
            self.keep(rows).await?;
        }
        for (key, job) in open {
            let worst = self.worst(&self.jobs.payload(job)?);
            let (id, status) = (&batch.id, &state.status);
            let (spent, why) = match unread {
                0 => (Usage::default(), ("request_failed", format!("the batch {id} {status} without an answer to it"))),
                // It may be one of them, and was paid then: a later run is to count it as well.
                _ => (worst, ("malformed_answer", format!("{unread} lines of the batch {id} cannot be read"))),
            };
            if unread > 0 {
                self.ledger.store_sent(key, self.asker.generator).await?;
            }
            self.asker.budget.settle(worst, spent);
            unanswered.insert(key.to_owned(), why);
        }
        self.ledger.store_batch(&batch.mark, self.asker.generator, &batch.keys, &batch.id, true).await?;
        self.progress.add(batch.jobs.len() as u64);
        if state.status == "failed" {
            let messages = state.errors["data"].as_array().into_iter().flatten();
            let said: Vec<&str> = messages.filter_map(|error| error["message"].as_str()).collect();
            bail!("the batch {} failed: {}", batch.id, said.join("; "));
        }
        Ok(())
    }

    async fn keep(&self, rows: Vec<Request>) -> Result<()> {
        let stored = futures::stream::iter(rows).map(|row| async move {
            self.ledger.store(row.clone()).await?;
            self.tally.count_answered();
            self.ledger.remember(&row)
        });
        let mut stored = stored.buffer_unordered(STORED_AT_ONCE);
        while let Some(kept) = stored.next().await {
            kept?;
        }
        Ok(())
    }

    async fn answer<T: serde::de::DeserializeOwned>(&self, request: impl Fn() -> RequestBuilder) -> Result<T> {
        Ok(serde_json::from_str(&self.body(request, true).await?)?)
    }

    /// What the server answers, after as many tries as it takes.
    async fn body(&self, request: impl Fn() -> RequestBuilder, is_json: bool) -> Result<String> {
        for attempt in 0.. {
            match self.asker.client.exchange(request(), is_json).await {
                Reply::Answered(body) => return Ok(body),
                Reply::Fault(fault) if attempt < self.asker.retries => self.asker.pause(&fault, attempt).await,
                other => return Err(self.refusal(other)),
            }
        }
        bail!("no answer came")
    }

    fn refusal(&self, reply: Reply) -> anyhow::Error {
        let said = match reply {
            Reply::Answered(body) => body,
            Reply::Refused { status, body } => format!("status {status}: {}", words(&body)),
            Reply::Hopeless(words) => words,
            Reply::Fault(fault) => fault.words,
        };
        anyhow!("{} answers {said}", self.url())
    }
}

/// Texts that a request has embedded; one where it asks for something else.
fn texts_of(payload: &str) -> usize {
    #[derive(Deserialize)]
    struct Texts {
        input: Vec<IgnoredAny>,
    }
    serde_json::from_str::<Texts>(payload).map_or(1, |texts| texts.input.len())
}

/// One line of a batch's output.
struct Answer {
    key: String,
    status: u64,
    body: String,
}

/// Reads a line; the body of the response as it came. A line that is no JSON is the answer of the request it names, as it
/// came: whatever it says, it was paid for.
fn read(line: &str) -> Option<Answer> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_to_embed_are_counted() {
        assert_eq!(texts_of(r#"{"model": "m", "input": ["a", "b", "c"]}"#), 3);
        assert_eq!(texts_of(r#"{"model": "m", "messages": []}"#), 1);
    }

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
