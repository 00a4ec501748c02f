//! Logging: for people by default, one JSON object a line with `CODEPAIR_LOG_FORMAT=json`.

use std::ffi::OsString;
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
        builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal() && !no_color(std::env::var_os("NO_COLOR")))
            .compact()
            .try_init()
    };
    if let Err(error) = started {
        tracing::debug!("logging was started before: {error}");
    }
}

/// Whether the variable `NO_COLOR` asks for output without colours (<https://no-color.org>).
fn no_color(value: Option<OsString>) -> bool {
    value.is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_switched_off_by_anything_but_nothing() {
        assert_eq!(
            [None, Some(""), Some("1"), Some("0")].map(|value| no_color(value.map(Into::into))),
            [false, false, true, true]
        );
    }
}
