//! What a run is at, kept fresh in the store while it goes on: others can see that it lives.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use codepair_runtime::{Plan, Store, plans, run_folder};
use serde::{Deserialize, Serialize};

const EVERY: Duration = Duration::from_secs(15);
/// Seconds after which one that was not renewed is a dead run's. The clock is the reader's, which may differ from the store's.
const STALE: i64 = 60;
/// So many of the newest runs are looked at for others that go on.
const LOOKED_AT: usize = 8;

/// The content of the object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub(crate) host: String,
    pub(crate) process: u32,
    pub(crate) since: jiff::Timestamp,
    /// The steps that run now.
    pub(crate) steps: Vec<String>,
    /// The fingerprints of all that it is to make.
    pub(crate) makes: Vec<String>,
}

fn path(pipeline: &str, run: &str) -> String {
    format!("{}/running.json", run_folder(pipeline, run))
}

/// Tells the store what a run is at, until it is dropped: on a thread of its own, for a slow store holds up no step.
pub(crate) struct Beating {
    steps: Option<Sender<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Beating {
    /// The first is stored at once: of two runs that begin together one sees the other.
    pub(crate) fn begin(store: &Store, plan: &Plan, steps: &[usize], host: String) -> Self {
        let makes = steps.iter().map(|step| plan.steps[*step].fingerprint.clone()).collect();
        let path = path(&plan.pipeline, &plan.run);
        let store = store.clone();
        let (steps, news) = channel::<Vec<String>>();
        let since = jiff::Timestamp::now();
        let mut beat = Beat { host, process: std::process::id(), since, steps: Vec::new(), makes };
        put(&store, &path, &beat);
        let thread = std::thread::spawn(move || {
            loop {
                match news.recv_timeout(EVERY) {
                    Ok(steps) => beat.steps = steps,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                put(&store, &path, &beat);
            }
            if let Err(error) = store.delete(&[path]) {
                tracing::debug!("what the run was at could not be deleted: {error:#}");
            }
        });
        Self { steps: Some(steps), thread: Some(thread) }
    }

    /// The steps that run from now on.
    pub(crate) fn at(&self, steps: Vec<String>) {
        // The thread ends after this.
        let _ = self.steps.as_ref().map(|to| to.send(steps));
    }
}

fn put(store: &Store, path: &str, beat: &Beat) {
    let written = serde_json::to_vec(beat).map_err(Into::into).and_then(|bytes| store.put(path, bytes));
    if let Err(error) = written {
        tracing::debug!("what the run is at could not be stored: {error:#}");
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.steps = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What a run is at, if it goes on.
pub(crate) fn of(store: &Store, pipeline: &str, run: &str) -> Result<Option<Beat>> {
    let (folder, path) = (run_folder(pipeline, run), path(pipeline, run));
    let Some((_, meta)) = store.list(&folder)?.into_iter().find(|(found, _)| *found == path) else { return Ok(None) };
    if jiff::Timestamp::now().as_second() - meta.last_modified.timestamp() > STALE {
        return Ok(None);
    }
    Ok(store.find(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Warns of other runs that are making what this one is to make: the work of one of them will be lost.
pub(crate) fn warn_of_others(store: &Store, plan: &Plan, steps: &[usize]) -> Result<()> {
    for run in plans(store, &plan.pipeline)?.into_iter().filter(|run| *run != plan.run).take(LOOKED_AT) {
        let Some(beat) = of(store, &plan.pipeline, &run)? else { continue };
        let is_made = |step: &&usize| beat.makes.contains(&plan.steps[**step].fingerprint);
        for step in steps.iter().filter(is_made) {
            tracing::warn!(
                "{} is being made by the run {} as well (process {} on {}, since {:.0}): the first that ends counts; \
                 Ctrl-C ends this one",
                plan.steps[*step].name,
                codepair_runtime::short_run(&run),
                beat.process,
                beat.host,
                beat.since
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_beats_while_it_goes_on() {
        let store = Store::memory();
        let plan = Plan {
            format: codepair_runtime::PLAN_FORMAT,
            run: "01".into(),
            pipeline: "p".into(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            tables: Default::default(),
            expanded: Default::default(),
            steps: Vec::new(),
        };
        let beating = Beating::begin(&store, &plan, &[], "here".to_owned());
        beating.at(vec!["train:a".to_owned()]);
        let mut found = None;
        for _ in 0..200 {
            found = of(&store, "p", "01").unwrap();
            if found.as_ref().is_some_and(|beat| !beat.steps.is_empty()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let found = found.unwrap();
        assert_eq!((found.steps, found.host.as_str()), (vec!["train:a".to_owned()], "here"));
        drop(beating);
        assert_eq!(of(&store, "p", "01").unwrap(), None);
    }
}
