//! The ledger: every answer as it came, in the store, keyed by the hash of its request and the attempt at it, shared by all
//! pipelines. No usable answer is paid for twice, whatever crashes or changes afterwards.
//!
//! An answer counts once its file is stored. A thread of its own stores whatever came while it stored the last file, so a
//! slow store makes larger files and not a slower run. Many small files become one when a run ends. Rows may be in several
//! files for a while, and for good where a run was killed: each has an identity, and counts once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use codepair_runtime::{Piece, Spool, Store, sha256};
use codepair_schemas::rows::Request;
use tokio::sync::oneshot;

use super::budget::Usage;
use super::client::answers_nothing;
use super::jobs::Jobs;
use super::ledger_files::{
    BATCH, BATCH_ENDED, FILE_BYTES, FILE_ROWS, LedgerFile, files, is_small, needed_rows, rows_of, text_bytes, write,
};
use super::payer::{Payer, SHARD};

/// So many files of a run become one.
const SMALL_FILES: usize = 16;
/// A row with this status says that a request was about to be sent, and its response what that can cost at most: whoever kept
/// no answer to it may have paid for one.
const SENT: u32 = 0;

/// What the ledger holds about the requests of a run, and where new rows go.
pub(crate) struct Ledger {
    store: Store,
    answers: Mutex<Answers>,
    spent: Spending,
    /// Lines of batches that a shard is done with, while the rest is others'.
    ended_lines: HashSet<String>,
    /// Answers of which nobody knew the payload when they were stored.
    incomplete: HashSet<String>,
    /// Requests that the server refused.
    refused: HashSet<String>,
    /// Batches that hold wanted requests.
    batches: BTreeMap<String, Request>,
    rows: Option<Sender<Entry>>,
    writer: Option<JoinHandle<Vec<String>>>,
    earlier: Vec<String>,
}

/// Answers by request, in the order of the attempts: on disk, for those of a large run do not fit in memory.
struct Answers {
    rows: Spool,
    places: HashMap<String, Vec<(u32, Piece)>>,
}

/// What a payer's rows cost.
#[derive(Default)]
struct Spent {
    answered: Usage,
    /// Sendings of which nothing is known, by their identity.
    open: HashMap<String, Usage>,
    settled: HashSet<String>,
}

impl Spent {
    fn take(&mut self, row: &Request, payer: &Payer) {
        if row.status == SENT {
            let worst = Usage::of_response(&row.response, Usage::default());
            self.open.insert(row.sending.clone(), worst);
            return;
        }
        // A row that is in two files counts once. Those that an older codepair wrote are known by their answer.
        let of_old = || sha256(format!("{}\n{}", row.request, row.response).as_bytes());
        let identity = if row.sending.is_empty() { of_old() } else { row.sending.clone() };
        if self.settled.insert(identity) && row.status == 200 {
            let worst = Usage::worst(&row.payload, payer.answer_tokens);
            self.answered = self.answered.plus(Usage::of_response(&row.response, worst));
        }
    }

    fn sum(&self) -> Usage {
        let lost = self.open.iter().filter(|(sending, _)| !self.settled.contains(*sending));
        lost.fold(self.answered, |sum, (_, worst)| sum.plus(*worst))
    }
}

/// What was spent by a payer: all of it, unless it is a shard.
#[derive(Default)]
struct Spending {
    own: Spent,
    /// By each of the other shards of as many.
    siblings: BTreeMap<String, Spent>,
    /// By whoever asked before: all at once, or in another number of shards.
    before: Spent,
}

impl Spending {
    fn take(&mut self, row: &Request, payer: &Payer) {
        let number = |shard: &str| shard.split_once('/').map(|(_, of)| of.to_owned());
        let whose = match (payer.shard_of(&row.generator), &payer.shard) {
            (None, _) => return,
            (Some(_), None) => &mut self.own,
            (Some(Some(shard)), Some(own)) if shard == own => &mut self.own,
            (Some(Some(shard)), Some(own)) if number(shard) == number(own) => {
                self.siblings.entry(shard.to_owned()).or_default()
            }
            (Some(_), Some(_)) => &mut self.before,
        };
        whose.take(row, payer);
    }
}

