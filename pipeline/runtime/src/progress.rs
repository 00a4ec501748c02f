//! Progress of long work: a bar on a terminal, a log line every few seconds elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LOG_EVERY: Duration = Duration::from_secs(5);

/// Counts up to a total; shared between threads by reference.
pub struct Progress {
    what: String,
    total: u64,
    done: AtomicU64,
    started: Instant,
    logged: Mutex<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `what` names the work, such as "training nbow"; `unit` what is counted.
    #[must_use]
    pub fn new(what: &str, unit: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template =
                format!("{{msg}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left");
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_message(what.to_owned())
        });
        let now = Instant::now();
        Self { what: what.to_owned(), total, done: AtomicU64::new(0), started: now, logged: Mutex::new(now), bar }
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        let done = self.done.fetch_add(n, Ordering::Relaxed) + n;
        if let Some(bar) = &self.bar {
            bar.inc(n);
            return;
        }
        let Ok(mut logged) = self.logged.try_lock() else { return };
        if logged.elapsed() < LOG_EVERY {
            return;
        }
        *logged = Instant::now();
        let elapsed = self.started.elapsed().as_secs_f64();
        let left = elapsed / done as f64 * self.total.saturating_sub(done) as f64;
        tracing::info!("{}: {done} of {}, about {left:.0} s left", self.what, self.total);
    }

    /// Shows a remark beside the bar, such as the current loss.
    pub fn remark(&self, remark: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} ({remark})", self.what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
