//! All requests of a generator: each is sent until it is answered, refused or given up, within the limits and the budget.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use codepair_runtime::{Context, Interrupt, Progress, block_on};
use serde_json::{Value, json};

use super::asker::{Asker, FaultOf, REFUSED, Tally, Unanswered};
use super::batches::Asking;
use super::budget::Usage;
use super::client::Client;
use super::jobs::{Job, Jobs};
use super::lease::Lease;
use super::ledger::Ledger;
use super::payer::Payer;
use super::server::{Server, Spent};

/// How long an interrupted run waits for what is under way.
const DRAIN: Duration = Duration::from_secs(60);

/// Notes by name.
pub(crate) type Summary = Vec<(&'static str, Value)>;

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
    /// Several shards may want the same of these requests.
    pub(crate) may_be_shared: bool,
    /// That some requests are refused, or answered with nothing that can be used, says nothing of the others.
    pub(crate) is_patient: bool,
}

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
    let shard = (!context.shard.is_all()).then(|| context.shard.to_string());
    Payer { name: format!("{}/{generator}", context.config.name()), shard, answer_tokens }
}

/// What a generator spent in all runs so far, for the manifest: several shards spent it together.
///
/// # Errors
/// The ledger cannot be read.
pub(crate) fn spending(context: &Context, generator: &str, server: &Server, answer_tokens: u32) -> Result<Summary> {
    let payer = payer(context, generator, answer_tokens);
    let spent = Ledger::open(&context.store, &HashSet::new(), &payer)?.spent();
    Ok(spent_notes(spent, spent.cost(server.price)).into())
}

fn spent_notes(spent: Usage, dollars: f64) -> [(&'static str, Value); 3] {
    [
        ("input_tokens", spent.input_tokens.into()),
        ("output_tokens", spent.output_tokens.into()),
        ("cost_dollars", dollars.into()),
    ]
}

/// Has all requests answered that the ledger of the store does not hold yet, each once. What was answered is in the ledger,
/// also where this ends with an error.
///
/// # Errors
/// The server cannot be reached at all, or wants another key or path, or refuses or fails to answer whatever it is asked: no
/// request would fare better. The process was asked to end.
pub(crate) fn ask(asked: &Asked, client: Client) -> Result<Answers> {
    let Asked { context, generator, server, jobs, answer_tokens, fault, is_patient, .. } = *asked;
    let payer = payer(context, generator, answer_tokens);
    let mut ledger = Ledger::open(&context.store, &jobs.keys(), &payer)?;
    ledger.complete(jobs)?;
    let mut leases = Vec::new();
    // Where nothing is open nobody has to wait. What another run was answered meanwhile is not asked again.
    if !Open::new(&ledger, jobs, server.attempts, fault)?.jobs.is_empty() {
        server.check_key()?;
        // Those who wait for each other take them in the same order.
        let mut wanted = Vec::new();
        let of_run = format!("{} in {} shards", context.attempt.fingerprint(), context.shard.of);
        let group = (!context.shard.is_all()).then_some(of_run.as_str());
        if group.is_some() {
            wanted.push((format!("the shard {} of {} {of_run}", context.shard, payer.name), None));
        }
        if group.is_some() && asked.may_be_shared {
            // One shard after another: what one was answered another need not ask.
            wanted.push((format!("what shards of {} ask alike", payer.name), None));
        }
        if server.is_limited() {
            wanted.push((format!("what {} may spend", payer.name), group));
        }
        wanted.push((format!("{} for {}", client.endpoint(), server.model), group));
        for (what, group) in wanted {
            leases.push(Lease::take(&context.store, &what, group, &context.interrupt)?);
        }
        ledger = Ledger::open(&context.store, &jobs.keys(), &payer)?;
        ledger.complete(jobs)?;
    }
    let asker = Asker {
        generator,
        is_patient,
        is_shard: !context.shard.is_all(),
        budget: server.budget(&Spent {
            own: ledger.spent_by_itself(),
            siblings: ledger.spent_by_siblings(),
            before: ledger.spent_before(),
            shards: context.shard.of,
        }),
        payer: payer.own_name(),
        client,
        limits: server.limits(context.shard.of),
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

impl Asker<'_> {
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
        let tally = Tally::new(is_any_usable || self.is_patient);
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
        ]
        .into_iter()
        .chain(spent_notes(spent, self.budget.cost()))
        .collect()
    }
}
