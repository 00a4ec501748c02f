//! All requests of a generator: each is sent until it is answered, refused or given up, within the limits and the budget.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use codepair_runtime::{Context, Interrupt, Progress, back_off, block_on};
use codepair_schemas::rows::Request;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::batches::Asking;
use super::budget::{Budget, Usage};
use super::client::{Client, Fault, FaultKind, Reply, words};
use super::jobs::{Job, Jobs};
use super::lease::Lease;
use super::ledger::{Ledger, Payer, new_sending};
use super::limits::Limits;
use super::server::Server;

/// So many refusals, or answers that nobody can use, and no other: no request would fare better.
pub(super) const HOPELESS: u64 = 20;
/// How long an interrupted run waits for what is under way.
const DRAIN: Duration = Duration::from_secs(60);

/// Notes by name.
type Summary = Vec<(&'static str, Value)>;

/// What became of all requests.
pub(crate) struct Answers {
    /// Holds the answers.
    pub(crate) ledger: Ledger,
    /// Why others have none, by key.
    pub(crate) unanswered: BTreeMap<String, Unanswered>,
    /// What was done and spent, for the manifest.
    pub(crate) summary: Summary,
}

impl Answers {
    /// How many requests have neither an answer nor a reason for which they never will, in words; nothing where none is open.
    pub(crate) fn open(&self) -> Option<String> {
        let mut reasons: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for (reason, words) in self.unanswered.values().filter(|(reason, _)| *reason != REFUSED) {
            let (count, _) = reasons.entry(reason).or_insert((0, words));
            *count += 1;
        }
        let said: Vec<String> =
            reasons.iter().map(|(reason, (count, words))| format!("{count} {reason}, such as: {words}")).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// Says in `rejected.reason` that the server will not answer: no later run would fare better.
pub(crate) const REFUSED: &str = "request_refused";

/// What a generator wants to have answered.
pub(crate) struct Asked<'a> {
    pub(crate) context: &'a Context,
    pub(crate) generator: &'a str,
    pub(crate) server: &'a Server,
    pub(crate) jobs: &'a Jobs,
    /// The most that an answer has.
    pub(crate) answer_tokens: u32,
    /// What is wrong with the response to a payload, where it cannot be used.
    pub(crate) fault: FaultOf<'a>,
    /// That some requests are refused, or answered with nothing that can be used, says nothing of the others.
    pub(crate) is_patient: bool,
}

/// What is wrong with the response to a payload, where it cannot be used.
pub(crate) type FaultOf<'a> = &'a (dyn Fn(&str, &str) -> Option<String> + Sync);

/// What is to be asked of a generator's requests, each of which counts once.
pub(super) struct Open<'j> {
    /// Those without an answer, and those whose answers are of no use and fewer than they may be.
    pub(super) jobs: Vec<&'j Job>,
    /// How many others there are.
    pub(super) before: usize,
    /// Whether an answer can be used.
    is_any_usable: bool,
    /// What is wrong with one that cannot.
    useless: Option<String>,
}

impl<'j> Open<'j> {
    /// # Errors
    /// The answers cannot be read.
    pub(super) fn new(ledger: &Ledger, jobs: &'j Jobs, attempts: u32, fault: FaultOf) -> Result<Self> {
        let mut own = Self { jobs: Vec::new(), before: 0, is_any_usable: false, useless: None };
        let mut seen = HashSet::new();
        for job in jobs.list().iter().filter(|job| seen.insert(job.key.as_str())) {
            let answered = ledger.answered(&job.key);
            // What no further attempt may follow is looked at only as long as no answer is known that can be used.
            let has_to_look = answered > 0 && (answered < attempts || !own.is_any_usable);
            let answer = if has_to_look { ledger.find(&job.key)? } else { None };
            let wrong = answer.as_ref().and_then(|answer| fault(&answer.payload, &answer.response));
            own.is_any_usable |= answer.is_some() && wrong.is_none();
            if answered == 0 || (answered < attempts && wrong.is_some()) {
                own.jobs.push(job);
            } else {
                own.before += 1;
            }
            own.useless = own.useless.or(wrong);
        }
        Ok(own)
    }
}

/// Who pays for a generator's requests.
pub(super) fn payer(context: &Context, generator: &str, answer_tokens: u32) -> Payer {
    Payer { name: format!("{}/{generator}", context.config.name()), answer_tokens }
}

/// Has all requests answered that the ledger of the store does not hold yet, each once. What was answered is in the ledger,
/// also where this ends with an error.
///
/// # Errors
/// The server cannot be reached at all, or wants another key or path, or refuses or fails to answer whatever it is asked: no
/// request would fare better. The process was asked to end.
pub(crate) fn ask(asked: &Asked, client: Client) -> Result<Answers> {
    let Asked { context, generator, server, jobs, answer_tokens, fault, is_patient } = *asked;
    let payer = payer(context, generator, answer_tokens);
    let mut ledger = Ledger::open(&context.store, &jobs.keys(), &payer)?;
    ledger.complete(jobs)?;
    let mut leases = Vec::new();
    // Where nothing is open nobody has to wait. What another run was answered meanwhile is not asked again.
    if !Open::new(&ledger, jobs, server.attempts, fault)?.jobs.is_empty() {
        server.check_key()?;
        // Those who wait for each other take them in the same order.
        if server.budget(ledger.spent()).is_limited() {
            let budget = format!("what {} may spend", payer.name);
            leases.push(Lease::take(&context.store, &budget, &context.interrupt)?);
        }
        let asking = format!("{} for {}", client.endpoint(), server.model);
        leases.push(Lease::take(&context.store, &asking, &context.interrupt)?);
        ledger = Ledger::open(&context.store, &jobs.keys(), &payer)?;
        ledger.complete(jobs)?;
    }
    let asker = Asker {
        generator,
        is_patient,
        budget: server.budget(ledger.spent()),
        payer: payer.name,
        client,
        limits: server.limits(),
        retries: server.retries,
        attempts: server.attempts,
        answer_tokens,
        fault,
        batches: server.batches,
        poll: Duration::from_secs_f64(server.poll_seconds),
    };
    // Where the process is asked to end, what is under way is paid for and kept first.
    let _hold = context.interrupt.hold();
    let (unanswered, summary) = asker.ask_all(&mut ledger, jobs, &context.interrupt, &leases)?;
    Ok(Answers { ledger, unanswered, summary })
}

/// Whom and how to ask.
pub(super) struct Asker<'a> {
    pub(super) generator: &'a str,
    /// As it stands in the ledger.
    pub(super) payer: String,
    pub(super) client: Client,
    limits: Limits,
    pub(super) budget: Budget,
    /// Tries after the first.
    pub(super) retries: u32,
    /// Answers to a request at most, until one can be used.
    pub(super) attempts: u32,
    /// Tokens of an answer at most.
    pub(super) answer_tokens: u32,
    fault: FaultOf<'a>,
    is_patient: bool,
    /// Ask by batches.
    batches: bool,
    /// Look after batches so often.
    poll: Duration,
}

