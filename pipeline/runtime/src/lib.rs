//! What every stage links: bootstrap, config, store, artifacts, manifests, telemetry.
//!
//! A stage implements [`Stage`] and its `main` is one call of [`main`]. Everything else (arguments, config, logging,
//! inputs, fingerprints, publishing, exit codes) happens here, once.

mod allocator;
mod artifact;
mod bootstrap;
mod command_line;
mod config;
mod describe;
mod digest;
mod error;
mod inputs;
mod interrupt;
mod machine;
mod manifest;
mod merge;
mod paged;
mod parallel;
mod parquet_io;
mod paths;
mod plan;
mod progress;
mod retry;
mod running;
mod runs;
mod shards;
mod spool;
mod stage;
mod store;
mod telemetry;
pub mod testing;
mod text;
mod writes;

pub use artifact::{Attempt, Published, newest_generation, supersede};
pub use bootstrap::main;
pub use command_line::{PipelineOptions, advice, quoted, run_binary};
pub use config::{ByteSize, Config, OWN_CONFIG, Resources, Variation, nearest, of_kind, schema_of_kinds, take_kind};
pub use describe::{Description, Input, Step, difference, fingerprint, overrides};
pub use digest::{
    DIGEST_BLOCK, Digest, cache_folder, file_digest, files_digest, hex, remember_digest, sha256, short_digest,
};
pub use error::{ExitStatus, Failure, config_error, exit_status, input_error};
pub use inputs::ResolvedInput;
pub use interrupt::{Hold, Interrupt};
pub use machine::{host, machine_memory_bytes, peak_memory_bytes, threads};
pub use manifest::{InputRecord, Manifest, Output};
pub use merge::with_column;
pub use paged::{Paged, PagedMap};
pub use parallel::ordered;
pub use parquet_io::{
    DatasetWriter, RowWriter, column, float_column, integer_column, list_column, read_output, text_column,
};
pub use paths::artifact_path;
pub use plan::{PLAN_FORMAT, Plan, PlannedStep, newest_plan, plans, run_folder};
pub use progress::{PROGRESS_LINES, Progress, ProgressLine, bars};
pub use retry::{back_off, retry_after};
pub use running::{run_shard, run_stage};
pub use runs::{RunOption, Runs, short_run};
pub use shards::{Position, Shard, Shards};
pub use spool::{Piece, Spool};
pub use stage::{Context, Merge, Request, Stage, describe, is_unrecorded, keys};
pub use store::{Created, DEEP_STACK, Store, block_on, refuse_credentials};
pub use telemetry::logs_as_json;
pub use text::{TextReader, decode, what_it_is};