/// A row to store, and whom to tell.
type Entry = (Request, oneshot::Sender<Result<(), String>>);

impl Ledger {
    /// Reads what a store's ledger says about `wanted` requests, and what all rows of `payer` cost. A damaged file is an error:
    /// passing it over would pay again.
    pub(crate) fn open(store: &Store, wanted: &HashSet<String>, payer: &Payer) -> Result<Self> {
        let (rows, entries) = channel();
        let to = store.clone();
        let writer = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || write_all(&to, &entries))?;
        let mut ledger = Self {
            store: store.clone(),
            answers: Mutex::new(Answers { rows: Spool::new()?, places: HashMap::new() }),
            spent: Spending::default(),
            ended_lines: HashSet::new(),
            incomplete: HashSet::new(),
            refused: HashSet::new(),
            batches: BTreeMap::new(),
            rows: Some(rows),
            writer: Some(writer),
            earlier: Vec::new(),
        };
        let mut read = HashSet::new();
        // Another run may make one file of several while we read: then these are gone, and their rows in a new one.
        loop {
            let fresh: Vec<LedgerFile> = files(store)?.into_iter().filter(|file| !read.contains(&file.path)).collect();
            if fresh.is_empty() {
                return Ok(ledger);
            }
            for file in fresh {
                if file.may_hold(store, wanted, payer)? {
                    ledger.read(&file.path, wanted, payer)?;
                }
                read.insert(file.path);
            }
        }
    }

    fn read(&mut self, path: &str, wanted: &HashSet<String>, payer: &Payer) -> Result<()> {
        let is_needed = |request: &str, generator: &str, status: u32| {
            matches!(status, BATCH | BATCH_ENDED) || wanted.contains(request) || payer.pays(generator)
        };
        let Some(found) = needed_rows(&self.store, path, is_needed)? else { return Ok(()) };
        if is_small(found.all, found.bytes) {
            self.earlier.push(path.to_owned());
        }
        for row in found.rows {
            if matches!(row.status, BATCH | BATCH_ENDED) {
                self.take_batch(row, wanted);
                continue;
            }
            self.spent.take(&row, payer);
            if wanted.contains(&row.request) {
                self.take(row)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, row: Request) -> Result<()> {
        // What a fault is noted of has no payload.
        if (400..500).contains(&row.status) && !row.payload.is_empty() {
            self.refused.insert(row.request.clone());
        }
        let is_answer = row.status == 200 && answers_nothing(&row.endpoint, &row.payload, &row.response).is_none();
        if !is_answer || self.attempts(&row.request).contains(&row.attempt) {
            return Ok(());
        }
        if row.payload.is_empty() {
            self.incomplete.insert(row.request.clone());
        }
        self.remember(&row)
    }

    /// Whether a sending counts at its worst, for nobody knows what became of it.
    pub(crate) fn is_owed(&self, sending: &str) -> bool {
        self.spent.own.open.contains_key(sending) && !self.spent.own.settled.contains(sending)
    }

    /// What the payer's rows cost in all runs before, lost ones at their worst.
    pub(crate) fn spent(&self) -> Usage {
        let siblings = self.spent_by_siblings().into_iter().fold(Usage::default(), Usage::plus);
        self.spent_by_itself().plus(siblings).plus(self.spent_before())
    }

    /// Of that what this shard spent.
    pub(crate) fn spent_by_itself(&self) -> Usage {
        self.spent.own.sum()
    }

    /// Of that what each of the other shards spent.
    pub(crate) fn spent_by_siblings(&self) -> Vec<Usage> {
        self.spent.siblings.values().map(Spent::sum).collect()
    }

    /// Of that what was spent by others than these shards.
    pub(crate) fn spent_before(&self) -> Usage {
        self.spent.before.sum()
    }

    /// Whether the server refused a request in an earlier run.
    pub(crate) fn was_refused(&self, request: &str) -> bool {
        self.refused.contains(request)
    }

    /// Gives answers their payloads that were stored without.
    pub(crate) fn complete(&mut self, jobs: &Jobs) -> Result<()> {
        let incomplete = std::mem::take(&mut self.incomplete);
        for job in jobs.list().iter().filter(|job| incomplete.contains(&job.key)) {
            let answers = self.all(&job.key)?;
            self.with(|known| known.places.remove(&job.key));
            for answer in answers {
                let payload = if answer.payload.is_empty() { jobs.payload(job)? } else { answer.payload.clone() };
                self.remember(&Request { payload, ..answer })?;
            }
        }
        Ok(())
    }

    /// Of the rows of one batch the one that says most counts, in whatever order they come.
    fn take_batch(&mut self, row: Request, wanted: &HashSet<String>) {
        let keys: Vec<String> = serde_json::from_str(&row.payload).unwrap_or_default();
        if let Some((mark, _)) = row.request.split_once(SHARD) {
            self.ended_lines.extend(keys.iter().map(|key| sending_in_batch(mark, key)));
            return;
        }
        if keys.iter().any(|key| wanted.contains(split_id(key).0)) {
            let says = |row: &Request| (row.status, !row.response.is_empty());
            let known = self.batches.entry(row.request.clone()).or_insert_with(|| row.clone());
            if says(&row) > says(known) {
                *known = row;
            }
        }
    }

    /// Batches that were made, or about to be made, and have not ended as far as the ledger knows.
    pub(crate) fn batches(&self) -> Vec<Request> {
        self.batches.values().filter(|batch| batch.status == BATCH).cloned().collect()
    }

    /// Whether a shard is done with a batch's line.
    pub(crate) fn has_ended(&self, sending: &str) -> bool {
        self.ended_lines.contains(sending)
    }

    /// Stores that a shard is done with its lines of a batch.
    pub(crate) async fn store_ended_lines(&self, mark: &str, payer: &str, lines: &[String], id: &str) -> Result<()> {
        let shard = payer.split_once(SHARD).map_or(payer, |(_, shard)| shard);
        self.store_batch(&format!("{mark}{SHARD}{shard}"), payer, &serde_json::to_string(lines)?, id, true).await
    }

    /// Stores what is known of a batch.
    pub(crate) async fn store_batch(
        &self,
        mark: &str,
        generator: &str,
        keys: &str,
        id: &str,
        has_ended: bool,
    ) -> Result<()> {
        let status = if has_ended { BATCH_ENDED } else { BATCH };
        let (request, generator) = (mark.to_owned(), generator.to_owned());
        let (payload, response) = (keys.to_owned(), id.to_owned());
        self.store(Request { request, generator, payload, status, response, ..Request::default() }).await
    }

    fn with<T>(&self, work: impl FnOnce(&mut Answers) -> T) -> T {
        // Nothing panics while it holds the lock.
        let mut answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(&mut answers)
    }

    /// Which attempts at a request were answered.
    fn attempts(&self, request: &str) -> Vec<u32> {
        self.with(|answers| answers.places.get(request).into_iter().flatten().map(|(attempt, _)| *attempt).collect())
    }

    /// How often a request was answered, usably or not.
    pub(crate) fn answered(&self, request: &str) -> u32 {
        self.attempts(request).len() as u32
    }

    /// Whether a request was answered.
    pub(crate) fn has(&self, request: &str) -> bool {
        self.answered(request) > 0
    }

    /// The answer to a request: that to the last attempt.
    pub(crate) fn find(&self, request: &str) -> Result<Option<Request>> {
        self.with(|answers| {
            let Some((_, place)) = answers.places.get(request).and_then(|places| places.last()) else {
                return Ok(None);
            };
            Ok(Some(serde_json::from_slice(&answers.rows.get(*place)?)?))
        })
    }

    /// The answers to all attempts at a request, in order.
    pub(crate) fn all(&self, request: &str) -> Result<Vec<Request>> {
        self.with(|answers| {
            let places = answers.places.get(request).cloned().unwrap_or_default();
            places.into_iter().map(|(_, place)| Ok(serde_json::from_slice(&answers.rows.get(place)?)?)).collect()
        })
    }

    /// Stores a row, and returns when it is stored.
    pub(crate) async fn store(&self, row: Request) -> Result<()> {
        let (told, stored) = oneshot::channel();
        let ended = || anyhow!("the ledger cannot be written any more");
        self.rows.as_ref().ok_or_else(ended)?.send((row, told)).map_err(|_| ended())?;
        stored.await.map_err(|_| ended())?.map_err(|error| anyhow!("the ledger cannot be written: {error}"))
    }

    /// Stores that a request is about to be sent, and may cost so much. Whatever becomes known of it is stored with the same
    /// `sending`; as long as nothing is, it counts as spent.
    pub(crate) async fn store_sent(&self, request: &str, payer: &str, sending: &str, worst: Usage) -> Result<()> {
        self.store(sent_row(request, payer, sending, worst)).await
    }

    /// Remembers an answer that was stored.
    pub(crate) fn remember(&self, answer: &Request) -> Result<()> {
        let row = serde_json::to_vec(answer)?;
        self.with(|answers| {
            let known = answers.places.get(&answer.request);
            if known.is_some_and(|places| places.iter().any(|(attempt, _)| *attempt == answer.attempt)) {
                return Ok(());
            }
            let place = answers.rows.put(&row)?;
            let places = answers.places.entry(answer.request.clone()).or_default();
            places.push((answer.attempt, place));
            places.sort_by_key(|(attempt, _)| *attempt);
            Ok(())
        })
    }

    /// Ends the writing, and makes one file of many small ones.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.rows = None;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let mut small = std::mem::take(&mut self.earlier);
        small.extend(writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        if small.len() < SMALL_FILES { Ok(()) } else { compact(&self.store, small) }
    }
}

/// A row that says that a request was about to be sent.
pub(crate) fn sent_row(request: &str, payer: &str, sending: &str, worst: Usage) -> Request {
    Request {
        request: request.to_owned(),
        generator: payer.to_owned(),
        status: SENT,
        response: worst.as_response(),
        sending: sending.to_owned(),
        ..Request::default()
    }
}

/// A new identity for a sending.
pub(crate) fn new_sending() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// The identity of a batch's line: whoever stores something of it, and however often, means the same sending.
pub(crate) fn sending_in_batch(mark: &str, id: &str) -> String {
    sha256(format!("{mark}\n{id}").as_bytes())[..32].to_owned()
}

/// How a batch names an attempt at a request.
pub(crate) fn join_id(request: &str, attempt: u32) -> String {
    if attempt == 0 { request.to_owned() } else { format!("{request}.{attempt}") }
}

/// The request and the attempt that a batch names so.
pub(crate) fn split_id(id: &str) -> (&str, u32) {
    let split = id.split_once('.').and_then(|(request, attempt)| Some((request, attempt.parse().ok()?)));
    split.unwrap_or((id, 0))
}

/// Stores entries until there are no more, and returns the files.
fn write_all(store: &Store, entries: &Receiver<Entry>) -> Vec<String> {
    let mut files = Vec::new();
    while let Ok(first) = entries.recv() {
        let (rows, told): (Vec<Request>, Vec<_>) = std::iter::once(first).chain(entries.try_iter()).unzip();
        let written = write(store, rows).map_err(|error| format!("{error:#}"));
        for told in told {
            // Whoever asked may have given up.
            let _ = told.send(written.as_ref().map(|_| ()).map_err(Clone::clone));
        }
        files.extend(written.into_iter().flatten());
    }
    files
}

/// The small files go only once what was in them is stored anew.
fn compact(store: &Store, small: Vec<String>) -> Result<()> {
    let (mut rows, mut gone) = (Vec::new(), Vec::new());
    for path in small {
        if let Some(found) = rows_of(store, &path)? {
            rows.extend(found);
            gone.push(path);
        }
        if rows.len() >= FILE_ROWS || text_bytes(&rows) >= FILE_BYTES {
            write(store, std::mem::take(&mut rows))?;
            store.delete(&std::mem::take(&mut gone))?;
        }
    }
    if gone.len() > 1 {
        write(store, rows)?;
        store.delete(&gone)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::jobs::request_hash;
    use codepair_runtime::block_on;

    fn answer(n: usize) -> Request {
        let request = request_hash("http://x", &n.to_string());
        Request {
            request,
            generator: "p/g".into(),
            payload: n.to_string(),
            status: 200,
            response: format!("{{\"n\": {n}, \"usage\": {{\"prompt_tokens\": 1, \"completion_tokens\": 1}}}}"),
            sending: format!("s{n}"),
            ..Request::default()
        }
    }

    fn wanted(count: usize) -> HashSet<String> {
        (0..count).map(|n| answer(n).request).collect()
    }

    fn open(store: &Store, count: usize) -> Ledger {
        Ledger::open(store, &wanted(count), &Payer { name: "p/g".into(), shard: None, answer_tokens: 5 }).unwrap()
    }

    #[test]
    fn what_is_stored_is_there_although_nobody_closed() {
        let store = Store::memory();
        let ledger = open(&store, 3);
        block_on(async {
            ledger.store(answer(0)).await.unwrap();
            ledger.store(answer(7)).await.unwrap();
        });
        let read = open(&store, 3);
        assert_eq!(read.find(&answer(0).request).unwrap(), Some(answer(0)));
        assert!(!read.has(&answer(1).request));
        assert!(!read.has(&answer(7).request), "nobody asked for it");
        assert_eq!(read.spent().tokens(), 4, "it was paid for all the same");
    }

    #[test]
    fn many_small_files_become_one() {
        let store = Store::memory();
        let mut ledger = open(&store, 0);
        for n in 0..SMALL_FILES + 3 {
            block_on(ledger.store(answer(n))).unwrap();
        }
        assert_eq!(files(&store).unwrap().len(), SMALL_FILES + 3);
        ledger.close().unwrap();
        assert_eq!(files(&store).unwrap().len(), 1);
        assert_eq!(open(&store, SMALL_FILES + 3).with(|a| a.places.len()), SMALL_FILES + 3);
    }

    #[test]
    fn the_last_attempt_counts_and_all_are_kept() {
        let store = Store::memory();
        let ledger = open(&store, 1);
        let again = Request { attempt: 1, response: "{\"n\": 9}".into(), sending: "again".into(), ..answer(0) };
        block_on(async {
            ledger.store(again.clone()).await.unwrap();
            ledger.store(answer(0)).await.unwrap();
        });
        let read = open(&store, 1);
        assert_eq!(read.answered(&answer(0).request), 2);
        assert_eq!(read.find(&answer(0).request).unwrap(), Some(again.clone()));
        assert_eq!(read.all(&answer(0).request).unwrap(), [answer(0), again]);
        assert_eq!((split_id(&join_id("a", 0)), split_id(&join_id("a", 12))), (("a", 0), ("a", 12)));
    }

    #[test]
    fn sendings_count_once_wherever_their_rows_are() {
        let store = Store::memory();
        let mut ledger = open(&store, 3);
        let worst = Usage { input_tokens: 100, output_tokens: 0 };
        block_on(async {
            for (n, sending) in [(0, "s0"), (0, "lost"), (1, "s1"), (2, "unknown")] {
                ledger.store_sent(&answer(n).request, "p/g", sending, worst).await.unwrap();
            }
            ledger.store(answer(0)).await.unwrap();
            ledger.store(Request { status: 429, payload: String::new(), ..answer(1) }).await.unwrap();
            ledger.store_sent(&answer(2).request, "other/g", "of another", worst).await.unwrap();
        });
        ledger.close().unwrap();
        // Two were sent for the one answer; a refusal costs nothing; of the last nothing is known.
        let expected = 2 + 2 * 100;
        assert_eq!(open(&store, 3).spent().tokens(), expected);
        // A compaction that was killed between writing and deleting leaves every row in two files; so do two at once.
        for LedgerFile { path, .. } in files(&store).unwrap() {
            let copy = format!("ledger/{}.parquet", uuid::Uuid::now_v7());
            store.put(&copy, store.get(&path).unwrap()).unwrap();
        }
        let read = open(&store, 3);
        assert_eq!((read.spent().tokens(), read.answered(&answer(0).request)), (expected, 1));
        let mut again = open(&store, 3);
        for n in 10..10 + SMALL_FILES {
            block_on(again.store(answer(n))).unwrap();
        }
        again.close().unwrap();
        assert_eq!(files(&store).unwrap().len(), 1);
        assert_eq!(open(&store, 3).spent().tokens(), expected + 2 * SMALL_FILES as u64);
    }
}
