//! The ledger: every answer as it came, in the store, keyed by the hash of its request, shared by all pipelines. No
//! request is paid for twice, whatever crashes or changes afterwards.
//!
//! An answer counts once its file is stored. A thread of its own stores whatever came while it stored the last file, so a
//! slow store makes larger files and not a slower run. Many small files become one when a run ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use codepair_runtime::{Attempt, Place, Published, Spool, Store, integer_column, sha256, text_column};
use codepair_schemas::rows::Request;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::oneshot;

use super::jobs::Jobs;

const FOLDER: &str = "ledger";
/// So many files of a run become one.
const SMALL_FILES: usize = 16;
/// Rows of a file that is made of small ones, at most.
const FILE_ROWS: usize = 4096;
/// Bytes of text of such a file, about; vectors are large.
const FILE_BYTES: usize = 64 << 20;
/// Rows with these statuses tell of a batch: made or about to be made, and ended. The payload is a list of requests, the
/// response the batch's id.
const BATCH: u32 = 202;
const BATCH_ENDED: u32 = 204;
/// A row with this status says that a request was about to be sent: whoever kept no answer to it may have paid for one.
const SENT: u32 = 0;

/// The hash that keys a request.
pub(crate) fn request_hash(endpoint: &str, payload: &str) -> String {
    sha256(format!("{endpoint}\n{payload}").as_bytes())
}

/// What the ledger holds about the requests of a run, and where new rows go.
pub(crate) struct Ledger {
    store: Store,
    answers: Mutex<Answers>,
    /// Times a request was sent and nothing came of it that is known.
    unsettled: HashMap<String, i64>,
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

/// Answers by request: on disk, for those of a large run do not fit in memory.
struct Answers {
    rows: Spool,
    places: HashMap<String, Place>,
}

/// A row to store, and whom to tell.
type Entry = (Request, oneshot::Sender<Result<(), String>>);

impl Ledger {
    /// Reads what a store's ledger says about `wanted` requests. A damaged file is an error: passing it over would pay
    /// again.
    pub(crate) fn open(store: &Store, wanted: &HashSet<String>) -> Result<Self> {
        let (rows, entries) = channel();
        let to = store.clone();
        let writer = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || write_all(&to, &entries))?;
        let mut ledger = Self {
            store: store.clone(),
            answers: Mutex::new(Answers { rows: Spool::new()?, places: HashMap::new() }),
            unsettled: HashMap::new(),
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
            let fresh: Vec<String> = files(store)?.into_iter().filter(|path| !read.contains(path)).collect();
            if fresh.is_empty() {
                return Ok(ledger);
            }
            for path in fresh {
                if let Some(bytes) = store.find(&path)? {
                    let rows = parse(bytes)?;
                    if rows.len() < FILE_ROWS / 4 && text_bytes(&rows) < FILE_BYTES / 4 {
                        ledger.earlier.push(path.clone());
                    }
                    for row in rows {
                        if matches!(row.status, BATCH | BATCH_ENDED) {
                            ledger.take_batch(row, wanted);
                        } else if wanted.contains(&row.request) {
                            ledger.take(row)?;
                        }
                    }
                }
                read.insert(path);
            }
        }
    }

    fn take(&mut self, row: Request) -> Result<()> {
        let has = self.has(&row.request);
        if row.status == 200 && row.payload.is_empty() && !has {
            self.incomplete.insert(row.request.clone());
        }
        // What a fault is noted of has no payload.
        if (400..500).contains(&row.status) && !row.payload.is_empty() {
            self.refused.insert(row.request.clone());
        }
        let sent = self.unsettled.entry(row.request.clone()).or_default();
        match row.status {
            SENT => *sent += 1,
            200 if has => {}
            200 => self.remember(&row)?,
            _ => *sent -= 1,
        }
        Ok(())
    }

    /// Whether the server refused a request in an earlier run.
    pub(crate) fn was_refused(&self, request: &str) -> bool {
        self.refused.contains(request)
    }

