//! A step, or a shard of it, from what it reads to what it publishes.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::inputs::Planned;
use crate::machine::{git_commit, host, peak_memory_bytes, threads};
use crate::{
    Attempt, Config, Context, DEEP_STACK, Description, ExitStatus, Interrupt, Manifest, Plan, Published, Request,
    ResolvedInput, Shard, Shards, Stage, Step, Store, config_error, describe, fingerprint, input_error, inputs,
    newest_generation, supersede,
};

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
    let (context, there) = begin::<S>(store, config, &description, request)?;
    let (step, print) = (context.step.clone(), context.attempt.fingerprint().to_owned());
    if there.is_some() {
        tracing::info!("{step} is there already: {print}");
        return Ok(there);
    }
    let made = || Manifest::find(store, &step, &print);
    if Shards::find(store, &step, &print, shard.of)?.has(shard) {
        tracing::info!("the shard {shard} of {step} is there already");
    } else {
        // Another process may have put all of them together meanwhile, and cleared them away.
        if let Some(there) = made()? {
            return Ok(Some(there));
        }
        tracing::info!("the shard {shard} of {step} begins, to make {print}");
        let mut own = context.afresh();
        own.shard = shard;
        let interrupt = own.interrupt.clone();
        work::<S>(&mut own, config, S::run)?;
        publish_shard(own, config, description.revision)?;
        if interrupt.is_asked() {
            bail!("interrupted; the shard {shard} of {step} is kept");
        }
    }
    let shards = Shards::find(store, &step, &print, shard.of)?;
    if let Some(there) = made()? {
        clear_shards(&step, &shards);
        return Ok(Some(there));
    }
    if let Some(missing) = shards.missing() {
        tracing::info!("{step} is put together once all its shards are there; missing: {missing}");
        return Ok(None);
    }
    tracing::info!("{step} is put together of {} shards", shard.of);
    // Of what the shards were made of, whatever is the newest by now.
    let mut whole = context.afresh();
    if let Err(error) = work::<S>(&mut whole, config, |context, own| merge(context, own, &shards)) {
        // Another process may have been faster, and have cleared the shards away.
        return made()?.map_or(Err(error), |there| Ok(Some(there)));
    }
    let manifest = publish(whole, config, description.revision)?;
    clear_shards(&step, &shards);
    Ok(Some(manifest))
}

fn clear_shards(step: &str, shards: &Shards) {
    if let Err(error) = shards.delete() {
        tracing::warn!("{step} is published, but its shards could not be cleared away: {error:#}; codepair gc will");
    }
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
pub(crate) fn begin<S: Stage>(
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

fn choose<'a>(description: &'a Description, model: Option<&str>) -> Result<&'a Step> {
    let names: Vec<&str> = description.steps.iter().filter_map(|s| s.model.as_deref()).collect();
    let stage = &description.stage;
    match (model, description.steps.as_slice()) {
        (Some(model), steps) => steps.iter().find(|s| s.model.as_deref() == Some(model)).ok_or_else(|| {
            config_error(format!("--model {model}: {stage} has no such step; it has {}", names.join(", ")))
        }),
        (None, [step]) => Ok(step),
        (None, []) => Err(config_error(format!("the config asks for no step of {stage}"))),
        (None, _) => {
            Err(config_error(format!("{stage} has several steps; name one with --model: {}", names.join(", "))))
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