/// Why a request has no answer: a reason to group by, and the words.
pub(crate) type Unanswered = (&'static str, String);

/// What a run asked.
#[derive(Default)]
pub(super) struct Tally {
    sent: AtomicU64,
    answered: AtomicU64,
    /// Requests whose every answer was of no use.
    unusable: AtomicU64,
    /// What is wrong with one of them.
    useless: Mutex<Option<String>>,
    /// An earlier run was answered so that it can be used, or nothing is to be made of refusals.
    has_hope: bool,
    faults: Mutex<BTreeMap<FaultKind, u64>>,
    /// Nothing more is to be sent; what is under way is waited for.
    pub(super) stopped: watch::Sender<bool>,
}

impl Tally {
    pub(super) fn count_sent(&self, requests: u64) {
        self.sent.fetch_add(requests, Ordering::Relaxed);
    }

    pub(super) fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_unusable(&self) -> u64 {
        self.unusable.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether anything was answered so that it can be used, in this run or before.
    pub(super) fn has_hope(&self) -> bool {
        self.has_hope || self.answered() > 0
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn note_useless(&self, words: &str) {
        let mut useless = self.useless.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        useless.get_or_insert_with(|| words.to_owned());
    }

    fn useless(&self) -> Option<String> {
        self.useless.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn count(&self, kind: FaultKind) {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *faults.entry(kind).or_default() += 1;
    }

    /// What `work` gives, or nothing when the asking is stopped before.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => None,
            done = work => Some(done),
        }
    }

    fn faults(&self) -> BTreeMap<&'static str, u64> {
        let faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.iter().map(|(kind, count)| (kind.name(), *count)).collect()
    }
}

enum Outcome {
    Answered,
    /// All its answers are of no use.
    Unusable(String),
    Unanswered(Unanswered),
}

/// The payload of a further attempt: with another seed, for with the same one some servers answer the same.
pub(super) fn again(payload: &str, attempt: u32) -> String {
    let Ok(Value::Object(mut body)) = serde_json::from_str::<Value>(payload) else { return payload.to_owned() };
    match body.get("seed").and_then(Value::as_i64) {
        Some(seed) if attempt > 0 => {
            body.insert("seed".to_owned(), seed.wrapping_add(i64::from(attempt)).into());
            Value::Object(body).to_string()
        }
        _ => payload.to_owned(),
    }
}

impl Asker<'_> {
    /// What is wrong with an answer.
    pub(super) fn fault_of(&self, answer: &Request) -> Option<String> {
        (self.fault)(&answer.payload, &answer.response)
    }

    fn ask_all(
        &self,
        ledger: &mut Ledger,
        jobs: &Jobs,
        interrupt: &Interrupt,
        leases: &[Lease],
    ) -> Result<(BTreeMap<String, Unanswered>, Summary)> {
        let Open { jobs: open, before, is_any_usable, useless } = Open::new(ledger, jobs, self.attempts, self.fault)?;
        tracing::info!("{}: {} requests, {before} answered before", self.generator, before + open.len());
        let progress = Progress::new(&format!("asking for {}", self.generator), "requests", open.len() as u64);
        let tally = Tally { has_hope: is_any_usable || self.is_patient, ..Tally::default() };
        let mut unanswered = BTreeMap::new();
        let asked: Result<()> = block_on(async {
            let shared: &Ledger = ledger;
            let asking = async {
                let (tally, progress) = (&tally, &progress);
                let by_batches = Asking { asker: self, ledger: shared, jobs, tally, progress, poll: self.poll };
                // Batches of earlier runs, also where the config wants none any more: they are paid for.
                let open = by_batches.collect_known(open, &mut unanswered).await?;
                if self.batches {
                    by_batches.ask_all(open, &mut unanswered).await
                } else {
                    self.ask_one_by_one(open, shared, jobs, tally, progress, &mut unanswered).await
                }
            };
            let lost = async {
                match leases {
                    [] => std::future::pending().await,
                    leases => {
                        let lost = leases.iter().map(|lease| Box::pin(lease.lost()));
                        futures::future::select_all(lost).await;
                    }
                }
            };
            let why = async {
                tokio::select! {
                    () = interrupt.asked() => "interrupted",
                    () = lost => "another run took over, for this one was not heard of for long",
                }
            };
            self.until(asking, why, &tally).await
        });
        ledger.close()?;
        let summary = self.summary(&tally, before, unanswered.len());
        asked.context("what was answered is kept; run it again to go on from there")?;
        self.check_hope(&tally, &unanswered, useless)?;
        Ok((unanswered, summary))
    }

    /// Asks until all is answered, or there is a reason to stop: then nothing more is sent, and what is under way is waited for.
    async fn until(
        &self,
        asking: impl Future<Output = Result<()>>,
        why: impl Future<Output = &'static str>,
        tally: &Tally,
    ) -> Result<()> {
        tokio::pin!(asking);
        let why = tokio::select! {
            asked = &mut asking => return asked,
            why = why => why,
        };
        tally.stopped.send_replace(true);
        let most = DRAIN.as_secs();
        tracing::warn!("{}: {why}; waiting for what is under way, {most} s at most", self.generator);
        if tokio::time::timeout(DRAIN, asking).await.is_err() {
            tracing::warn!("{}: not all that was under way has come", self.generator);
        }
        Err(anyhow!("{why}"))
    }

    pub(super) async fn ask_one_by_one(
        &self,
        open: Vec<&Job>,
        ledger: &Ledger,
        jobs: &Jobs,
        tally: &Tally,
        progress: &Progress,
        unanswered: &mut BTreeMap<String, Unanswered>,
    ) -> Result<()> {
        let (mut failed, mut refused) = (Ok(()), 0);
        let mut outcomes = futures::stream::iter(open)
            .map(|job| async move {
                let outcome = match jobs.payload(job) {
                    Ok(payload) => self.ask(&job.key, &payload, ledger, tally).await,
                    Err(error) => Err(error),
                };
                (&job.key, outcome)
            })
            .buffer_unordered(self.limits.most());
        while let Some((key, outcome)) = outcomes.next().await {
            progress.add(1);
            match outcome {
                Ok(Outcome::Answered) => drop(unanswered.remove(key)),
                Ok(Outcome::Unusable(words)) => {
                    unanswered.remove(key);
                    tally.note_useless(&words);
                    if tally.count_unusable() == HOPELESS && !tally.has_hope() {
                        tally.stopped.send_replace(true);
                        failed = failed.and(Err(self.useless(&words)));
                    }
                }
                Ok(Outcome::Unanswered(why)) => {
                    refused += u64::from(why.0 == REFUSED);
                    if refused == HOPELESS && !tally.has_hope() {
                        tally.stopped.send_replace(true);
                        failed = failed.and(Err(self.refuses(&why.1)));
                    }
                    unanswered.insert(key.clone(), why);
                }
                Err(error) => {
                    tally.stopped.send_replace(true);
                    failed = failed.and(Err(error));
                }
            }
            if self.budget.is_limited() {
                progress.remark(&format!("${:.2} spent", self.budget.cost()));
            }
        }
        failed
    }

    /// Where nothing at all was answered so that it can be used, an artifact without a row would pass for a finished one.
    /// `useless` is what is wrong with an answer of an earlier run.
    fn check_hope(
        &self,
        tally: &Tally,
        unanswered: &BTreeMap<String, Unanswered>,
        useless: Option<String>,
    ) -> Result<()> {
        if tally.has_hope() {
            return Ok(());
        }
        if let Some(words) = tally.useless().or(useless) {
            return Err(self.useless(&words));
        }
        let refused = unanswered.values().find(|(reason, _)| *reason == REFUSED);
        refused.map_or(Ok(()), |(_, words)| Err(self.refuses(words)))
    }

    fn refuses(&self, words: &str) -> anyhow::Error {
        anyhow!("{} refuses every request: {words}", self.client.endpoint())
    }

    pub(super) fn useless(&self, words: &str) -> anyhow::Error {
        anyhow!("{} answers nothing that can be used: {words}; they are kept", self.client.endpoint())
    }

    /// Asks until an answer can be used, as often as the config allows.
    async fn ask(&self, key: &str, payload: &str, ledger: &Ledger, tally: &Tally) -> Result<Outcome> {
        // A batch may have answered it meanwhile.
        let known = ledger.find(key)?;
        if known.is_some_and(|answer| self.fault_of(&answer).is_none()) {
            return Ok(Outcome::Answered);
        }
        for attempt in ledger.answered(key)..self.attempts {
            let payload = again(payload, attempt);
            let answer = match self.ask_once(key, attempt, &payload, ledger, tally).await? {
                Ok(answer) => answer,
                // There is an answer, which says what is wrong with it.
                Err((REFUSED, _)) if attempt > 0 => return Ok(Outcome::Answered),
                Err(unanswered) => return Ok(Outcome::Unanswered(unanswered)),
            };
            match self.fault_of(&answer) {
                None => {
                    tally.count_answered();
                    return Ok(Outcome::Answered);
                }
                Some(words) if attempt + 1 >= self.attempts => return Ok(Outcome::Unusable(words)),
                Some(words) => tracing::debug!("an answer cannot be used, and is asked for again: {words}"),
            }
        }
        Ok(Outcome::Answered)
    }

    /// Has one attempt at a request answered, and the answer stored.
    async fn ask_once(
        &self,
        key: &str,
        attempt: u32,
        payload: &str,
        ledger: &Ledger,
        tally: &Tally,
    ) -> Result<Result<Request, Unanswered>> {
        let worst = Usage::worst(payload, self.answer_tokens);
        let answered_at_start = tally.answered();
        let mut tries = 0;
        loop {
            // A token is some three bytes.
            let tokens = worst.input_tokens / 3 + worst.output_tokens;
            let Some(slot) = tally.unless_stopped(self.limits.enter(tokens)).await else {
                return Ok(Err(Self::stopped()));
            };
            match tally.unless_stopped(self.budget.set_aside_when_it_fits(worst)).await {
                Some(true) => {}
                Some(false) => return Ok(Err(Self::over_budget())),
                None => return Ok(Err(Self::stopped())),
            }
            let sending = new_sending();
            if self.budget.is_limited() {
                ledger.store_sent(key, &self.payer, &sending, worst).await?;
            }
            tally.count_sent(1);
            let row = |payload: &str, status: u32, response: String| Request {
                attempt,
                sending: sending.clone(),
                ..self.row(key, payload, status, response)
            };
            let fault = match self.client.send(payload).await {
                Reply::Answered(response) => {
                    let spent = Usage::of_response(&response, worst);
                    self.limits.used(tokens, || Usage::said(&response));
                    let answer = row(payload, 200, response);
                    ledger.store(answer.clone()).await?;
                    ledger.remember(&answer)?;
                    self.budget.settle(worst, spent);
                    self.limits.succeeded();
                    return Ok(Ok(answer));
                }
                Reply::Refused { status, body } => {
                    self.budget.settle(worst, Usage::default());
                    let refused = format!("status {status}: {}", words(&body));
                    ledger.store(row(payload, u32::from(status), body)).await?;
                    return Ok(Err((REFUSED, refused)));
                }
                Reply::Hopeless { status, words } => {
                    self.budget.settle(worst, Usage::default());
                    if self.budget.is_limited() {
                        // It was not accepted, so it was not paid for.
                        ledger.store(row("", u32::from(status), String::new())).await?;
                    }
                    return Err(anyhow!("{} answers {words}", self.client.endpoint()));
                }
                Reply::Fault(fault) => fault,
            };
            tally.count(fault.kind);
            let is_paid = fault.kind.may_be_paid();
            // A fault that may have been paid for stays in the budget at its worst.
            self.budget.settle(worst, if is_paid { worst } else { Usage::default() });
            if self.budget.is_limited() && !is_paid {
                ledger.store(row("", u32::from(fault.status.unwrap_or(599)), String::new())).await?;
            }
            if fault.kind.is_overload() {
                self.limits.overloaded(fault.retry_after);
            }
            drop(slot);
            // A server that was never there is not waited for: what is wrong is its address, mostly.
            let never_there = fault.kind == FaultKind::Unreachable && tally.answered() == 0 && tries > 0;
            if tries == self.retries || never_there {
                return self.give_up(&fault, tries, answered_at_start == tally.answered()).map(Err);
            }
            if tally.unless_stopped(self.pause(&fault, tries)).await.is_none() {
                return Ok(Err(Self::stopped()));
            }
            tries += 1;
        }
    }

    fn stopped() -> Unanswered {
        ("stopped", "the asking ended before its turn".to_owned())
    }

    /// A request that there is no money left for.
    pub(super) fn left_out(&self) -> Unanswered {
        self.budget.exhaust();
        Self::over_budget()
    }

    fn over_budget() -> Unanswered {
        ("over_budget", "the budget is spent; raise max_cost or max_tokens and run it again to go on".to_owned())
    }

    /// Waits before the next try.
    pub(super) async fn pause(&self, fault: &Fault, attempt: u32) {
        let pause = fault.retry_after.unwrap_or_default().max(back_off(attempt));
        tracing::debug!("{}; again in {:.1} s", fault.words, pause.as_secs_f64());
        tokio::time::sleep(pause).await;
    }

    /// After the last try: where no other request was answered meanwhile, the server is gone for all.
    fn give_up(&self, fault: &Fault, tries: u32, alone: bool) -> Result<Unanswered> {
        let words = format!("{} ({} tries)", fault.words, tries + 1);
        if fault.kind == FaultKind::Unreachable && alone {
            return Err(anyhow!("{}: {words}", self.client.endpoint()));
        }
        Ok(("request_failed", words))
    }

    pub(super) fn row(&self, key: &str, payload: &str, status: u32, response: String) -> Request {
        Request {
            request: key.to_owned(),
            generator: self.payer.clone(),
            endpoint: self.client.endpoint(),
            payload: payload.to_owned(),
            status,
            response,
            ..Request::default()
        }
    }

    /// What the run did and spent, for the log and the manifest.
    fn summary(&self, tally: &Tally, before: usize, unanswered: usize) -> Summary {
        let (sent, answered) = (tally.sent.load(Ordering::Relaxed), tally.answered());
        let unusable = tally.unusable.load(Ordering::Relaxed);
        let (spent, faults) = (self.budget.spent(), tally.faults());
        let said: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind} {count}×")).collect();
        let said = if said.is_empty() { String::new() } else { format!("; {}", said.join(", ")) };
        tracing::info!(
            "{}: {answered} answered, {unanswered} not, {sent} sent{said}; {} input and {} output tokens, ${:.4}{}",
            self.generator,
            spent.input_tokens,
            spent.output_tokens,
            self.budget.cost(),
            if self.budget.is_exhausted() { ": the budget is spent" } else { "" }
        );
        if self.budget.is_exhausted() {
            tracing::warn!("{}: requests are left out for want of budget; {}", self.generator, Self::over_budget().1);
        }
        vec![
            ("answered_before", before.into()),
            ("sent", sent.into()),
            ("answered", answered.into()),
            ("unusable", unusable.into()),
            ("unanswered", unanswered.into()),
            ("faults", json!(faults)),
            ("input_tokens", spent.input_tokens.into()),
            ("output_tokens", spent.output_tokens.into()),
            ("cost_dollars", self.budget.cost().into()),
        ]
    }
}
