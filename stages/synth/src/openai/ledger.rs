//! The ledger: every answer as it came, in the store, keyed by the hash of its request, shared by all pipelines. No
//! request is paid for twice, whatever crashes or changes afterwards.

use std::collections::HashMap;

use anyhow::Result;
use codepair_runtime::{Attempt, Published, Store, sha256, text_column};
use codepair_schemas::rows::Request;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const FOLDER: &str = "ledger";
/// Answers that are written at once.
const BATCH: usize = 16;

/// The hash that keys a request.
pub(crate) fn request_hash(endpoint: &str, payload: &str) -> String {
    sha256(format!("{endpoint}\n{payload}").as_bytes())
}

/// Answers by request, and those not yet written.
pub(crate) struct Ledger {
    store: Store,
    answers: HashMap<String, Request>,
    unwritten: Vec<String>,
}

impl Ledger {
    /// Reads the ledger of a store. A damaged file is an error: passing it over would pay again.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        let mut answers = HashMap::new();
        for (path, _) in store.list(FOLDER)?.into_iter().filter(|(path, _)| path.ends_with(".parquet")) {
            for batch in ParquetRecordBatchReaderBuilder::try_new(store.get(&path)?)?.build()? {
                read_rows(&batch?, &mut answers)?;
            }
        }
        Ok(Self { store: store.clone(), answers, unwritten: Vec::new() })
    }

    pub(crate) fn find(&self, request: &str) -> Option<&Request> {
        self.answers.get(request)
    }

    /// Adds an answer; every few answers they are written.
    pub(crate) fn add(&mut self, answer: Request) -> Result<()> {
        self.unwritten.push(answer.request.clone());
        self.answers.insert(answer.request.clone(), answer);
        if self.unwritten.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Writes what is not yet written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        self.unwritten.sort();
        let rows: Vec<Request> = self.unwritten.iter().filter_map(|key| self.answers.get(key)).cloned().collect();
        let bytes = as_parquet(&rows)?;
        self.store.put_new(&format!("{FOLDER}/{}.parquet", uuid::Uuid::now_v7()), bytes)?;
        self.unwritten.clear();
        Ok(())
    }
}

/// One Parquet file with the columns of `requests`, made as artifacts are, in memory.
fn as_parquet(rows: &[Request]) -> Result<bytes::Bytes> {
    let memory = Store::memory();
    let mut attempt = Attempt::new(&memory, "ledger", "ledger");
    attempt.write_rows(rows.iter().cloned())?;
    let (Published::Ours(manifest) | Published::Theirs(manifest)) = attempt.publish(|_| {})?;
    manifest.read(&memory, &manifest.outputs[0])
}

fn read_rows(batch: &arrow::array::RecordBatch, answers: &mut HashMap<String, Request>) -> Result<()> {
    let column = |name| text_column(batch, name);
    let (requests, generators, endpoints) = (column("request")?, column("generator")?, column("endpoint")?);
    let (payloads, responses) = (column("payload")?, column("response")?);
    let statuses = codepair_runtime::integer_column(batch, "status")?;
    for (row, status) in statuses.into_iter().enumerate() {
        answers.insert(
            requests.value(row).to_owned(),
            Request {
                request: requests.value(row).to_owned(),
                generator: generators.value(row).to_owned(),
                endpoint: endpoints.value(row).to_owned(),
                payload: payloads.value(row).to_owned(),
                status: status as u32,
                response: responses.value(row).to_owned(),
            },
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back() {
        let store = Store::memory();
        let mut ledger = Ledger::open(&store).unwrap();
        let answer = |n: usize| Request {
            request: request_hash("http://x", &n.to_string()),
            payload: n.to_string(),
            status: 200,
            response: format!("{{\"n\": {n}}}"),
            ..Request::default()
        };
        (0..BATCH + 3).for_each(|n| ledger.add(answer(n)).unwrap());
        // What is whole is there although nobody flushed.
        assert_eq!(Ledger::open(&store).unwrap().answers.len(), BATCH);
        ledger.flush().unwrap();
        let read = Ledger::open(&store).unwrap();
        assert_eq!(read.answers.len(), BATCH + 3);
        assert_eq!(read.find(&answer(18).request), Some(&answer(18)));
    }
}
