//! `codepair-evaluate`: generation and search, scored.

use std::process::ExitCode;

codepair_model::huge_pages!();

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_evaluate::Evaluate>()
}
