//! Asking by batches (`/v1/batches`): all requests in one file, answered within a day at half the price. A batch is in the
//! ledger before it is made, so that a run that was killed finds it again, by its id or by the mark it carries.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use anyhow::{Result, bail};
use codepair_runtime::Progress;
use codepair_schemas::rows::Request;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::asker::{Asker, HOPELESS, REFUSED, Tally, Unanswered, again};
use super::batch_server::{Answer, Found, NotMade, State, read};
use super::budget::Usage;
use super::client::{answers_nothing, words};
use super::jobs::{Job, Jobs, texts_of};
use super::ledger::{Ledger, join_id, sending_in_batch, sent_row, split_id};

/// Requests of a batch at most, and bytes of its file; OpenAI takes five times and twice as many.
const REQUESTS: usize = 10_000;
const BYTES: usize = 100 << 20;
/// Texts to embed that OpenAI takes in a batch.
const TEXTS: usize = 50_000;
/// Answers that are stored at once.
const STORED_AT_ONCE: usize = 512;
/// A row with this status says that a line was not answered, and cost nothing.
const NOTHING: u32 = 599;

/// A batch under way.
struct Batch<'j> {
    id: String,
    mark: String,
    /// All that it asks, as JSON; a run may want less.
    keys: String,
    /// Who made it, and pays.
    payer: String,
    /// What is wanted of it, and still to come.
    lines: Vec<Line<'j>>,
}

/// A line of a batch: an attempt at a request, and the most that it can cost, which is set aside until its answer is there.
#[derive(Clone, Copy)]
struct Line<'j> {
    job: &'j Job,
    attempt: u32,
    worst: Usage,
}

