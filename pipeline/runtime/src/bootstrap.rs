//! The way every stage binary starts, runs and ends.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use clap::{CommandFactory as _, Parser};
use codepair_schemas::Stage as StageEntry;
use serde::de::DeserializeOwned;

use crate::command_line::run_command;
use crate::inputs::Planned;
use crate::{
    Attempt, Config, DEEP_STACK, Description, ExitStatus, Interrupt, Manifest, PipelineOptions, Plan, Published,
    ResolvedInput, Shard, Shards, Step, Store, config_error, fingerprint, input_error, inputs, newest_generation,
    parquet_io, supersede,
};

/// A stage: what it is configured by, the steps this makes, and the work.
pub trait Stage {
    /// The stage's name in the table of stages.
    const NAME: &'static str;
    /// Its table of the config.
    type Config: DeserializeOwned + Sync;

    /// The steps that the config asks for.
    ///
    /// # Errors
    /// Exit 2 where the config contradicts itself, exit 3 where a source is missing.
    fn steps(config: &Self::Config, whole: &Config) -> Result<Vec<Step>>;

    /// What running a step would cost, as JSON objects with a `text` to read; asked where [`Step::forecasts`] says so.
    ///
    /// # Errors
    /// An input is missing or damaged.
    fn forecast(_context: &Context, _config: &Self::Config) -> Result<Vec<serde_json::Value>> {
        Ok(Vec::new())
    }

    /// Runs one step, or the shard of it that the context names.
    ///
    /// # Errors
    /// The step failed; nothing is published.
    fn run(context: &mut Context, config: &Self::Config) -> Result<()>;

    /// How what shards made is put together; nothing where the stage cannot be divided.
    fn merge() -> Option<Merge<Self::Config>> {
        None
    }
}

/// Puts together what all shards of a step made.
pub type Merge<C> = fn(&mut Context, &C, &Shards) -> Result<()>;

/// What a step runs with.
pub struct Context {
    /// The store.
    pub store: Store,
    /// The whole config, to resolve paths with.
    pub config: Config,
    /// The step's name, such as `train:attention`.
    pub step: String,
    /// The model, for per-model stages.
    pub model: Option<String>,
    /// The artifact being made.
    pub attempt: Attempt,
    /// Worker threads.
    pub threads: usize,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Bytes of memory that the stage should do with.
    pub memory_limit: Option<u64>,
    /// What `--describe` says of the step.
    pub description: Step,
    /// Whether the process was asked to end.
    pub interrupt: Interrupt,
    /// The share of the work that is this process's.
    pub shard: Shard,
    inputs: Vec<ResolvedInput>,
    /// The fingerprints that `--force` left behind, which publishing supersedes.
    older: Vec<String>,
}

impl Context {
    /// The artifacts that hold a dataset (several for `scores` and the like).
    pub fn inputs<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = &'a Arc<Manifest>> {
        self.inputs.iter().filter(move |i| i.dataset == dataset).map(|i| &i.manifest)
    }

    /// Every artifact the step reads, with the dataset it is read for.
    #[must_use]
    pub fn all_inputs(&self) -> &[ResolvedInput] {
        &self.inputs
    }

    /// Reads a dataset of all artifacts that hold it; no columns named means all.
    ///
    /// # Errors
    /// Exit 3 where a file is missing or damaged.
    pub fn read(&self, dataset: &str, columns: &[&str]) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for manifest in self.inputs(dataset) {
            batches.extend(parquet_io::read_output(&self.store, manifest, dataset, columns)?);
        }
        Ok(batches)
    }

    /// As [`Context::read`], one part in memory at a time.
    pub fn stream<'a>(
        &'a self,
        dataset: &'a str,
        columns: &'a [&'a str],
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let parts = self.inputs(dataset).flat_map(move |manifest| manifest.files(dataset).map(move |o| (manifest, o)));
        parts.flat_map(move |(manifest, output)| parquet_io::batches(manifest.read(&self.store, output), columns))
    }

    /// Reads a listed file, such as `tokenizers/code.json`.
    ///
    /// # Errors
    /// Exit 3 where it is missing or damaged.
    pub fn read_file(&self, kind: &str, name: &str) -> Result<bytes::Bytes> {
        let manifest = self.inputs(kind).next().with_context(|| format!("{} reads no {kind}", self.step))?;
        manifest.read_named(&self.store, &format!("{kind}/{name}"))
    }
}

