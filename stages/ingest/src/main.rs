//! `codepair-ingest`: sources to functions and problems.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_ingest::Ingest>()
}
