//! `codepair-prepare`: deduplicate, decontaminate, tokenise.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_prepare::Prepare>()
}
