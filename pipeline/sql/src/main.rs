//! `codepair-sql`: answers `codepair sql`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::{Parser, ValueEnum};
use codepair_runtime::{
    ByteSize, DEEP_STACK, ExitStatus, Manifest, PipelineOptions, Plan, PlannedStep, RunOption, Runs, Store, block_on,
    config_error, machine_memory_bytes, run_binary, threads,
};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use futures::StreamExt as _;

/// A table is as wide as its widest cells, so all of it is held in memory before the first line is printed.
const TABLE_BYTES: usize = 64 << 20;

/// Queries every dataset of one of a pipeline's runs. Read-only.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    pipeline: PipelineOptions,
    #[command(flatten)]
    run: RunOption,
    /// How to print the rows.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Memory for the query, such as 2GiB [default: half of the machine's].
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
    /// The query; `show tables` lists the tables.
    query: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

fn main() -> ExitCode {
    run_binary(|arguments| {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(DEEP_STACK);
            let answer = thread.spawn_scoped(scope, || answer(arguments))?;
            answer.join().map_err(|_| anyhow!("the query engine panicked"))?
        })
    })
}

fn answer(arguments: &Arguments) -> Result<ExitStatus> {
    let runs = arguments.pipeline.runs(&arguments.run)?;
    let limit = arguments.memory_limit.map_or_else(|| machine_memory_bytes() / 2, |limit| limit.0);
    let scratch = tempfile::tempdir()?;
    // Half of a session's limit is its pool's.
    let context = codepair_sql::bounded_session(threads("sql"), Some(limit.saturating_mul(2)), scratch.path())?;
    let plan = plan_with(&runs, &codepair_sql::datasets(&context, &arguments.query))?;
    let store = &runs.store;
    let tables = codepair_sql::register_plan(&context, store, &plan)?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = block_on(context.sql_with_options(&arguments.query, reading))
        .map_err(|error| config_error(format!("{error}{}", unwritten(&error, arguments, store, &plan, &tables))))?;
    let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let mut rows = block_on(frame.execute_stream()).map_err(explain)?;
    let mut printer = Printer::new(arguments.format, schema);
    while let Some(batch) = block_on(rows.next()) {
        if !printer.print(batch.map_err(explain)?)? {
            return Ok(ExitStatus::Done);
        }
    }
    printer.finish()?;
    Ok(ExitStatus::Done)
}

/// The newest run whose steps have all written the datasets that are asked for, or else one of which some have, or else the
/// newest of all.
fn plan_with(runs: &Runs, datasets: &[String]) -> Result<Plan> {
    let is_written = |step: &PlannedStep| Ok(Manifest::find(&runs.store, &step.name, &step.fingerprint)?.is_some());
    let has = |plan: &Plan, by_all: bool| -> Result<Option<()>> {
        for dataset in datasets {
            let steps = plan.steps.iter().filter(|step| codepair_schemas::is_written_by(dataset, &step.name));
            let written = steps.map(is_written).collect::<Result<Vec<bool>>>()?;
            let is_there = if by_all { !written.contains(&false) } else { written.contains(&true) };
            if written.is_empty() || !is_there {
                return Ok(None);
            }
        }
        Ok(Some(()))
    };
    let what = if datasets.is_empty() { "dataset".to_owned() } else { datasets.join(" and no ") };
    for (by_all, what) in [(true, format!("whole {what}")), (false, what)] {
        if let Some((plan, ())) = runs.newest_with(&what, |plan| has(plan, by_all))? {
            return Ok(plan);
        }
    }
    runs.newest()
}

/// Which step a dataset would be of that the query names and that is not there; else the tables that there are.
fn unwritten(error: &DataFusionError, arguments: &Arguments, store: &Store, plan: &Plan, tables: &[String]) -> String {
    let said = error.to_string();
    let missing = said.split_once("table '").and_then(|(_, rest)| rest.split_once("' not found"));
    let dataset = missing.and_then(|(name, _)| name.rsplit('.').next()).unwrap_or_default();
    let is_open = |step: &&PlannedStep| {
        codepair_schemas::is_written_by(dataset, &step.name)
            && matches!(Manifest::find(store, &step.name, &step.fingerprint), Ok(None))
    };
    let Some(step) = plan.steps.iter().find(is_open) else { return format!("\ntables: {}", tables.join(", ")) };
    let (step, config) = (&step.name, arguments.pipeline.config());
    let config = config.map_or(String::new(), |config| config.path().display().to_string());
    format!(
        "\n{dataset} is written by {step}, which has not run to its end under this config: codepair run --config {config}; what went \
         wrong: codepair logs {step} --config {config}"
    )
}

/// What to do about an error of the engine.
fn explain(error: DataFusionError) -> anyhow::Error {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => anyhow!(
            "the query needs more memory than it may have; raise --memory-limit, or read fewer rows or columns ({error})"
        ),
        _ => codepair_sql::explain(error),
    }
}

/// Prints batches as they come, but for tables.
enum Printer {
    Table { batches: Vec<RecordBatch>, bytes: usize },
    Csv(Box<arrow::csv::Writer<std::io::Stdout>>),
    Json(Box<arrow::json::ArrayWriter<std::io::Stdout>>),
}

impl Printer {
    fn new(format: Format, schema: SchemaRef) -> Self {
        let empty = RecordBatch::new_empty(schema);
        match format {
            Format::Table => Self::Table { batches: vec![empty], bytes: 0 },
            Format::Csv => {
                let mut writer = arrow::csv::Writer::new(std::io::stdout());
                // The header, also of no rows.
                let _ = writer.write(&empty);
                Self::Csv(Box::new(writer))
            }
            Format::Json => {
                // A row without a key would look like one of another table.
                let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                Self::Json(Box::new(builder.build(std::io::stdout())))
            }
        }
    }

    /// Prints a batch; false where nobody reads any more.
    fn print(&mut self, batch: RecordBatch) -> Result<bool> {
        match self {
            Self::Table { batches, bytes } => {
                // Batches may be slices of one large batch.
                *bytes += batch
                    .columns()
                    .iter()
                    .try_fold(0, |sum, column| column.to_data().get_slice_memory_size().map(|bytes| sum + bytes))?;
                if *bytes > TABLE_BYTES {
                    bail!(
                        "the answer is larger than a table of {} MiB; add a `limit`, or print it with --format csv or json",
                        TABLE_BYTES >> 20
                    );
                }
                batches.push(batch);
                Ok(true)
            }
            Self::Csv(writer) => is_read(writer.write(&batch).map_err(Into::into)),
            Self::Json(writer) => is_read(writer.write(&batch).map_err(Into::into)),
        }
    }

    fn finish(self) -> Result<()> {
        let ended = match self {
            Self::Table { batches, .. } => {
                let text = arrow::util::pretty::pretty_format_batches(&batches)?.to_string();
                writeln!(std::io::stdout(), "{text}").map_err(Into::into)
            }
            Self::Csv(_) => Ok(()),
            Self::Json(mut writer) => {
                let ended = writer.finish().map_err(Into::into);
                ended.and_then(|()| writeln!(std::io::stdout()).map_err(Into::into))
            }
        };
        is_read(ended).map(drop)
    }
}

/// A closed pipe, as of `codepair sql … | head`, is no error.
fn is_read(printed: Result<()>) -> Result<bool> {
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.to_string().contains("Broken pipe") => Ok(false),
        Err(error) => Err(error),
    }
}
