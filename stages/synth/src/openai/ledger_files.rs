//! The files of the ledger: Parquet with the columns of `requests`, each created once.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context as _, Result, ensure};
use arrow::array::RecordBatch;
use codepair_runtime::{Attempt, Published, Store, integer_column, text_column};
use codepair_schemas::rows::Request;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use serde::{Deserialize, Serialize};

use super::payer::Payer;

const FOLDER: &str = "ledger";
/// Rows of a file that is made of small ones, at most.
pub(super) const FILE_ROWS: usize = 4096;
/// Bytes of text of a file, about; vectors are large.
pub(super) const FILE_BYTES: usize = 64 << 20;

/// Rows with these statuses tell of a batch: made or about to be made, and ended. The payload is a list of requests, the
/// response the batch's id.
pub(super) const BATCH: u32 = 202;
pub(super) const BATCH_ENDED: u32 = 204;
const INDEX: &str = ".index.json";

/// Whether a file is one of those that become one; others have an index beside them.
pub(super) fn is_small(rows: usize, bytes: usize) -> bool {
    rows < FILE_ROWS / 4 && bytes < FILE_BYTES / 4
}

/// A file of the ledger.
#[derive(Debug)]
pub(super) struct LedgerFile {
    pub(super) path: String,
    /// What is in it is said by an object beside it.
    has_index: bool,
}

/// What a large file holds, so that who needs nothing of it does not read it.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// The least and the greatest request: rows are sorted by it.
    first: String,
    last: String,
    /// Whose rows they are.
    generators: BTreeSet<String>,
    /// Rows that say what became of a batch, which everybody needs.
    has_batches: bool,
}

impl LedgerFile {
    /// Whether a row may be needed: a wanted request's, the payer's, or a batch's.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn may_hold(&self, store: &Store, wanted: &HashSet<String>, payer: &Payer) -> Result<bool> {
        if !self.has_index {
            return Ok(true);
        }
        let bytes = store.find(&index_of(&self.path))?;
        let Some(index) = bytes.and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok()) else { return Ok(true) };
        let range = index.first.as_str()..=index.last.as_str();
        Ok(index.has_batches
            || index.generators.iter().any(|generator| payer.pays(generator))
            || wanted.iter().any(|request| range.contains(&request.as_str())))
    }
}

/// The object that says what is in a file.
fn index_of(path: &str) -> String {
    path.replace(".parquet", INDEX)
}

/// The files of a store's ledger.
pub(super) fn files(store: &Store) -> Result<Vec<LedgerFile>> {
    let all: Vec<String> = store.list(FOLDER)?.into_iter().map(|(path, _)| path).collect();
    let indexes: HashSet<&String> = all.iter().filter(|path| path.ends_with(INDEX)).collect();
    let files = all.iter().filter(|path| path.ends_with(".parquet"));
    Ok(files.map(|path| LedgerFile { has_index: indexes.contains(&index_of(path)), path: path.clone() }).collect())
}

/// What is needed of a file.
pub(super) struct Needed {
    pub(super) rows: Vec<Request>,
    /// Rows of the whole file.
    pub(super) all: usize,
    /// Bytes of the whole file.
    pub(super) bytes: usize,
}

/// The rows for which `is_needed` holds of request, generator and status; of others the long columns are not read. Nothing
/// where the file is gone.
///
/// # Errors
/// It is damaged.
pub(super) fn needed_rows(
    store: &Store,
    path: &str,
    is_needed: impl Fn(&str, &str, u32) -> bool,
) -> Result<Option<Needed>> {
    let Some(bytes) = store.find(path)? else { return Ok(None) };
    let read = || -> Result<Needed> {
        let (mut all, mut needed) = (0, Vec::new());
        let head = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
        let mask = ProjectionMask::columns(head.parquet_schema(), ["request", "generator", "status"]);
        for batch in head.with_projection(mask).build()? {
            let batch = batch?;
            let (requests, generators) = (text_column(&batch, "request")?, text_column(&batch, "generator")?);
            for (row, status) in integer_column(&batch, "status")?.into_iter().enumerate() {
                if is_needed(requests.value(row), generators.value(row), status as u32) {
                    needed.push(all + row..all + row + 1);
                }
            }
            all += batch.num_rows();
        }
        let mut rows = Vec::new();
        if !needed.is_empty() {
            let selection = RowSelection::from_consecutive_ranges(needed.into_iter(), all);
            for batch in
                ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?.with_row_selection(selection).build()?
            {
                rows.extend(requests(&batch?)?);
            }
        }
        Ok(Needed { rows, all, bytes: bytes.len() })
    };
    // What reads a damaged file may panic as well as fail.
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    read.unwrap_or_else(|_| Err(anyhow::anyhow!("it cannot be read"))).map(Some).with_context(|| {
        let place = format!("{}/{path}", store.url());
        format!("{place} of the ledger is damaged; put it back from a copy, or delete it, and what it held is paid for again")
    })
}

/// All rows of a file; nothing where it is gone.
pub(super) fn rows_of(store: &Store, path: &str) -> Result<Option<Vec<Request>>> {
    Ok(needed_rows(store, path, |_, _, _| true)?.map(|found| found.rows))
}

