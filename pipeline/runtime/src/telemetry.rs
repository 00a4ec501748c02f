//! Logging: for people by default, one JSON object a line with `CODEPAIR_LOG_FORMAT=json`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::progress::AboveBars;

/// Whether log lines are JSON objects.
#[must_use]
pub fn logs_as_json() -> bool {
    std::env::var("CODEPAIR_LOG_FORMAT").is_ok_and(|format| format == "json")
}

/// Starts logging to standard error; `RUST_LOG` chooses what, `info` of codepair and warnings of the rest by default.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,codepair=info"));
    // The crates are all named codepair_SOMETHING, and a filter's target is a prefix.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| AboveBars);
    let started = if logs_as_json() {
        builder.json().try_init()
    } else {
        builder.with_target(false).with_ansi(std::io::stderr().is_terminal() && !no_color()).compact().try_init()
    };
    if let Err(error) = started {
        tracing::debug!("logging was started before: {error}");
    }
}

/// Whether output is asked to have no colours (<https://no-color.org>).
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
