//! Evaluate: what models write and find on benchmarks, one step a model and benchmark. What that is worth `score` says.

mod benchmarks;
mod generation;
mod search;
mod test_split;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use burn::tensor::backend::Backend;
use codepair_model::{Cpu, CpuDevice, Device, Trained};
use codepair_runtime::{Config, Context, Input, Stage, Step, config_error, input_error, overrides};

pub use benchmarks::{Baseline, Benchmark, Benchmarks, Generation, Pairs, Split};
pub use test_split::{Example, examples};

use crate::benchmarks::task_of;

/// The stage.
pub struct Evaluate;

/// What a step is about: what a model does on a benchmark.
pub(crate) struct Run<'a> {
    /// The benchmark's name.
    pub(crate) benchmark: &'a str,
    /// The model's name.
    pub(crate) model: &'a str,
    /// The rows of the benchmark's split.
    pub(crate) examples: &'a [Example],
    /// Which split that is.
    pub(crate) split: &'a str,
}

impl Run<'_> {
    /// Which rows, what is read, and what is written or found: models that differ in it are not compared.
    pub(crate) fn protocol(&self, source: &str, target: &str) -> String {
        format!("{} split, {source} → {target}", self.split)
    }
}

impl Stage for Evaluate {
    const NAME: &'static str = "evaluate";
    type Config = Benchmarks;

    fn steps(Benchmarks(benchmarks): &Benchmarks, whole: &Config) -> Result<Vec<Step>> {
        Device::check_config(whole, Self::NAME)?;
        let models: BTreeMap<String, serde_json::Value> = whole.section("train")?;
        let is_written = !whole.tables(Self::NAME).is_empty();
        let mut steps = Vec::new();
        for (name, benchmark) in benchmarks {
            benchmark.check(name)?;
            for baseline in benchmark.baselines() {
                let baseline = baseline.name();
                if models.contains_key(baseline) {
                    return Err(config_error(format!("[train.{baseline}] has the name of the baseline {baseline}")));
                }
                steps.push(step(baseline, name, benchmark, None)?);
            }
            let fitting: Vec<&String> = models
                .iter()
                .filter(|(_, model)| task_of(model) == Some(benchmark.task()))
                .map(|(name, _)| name)
                .collect();
            // Of those that are there anyway nobody asked for the one that tests nothing.
            if is_written && fitting.is_empty() && benchmark.baselines().is_empty() {
                tracing::warn!("[evaluate.{name}] tests nothing: no model is of its kind");
            }
            for model in fitting {
                steps.push(step(model, name, benchmark, Some(Input::new("models", format!("train:{model}"))))?);
            }
        }
        let tested = |task| benchmarks.values().any(|benchmark| benchmark.task() == task);
        for (model, _) in models.iter().filter(|(_, model)| task_of(model).is_some_and(|task| !tested(task))) {
            tracing::warn!("[train.{model}] is tested by no benchmark: an [evaluate.NAME] of its kind would");
        }
        steps.sort_by(|a, b| a.model.cmp(&b.model));
        Ok(steps)
    }

    fn run(context: &mut Context, Benchmarks(benchmarks): &Benchmarks) -> Result<()> {
        let step = context.model.clone().context("evaluate runs one model on one benchmark")?;
        let (model, name) = step.rsplit_once('.').context("a step of evaluate is MODEL.BENCHMARK")?;
        let benchmark = benchmarks.get(name).with_context(|| format!("[evaluate.{name}] is missing"))?;
        let split = benchmark.split().name();
        let rows = context.stream("examples", Example::COLUMNS);
        let examples = examples(rows, |e| e.split == split && e.kind == "original")?;
        if examples.is_empty() {
            return Err(input_error(format!("the {split} split is empty; raise the shares of the sources")));
        }
        let run = Run { benchmark: name, model, examples: &examples, split };
        if let Benchmark::Pairs(pairs) = benchmark
            && let Some(baseline) = pairs.baselines.iter().find(|baseline| baseline.name() == model)
        {
            return match baseline {
                Baseline::Bm25 => search::bm25(context, pairs, &run),
            };
        }
        match Device::parse(&context.device).map_err(config_error)? {
            Device::Cpu => trained::<Cpu>(context, benchmark, &run, &CpuDevice::default()),
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                let device = codepair_model::CudaDevice::default();
                trained::<codepair_model::Cuda>(context, benchmark, &run, &device)
            }
        }
    }
}

/// A step depends on the keys of its own benchmark alone.
fn step(model: &str, name: &str, benchmark: &Benchmark, trained: Option<Input>) -> Result<Step> {
    let value = serde_json::to_value(benchmark)?;
    let changed = overrides(&value, &serde_json::to_value(benchmark.default_of_kind())?);
    Ok(Step {
        model: Some(format!("{model}.{name}")),
        config: serde_json::json!({ "evaluate": { name: value } }),
        overrides: serde_json::json!({ "evaluate": { name: changed } }),
        inputs: std::iter::once(Input::new("examples", "prepare")).chain(trained).collect(),
        ..Step::default()
    })
}

fn trained<B: Backend>(context: &mut Context, benchmark: &Benchmark, run: &Run, device: &B::Device) -> Result<()> {
    let manifest = context.inputs("models").next().context("evaluate reads a model")?.clone();
    let model = Trained::<B>::load(&context.store, &manifest, device)?;
    match benchmark {
        Benchmark::Pairs(pairs) => search::evaluate(context, pairs, run, &model, device),
        Benchmark::Generation(generation) => generation::evaluate(context, generation, run, &model, device),
    }
}
