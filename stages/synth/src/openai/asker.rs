//! All requests of a generator: each is sent until it is answered, refused or given up, within the limits and the budget.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use codepair_runtime::{Progress, Store, back_off, block_on};
use codepair_schemas::rows::Request;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::batches::Asking;
use super::budget::{Budget, Usage};
use super::client::{Client, Fault, FaultKind, Reply, words};
use super::jobs::{Job, Jobs};
use super::ledger::Ledger;
use super::limits::Limits;
use super::server::Server;

/// So many refusals and no answer: no request would fare better.
const REFUSALS: u64 = 20;

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
    /// What all of them cost, in this run and before.
    pub(crate) spent: Usage,
}

/// Has all requests answered that the ledger of the store does not hold yet, each once. What was answered is in the ledger,
/// also where this ends with an error. `answer_tokens` is the most that an answer has; other requests of the generator took
/// `spent` of its budget.
///
/// # Errors
/// The server cannot be reached at all, or wants another key or path: no request would fare better.
pub(crate) fn ask(
    store: &Store,
    generator: &str,
    server: &Server,
    client: Client,
    jobs: &Jobs,
    answer_tokens: u32,
    spent: Usage,
) -> Result<Answers> {
    let mut ledger = Ledger::open(store, &jobs.keys())?;
    let spent = spent.plus(spent_before(&ledger, jobs, answer_tokens)?);
    let asker = Asker {
        generator,
        client,
        limits: server.limits(),
        budget: server.budget(spent),
        retries: server.retries,
        answer_tokens,
        batches: server.batches,
        poll: Duration::from_secs_f64(server.poll_seconds),
    };
    ledger.complete(jobs)?;
    let (unanswered, summary) = asker.ask_all(&mut ledger, jobs)?;
    Ok(Answers { ledger, unanswered, summary, spent: asker.budget.spent() })
}

/// Whom and how to ask.
pub(super) struct Asker<'a> {
    pub(super) generator: &'a str,
    pub(super) client: Client,
    limits: Limits,
    pub(super) budget: Budget,
    /// Tries after the first.
    pub(super) retries: u32,
    /// Tokens of an answer at most.
    pub(super) answer_tokens: u32,
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
    faults: Mutex<BTreeMap<FaultKind, u64>>,
    /// Nothing more is to be sent; what is under way is waited for.
    stopped: watch::Sender<bool>,
}

impl Tally {
    pub(super) fn count_sent(&self, requests: u64) {
        self.sent.fetch_add(requests, Ordering::Relaxed);
    }

    pub(super) fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, kind: FaultKind) {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *faults.entry(kind).or_default() += 1;
    }

    /// What `work` gives, or nothing when the asking is stopped before.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
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
    Unanswered(Unanswered),
}

/// What the store's ledger holds answers to of these requests, in tokens.
///
/// # Errors
/// The ledger cannot be read.
pub(crate) fn spent_on(store: &Store, jobs: &Jobs, answer_tokens: u32) -> Result<Usage> {
    spent_before(&Ledger::open(store, &jobs.keys())?, jobs, answer_tokens)
}

/// What the ledger's answers to these requests cost, lost ones at their worst.
pub(super) fn spent_before(ledger: &Ledger, jobs: &Jobs, answer_tokens: u32) -> Result<Usage> {
    let mut seen = HashSet::new();
    let mut spent = Usage::default();
    for job in jobs.list() {
        let (has, lost) = (ledger.has(&job.key), ledger.lost(&job.key));
        if !seen.insert(&job.key) || (!has && lost == 0) {
            continue;
        }
        let worst = Usage::worst(&jobs.payload(job)?, answer_tokens);
        (0..lost).for_each(|_| spent = spent.plus(worst));
        if let Some(answer) = ledger.find(&job.key)? {
            spent = spent.plus(Usage::of_response(&answer.response, worst));
        }
    }
    Ok(spent)
}

