//! The `codepair` command: plans a pipeline, runs it, and looks inside.

mod arguments;
mod ask;
mod binaries;
mod gc;
mod init;
mod keys;
mod launch;
mod lineage;
mod planner;
mod run;
mod runs;
mod schema;
mod state;
mod status;
mod step_bar;
mod table;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use codepair_runtime::{ExitStatus, run_binary};

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    run_binary(dispatch)
}

fn dispatch(arguments: &Arguments) -> Result<ExitStatus> {
    match &arguments.command {
        Command::Init(options) => init::init(arguments, options),
        Command::Plan(options) => run::plan(arguments, options),
        Command::Run(options) => run::run(arguments, options),
        Command::Runs(options) => runs::runs(arguments, options),
        Command::Status(options) => status::status(arguments, options),
        Command::Logs(options) => status::logs(arguments, options),
        Command::Lineage(options) => lineage::lineage(arguments, options),
        Command::Sql(options) => ask::sql(arguments, options),
        Command::Search(options) => ask::search(arguments, options),
        Command::Generate(options) => ask::generate(arguments, options),
        Command::Config { table } => {
            arguments.pipeline.refuse_all_sets()?;
            keys::config(table.as_deref())
        }
        Command::Completions { shell } => {
            arguments.pipeline.refuse_all_sets()?;
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), env!("CARGO_BIN_NAME"), &mut script);
            table::print(&String::from_utf8_lossy(&script));
            Ok(ExitStatus::Done)
        }
        Command::Schema { dataset } => {
            arguments.pipeline.refuse_all_sets()?;
            schema::schema(dataset.as_deref())
        }
        Command::Verify(options) => verify::verify(arguments, options),
        Command::Gc(options) => gc::gc(arguments, options),
    }
}
