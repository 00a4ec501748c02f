//! `codepair-synth`: positive and negative pairs.

use std::process::ExitCode;

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_synth::Synth>()
}