impl Asker<'_> {
    fn ask_all(&self, ledger: &mut Ledger, jobs: &Jobs) -> Result<(BTreeMap<String, Unanswered>, Summary)> {
        let mut seen = HashSet::new();
        let open: Vec<&Job> =
            jobs.list().iter().filter(|job| !ledger.has(&job.key) && seen.insert(job.key.as_str())).collect();
        let before = jobs.list().len() - open.len();
        tracing::info!("{}: {} requests, {before} answered before", self.generator, jobs.list().len());
        let progress = Progress::new(&format!("asking for {}", self.generator), "requests", open.len() as u64);
        let tally = Tally::default();
        let mut unanswered = BTreeMap::new();
        let asked: Result<()> = block_on(async {
            let (shared, tally): (&Ledger, _) = (ledger, &tally);
            let asking = Asking { asker: self, ledger: shared, jobs, tally, progress: &progress, poll: self.poll };
            // Batches of earlier runs, also where the config wants none any more: they are paid for.
            let open = asking.collect_known(open, &mut unanswered).await?;
            if self.batches {
                return asking.ask_all(open, &mut unanswered).await;
            }
            let (mut failed, mut refused) = (Ok(()), 0);
            let mut outcomes = futures::stream::iter(open)
                .map(|job| async move {
                    let outcome = match jobs.payload(job) {
                        Ok(payload) => self.ask(&job.key, &payload, shared, tally).await,
                        Err(error) => Err(error),
                    };
                    (&job.key, outcome)
                })
                .buffer_unordered(self.limits.most());
            while let Some((key, outcome)) = outcomes.next().await {
                progress.add(1);
                match outcome {
                    Ok(Outcome::Answered) => {}
                    Ok(Outcome::Unanswered(why)) => {
                        let words = why.1.clone();
                        refused += u64::from(why.0 == "request_refused");
                        unanswered.insert(key.clone(), why);
                        if refused == REFUSALS && tally.answered.load(Ordering::Relaxed) == 0 {
                            tally.stopped.send_replace(true);
                            let endpoint = self.client.endpoint();
                            failed = failed.and(Err(anyhow!("{endpoint} refuses every request: {words}")));
                        }
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
        });
        ledger.close()?;
        let summary = self.summary(&tally, before, unanswered.len());
        asked.context("what was answered is kept; run it again to go on from there")?;
        Ok((unanswered, summary))
    }

    async fn ask(&self, key: &str, payload: &str, ledger: &Ledger, tally: &Tally) -> Result<Outcome> {
        let worst = Usage::worst(payload, self.answer_tokens);
        let answered_at_start = tally.answered.load(Ordering::Relaxed);
        let mut attempt = 0;
        loop {
            // Nobody waits for a turn that there is no money for.
            if !self.budget.fits(worst) {
                return Ok(Outcome::Unanswered(Self::over_budget()));
            }
            // A token is some three bytes.
            let tokens = worst.input_tokens / 3 + worst.output_tokens;
            let Some(slot) = tally.unless_stopped(self.limits.enter(tokens)).await else { return Ok(Self::stopped()) };
            if !self.budget.set_aside(worst) {
                return Ok(Outcome::Unanswered(Self::over_budget()));
            }
            if self.budget.is_limited() {
                ledger.store_sent(key, self.generator).await?;
            }
            tally.count_sent(1);
            let fault = match self.client.send(payload).await {
                Reply::Answered(response) => {
                    let spent = Usage::of_response(&response, worst);
                    self.limits.used(tokens, || Usage::said(&response));
                    let answer = self.row(key, payload, 200, response);
                    ledger.store(answer.clone()).await?;
                    ledger.remember(&answer)?;
                    self.budget.settle(worst, spent);
                    tally.count_answered();
                    self.limits.succeeded();
                    return Ok(Outcome::Answered);
                }
                Reply::Refused { status, body } => {
                    self.budget.settle(worst, Usage::default());
                    let refused = format!("status {status}: {}", words(&body));
                    if !self.budget.is_limited() {
                        // A refusal in the ledger settles one sending.
                        ledger.store_sent(key, self.generator).await?;
                    }
                    ledger.store(self.row(key, payload, u32::from(status), body)).await?;
                    return Ok(Outcome::Unanswered(("request_refused", refused)));
                }
                Reply::Hopeless(words) => {
                    return Err(anyhow!("{} answers {words}", self.client.endpoint()));
                }
                Reply::Fault(fault) => fault,
            };
            self.note_fault(key, &fault, worst, ledger, tally).await?;
            drop(slot);
            if attempt == self.retries {
                return self.give_up(&fault, attempt, answered_at_start == tally.answered.load(Ordering::Relaxed));
            }
            if tally.unless_stopped(self.pause(&fault, attempt)).await.is_none() {
                return Ok(Self::stopped());
            }
            attempt += 1;
        }
    }

    fn stopped() -> Outcome {
        Outcome::Unanswered(("stopped", "the asking ended before its turn".to_owned()))
    }

    pub(super) fn over_budget() -> Unanswered {
        ("over_budget", "the budget is spent; raise max_cost or max_tokens and run it again to go on".to_owned())
    }

    /// Waits before the next try.
    pub(super) async fn pause(&self, fault: &Fault, attempt: u32) {
        let pause = fault.retry_after.unwrap_or_default().max(back_off(attempt));
        tracing::debug!("{}; again in {:.1} s", fault.words, pause.as_secs_f64());
        tokio::time::sleep(pause).await;
    }

    /// A fault that may have been paid for stays in the budget at its worst.
    async fn note_fault(&self, key: &str, fault: &Fault, worst: Usage, ledger: &Ledger, tally: &Tally) -> Result<()> {
        tally.count(fault.kind);
        let paid = fault.kind.may_be_paid();
        self.budget.settle(worst, if paid { worst } else { Usage::default() });
        if self.budget.is_limited() && !paid {
            let status = u32::from(fault.status.unwrap_or(599));
            ledger.store(self.row(key, "", status, String::new())).await?;
        }
        let overloaded = matches!(fault.kind, FaultKind::RateLimited | FaultKind::ServerError | FaultKind::TimedOut);
        if overloaded {
            self.limits.overloaded(fault.retry_after);
        }
        Ok(())
    }

    /// After the last try: where no other request was answered meanwhile, the server is gone for all.
    fn give_up(&self, fault: &Fault, attempt: u32, alone: bool) -> Result<Outcome> {
        let words = format!("{} ({} tries)", fault.words, attempt + 1);
        if fault.kind == FaultKind::Unreachable && alone {
            return Err(anyhow!("{}: {words}", self.client.endpoint()));
        }
        Ok(Outcome::Unanswered(("request_failed", words)))
    }

    pub(super) fn row(&self, key: &str, payload: &str, status: u32, response: String) -> Request {
        Request {
            request: key.to_owned(),
            generator: self.generator.to_owned(),
            endpoint: self.client.endpoint(),
            payload: payload.to_owned(),
            status,
            response,
        }
    }

    /// What the run did and spent, for the log and the manifest.
    fn summary(&self, tally: &Tally, before: usize, unanswered: usize) -> Summary {
        let (sent, answered) = (tally.sent.load(Ordering::Relaxed), tally.answered.load(Ordering::Relaxed));
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
        vec![
            ("answered_before", before.into()),
            ("sent", sent.into()),
            ("answered", answered.into()),
            ("unanswered", unanswered.into()),
            ("faults", json!(faults)),
            ("input_tokens", spent.input_tokens.into()),
            ("output_tokens", spent.output_tokens.into()),
            ("cost_dollars", self.budget.cost().into()),
        ]
    }
}