    /// Gives answers their payloads that were stored without.
    pub(crate) fn complete(&mut self, jobs: &Jobs) -> Result<()> {
        let incomplete = std::mem::take(&mut self.incomplete);
        for job in jobs.list().iter().filter(|job| incomplete.contains(&job.key)) {
            if let Some(answer) = self.find(&job.key)? {
                self.remember(&Request { payload: jobs.payload(job)?, ..answer })?;
            }
        }
        Ok(())
    }

    /// Of the rows of one batch the one that says most counts, in whatever order they come.
    fn take_batch(&mut self, row: Request, wanted: &HashSet<String>) {
        let keys: Vec<String> = serde_json::from_str(&row.payload).unwrap_or_default();
        if keys.iter().any(|key| wanted.contains(key)) {
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

    /// Whether a request was answered.
    pub(crate) fn has(&self, request: &str) -> bool {
        self.with(|answers| answers.places.contains_key(request))
    }

    /// The answer to a request.
    pub(crate) fn find(&self, request: &str) -> Result<Option<Request>> {
        self.with(|answers| {
            let Some(place) = answers.places.get(request) else { return Ok(None) };
            Ok(Some(serde_json::from_slice(&answers.rows.get(*place)?)?))
        })
    }

    /// How often a request was sent, by runs that were killed, without an answer being kept.
    pub(crate) fn lost(&self, request: &str) -> u64 {
        let sent = self.unsettled.get(request).copied().unwrap_or(0);
        u64::try_from(sent - i64::from(self.has(request))).unwrap_or(0)
    }

    /// Stores a row, and returns when it is stored.
    pub(crate) async fn store(&self, row: Request) -> Result<()> {
        let (told, stored) = oneshot::channel();
        let ended = || anyhow!("the ledger cannot be written any more");
        self.rows.as_ref().ok_or_else(ended)?.send((row, told)).map_err(|_| ended())?;
        stored.await.map_err(|_| ended())?.map_err(|error| anyhow!("the ledger cannot be written: {error}"))
    }

    /// Stores that a request is about to be sent.
    pub(crate) async fn store_sent(&self, request: &str, generator: &str) -> Result<()> {
        let (request, generator) = (request.to_owned(), generator.to_owned());
        self.store(Request { request, generator, status: SENT, ..Request::default() }).await
    }

    /// Remembers an answer that was stored.
    pub(crate) fn remember(&self, answer: &Request) -> Result<()> {
        let row = serde_json::to_vec(answer)?;
        self.with(|answers| {
            let place = answers.rows.put(&row)?;
            answers.places.insert(answer.request.clone(), place);
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

fn files(store: &Store) -> Result<Vec<String>> {
    let files = store.list(FOLDER)?.into_iter().map(|(path, _)| path);
    Ok(files.filter(|path| path.ends_with(".parquet")).collect())
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
        files.extend(written);
    }
    files
}

fn write(store: &Store, mut rows: Vec<Request>) -> Result<String> {
    rows.sort_by(|a, b| a.request.cmp(&b.request));
    let path = format!("{FOLDER}/{}.parquet", uuid::Uuid::now_v7());
    store.put_new(&path, as_parquet(rows)?)?;
    Ok(path)
}

/// The small files go only once what was in them is stored anew.
fn compact(store: &Store, small: Vec<String>) -> Result<()> {
    let (mut rows, mut gone) = (Vec::new(), Vec::new());
    for path in small {
        if let Some(bytes) = store.find(&path)? {
            rows.extend(parse(bytes)?);
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

fn text_bytes(rows: &[Request]) -> usize {
    rows.iter().map(|row| row.payload.len() + row.response.len()).sum()
}

/// One Parquet file with the columns of `requests`, made as artifacts are, in memory.
fn as_parquet(rows: Vec<Request>) -> Result<bytes::Bytes> {
    let memory = Store::memory();
    let mut attempt = Attempt::new(&memory, "ledger", "ledger");
    attempt.write_rows(rows)?;
    let (Published::Ours(manifest) | Published::Theirs(manifest)) = attempt.publish(|_| {})?;
    manifest.read(&memory, &manifest.outputs[0])
}

fn parse(bytes: bytes::Bytes) -> Result<Vec<Request>> {
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        let batch = batch?;
        let column = |name| text_column(&batch, name);
        let (requests, generators, endpoints) = (column("request")?, column("generator")?, column("endpoint")?);
        let (payloads, responses) = (column("payload")?, column("response")?);
        for (row, status) in integer_column(&batch, "status")?.into_iter().enumerate() {
            rows.push(Request {
                request: requests.value(row).to_owned(),
                generator: generators.value(row).to_owned(),
                endpoint: endpoints.value(row).to_owned(),
                payload: payloads.value(row).to_owned(),
                status: status as u32,
                response: responses.value(row).to_owned(),
            });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_runtime::block_on;

    fn answer(n: usize) -> Request {
        let request = request_hash("http://x", &n.to_string());
        Request {
            request,
            payload: n.to_string(),
            status: 200,
            response: format!("{{\"n\": {n}}}"),
            ..Request::default()
        }
    }

    fn wanted(count: usize) -> HashSet<String> {
        (0..count).map(|n| answer(n).request).collect()
    }

    #[test]
    fn what_is_stored_is_there_although_nobody_closed() {
        let store = Store::memory();
        let ledger = Ledger::open(&store, &wanted(3)).unwrap();
        block_on(async {
            ledger.store(answer(0)).await.unwrap();
            ledger.store(answer(7)).await.unwrap();
        });
        let read = Ledger::open(&store, &wanted(3)).unwrap();
        assert_eq!(read.find(&answer(0).request).unwrap(), Some(answer(0)));
        assert!(!read.has(&answer(1).request));
        assert!(!read.has(&answer(7).request), "nobody asked for it");
    }

    #[test]
    fn many_small_files_become_one() {
        let store = Store::memory();
        let mut ledger = Ledger::open(&store, &wanted(0)).unwrap();
        for n in 0..SMALL_FILES + 3 {
            block_on(ledger.store(answer(n))).unwrap();
        }
        assert_eq!(files(&store).unwrap().len(), SMALL_FILES + 3);
        ledger.close().unwrap();
        assert_eq!(files(&store).unwrap().len(), 1);
        assert_eq!(Ledger::open(&store, &wanted(SMALL_FILES + 3)).unwrap().with(|a| a.places.len()), SMALL_FILES + 3);
    }

    #[test]
    fn requests_of_a_killed_run_are_counted() {
        let store = Store::memory();
        let mut ledger = Ledger::open(&store, &wanted(3)).unwrap();
        block_on(async {
            for n in [0, 0, 1, 2] {
                ledger.store_sent(&answer(n).request, "g").await.unwrap();
            }
            ledger.store(answer(0)).await.unwrap();
            ledger.store(Request { status: 429, ..answer(1) }).await.unwrap();
        });
        ledger.close().unwrap();
        let lost = || {
            let read = Ledger::open(&store, &wanted(3)).unwrap();
            [0, 1, 2].map(|n| read.lost(&answer(n).request))
        };
        // Two were sent for the one answer; a refusal costs nothing; of the last nothing is known.
        assert_eq!(lost(), [1, 0, 1]);
        // In whatever order files are read that were made one of many.
        let mut again = Ledger::open(&store, &wanted(3)).unwrap();
        for n in 10..10 + SMALL_FILES {
            block_on(again.store(answer(n))).unwrap();
        }
        again.close().unwrap();
        assert_eq!((files(&store).unwrap().len(), lost()), (1, [1, 0, 1]));
        let read = Ledger::open(&store, &wanted(3)).unwrap();
        assert!(!read.has(&answer(1).request));
    }
}
