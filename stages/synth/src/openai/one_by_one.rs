//! Requests that are sent one by one, as many at once as the limits allow.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use codepair_runtime::Progress;
use codepair_schemas::rows::Request;
use futures::StreamExt as _;

use super::asker::{Asker, HOPELESS, REFUSED, Tally, Unanswered, again};
use super::budget::Usage;
use super::client::{Fault, FaultKind, Reply, words};
use super::jobs::{Job, Jobs};
use super::ledger::{Ledger, new_sending};

enum Outcome {
    Answered,
    /// All its answers are of no use.
    Unusable(String),
    Unanswered(Unanswered),
}

impl Asker<'_> {
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

    /// After the last try: where no other request was answered meanwhile, the server is gone for all.
    fn give_up(&self, fault: &Fault, tries: u32, alone: bool) -> Result<Unanswered> {
        let words = format!("{} ({} tries)", fault.words, tries + 1);
        if fault.kind == FaultKind::Unreachable && alone {
            return Err(anyhow!("{}: {words}", self.client.endpoint()));
        }
        Ok(("request_failed", words))
    }
}
