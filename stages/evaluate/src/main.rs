//! `codepair-evaluate`: generation and search, scored.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_model::prepare_allocator();
    codepair_runtime::main::<codepair_evaluate::Evaluate>()
}