/// Options that all stage binaries share.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    pipeline: PipelineOptions,
    /// The model to work on; needed when the stage has several steps.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Where to compute: cpu, or cuda where the binary was built with it.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Make what this run of the pipeline planned, or nothing: exit 3 where the config or a source is another by now.
    #[arg(long, value_name = "RUN")]
    plan: Option<String>,
    /// Read a dataset from this artifact instead of the plan's; the first digits will do; may be repeated.
    #[arg(long, value_name = "DATASET=FINGERPRINT", value_parser = parse_input)]
    input: Vec<(String, String)>,
    /// Make only the I-th of N shards, beside other processes; the last one puts them together.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Print the stage's steps, resolved config, source digests and inputs as JSON, and run nothing.
    #[arg(long)]
    describe: bool,
    /// Print what running it would cost, as JSON, and run nothing.
    #[arg(long)]
    forecast: bool,
}

fn parse_input(text: &str) -> Result<(String, String), String> {
    let (dataset, fingerprint) = text.split_once('=').ok_or("expected DATASET=FINGERPRINT")?;
    Ok((dataset.to_owned(), fingerprint.to_owned()))
}

/// The `main` of a stage binary.
pub fn main<S: Stage>() -> ExitCode {
    run_command(command(S::NAME), start::<S>)
}

/// The command line of a stage, with what the table of stages says it reads and writes.
fn command(stage: &str) -> clap::Command {
    let (inputs, outputs) =
        codepair_schemas::stage(stage).map(|entry| (entry.inputs, entry.outputs)).unwrap_or_default();
    let reads = if inputs.is_empty() { "the sources of its table".to_owned() } else { inputs.join(", ") };
    let command = Arguments::command().display_name(format!("codepair-{stage}"));
    command.about(format!(
        "The stage `{stage}` of a codepair pipeline. `codepair run` calls it; it also runs alone.\n\n\
         Reads:  {reads}\nWrites: {}",
        outputs.join(", ")
    ))
}

fn start<S: Stage>(arguments: &Arguments) -> Result<ExitStatus> {
    if arguments.describe {
        let text = serde_json::to_string_pretty(&describe::<S>(&arguments.pipeline.config()?)?)?;
        #[allow(clippy::print_stdout, reason = "the answer to --describe")]
        {
            println!("{text}");
        }
        return Ok(ExitStatus::Done);
    }
    let (config, store) = arguments.pipeline.open()?;
    let request = Request {
        model: arguments.model.as_deref(),
        plan: arguments.plan.as_deref(),
        given: &arguments.input,
        device: arguments.device.as_deref(),
    };
    if arguments.forecast {
        let (context, _) = begin::<S>(&store, &config, &describe::<S>(&config)?, &request)?;
        let text = serde_json::to_string_pretty(&S::forecast(&context, &config.section(S::NAME)?)?)?;
        #[allow(clippy::print_stdout, reason = "the answer to --forecast")]
        {
            println!("{text}");
        }
        return Ok(ExitStatus::Done);
    }
    match arguments.shard.filter(|shard| !shard.is_all()) {
        Some(shard) => drop(run_shard::<S>(&store, &config, &request, shard)?),
        None => drop(run_stage::<S>(&store, &config, &request)?),
    }
    Ok(ExitStatus::Done)
}

/// Which step is to be run, and with what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The model; needed where the stage has several steps.
    pub model: Option<&'a str>,
    /// The run whose plan it carries out.
    pub plan: Option<&'a str>,
    /// Artifacts to read instead of the plan's, by dataset.
    pub given: &'a [(String, String)],
    /// Instead of the config's.
    pub device: Option<&'a str>,
}

/// What a stage answers to `--describe`.
///
/// # Errors
/// Exit 2 or 3, as [`Stage::steps`].
pub fn describe<S: Stage>(config: &Config) -> Result<Description> {
    let entry = entry::<S>()?;
    let mut steps = S::steps(&config.section(S::NAME)?, config)?;
    for step in &mut steps {
        let datasets = entry.outputs.iter().filter_map(|name| codepair_schemas::dataset(name));
        step.schemas = datasets.map(|d| (d.name.to_owned(), d.version)).collect();
    }
    Ok(Description { stage: entry.name.to_owned(), revision: entry.revision, steps })
}

