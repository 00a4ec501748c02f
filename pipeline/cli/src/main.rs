//! The `codepair` command: plans a pipeline, runs it, and looks inside.

mod arguments;
mod ask;
mod binaries;
mod gc;
mod launch;
mod lineage;
mod planner;
mod run;
mod schema;
mod status;
mod step_bar;
mod table;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use codepair_runtime::{ExitStatus, run_binary};

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    run_binary(dispatch)
}

fn dispatch(arguments: &Arguments) -> Result<ExitStatus> {
    match &arguments.command {
        Command::Plan(options) => run::plan(arguments, options),
        Command::Run(options) => run::run(arguments, options),
        Command::Status(options) => status::status(arguments, options),
        Command::Logs { step } => status::logs(arguments, step),
        Command::Lineage(options) => lineage::lineage(arguments, options),
        Command::Sql(options) => ask::sql(arguments, options),
        Command::Search(options) => ask::search(arguments, options),
        Command::Generate(options) => ask::generate(arguments, options),
        Command::Schema { dataset } => schema::schema(dataset.as_deref()),
        Command::Verify(options) => verify::verify(arguments, options),
        Command::Gc(options) => gc::gc(arguments, options),
    }
}
