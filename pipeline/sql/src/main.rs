//! `codepair-sql`: answers `codepair sql`.

use std::process::ExitCode;

use anyhow::Result;
use arrow::array::RecordBatch;
use clap::Parser;
use codepair_runtime::{DEEP_STACK, ExitStatus, PipelineOptions, block_on, config_error, run_binary};
use datafusion::execution::context::SQLOptions;

/// Queries every dataset of a pipeline's newest plan. Read-only.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    pipeline: PipelineOptions,
    /// How to print the rows: table, csv or json.
    #[arg(long, default_value = "table", value_parser = ["table", "csv", "json"])]
    format: String,
    /// The query; `show tables` lists the tables.
    query: String,
}

fn main() -> ExitCode {
    run_binary(|arguments| {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(DEEP_STACK);
            let answer = thread.spawn_scoped(scope, || answer(arguments))?;
            answer.join().map_err(|_| anyhow::anyhow!("the query engine panicked"))?
        })
    })
}

fn answer(arguments: &Arguments) -> Result<ExitStatus> {
    let (store, plan) = arguments.pipeline.newest_plan()?;
    let context = codepair_sql::session(codepair_runtime::threads("sql"));
    let tables = codepair_sql::register_plan(&context, &store, &plan)?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = block_on(context.sql_with_options(&arguments.query, reading))
        .map_err(|error| config_error(format!("{error}\ntables: {}", tables.join(", "))))?;
    let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let mut batches = block_on(frame.collect())?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    print(&arguments.format, &batches)?;
    Ok(ExitStatus::Done)
}

fn print(format: &str, batches: &[RecordBatch]) -> Result<()> {
    let mut text = Vec::new();
    match format {
        "csv" => {
            let mut writer = arrow::csv::Writer::new(&mut text);
            batches.iter().try_for_each(|batch| writer.write(batch))?;
        }
        "json" => {
            let mut writer = arrow::json::ArrayWriter::new(&mut text);
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
            text.push(b'\n');
        }
        _ => text = format!("{}\n", arrow::util::pretty::pretty_format_batches(batches)?).into_bytes(),
    }
    use std::io::Write as _;
    // A closed pipe, as of `codepair sql … | head`, is no error.
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}
