//! How fast to ask: as many requests at once as the server takes (additive increase, multiplicative decrease: Chiu & Jain,
//! 1989), and no more requests and tokens a minute than it allows.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Requests at once to begin with.
const START: f64 = 4.0;
/// What an overloaded server leaves of them.
const DECREASE: f64 = 0.7;
/// Several failures within this are one.
const SETTLE: Duration = Duration::from_secs(1);

/// What a config allows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Requests at once at most.
    pub(crate) concurrency: usize,
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) tokens_per_minute: Option<u32>,
}

/// Shared by all requests to one server.
pub(crate) struct Limits {
    most: f64,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Requests at once, for now.
    window: f64,
    under_way: usize,
    decreased: Option<Instant>,
    /// Nobody asks before this: the server said so.
    paused_until: Option<Instant>,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// A token bucket of a second's size.
struct Bucket {
    per_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: u32) -> Self {
        let per_second = f64::from(per_minute) / 60.0;
        Self { per_second, level: per_second.max(1.0), at: Instant::now() }
    }

    /// Takes `amount`, and says how long to wait for it: a level below zero is owed.
    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        let filled = self.level + self.per_second * now.duration_since(self.at).as_secs_f64();
        self.level = filled.min(self.per_second.max(1.0)) - amount;
        self.at = now;
        Duration::from_secs_f64((-self.level / self.per_second).max(0.0))
    }
}

/// A request under way; others go on when it is dropped.
pub(crate) struct Slot<'a>(&'a Limits);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.under_way -= 1);
        self.0.changed.notify_waiters();
    }
}

impl Limits {
    pub(crate) fn new(allowed: Allowed) -> Self {
        let most = allowed.concurrency.max(1) as f64;
        let state = State {
            window: START.min(most),
            under_way: 0,
            decreased: None,
            paused_until: None,
            requests: allowed.requests_per_minute.map(Bucket::new),
            tokens: allowed.tokens_per_minute.map(Bucket::new),
        };
        Self { most, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Requests at once at most.
    pub(crate) fn most(&self) -> usize {
        self.most as usize
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing panics while it holds the lock.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(&mut state)
    }

    /// Waits until one more request may be sent.
    pub(crate) async fn enter(&self, tokens: u64) -> Slot<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let now = Instant::now();
            let wait = self.with(|state| {
                if let Some(until) = state.paused_until.filter(|until| *until > now) {
                    return Err(Some(until));
                }
                if state.under_way as f64 + 1.0 > state.window.max(1.0) {
                    return Err(None);
                }
                state.under_way += 1;
                let requests = state.requests.as_mut().map(|bucket| bucket.take(1.0, now));
                let tokens = state.tokens.as_mut().map(|bucket| bucket.take(tokens as f64, now));
                Ok(requests.unwrap_or_default().max(tokens.unwrap_or_default()))
            });
            match wait {
                Ok(wait) => {
                    let slot = Slot(self);
                    tokio::time::sleep(wait).await;
                    // The server may have asked for a pause meanwhile.
                    while let Some(until) =
                        self.with(|state| state.paused_until).filter(|until| *until > Instant::now())
                    {
                        tokio::time::sleep_until(until).await;
                    }
                    return slot;
                }
                Err(Some(until)) => tokio::time::sleep_until(until).await,
                Err(None) => changed.await,
            }
        }
    }

    /// Corrects what was counted as tokens of a request to what the server counted, which is looked for where it matters.
    pub(crate) fn used(&self, counted: u64, used: impl FnOnce() -> Option<u64>) {
        self.with(|state| {
            if let Some(bucket) = &mut state.tokens
                && let Some(used) = used()
            {
                bucket.level += counted as f64 - used as f64;
            }
        });
    }

    /// The server answered: it may take more.
    pub(crate) fn succeeded(&self) {
        self.with(|state| state.window = (state.window + 1.0 / state.window).min(self.most));
        self.changed.notify_waiters();
    }

    /// The server is overloaded: it takes less, and nothing at all for as long as it says.
    pub(crate) fn overloaded(&self, pause: Option<Duration>) {
        let now = Instant::now();
        self.with(|state| {
            if state.decreased.is_none_or(|last| now.duration_since(last) > SETTLE) {
                state.decreased = Some(now);
                state.window = (state.window * DECREASE).max(1.0);
            }
            if let Some(pause) = pause {
                state.paused_until = state.paused_until.max(Some(now + pause));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_runtime::block_on;

    fn limits(concurrency: usize) -> Limits {
        Limits::new(Allowed { concurrency, ..Allowed::default() })
    }

    #[test]
    fn the_window_grows_with_success_and_shrinks_with_failure() {
        let limits = limits(10);
        (0..200).for_each(|_| limits.succeeded());
        assert!((limits.with(|state| state.window) - 10.0).abs() < 1e-9);
        limits.overloaded(None);
        limits.overloaded(None);
        // Two failures at once are one.
        assert!((limits.with(|state| state.window) - 7.0).abs() < 1e-9);
        let one = self::limits(1);
        one.overloaded(None);
        assert!((one.with(|state| state.window) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn no_more_requests_are_under_way_than_the_window() {
        block_on(async {
            let limits = limits(2);
            let (first, second) = (limits.enter(1).await, limits.enter(1).await);
            let third = tokio::time::timeout(Duration::from_millis(30), limits.enter(1)).await;
            assert!(third.is_err());
            drop(first);
            let third = tokio::time::timeout(Duration::from_millis(500), limits.enter(1)).await;
            assert!(third.is_ok());
            drop(second);
        });
    }

    #[test]
    fn nobody_asks_while_the_server_wants_a_pause() {
        block_on(async {
            let limits = limits(2);
            limits.overloaded(Some(Duration::from_millis(120)));
            let began = Instant::now();
            drop(limits.enter(1).await);
            assert!(began.elapsed() >= Duration::from_millis(119), "{:?}", began.elapsed());
        });
    }

    #[test]
    fn what_the_server_counted_is_what_counts() {
        block_on(async {
            let limits = Limits::new(Allowed { concurrency: 9, tokens_per_minute: Some(6000), ..Allowed::default() });
            let level = || limits.with(|state| state.tokens.as_ref().map(|bucket| bucket.level).unwrap_or_default());
            drop(limits.enter(60).await);
            let before = level();
            limits.used(60, || Some(20));
            assert!((level() - before - 40.0).abs() < 1e-9);
            limits.used(60, || Some(1060));
            // Ten seconds' worth too many: the next waits for it.
            let waiting = tokio::time::timeout(Duration::from_millis(300), limits.enter(1)).await;
            assert!(waiting.is_err());
        });
    }

    #[test]
    fn a_minute_holds_no_more_than_is_allowed() {
        let now = Instant::now();
        let mut bucket = Bucket::new(120);
        let waits: Vec<f64> = (0..6).map(|_| bucket.take(1.0, now).as_secs_f64()).collect();
        // Two a second: the first second's at once, then one every half a second.
        for (wait, expected) in waits.iter().zip([0.0, 0.0, 0.5, 1.0, 1.5, 2.0]) {
            assert!((wait - expected).abs() < 0.01, "{waits:?}");
        }
        assert!(bucket.take(1.0, now + Duration::from_secs(60)).is_zero());
    }
}
