//! When an attempt last wrote something.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// An attempt that wrote nothing for so long gives up, so that `gc` never deletes under one that still publishes.
const MAX_IDLE_HOURS: i64 = 72;

/// When an attempt last wrote something, shared with the threads that write. By what it wrote last `gc` tells whether an attempt
/// still lives, so one that lay idle for too long between any two writes must not go on. Before its first write there is nothing
/// that could be taken from it, however long that takes.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    last: Mutex<Option<jiff::Timestamp>>,
}

impl Writes {
    /// To be called with each write, before it.
    ///
    /// # Errors
    /// The last one was too long ago.
    pub(crate) fn note(&self) -> Result<()> {
        self.note_at(jiff::Timestamp::now())
    }

    pub(crate) fn note_at(&self, now: jiff::Timestamp) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.duration_since(last).as_hours() >= MAX_IDLE_HOURS) {
            bail!("this attempt lay idle for over {MAX_IDLE_HOURS} hours and is not published; run it again");
        }
        *last = Some(now);
        Ok(())
    }
}