fn entry<S: Stage>() -> Result<&'static StageEntry> {
    codepair_schemas::stage(S::NAME).with_context(|| format!("{} is not in the table of stages", S::NAME))
}

/// Runs one step of a stage and publishes its artifact, unless it is there already.
///
/// # Errors
/// Exit 1, 2 or 3; nothing is published then, and what was written is deleted.
pub fn run_stage<S: Stage>(store: &Store, config: &Config, request: &Request) -> Result<Manifest> {
    let description = describe::<S>(config)?;
    let (mut context, there) = begin::<S>(store, config, &description, request)?;
    if let Some(manifest) = there {
        tracing::info!("{} is there already: {}", context.step, context.attempt.fingerprint());
        return Ok(manifest);
    }
    tracing::info!("{} begins, to make {}", context.step, context.attempt.fingerprint());
    work::<S>(&mut context, config, S::run)?;
    publish(context, config, description.revision)
}

/// Makes one shard of a step, unless it is there already; where all are there then, puts them together and publishes the artifact.
/// Nothing as long as others are missing.
///
/// # Errors
/// As [`run_stage`]. Exit 2: the stage cannot be divided.
pub fn run_shard<S: Stage>(
    store: &Store,
    config: &Config,
    request: &Request,
    shard: Shard,
) -> Result<Option<Manifest>> {
    let merge = S::merge().ok_or_else(|| {
        config_error(format!("{} has no shards: it is one process. --shard is for ingest and synth", S::NAME))
    })?;
    let description = describe::<S>(config)?;
    let (mut context, there) = begin::<S>(store, config, &description, request)?;
    let (step, print) = (context.step.clone(), context.attempt.fingerprint().to_owned());
    if there.is_some() {
        tracing::info!("{step} is there already: {print}");
        return Ok(there);
    }
    if Shards::find(store, &step, &print, shard.of)?.has(shard) {
        tracing::info!("the shard {shard} of {step} is there already");
    } else {
        context.shard = shard;
        tracing::info!("the shard {shard} of {step} begins, to make {print}");
        work::<S>(&mut context, config, S::run)?;
        publish_shard(context, config, description.revision)?;
    }
    let shards = Shards::find(store, &step, &print, shard.of)?;
    if let Some(missing) = shards.missing() {
        tracing::info!("{step} is put together once all its shards are there; missing: {missing}");
        return Ok(None);
    }
    let made = || Manifest::find(store, &step, &print);
    let (mut context, _) = begin::<S>(store, config, &description, request)?;
    // Another process may have put them together, and even opened the next generation.
    if let Some(there) = made()? {
        return Ok(Some(there));
    }
    tracing::info!("{step} is put together of {} shards", shard.of);
    if let Err(error) = work::<S>(&mut context, config, |context, own| merge(context, own, &shards)) {
        // Another process may have been faster, and have cleared the shards away.
        return made()?.map_or(Err(error), |there| Ok(Some(there)));
    }
    let manifest = publish(context, config, description.revision)?;
    if let Err(error) = shards.delete() {
        tracing::warn!("{step} is published, but its shards could not be cleared away: {error:#}; codepair gc will");
    }
    Ok(Some(manifest))
}

/// Does the work of an attempt; what it wrote is deleted where that fails or the process is asked to end.
fn work<S: Stage>(
    context: &mut Context,
    config: &Config,
    run: impl FnOnce(&mut Context, &S::Config) -> Result<()> + Send,
) -> Result<()> {
    discard_on_signal(context);
    use_threads(context.threads);
    let ran = config.section(S::NAME).and_then(|own| on_deep_stack(|| run(context, &own)));
    ran.map_err(|error| give_up(context, error))
}

/// Records what a shard made; one that another process was faster with serves as well.
fn publish_shard(context: Context, config: &Config, revision: u32) -> Result<()> {
    let Context { step, attempt, description, interrupt, inputs, shard, .. } = context;
    interrupt.publish();
    let published = attempt.publish_as(&shard.file(), |manifest| {
        complete(manifest, config, revision, description, &inputs);
        manifest.shard = Some(shard.to_string());
    })?;
    match published {
        Published::Ours(made) => tracing::info!("the shard {shard} of {step} is done in {:.1} s", made.seconds()),
        Published::Theirs(_) => tracing::info!("the shard {shard} of {step} was made by another process meanwhile"),
    }
    Ok(())
}

