//! `codepair-train`: the training loop.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_train::Train>()
}