fn requests(batch: &RecordBatch) -> Result<Vec<Request>> {
    let column = |name| text_column(batch, name);
    let (requests, generators, endpoints) = (column("request")?, column("generator")?, column("endpoint")?);
    let (payloads, responses) = (column("payload")?, column("response")?);
    // Files of an older codepair lack these.
    let sendings = column("sending").ok();
    let attempts = integer_column(batch, "attempt").ok();
    let statuses = integer_column(batch, "status")?;
    let request = |row: usize| Request {
        request: requests.value(row).to_owned(),
        attempt: attempts.as_ref().map_or(0, |attempts| attempts[row] as u32),
        generator: generators.value(row).to_owned(),
        endpoint: endpoints.value(row).to_owned(),
        payload: payloads.value(row).to_owned(),
        status: statuses[row] as u32,
        response: responses.value(row).to_owned(),
        sending: sendings.map_or_else(String::new, |sendings| sendings.value(row).to_owned()),
    };
    Ok((0..batch.num_rows()).map(request).collect())
}

/// Bytes of text of rows.
pub(super) fn text_bytes(rows: &[Request]) -> usize {
    rows.iter().map(|row| row.payload.len() + row.response.len()).sum()
}

/// Writes rows, those that are equal once, into as many files as their size asks for, and returns these.
pub(super) fn write(store: &Store, mut rows: Vec<Request>) -> Result<Vec<String>> {
    rows.sort_by(|a, b| {
        (&a.request, a.attempt, &a.sending, a.status).cmp(&(&b.request, b.attempt, &b.sending, b.status))
    });
    rows.dedup();
    let (mut files, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut store_part = |part: Vec<Request>| -> Result<()> {
        let path = format!("{FOLDER}/{}.parquet", uuid::Uuid::now_v7());
        let (index, rows) = (index(&part), part.len());
        let content = as_parquet(part)?;
        let index = index.filter(|_| !is_small(rows, content.len()));
        store.put_new(&path, content)?;
        if let Some(index) = index {
            store.put(&index_of(&path), serde_json::to_vec(&index)?)?;
        }
        files.push(path);
        Ok(())
    };
    for row in rows {
        let size = text_bytes(std::slice::from_ref(&row));
        if bytes + size > FILE_BYTES && !part.is_empty() {
            store_part(std::mem::take(&mut part))?;
            bytes = 0;
        }
        bytes += size;
        part.push(row);
    }
    if !part.is_empty() {
        store_part(part)?;
    }
    Ok(files)
}

fn index(rows: &[Request]) -> Option<Index> {
    let (first, last) = (rows.first()?.request.clone(), rows.last()?.request.clone());
    let generators = rows.iter().map(|row| row.generator.clone()).collect();
    let has_batches = rows.iter().any(|row| matches!(row.status, BATCH | BATCH_ENDED));
    Some(Index { first, last, generators, has_batches })
}

/// One Parquet file with the columns of `requests`, made as artifacts are, in memory.
fn as_parquet(rows: Vec<Request>) -> Result<bytes::Bytes> {
    let (memory, count) = (Store::memory(), rows.len() as u64);
    let mut attempt = Attempt::new(&memory, "ledger", "ledger");
    attempt.write_rows(rows)?;
    let (Published::Ours(manifest) | Published::Theirs(manifest)) = attempt.publish(|_| {})?;
    let parts: BTreeSet<&str> = manifest.files("requests").map(|output| output.path.as_str()).collect();
    ensure!(
        parts.len() == 1 && manifest.rows("requests") == count,
        "{count} rows of the ledger became {} files with {} rows; nothing is stored",
        parts.len(),
        manifest.rows("requests")
    );
    manifest.read(&memory, &manifest.outputs[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize, bytes: usize) -> Request {
        let mut state = n as u64 + 1;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b' ' + (state >> 33) as u8 % 90)
        };
        let response = (0..bytes).map(|_| noise()).collect();
        Request { request: format!("{n:04}"), status: 200, response, ..Request::default() }
    }

    /// Two hundred megabytes of answers that do not compress: nothing is left over.
    #[test]
    fn what_does_not_fit_one_file_becomes_several() {
        let store = Store::memory();
        let written = write(&store, (0..200).map(|n| row(n, 1 << 20)).collect()).unwrap();
        assert!(written.len() >= 4, "{written:?}");
        let mut found: Vec<Request> = Vec::new();
        for file in files(&store).unwrap() {
            found.extend(rows_of(&store, &file.path).unwrap().unwrap());
        }
        // Of the large files only that is read which a request is in, and by who paid for them all; the last one is small.
        let holding = |request: &str, payer: &str| {
            let wanted = HashSet::from([request.to_owned()]);
            let payer = Payer { name: payer.to_owned(), shard: None, answer_tokens: 0 };
            files(&store).unwrap().iter().filter(|file| file.may_hold(&store, &wanted, &payer).unwrap()).count()
        };
        assert_eq!((holding("0117", "other"), holding("9", "other"), holding("9", "")), (2, 1, written.len()));
        found.sort_by(|a, b| a.request.cmp(&b.request));
        assert_eq!(found.len(), 200);
        assert!(found.iter().enumerate().all(|(n, found)| found.request == format!("{n:04}")));
        assert!(found[117] == row(117, 1 << 20));
    }

    #[test]
    fn damaged_files_are_named() {
        let store = Store::memory();
        let path = write(&store, vec![row(1, 1000), row(1, 1000), row(2, 9)]).unwrap().remove(0);
        assert_eq!(rows_of(&store, &path).unwrap().unwrap().len(), 2, "equal rows are one");
        let needed = needed_rows(&store, &path, |request, _, _| request == "0002").unwrap().unwrap();
        assert_eq!((needed.rows, needed.all), (vec![row(2, 9)], 2));
        let whole = store.get(&path).unwrap();
        store.put(&path, whole.slice(..whole.len() / 2)).unwrap();
        let error = format!("{:#}", rows_of(&store, &path).unwrap_err());
        assert!(error.contains(&path) && error.contains("paid for again"), "{error}");
        assert!(rows_of(&store, "ledger/none.parquet").unwrap().is_none());
    }
}
