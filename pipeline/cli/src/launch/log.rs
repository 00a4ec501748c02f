//! Logs of running steps, in the store as they grow: in numbered parts, for objects are only ever created.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use codepair_runtime::{Plan, Store, run_folder};

use crate::binaries::error_of;

/// What a step says is in the store after so long; of a step that runs for long after a sixtieth of its time, for each part is
/// an object to be read again.
const STORE_EVERY: Duration = Duration::from_secs(5);
const STORE_SELDOM: Duration = Duration::from_secs(300);

/// Stores the logs of a run, on a thread of its own: a slow store holds up no step.
pub(crate) struct Logs {
    folder: String,
    parts: Option<Sender<(String, String)>>,
    thread: Option<JoinHandle<()>>,
}

impl Logs {
    pub(crate) fn new(store: &Store, plan: &Plan) -> Self {
        Self::in_folder(store, &folder(&plan.pipeline, &plan.run))
    }

    pub(crate) fn in_folder(store: &Store, folder: &str) -> Self {
        let (parts, todo) = channel::<(String, String)>();
        let store = store.clone();
        let thread = std::thread::spawn(move || {
            for (path, text) in todo {
                if let Err(error) = store.put(&path, text) {
                    tracing::warn!("a part of a log could not be stored: {error:#}");
                }
            }
        });
        Self { folder: folder.to_owned(), parts: Some(parts), thread: Some(thread) }
    }

    /// The log of a step that begins.
    pub(crate) fn begin(&self, step: &str) -> Log {
        Log {
            folder: format!("{}/{}", self.folder, file_name(step)),
            text: String::new(),
            stored: 0,
            parts: 0,
            // The first line is stored at once: whoever asks for the log is to see that it has begun.
            stored_at: Instant::now().checked_sub(STORE_EVERY).unwrap_or_else(Instant::now),
            began: Instant::now(),
            to: self.parts.clone(),
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.parts = None;
        // What is left is stored before the run ends.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What a step said.
pub(crate) struct Log {
    folder: String,
    text: String,
    /// Bytes that are in the store, or on their way.
    stored: usize,
    parts: usize,
    stored_at: Instant,
    began: Instant,
    to: Option<Sender<(String, String)>>,
}

impl Log {
    pub(crate) fn add(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Stores what is new where the last time was some seconds ago.
    pub(crate) fn store_now_and_then(&mut self) {
        if self.stored_at.elapsed() >= (self.began.elapsed() / 60).clamp(STORE_EVERY, STORE_SELDOM) {
            self.store();
        }
    }

    pub(crate) fn store(&mut self) {
        self.stored_at = Instant::now();
        let new = &self.text[self.stored..];
        if let (false, Some(to)) = (new.is_empty(), &self.to) {
            // The thread ends after all logs have.
            let _ = to.send((format!("{}/{:06}.log", self.folder, self.parts), new.to_owned()));
            self.stored = self.text.len();
            self.parts += 1;
        }
    }

    /// The last error in it.
    pub(crate) fn error(&self) -> String {
        error_of(&self.text)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.store();
    }
}

fn folder(pipeline: &str, run: &str) -> String {
    format!("{}/logs", run_folder(pipeline, run))
}

fn file_name(step: &str) -> String {
    step.replace(':', "-")
}

/// A step's log of a run, as far as it is there.
pub(crate) fn read(store: &Store, pipeline: &str, run: &str, step: &str) -> Result<Option<String>> {
    let folder = format!("{}/{}", folder(pipeline, run), file_name(step));
    let mut log: Option<String> = None;
    for (path, _) in store.list(&folder)? {
        log.get_or_insert_default().push_str(&String::from_utf8_lossy(&store.get(&path)?));
    }
    // Runs before parts were numbered stored one file when the step had ended.
    let Some(whole) = store.find(&format!("{folder}.log"))?.filter(|_| log.is_none()) else { return Ok(log) };
    Ok(Some(String::from_utf8_lossy(&whole).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_can_be_read_while_it_grows() {
        let store = Store::memory();
        let logs = Logs::in_folder(&store, "runs/p/r/logs");
        let mut log = logs.begin("train:a");
        let read = || read(&store, "p", "r", "train:a").unwrap();
        log.add("one");
        assert_eq!(read(), None);
        log.store();
        let since = Instant::now();
        while read().is_none() && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(read().as_deref(), Some("one\n"));
        log.add("ERROR two");
        assert_eq!(log.error(), "ERROR two");
        drop(log);
        drop(logs);
        assert_eq!(read().as_deref(), Some("one\nERROR two\n"));
        assert_eq!(super::read(&store, "p", "r", "train").unwrap(), None);
        store.put("runs/p/r/logs/report.log", "of an older codepair").unwrap();
        assert_eq!(super::read(&store, "p", "r", "report").unwrap().as_deref(), Some("of an older codepair"));
    }
}
