//! `codepair-evaluate`: generation and search, scored.

use std::process::ExitCode;

// Tensors lie in huge pages: a step touches hundreds of megabytes, and takes a quarter less (`docs/measured.md`).
codepair_runtime::malloc_conf!("thp:always");

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_evaluate::Evaluate>()
}