/// Fills in what an attempt does not know of itself.
fn complete(manifest: &mut Manifest, config: &Config, revision: u32, step: Step, inputs: &[ResolvedInput]) {
    manifest.revision = revision;
    config.name().clone_into(&mut manifest.pipeline);
    manifest.inputs = inputs::records(inputs);
    manifest.config = step.config;
    manifest.sources = step.sources;
    manifest.peak_memory_bytes = peak_memory_bytes();
    manifest.host = host();
    manifest.git_commit = git_commit(config);
    manifest.job_id = ["SLURM_JOB_ID", "ARGO_NODE_ID"].iter().find_map(|key| std::env::var(key).ok());
}

/// Sizes the pool that work on several cores shares, burn's kernels included: it is there once in a process, so the first step
/// decides.
fn use_threads(threads: usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(DEEP_STACK);
    if let Err(error) = pool.build_global() {
        tracing::debug!("the threads are those of an earlier step: {error}");
    }
}

/// Runs on a stack as deep as code may nest: what reads it descends as deep.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(DEEP_STACK).spawn_scoped(scope, work);
        #[allow(clippy::expect_used, reason = "a process that can start no thread can do nothing")]
        let thread = thread.expect("a thread starts");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What a step would run with, and its artifact where that is there already.
fn begin<S: Stage>(
    store: &Store,
    config: &Config,
    description: &Description,
    request: &Request,
) -> Result<(Context, Option<Manifest>)> {
    let step = choose(description, request.model)?;
    let name = step.model.as_ref().map_or_else(|| S::NAME.to_owned(), |model| format!("{}:{model}", S::NAME));
    let plan = request.plan.map(|run| Plan::load(store, config.name(), run)).transpose()?;
    let planned = plan.as_ref().map_or(Planned::Newest, Planned::Run);
    let inputs = inputs::resolve(store, config, &name, step, request.given, &planned)?;
    let upstream: BTreeMap<String, String> =
        inputs.iter().map(|i| (i.manifest.step.clone(), i.manifest.fingerprint.clone())).collect();
    let of_generation = |generation| fingerprint(&name, description.revision, step, &upstream, generation);
    let generation = match &plan {
        Some(plan) => planned_generation(plan, &name, description.revision, step)?,
        None => newest_generation(store, &name, of_generation)?,
    };
    let mut generation = generation;
    let mut there = Manifest::find(store, &name, &of_generation(generation))?;
    // What an earlier run left open, this one goes on with.
    while plan.is_none() && there.as_ref().is_some_and(|there| there.incomplete.is_some()) {
        generation += 1;
        there = Manifest::find(store, &name, &of_generation(generation))?;
    }
    let print = of_generation(generation);
    let resources = config.resources(S::NAME)?;
    let context = Context {
        store: store.clone(),
        config: config.clone(),
        attempt: Attempt::new(store, &name, &print),
        model: step.model.clone(),
        threads: resources.threads.unwrap_or_else(|| threads(S::NAME)),
        device: request.device.map(str::to_owned).or(resources.device).unwrap_or_else(|| "cpu".to_owned()),
        memory_limit: resources.memory_limit.map(|limit| limit.0),
        description: step.clone(),
        interrupt: Interrupt::default(),
        shard: Shard::default(),
        step: name.clone(),
        inputs,
        older: (0..generation).map(of_generation).collect(),
    };
    Ok((context, there))
}

/// The generation that a plan asks for, of a step that is still what was planned.
fn planned_generation(plan: &Plan, name: &str, revision: u32, step: &Step) -> Result<u32> {
    let run = &plan.run;
    let planned = plan.step(name).ok_or_else(|| {
        let known: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
        input_error(format!("the run {run} planned no {name}; it planned {}", known.join(", ")))
    })?;
    if planned.fingerprint_of(revision, step) == planned.fingerprint {
        return Ok(planned.generation);
    }
    let mut differences = planned.differences(revision, step);
    if differences.is_empty() {
        differences.push("its inputs or its datasets' schemas".to_owned());
    }
    Err(input_error(format!(
        "{name} is no longer what the run {run} planned: {}; nothing was made, plan it anew: codepair run",
        differences.join("; ")
    )))
}

