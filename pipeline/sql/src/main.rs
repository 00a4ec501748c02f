//! `codepair-sql`: answers `codepair sql`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use arrow::array::RecordBatch;
use clap::Parser;
use codepair_runtime::{Config, Store, block_on, config_error, exit_status, input_error, newest_plan, start_telemetry};
use datafusion::execution::context::SQLOptions;

/// Queries every dataset of a pipeline's newest plan. Read-only.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The pipeline's TOML file [default: $CODEPAIR_CONFIG, then configs/quickstart.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one value of the config; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How to print the rows: table, csv or json.
    #[arg(long, default_value = "table", value_parser = ["table", "csv", "json"])]
    format: String,
    /// The query; `show tables` lists the tables.
    query: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_telemetry();
    match answer(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            exit_status(&error).into()
        }
    }
}

fn answer(arguments: &Arguments) -> Result<()> {
    let config = Config::load(arguments.config.as_deref(), &arguments.set)?;
    let folder = config.path().parent().map(std::path::Path::to_owned).unwrap_or_default();
    let store = Store::open(&config.store_url()?, &folder)?;
    let plan = newest_plan(&store, config.name())?.ok_or_else(|| {
        input_error(format!("the pipeline {:?} has never run in {}; run: codepair run", config.name(), store.url()))
    })?;
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
    print(&arguments.format, &batches)
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
