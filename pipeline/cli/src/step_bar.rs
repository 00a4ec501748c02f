//! The bar of a step, drawn for a child that says how far it is.

use std::io::IsTerminal as _;
use std::time::Duration;

use codepair_runtime::{ProgressLine, bars, logs_as_json};
use indicatif::{ProgressBar, ProgressStyle};

const WITHOUT_BAR: &str = "{spinner} {prefix:.bold} {elapsed} {wide_msg}";
const WITH_BAR: &str = "{spinner} {prefix:.bold} {elapsed} {bar:24} {human_pos}/{human_len}, {eta} left  {wide_msg}";

/// A spinner, or a bar while the step says how far it is; gone when it is dropped.
pub(crate) struct StepBar(ProgressBar);

impl StepBar {
    /// Whether bars are drawn.
    pub(crate) fn are_drawn() -> bool {
        std::io::stderr().is_terminal() && !logs_as_json()
    }

    /// The bar of a step that begins; nothing where no bars are drawn.
    pub(crate) fn begin(step: &str) -> Option<Self> {
        Self::are_drawn().then(|| {
            let bar = bars().add(ProgressBar::new_spinner().with_style(style(WITHOUT_BAR)));
            bar.set_prefix(step.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            Self(bar)
        })
    }

    /// Moves the bar; without progress it is a spinner.
    pub(crate) fn advance(&self, progress: Option<ProgressLine>) {
        let Self(bar) = self;
        let Some(progress) = progress else {
            bar.set_style(style(WITHOUT_BAR));
            bar.set_message("");
            return;
        };
        let begins = bar.length() != Some(progress.total) || bar.position() > progress.done;
        if begins {
            bar.set_length(progress.total);
            bar.set_style(style(WITH_BAR));
        }
        bar.set_position(progress.done);
        if begins {
            // What was done before this, by an earlier run, says nothing about the time that is left.
            bar.reset_eta();
        }
        bar.set_message(progress.label());
    }

    /// Says what the step is at.
    pub(crate) fn remark(&self, message: String) {
        self.0.set_message(message);
    }

    /// Writes something above the bars.
    pub(crate) fn above(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }
}

impl Drop for StepBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
