//! Whom and how to ask, and what came of it so far.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use codepair_runtime::back_off;
use codepair_schemas::rows::Request;
use serde_json::Value;
use tokio::sync::watch;

use super::budget::Budget;
use super::client::{Client, Fault, FaultKind};
use super::limits::Limits;
use super::payer::SHARD;

/// So many refusals, or answers that nobody can use, and no other: no request would fare better.
pub(super) const HOPELESS: u64 = 20;

/// Says in `rejected.reason` that the server will not answer: no later run would fare better.
pub(crate) const REFUSED: &str = "request_refused";

/// What is wrong with the response to a payload, where it cannot be used.
pub(crate) type FaultOf<'a> = &'a (dyn Fn(&str, &str) -> Option<String> + Sync);

/// Whom and how to ask.
pub(super) struct Asker<'a> {
    pub(super) generator: &'a str,
    /// As it stands in the ledger.
    pub(super) payer: String,
    pub(super) client: Client,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
    /// Tries after the first.
    pub(super) retries: u32,
    /// Answers to a request at most, until one can be used.
    pub(super) attempts: u32,
    /// Tokens of an answer at most.
    pub(super) answer_tokens: u32,
    pub(super) fault: FaultOf<'a>,
    pub(super) is_patient: bool,
    /// Others ask for the rest of the generator's requests.
    pub(super) is_shard: bool,
    /// Ask by batches.
    pub(super) batches: bool,
    /// Look after batches so often.
    pub(super) poll: Duration,
}

/// Why a request has no answer: a reason to group by, and the words.
pub(crate) type Unanswered = (&'static str, String);

/// What a run asked.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: AtomicU64,
    answered: AtomicU64,
    /// Requests whose every answer was of no use.
    pub(super) unusable: AtomicU64,
    /// What is wrong with one of them.
    useless: Mutex<Option<String>>,
    /// An earlier run was answered so that it can be used, or nothing is to be made of refusals.
    has_hope: bool,
    faults: Mutex<BTreeMap<FaultKind, u64>>,
    /// Nothing more is to be sent; what is under way is waited for.
    pub(super) stopped: watch::Sender<bool>,
}

impl Tally {
    pub(super) fn new(has_hope: bool) -> Self {
        Self { has_hope, ..Self::default() }
    }

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

    pub(super) fn useless(&self) -> Option<String> {
        self.useless.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn count(&self, kind: FaultKind) {
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

    pub(super) fn faults(&self) -> BTreeMap<&'static str, u64> {
        let faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.iter().map(|(kind, count)| (kind.name(), *count)).collect()
    }
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
    /// Whether what a payer's batch costs is in this budget: its own, and where there are no shards now those of earlier ones.
    pub(super) fn pays(&self, payer: &str) -> bool {
        let is_of_shard = || payer.split_once(SHARD).is_some_and(|(name, _)| name == self.payer);
        payer == self.payer || (!self.is_shard && is_of_shard())
    }

    /// What is wrong with an answer.
    pub(super) fn fault_of(&self, answer: &Request) -> Option<String> {
        (self.fault)(&answer.payload, &answer.response)
    }

    pub(super) fn refuses(&self, words: &str) -> anyhow::Error {
        anyhow!("{} refuses every request: {words}", self.client.endpoint())
    }

    pub(super) fn useless(&self, words: &str) -> anyhow::Error {
        anyhow!("{} answers nothing that can be used: {words}; they are kept", self.client.endpoint())
    }

    pub(super) fn stopped() -> Unanswered {
        ("stopped", "the asking ended before its turn".to_owned())
    }

    /// A request that there is no money left for.
    pub(super) fn left_out(&self) -> Unanswered {
        self.budget.exhaust();
        Self::over_budget()
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
}
