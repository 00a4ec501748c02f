//! `codepair-train`: the training loop.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_model::prepare_allocator();
    codepair_runtime::main::<codepair_train::Train>()
}
