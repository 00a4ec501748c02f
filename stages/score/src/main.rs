//! `codepair-score`: metrics, their intervals, and which differences are more than chance.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_score::Score>()
}
