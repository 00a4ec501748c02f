//! `codepair-train`: the training loop.

use std::process::ExitCode;

// Tensors lie in huge pages, and what one step frees the next takes again: given back to the system, every page would be cleared
// anew, which took 40% of a transformer's step.
codepair_runtime::malloc_conf!("thp:always,oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1");

fn main() -> ExitCode {
    codepair_runtime::main::<codepair_train::Train>()
}
