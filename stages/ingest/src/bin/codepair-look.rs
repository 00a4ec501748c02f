//! `codepair-look`: tells `codepair init` what a place holds and how it can be read.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use codepair_ingest::look;
use codepair_runtime::{ExitStatus, run_binary};

/// Looks at a folder or file, and prints as JSON how `[ingest.NAME]` would read it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The column of the texts, where it cannot be told.
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// The column of the code.
    #[arg(long, value_name = "COLUMN")]
    code: Option<String>,
    /// The folder or file, or a URL.
    path: String,
}

fn main() -> ExitCode {
    run_binary(|arguments: &Arguments| {
        let seen = look(&arguments.path, arguments.text.as_deref(), arguments.code.as_deref())?;
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&seen)?)?;
        Ok(ExitStatus::Done)
    })
}
