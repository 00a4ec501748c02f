//! `codepair-tokenize`: a tokenizer, and the token table that it makes.

use std::process::ExitCode;

// An arena a core: with four, what threads free for others waits in each of them (`docs/measured.md`).
codepair_runtime::malloc_conf!("narenas_ratio:1");

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_tokenize::Tokenize>()
}
