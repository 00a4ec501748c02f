//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use codepair_runtime::{PipelineOptions, RunOption};

const AFTER: &str = "\
Exit codes: 0 done or nothing to do, 1 a stage failed, 2 the command or config is wrong, 3 an input is missing or stale.

A config for your own code or rows:        codepair init PATH
A first run, with no network and no key:   codepair init --from quickstart; codepair run
Rerun only what a change touches:          codepair run --set train.NAME.epochs=8
Look inside any artifact:                  codepair sql \"select source, count(*) from functions group by 1\"";

/// Pairs of natural language and code, to models, to honest scores.
#[derive(Debug, Parser)]
#[command(name = "codepair", version, after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) pipeline: PipelineOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a first config: for a folder or file of your own, or one that codepair ships.
    Init(InitOptions),
    /// Show what would run, why, and what the requests to servers would cost.
    Plan(Selection),
    /// Run what is not fresh.
    Run(RunOptions),
    /// List the runs: what each changed, how it ended, and the scores.
    Runs(RunsOptions),
    /// Show each step of the newest run: done or not, rows, time, memory.
    Status(StatusOptions),
    /// Print a step's log of the newest run that ran it.
    Logs(LogsOptions),
    /// Show what a dataset was made from, back to the sources.
    Lineage(LineageOptions),
    /// Query a run's datasets; `show tables` lists them.
    Sql(SqlOptions),
    /// Ask the newest trained search model for code.
    Search(AskOptions),
    /// Ask the newest trained generator for code.
    Generate(AskOptions),
    /// Print the datasets' columns.
    Schema {
        /// Only this dataset.
        dataset: Option<String>,
    },
    /// Print the keys of a config: type, default and what each does.
    Config {
        /// Only this table, such as train, synth.openai or resources.
        table: Option<String>,
    },
    /// Print completions for a shell: codepair completions bash > ~/.local/share/bash-completion/completions/codepair
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Read every file of a run's artifacts again, and compare it with its manifest.
    Verify(VerifyOptions),
    /// Show what no artifact needs any more; delete it with --delete.
    Gc(GcOptions),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Selection {
    /// Only these steps (train takes all models; train:NAME one, or all that its lists make); what they read must be there.
    #[arg(long, value_name = "STEP")]
    pub(crate) only: Vec<String>,
    /// From this step on.
    #[arg(long, value_name = "STEP")]
    pub(crate) from: Option<String>,
    /// Up to this step.
    #[arg(long, value_name = "STEP")]
    pub(crate) until: Option<String>,
    /// Make this step's artifact anew although it is there.
    #[arg(long, value_name = "STEP")]
    pub(crate) force: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Where the steps run.
    #[arg(long, value_enum, default_value = "local")]
    pub(crate) executor: Executor,
    /// How many steps may run side by side [default: the number of cores].
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
}

/// The executors; a new one is a file in `launch/` and a line here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    /// As child processes on this machine.
    Local,
}

#[derive(Debug, Args)]
pub(crate) struct InitOptions {
    /// A source tree, an archive of one, or files of rows (.jsonl, .json, .csv, .tsv, .parquet, .arrow, parallel text); also a
    /// URL of a file [default: this folder].
    pub(crate) path: Option<String>,
    /// The column of the texts, where it cannot be told.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) text: Option<String>,
    /// The column of the code.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) code: Option<String>,
    /// Write a shipped config instead: quickstart, sample, codesearchnet, mining, multi30k or openai.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["text", "code"])]
    pub(crate) from: Option<String>,
    /// Where to write it.
    #[arg(long, value_name = "FILE", default_value = codepair_runtime::OWN_CONFIG)]
    pub(crate) output: std::path::PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RunsOptions {
    /// How many of the newest.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) last: usize,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    pub(crate) run: RunOption,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsOptions {
    /// The step, such as train:attention.
    pub(crate) step: String,
    #[command(flatten)]
    pub(crate) run: RunOption,
}

#[derive(Debug, Args)]
pub(crate) struct LineageOptions {
    #[command(flatten)]
    pub(crate) run: RunOption,
    /// The dataset, such as scores.
    pub(crate) dataset: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SqlOptions {
    #[command(flatten)]
    pub(crate) run: RunOption,
    /// The query.
    pub(crate) query: String,
    /// How to print the rows: table, csv or json; the latter two print while they read, however many rows there are.
    #[arg(long, default_value = "table", value_parser = ["table", "csv", "json"])]
    pub(crate) format: String,
    /// Memory for the query, such as 2GiB; sorts and groups go on on disk beyond it [default: half of the machine's].
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_limit: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    #[command(flatten)]
    pub(crate) run: RunOption,
    /// Only this step.
    pub(crate) step: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AskOptions {
    #[command(flatten)]
    pub(crate) run: RunOption,
    /// What to look for, or what the code should do.
    pub(crate) text: String,
    /// The model [default: the first of the run that can do it].
    #[arg(long)]
    pub(crate) model: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GcOptions {
    /// Delete it.
    #[arg(long)]
    pub(crate) delete: bool,
}
