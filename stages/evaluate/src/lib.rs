//! Evaluate: what a trained model, or a baseline, is worth on the test split.

mod generation;
mod search;
mod test_split;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use codepair_metrics::{GENERATION, SEARCH, all};
use codepair_model::{Cpu, CpuDevice, Device, Task, Trained};
use codepair_runtime::{Config, Context, Input, Stage, Step, config_error, overrides};
use serde::{Deserialize, Serialize};

pub use test_split::{Example, examples};

/// What models are tested with.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Models that need no training, scored over the same candidates.
    pub baselines: Vec<Baseline>,
    /// Hypotheses of the beam search.
    pub beam_width: usize,
    /// Generate for the first so many test rows; all without it.
    pub generate_rows: Option<usize>,
    /// Candidates kept of each query's ranking, the right one always among them.
    pub ranking_depth: usize,
    /// Predictions whose attention is kept.
    pub attention_rows: usize,
}

/// A model that needs no training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// Okapi BM25 over the words of text and code.
    Bm25,
}

impl Baseline {
    fn name(self) -> &'static str {
        match self {
            Self::Bm25 => "bm25",
        }
    }
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            baselines: vec![Baseline::Bm25],
            beam_width: 4,
            generate_rows: None,
            ranking_depth: 10,
            attention_rows: 4,
        }
    }
}

impl Stage for Evaluate {
    const NAME: &'static str = "evaluate";
    type Config = Self;

    fn steps(config: &Self, whole: &Config) -> Result<Vec<Step>> {
        if config.beam_width == 0 || config.ranking_depth == 0 {
            return Err(config_error("evaluate.beam_width and evaluate.ranking_depth must be at least 1"));
        }
        Device::check_config(whole, Self::NAME)?;
        let models = whole.tables("train");
        let value = serde_json::to_value(config)?;
        let changed = overrides(&value, &serde_json::to_value(Self::default())?);
        // A new metric is a reason to evaluate again, so the fingerprint names them all.
        let metrics: BTreeMap<&str, &str> = all(GENERATION)
            .map(|metric| (metric.name, metric.signature))
            .chain(all(SEARCH).map(|metric| (metric.name, metric.signature)))
            .collect();
        let step = |name: &str, inputs: Vec<Input>| Step {
            model: Some(name.to_owned()),
            config: serde_json::json!({ "evaluate": value, "metrics": metrics }),
            overrides: serde_json::json!({ "evaluate": changed, "metrics": metrics }),
            inputs,
            ..Step::default()
        };
        let examples = || Input::new("examples", "prepare");
        let mut steps = Vec::new();
        for baseline in &config.baselines {
            if models.iter().any(|model| model == baseline.name()) {
                return Err(config_error(format!("[train.{0}] has the name of the baseline {0}", baseline.name())));
            }
            steps.push(step(baseline.name(), vec![examples()]));
        }
        let trained = |model: &String| step(model, vec![examples(), Input::new("models", format!("train:{model}"))]);
        steps.extend(models.iter().map(trained));
        Ok(steps)
    }

    fn run(context: &mut Context, config: &Self) -> Result<()> {
        let name = context.model.clone().context("evaluate runs one model")?;
        let rows = context.stream("examples", Example::COLUMNS);
        let examples = examples(rows, |e| e.split == "test" && e.kind == "original")?;
        if examples.is_empty() {
            return Err(codepair_runtime::input_error("the test split is empty; raise the shares of the sources"));
        }
        if let Some(baseline) = config.baselines.iter().find(|baseline| baseline.name() == name) {
            return match baseline {
                Baseline::Bm25 => search::bm25(context, config, &name, &examples),
            };
        }
        match Device::parse(&context.device).map_err(config_error)? {
            Device::Cpu => trained::<Cpu>(context, config, &examples, &CpuDevice::default()),
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                let device = codepair_model::CudaDevice::default();
                trained::<codepair_model::Cuda>(context, config, &examples, &device)
            }
        }
    }
}

fn trained<B: burn::tensor::backend::Backend>(
    context: &mut Context,
    config: &Evaluate,
    examples: &[Example],
    device: &B::Device,
) -> Result<()> {
    let manifest = context.inputs("models").next().context("evaluate reads a model")?.clone();
    let model = Trained::<B>::load(&context.store, &manifest, device)?;
    match model.card.model.task() {
        Task::Generation => generation::evaluate(context, config, &model, examples, device),
        Task::Search => search::evaluate(context, config, &model, examples, device),
    }
}
