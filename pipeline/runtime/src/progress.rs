//! Progress of long work: a bar on a terminal, a log line every few seconds elsewhere. A stage that `codepair run` started
//! says it in lines of JSON, for the bar is drawn by its parent.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

/// Set to anything, a stage writes [`ProgressLine`]s to its standard error.
pub const PROGRESS_LINES: &str = "CODEPAIR_PROGRESS_LINES";

const LOG_EVERY: Duration = Duration::from_secs(5);
const LINE_EVERY: Duration = Duration::from_millis(100);

/// The bars of this process; log lines are written above them.
pub fn bars() -> &'static MultiProgress {
    static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
    &BARS
}

/// How far a stage is: one line of JSON, `{"progress": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgressLine {
    /// The work, such as "training nbow".
    pub what: String,
    /// Done so far.
    pub done: u64,
    /// Of so many.
    pub total: u64,
    /// Such as the current loss.
    pub remark: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    /// Nothing: the work is over.
    progress: Option<ProgressLine>,
}

impl ProgressLine {
    /// Reads a line of a stage's standard error: nothing for any other line, nothing within where the work is over.
    #[must_use]
    pub fn parse(line: &str) -> Option<Option<Self>> {
        if !line.starts_with("{\"progress\":") {
            return None;
        }
        serde_json::from_str::<Wire>(line).ok().map(|wire| wire.progress)
    }

    /// As text, beside a bar.
    #[must_use]
    pub fn label(&self) -> String {
        if self.remark.is_empty() { self.what.clone() } else { format!("{} ({})", self.what, self.remark) }
    }
}

fn send(progress: Option<ProgressLine>) {
    if let Ok(mut line) = serde_json::to_vec(&Wire { progress }) {
        line.push(b'\n');
        // Nobody listens any more: the work goes on.
        let _ = std::io::stderr().write_all(&line);
    }
}

/// Counts up to a total; shared between threads by reference.
pub struct Progress {
    what: String,
    unit: String,
    total: u64,
    done: AtomicU64,
    /// Done by an earlier run, in no time of this one.
    before: AtomicU64,
    started: Instant,
    said: Mutex<Said>,
    bar: Option<ProgressBar>,
    lines: bool,
}

/// Seconds for what is left, at the speed of what was done in `elapsed` seconds.
fn seconds_left(elapsed: f64, done: u64, left: u64) -> f64 {
    elapsed / done.max(1) as f64 * left as f64
}

/// When something was last said, and the newest remark.
struct Said {
    logged: Instant,
    line: Instant,
    remark: String,
}

impl Progress {
    /// `what` names the work, such as "training nbow"; `unit` what is counted.
    #[must_use]
    pub fn new(what: &str, unit: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template =
                format!("{{msg}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left");
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars().add(ProgressBar::new(total).with_style(style).with_message(what.to_owned()))
        });
        let now = Instant::now();
        Self {
            what: what.to_owned(),
            unit: unit.to_owned(),
            total,
            done: AtomicU64::new(0),
            before: AtomicU64::new(0),
            started: now,
            said: Mutex::new(Said { logged: now, line: now, remark: String::new() }),
            bar,
            lines: std::env::var_os(PROGRESS_LINES).is_some(),
        }
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        let done = self.done.fetch_add(n, Ordering::Relaxed) + n;
        if let Some(bar) = &self.bar {
            bar.inc(n);
            return;
        }
        let Ok(mut said) = self.said.try_lock() else { return };
        if self.lines && said.line.elapsed() >= LINE_EVERY {
            said.line = Instant::now();
            let (what, remark) = (self.what.clone(), said.remark.clone());
            send(Some(ProgressLine { what, done, total: self.total, remark }));
        }
        if said.logged.elapsed() >= LOG_EVERY {
            said.logged = Instant::now();
            let elapsed = self.started.elapsed().as_secs_f64();
            let now = done.saturating_sub(self.before.load(Ordering::Relaxed));
            let left = seconds_left(elapsed, now, self.total.saturating_sub(done));
            let [done, total] = [done, self.total].map(|n| self.amount(n));
            let left = if self.total == 0 { String::new() } else { format!(" of {total}, about {left:.0} s left") };
            tracing::info!("{}: {done}{left}", self.what);
        }
    }

    fn amount(&self, n: u64) -> String {
        if self.unit == "bytes" { HumanBytes(n).to_string() } else { n.to_string() }
    }

    /// Says that so much is done.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Counts `n` that an earlier run did: they say nothing about the time that is left.
    pub fn resume(&self, n: u64) {
        self.before.fetch_add(n, Ordering::Relaxed);
        let done = self.done.fetch_add(n, Ordering::Relaxed) + n;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// Shows a remark beside the bar, such as the current loss.
    pub fn remark(&self, remark: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} ({remark})", self.what));
        } else if let Ok(mut said) = self.said.lock() {
            remark.clone_into(&mut said.remark);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        } else if self.lines {
            send(None);
        }
    }
}

/// Standard error for log lines: above the bars where there are some.
pub(crate) struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        bars().suspend(|| std::io::stderr().write(bytes))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_this_run_did() {
        let progress = Progress::new("training", "steps", 1000);
        progress.resume(900);
        progress.add(10);
        assert_eq!((progress.done.load(Ordering::Relaxed), progress.before.load(Ordering::Relaxed)), (910, 900));
        assert_eq!(seconds_left(5.0, 10, 90), 45.0);
        assert_eq!(seconds_left(5.0, 0, 90), 450.0);
    }

    #[test]
    fn lines_are_read_back_and_others_left_alone() {
        let line = ProgressLine { what: "training a".into(), done: 3, total: 9, remark: "loss 2".into() };
        let wire = serde_json::to_string(&Wire { progress: Some(line.clone()) }).unwrap();
        assert_eq!(ProgressLine::parse(&wire), Some(Some(line.clone())));
        assert_eq!(line.label(), "training a (loss 2)");
        assert_eq!(ProgressLine::parse("{\"progress\":null}"), Some(None));
        for other in ["2026-01-01T00:00:00Z  INFO progress", "{\"level\":\"INFO\"}", "{\"progress\": oops", ""] {
            assert_eq!(ProgressLine::parse(other), None);
        }
    }
}
