//! `codepair-report`: one page of results.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_report::Report>()
}