impl Line<'_> {
    fn id(&self) -> String {
        join_id(&self.job.key, self.attempt)
    }
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
    /// Waits for the batches of earlier runs that hold open jobs; returns the jobs that none holds, or that the server knows
    /// nothing of any more.
    pub(super) async fn collect_known(
        &self,
        open: Vec<&'j Job>,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<Vec<&'j Job>> {
        let (batches, mut open) = self.resume(open).await?;
        let asked = batches.iter().flat_map(|batch| &batch.lines).copied().collect();
        open.extend(self.collect_all(batches, unanswered).await?);
        open.extend(self.to_ask_again(asked)?);
        Ok(open)
    }

    /// Has the open jobs answered, but for those that end up in `unanswered`: in as many batches as the budget allows at once,
    /// again where an answer cannot be used, and one by one where the server has lost a batch.
    pub(super) async fn ask_all(
        &self,
        open: Vec<&'j Job>,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<()> {
        let mut queue: VecDeque<&Job> = open.into();
        let mut one_by_one = Vec::new();
        while !queue.is_empty() {
            let (mut batches, mut asked) = (Vec::new(), Vec::new());
            loop {
                if *self.tally.stopped.borrow() {
                    bail!("the asking ended before all batches were made");
                }
                let (lines, file) = self.fill(&mut queue, batches.is_empty(), unanswered)?;
                if lines.is_empty() {
                    break;
                }
                asked.extend_from_slice(&lines);
                batches.push(self.create(lines, file).await?);
            }
            one_by_one.extend(self.collect_all(batches, unanswered).await?);
            queue.extend(self.to_ask_again(asked)?);
        }
        let (tally, progress) = (self.tally, self.progress);
        self.asker.ask_one_by_one(one_by_one, self.ledger, self.jobs, tally, progress, unanswered).await
    }

    /// The jobs of those lines that were answered with what cannot be used, and may be asked again.
    ///
    /// # Errors
    /// There are many such lines, and no other: nothing that is asked again would fare better.
    fn to_ask_again(&self, asked: Vec<Line<'j>>) -> Result<Vec<&'j Job>> {
        let (mut again, mut useless) = (Vec::new(), 0);
        // A line without an answer ended as unanswered, and is not for this run to ask again.
        for Line { job, .. } in asked.into_iter().filter(|line| self.ledger.answered(&line.job.key) > line.attempt) {
            let Some(words) = self.ledger.find(&job.key)?.and_then(|answer| self.asker.fault_of(&answer)) else {
                continue;
            };
            self.tally.note_useless(&words);
            useless += 1;
            if useless == HOPELESS && !self.tally.has_hope() {
                return Err(self.asker.useless(&words));
            }
            if self.ledger.answered(&job.key) < self.asker.attempts {
                again.push(job);
            } else {
                self.tally.count_unusable();
            }
        }
        Ok(again)
    }

    /// Returns the jobs of batches that the server does not know any more.
    async fn collect_all(
        &self,
        batches: Vec<Batch<'j>>,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<Vec<&'j Job>> {
        let mut gone = Vec::new();
        for mut batch in batches {
            match self.wait(&batch).await? {
                Found::Here(state) => {
                    if let Found::Gone(words) = self.collect(&mut batch, &state, unanswered).await? {
                        gone.extend(self.give_up(&batch, &words).await?);
                    }
                }
                Found::Gone(words) => gone.extend(self.give_up(&batch, &words).await?),
            }
        }
        Ok(gone)
    }

    /// A batch that is not there any more may have been paid for: its requests count at their worst, and are asked again.
    async fn give_up(&self, batch: &Batch<'j>, words: &str) -> Result<Vec<&'j Job>> {
        tracing::warn!(
            "{}: the batch {} is not there any more ({words}); its {} requests count as paid for, and are asked again",
            self.asker.generator,
            batch.id,
            batch.lines.len()
        );
        self.store_all(batch.lines.iter().map(|line| self.sent(batch, line)).collect()).await?;
        for line in &batch.lines {
            self.settle(batch, line.worst, line.worst);
        }
        self.end(batch).await?;
        Ok(batch.lines.iter().map(|line| line.job).collect())
    }

    fn line(&self, job: &'j Job, attempt: u32) -> Result<Line<'j>> {
        let payload = again(&self.jobs.payload(job)?, attempt);
        Ok(Line { job, attempt, worst: Usage::worst(&payload, self.asker.answer_tokens) })
    }

    /// What was set aside for a line is free again, but for what it cost. For another's batch nothing was: who made it pays.
    fn settle(&self, batch: &Batch, worst: Usage, spent: Usage) {
        if self.asker.pays(&batch.payer) {
            self.asker.budget.settle(worst, spent);
        }
    }

    /// A row that says that a line was sent, and may cost so much.
    fn sent(&self, batch: &Batch, line: &Line) -> Request {
        sent_row(&line.job.key, &batch.payer, &sending_in_batch(&batch.mark, &line.id()), line.worst)
    }

    /// A row that says what became of a line, paid by who made the batch.
    fn row(&self, batch: &Batch, id: &str, payload: &str, status: u32, body: String) -> Request {
        let (request, attempt) = split_id(id);
        Request {
            attempt,
            generator: batch.payer.clone(),
            sending: sending_in_batch(&batch.mark, id),
            ..self.asker.row(request, payload, status, body)
        }
    }

    async fn store_all(&self, rows: Vec<Request>) -> Result<()> {
        let stored = futures::stream::iter(rows).map(|row| self.ledger.store(row));
        stored.buffer_unordered(STORED_AT_ONCE).try_collect().await
    }

    /// The batches of earlier runs that hold open jobs, and the jobs that none holds.
    async fn resume(&self, open: Vec<&'j Job>) -> Result<(Vec<Batch<'j>>, Vec<&'j Job>)> {
        let (mut batches, mut left) = (Vec::new(), open);
        for known in self.ledger.batches() {
            let ids: Vec<String> = serde_json::from_str(&known.payload).unwrap_or_default();
            let asked: HashMap<&str, u32> = ids.iter().map(|id| split_id(id)).collect();
            // Answers that a run kept before it was killed are not asked for by this batch any more.
            let has_ended = |job: &Job, attempt: u32| {
                self.ledger.has_ended(&sending_in_batch(&known.request, &join_id(&job.key, attempt)))
            };
            let is_asked = |job: &&Job| {
                let attempt = asked.get(job.key.as_str());
                attempt.is_some_and(|attempt| *attempt >= self.ledger.answered(&job.key) && !has_ended(job, *attempt))
            };
            let (jobs, others): (Vec<&Job>, Vec<_>) = left.into_iter().partition(is_asked);
            left = others;
            if jobs.is_empty() {
                continue;
            }
            let lines = jobs.into_iter().map(|job| self.line(job, asked[job.key.as_str()])).collect::<Result<_>>()?;
            let Request { response: id, request: mark, payload: keys, generator: payer, .. } = known;
            let mut batch = Batch { id, mark, keys, payer, lines };
            for line in batch.lines.iter().filter(|_| self.asker.pays(&batch.payer)) {
                // What is sent within a limit counts as spent as long as nothing is known of it.
                match self.ledger.is_owed(&sending_in_batch(&batch.mark, &line.id())) {
                    true => self.asker.budget.reopen(line.worst),
                    false => self.asker.budget.owe(line.worst),
                }
            }
            if batch.id.is_empty() {
                match self.asker.find_batch(&batch.mark).await? {
                    Found::Here(Some(id)) => batch.id = id,
                    Found::Here(None) => {
                        // It was never made.
                        self.take_back(&batch).await?;
                        left.extend(batch.lines.iter().map(|line| line.job));
                        continue;
                    }
                    Found::Gone(words) => {
                        left.extend(self.give_up(&batch, &words).await?);
                        continue;
                    }
                }
            }
            tracing::info!(
                "{}: going on with batch {}, {} requests",
                self.asker.generator,
                batch.id,
                batch.lines.len()
            );
            batches.push(batch);
        }
        Ok((batches, left))
    }

    /// Takes jobs for one batch, as far as the budget goes now, and writes its file. What does not fit although nothing is under
    /// way (`alone`) is over the budget.
    fn fill(
        &self,
        queue: &mut VecDeque<&'j Job>,
        alone: bool,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<(Vec<Line<'j>>, String)> {
        let (mut batch, mut file, mut texts) = (Vec::new(), String::new(), 0);
        while let Some(job) = queue.front().copied().filter(|_| batch.len() < REQUESTS && file.len() < BYTES) {
            let attempt = self.ledger.answered(&job.key);
            let payload = again(&self.jobs.payload(job)?, attempt);
            texts += texts_of(&payload);
            if texts > TEXTS && !batch.is_empty() {
                break;
            }
            let line = self.line(job, attempt)?;
            if !self.asker.budget.set_aside(line.worst) {
                if alone && batch.is_empty() {
                    unanswered.insert(job.key.clone(), self.asker.left_out());
                    queue.pop_front();
                    continue;
                }
                break;
            }
            queue.pop_front();
            let url = format!("/v1{}", self.asker.client.path());
            let head = json!({ "custom_id": line.id(), "method": "POST", "url": url }).to_string();
            // The payload goes in as it was hashed.
            file.push_str(&format!("{},\"body\":{payload}}}\n", &head[..head.len() - 1]));
            batch.push(line);
        }
        Ok((batch, file))
    }

    async fn create(&self, lines: Vec<Line<'j>>, file: String) -> Result<Batch<'j>> {
        let keys: Vec<String> = lines.iter().map(Line::id).collect();
        // The same requests may be asked again in another batch, when this one had no answer to them.
        let mark = uuid::Uuid::now_v7().simple().to_string();
        let keys = serde_json::to_string(&keys)?;
        let mut batch = Batch { id: String::new(), mark, keys, payer: self.asker.payer.clone(), lines };
        self.ledger.store_batch(&batch.mark, &batch.payer, &batch.keys, "", false).await?;
        if self.asker.budget.is_limited() {
            // What becomes of it counts at its worst until it is known, also for a run that wants nothing of it any more.
            self.store_all(batch.lines.iter().map(|line| self.sent(&batch, line)).collect()).await?;
        }
        batch.id = match self.asker.make_batch(&batch.mark, file.into()).await {
            Ok(id) => id,
            Err(error) => {
                if error.downcast_ref::<NotMade>().is_some() {
                    self.take_back(&batch).await?;
                }
                return Err(error);
            }
        };
        self.ledger.store_batch(&batch.mark, &batch.payer, &batch.keys, &batch.id, false).await?;
        self.tally.count_sent(batch.lines.len() as u64);
        tracing::info!("{}: batch {}, {} requests", self.asker.generator, batch.id, batch.lines.len());
        Ok(batch)
    }

    /// No later run has to look for a batch. One that holds requests of other shards as well stays open: they collect their own.
    async fn end(&self, batch: &Batch<'j>) -> Result<()> {
        let (ids, own): (Vec<String>, _) = (serde_json::from_str(&batch.keys)?, self.jobs.keys());
        let (own, others): (Vec<String>, Vec<_>) = ids.into_iter().partition(|id| own.contains(split_id(id).0));
        if !self.asker.is_shard || others.is_empty() {
            return self.ledger.store_batch(&batch.mark, &batch.payer, &batch.keys, &batch.id, true).await;
        }
        self.ledger.store_ended_lines(&batch.mark, &self.asker.payer, &own, &batch.id).await
    }

    /// The server took nothing of a batch: it cost nothing, and no later run has to look for it.
    async fn take_back(&self, batch: &Batch<'j>) -> Result<()> {
        let ids: Vec<String> = serde_json::from_str(&batch.keys)?;
        self.store_all(ids.iter().map(|id| self.row(batch, id, "", NOTHING, String::new())).collect()).await?;
        batch.lines.iter().for_each(|line| self.settle(batch, line.worst, Usage::default()));
        self.ledger.store_batch(&batch.mark, &batch.payer, &batch.keys, "", true).await
    }

    async fn wait(&self, batch: &Batch<'_>) -> Result<Found<State>> {
        loop {
            let state: State = match self.asker.answer_to(&format!("/batches/{}", batch.id)).await? {
                Found::Here(state) => state,
                Found::Gone(words) => return Ok(Found::Gone(words)),
            };
            if matches!(state.status.as_str(), "completed" | "failed" | "expired" | "cancelled") {
                return Ok(Found::Here(state));
            }
            let done = state.request_counts["completed"].as_u64().unwrap_or(0);
            self.progress.remark(&format!("batch {} is {}, {done} of {}", batch.id, state.status, batch.lines.len()));
            if self.tally.unless_stopped(tokio::time::sleep(self.poll)).await.is_none() {
                bail!("the batch {} goes on at the server", batch.id);
            }
        }
    }

    /// Keeps the answers of a batch that has ended. Where the server has lost a file, the lines without an answer stay.
    async fn collect(
        &self,
        batch: &mut Batch<'j>,
        state: &State,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<Found<()>> {
        let wanted = batch.lines.len() as u64;
        let mut open: HashMap<String, Line> = batch.lines.drain(..).map(|line| (line.id(), line)).collect();
        let mut unread = 0;
        for id in [&state.output_file_id, &state.error_file_id].into_iter().flatten() {
            let file = match self.asker.download_file(&format!("/files/{id}/content")).await? {
                Found::Here(file) => file,
                Found::Gone(words) => {
                    batch.lines = open.into_values().collect();
                    return Ok(Found::Gone(words));
                }
            };
            let mut rows = Vec::new();
            for line in BufReader::new(file).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                if line.trim().is_empty() {
                    continue;
                }
                match read(&line) {
                    Some(answer) => rows.extend(self.take(batch, answer, &mut open, unanswered)?),
                    None => unread += 1,
                }
                if rows.len() == STORED_AT_ONCE {
                    self.keep(std::mem::take(&mut rows)).await?;
                }
            }
            self.keep(rows).await?;
        }
        let mut rows = Vec::new();
        for line in open.values() {
            let (name, status) = (&batch.id, &state.status);
            let (spent, row, why) = match unread {
                0 => (
                    Usage::default(),
                    self.row(batch, &line.id(), "", NOTHING, String::new()),
                    ("request_failed", format!("the batch {name} {status} without an answer to it")),
                ),
                // It may be one of them, and was paid then: a later run is to count it as well.
                _ => (
                    line.worst,
                    self.sent(batch, line),
                    ("malformed_answer", format!("{unread} lines of the batch {name} cannot be read")),
                ),
            };
            self.settle(batch, line.worst, spent);
            rows.push(row);
            unanswered.insert(line.job.key.clone(), why);
        }
        self.store_all(rows).await?;
        self.end(batch).await?;
        self.progress.add(wanted);
        if state.status == "failed" {
            let messages = state.errors["data"].as_array().into_iter().flatten();
            let said: Vec<&str> = messages.filter_map(|error| error["message"].as_str()).collect();
            bail!("the batch {} failed: {}", batch.id, said.join("; "));
        }
        Ok(Found::Here(()))
    }

    /// The row to keep of one line of a batch's output; why the request has no answer goes to `unanswered`.
    fn take(
        &self,
        batch: &Batch,
        answer: Answer,
        open: &mut HashMap<String, Line>,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<Option<Request>> {
        let (request, attempt) = split_id(&answer.key);
        let row = |payload: &str, status: u64, body: String| {
            let status = u32::try_from(status).ok().filter(|status| *status > 0).unwrap_or(NOTHING);
            self.row(batch, &answer.key, payload, status, body)
        };
        let Some(line) = open.remove(answer.key.as_str()) else {
            // Nobody wants it now; it was paid for.
            let body = if answer.status == 200 { answer.body } else { String::new() };
            return Ok(Some(row("", answer.status, body)));
        };
        let payload = again(&self.jobs.payload(line.job)?, attempt);
        let nothing = answers_nothing(self.asker.client.path(), &payload, &answer.body);
        if answer.status == 200 && nothing.is_none() {
            self.settle(batch, line.worst, Usage::of_response(&answer.body, line.worst));
            return Ok(Some(row(&payload, 200, answer.body)));
        }
        self.settle(batch, line.worst, Usage::default());
        let why = format!("status {}: {}", answer.status, nothing.unwrap_or_else(|| words(&answer.body)));
        if matches!(answer.status, 0 | 200 | 408 | 409 | 429 | 500..) {
            unanswered.insert(request.to_owned(), ("request_failed", why));
            return Ok(Some(row("", u64::from(NOTHING), String::new())));
        }
        if attempt == 0 {
            unanswered.insert(request.to_owned(), (REFUSED, why));
        }
        Ok(Some(row(&payload, answer.status, answer.body)))
    }

    async fn keep(&self, rows: Vec<Request>) -> Result<()> {
        let stored = futures::stream::iter(rows).map(|row| async move {
            self.ledger.store(row.clone()).await?;
            if row.status != 200 {
                return Ok(());
            }
            if self.asker.fault_of(&row).is_none() {
                self.tally.count_answered();
            }
            self.ledger.remember(&row)
        });
        let mut stored = stored.buffer_unordered(STORED_AT_ONCE);
        while let Some(kept) = stored.next().await {
            kept?;
        }
        Ok(())
    }
}
