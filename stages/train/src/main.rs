//! `codepair-train`: the training loop.

use std::process::ExitCode;

codepair_model::huge_pages!();

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_train::Train>()
}
