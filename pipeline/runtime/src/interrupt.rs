//! Ctrl-C and SIGTERM: what is under way is kept first, and nothing that is published is taken back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::block_on;

/// Whether the process was asked to end, and who has still something to keep. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: watch::Sender<bool>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holds: usize,
    /// A second signal: nobody is waited for.
    at_once: bool,
    end: Option<End>,
}

/// How the attempt ends: whichever comes first excludes the other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Published,
    Discarded,
}

/// While it lives the process goes on, to keep what would be lost.
#[must_use]
pub struct Hold {
    shared: Arc<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.lock().holds -= 1;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interrupt {
    /// Whether the process was asked to end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.shared.asked.borrow()
    }

    /// Returns once the process is asked to end.
    pub async fn asked(&self) {
        let mut asked = self.shared.asked.subscribe();
        // The sender lives as long as `self`.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// Keeps the process from ending when it is asked to, until what is under way is kept. Whoever holds looks at
    /// [`Self::is_asked`], and lets go within a minute or so.
    pub fn hold(&self) -> Hold {
        self.shared.lock().holds += 1;
        Hold { shared: Arc::clone(&self.shared) }
    }

    /// Asks to end, as the first signal does; the second waits for nobody.
    fn ask(&self) {
        let mut state = self.shared.lock();
        state.at_once |= self.is_asked();
        self.shared.asked.send_replace(true);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Called before the manifest is created: from now on nothing that the attempt wrote may be deleted. Where that has begun
    /// already it does not return, for the process is about to end.
    pub(crate) fn publish(&self) {
        let mut state = self.shared.lock();
        while *state.end.get_or_insert(End::Published) == End::Discarded {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Called before what the attempt wrote is deleted, once nobody holds; false where the attempt is published, or about to be.
    fn discard(&self) -> bool {
        let state = self.shared.lock();
        let waiting = |state: &mut State| state.holds > 0 && !state.at_once && state.end.is_none();
        let state = self.shared.changed.wait_while(state, waiting);
        *state.unwrap_or_else(PoisonError::into_inner).end.get_or_insert(End::Discarded) == End::Discarded
    }

    /// Calls `discard` and ends the process with `status` when a signal comes, unless the attempt is published by then.
    pub(crate) fn watch(&self, status: i32, discard: impl FnOnce() + Send + 'static) {
        let listening = self.clone();
        std::thread::spawn(move || {
            block_on(async {
                let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
                let Ok(mut terminate) = terminate else { return };
                loop {
                    tokio::select! { _ = terminate.recv() => (), _ = tokio::signal::ctrl_c() => () }
                    listening.ask();
                }
            });
        });
        let interrupt = self.clone();
        std::thread::spawn(move || {
            block_on(interrupt.asked());
            if interrupt.discard() {
                tracing::warn!("interrupted; nothing is published");
                discard();
                std::process::exit(status);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_not_discarded() {
        let interrupt = Interrupt::default();
        interrupt.publish();
        interrupt.ask();
        assert!(interrupt.is_asked() && !interrupt.discard());
    }

    #[test]
    fn discarding_waits_for_those_who_hold_but_not_twice() {
        let interrupt = Interrupt::default();
        let hold = interrupt.hold();
        interrupt.ask();
        let waiting = std::thread::spawn(move || interrupt.discard());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(hold);
        assert!(waiting.join().unwrap());

        let impatient = Interrupt::default();
        let _hold = impatient.hold();
        impatient.ask();
        impatient.ask();
        assert!(impatient.discard());
    }
}