/// Worker threads where the config says nothing.
#[must_use]
pub fn threads(stage: &str) -> usize {
    let own = codepair_schemas::stage(stage).and_then(|stage| stage.threads);
    own.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn choose<'a>(description: &'a Description, model: Option<&str>) -> Result<&'a Step> {
    let names: Vec<&str> = description.steps.iter().filter_map(|s| s.model.as_deref()).collect();
    let stage = &description.stage;
    match (model, description.steps.as_slice()) {
        (Some(model), steps) => steps.iter().find(|s| s.model.as_deref() == Some(model)).ok_or_else(|| {
            config_error(format!("--model {model}: {stage} has no such model; it has {}", names.join(", ")))
        }),
        (None, [step]) => Ok(step),
        (None, []) => Err(config_error(format!("the config asks for no step of {stage}"))),
        (None, _) => {
            Err(config_error(format!("{stage} has several models; name one with --model: {}", names.join(", "))))
        }
    }
}

fn give_up(context: &Context, error: anyhow::Error) -> anyhow::Error {
    match context.attempt.discard() {
        Ok(()) => error,
        Err(discard) => error.context(format!("what the attempt wrote could not be deleted either: {discard:#}")),
    }
}

/// Marks older generations as superseded, and deletes what a finished training could go on from.
fn clear_away(store: &Store, step: &str, older: &[String], checkpoints: &str) -> Result<()> {
    older.iter().try_for_each(|fingerprint| supersede(store, step, fingerprint))?;
    let kept = store.list(checkpoints)?.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    store.delete(&kept)
}

fn publish(context: Context, config: &Config, revision: u32) -> Result<Manifest> {
    let Context { store, step, attempt, description, interrupt, inputs, older, .. } = context;
    let checkpoints = attempt.checkpoints();
    interrupt.publish();
    let published = attempt.publish(|manifest| complete(manifest, config, revision, description, &inputs))?;
    let manifest = match published {
        Published::Ours(manifest) => manifest,
        Published::Theirs(manifest) => {
            tracing::info!("{step} was published by another attempt meanwhile; that one counts");
            manifest
        }
    };
    if let Err(error) = clear_away(&store, &step, &older, &checkpoints) {
        // The artifact is there, and stays: the next plan takes it all the same, and `gc` finds what it left.
        tracing::warn!("{step} is published, but what it replaces could not be cleared away: {error:#}");
    }
    let rows: Vec<String> = {
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        for output in &manifest.outputs {
            *totals.entry(&output.dataset).or_default() += output.rows.unwrap_or(0);
        }
        totals.into_iter().filter(|(_, rows)| *rows > 0).map(|(dataset, rows)| format!("{rows} {dataset}")).collect()
    };
    let rows = if rows.is_empty() { "no rows".to_owned() } else { rows.join(", ") };
    tracing::info!("{step} done in {:.1} s: {rows}", manifest.seconds());
    Ok(manifest)
}

/// On Ctrl-C or SIGTERM deletes what the attempt wrote and ends the process, unless it is published by then.
fn discard_on_signal(context: &Context) {
    let (store, prefix) = (context.store.clone(), context.attempt.prefix());
    context.interrupt.watch(ExitStatus::Failed as i32, move || {
        let written = store.list(&prefix).unwrap_or_default().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        if let Err(error) = store.delete(&written) {
            tracing::warn!("what was written could not be deleted: {error:#}; codepair gc will");
        }
    });
}

fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// Bytes of memory that the machine has, or that the process may use of it.
#[must_use]
pub fn machine_memory_bytes() -> u64 {
    let number = |text: &str| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok();
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = machine.lines().find_map(|line| number(line.strip_prefix("MemTotal:")?)).map(|kib| kib * 1024);
    let allowed = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| number(&text));
    machine.into_iter().chain(allowed).min().unwrap_or(4 << 30)
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// The commit of the checkout that holds the config; `CODEPAIR_GIT_COMMIT` says it where there is no checkout.
fn git_commit(config: &Config) -> Option<String> {
    if let Ok(commit) = std::env::var("CODEPAIR_GIT_COMMIT") {
        return Some(commit);
    }
    let folder = config.path().parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let output = std::process::Command::new("git").arg("-C").arg(folder).args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
