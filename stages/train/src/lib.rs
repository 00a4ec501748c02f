//! Train: one loop for every model. Token tables in; weights, config and tokenizers out.

mod batches;
mod checkpoint;
mod clip;
mod config;
mod data;
mod session;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use codepair_model::{CpuDevice, Device, TrainCpu};
use codepair_runtime::{Config, Context, Input, Stage, Step, config_error};

pub use config::TrainConfig;

/// `[train.NAME]`, one table a model.
pub type Models = BTreeMap<String, TrainConfig>;

/// The stage.
pub struct Train;

impl Stage for Train {
    const NAME: &'static str = "train";
    type Config = Models;

    fn steps(models: &Models, _whole: &Config) -> Result<Vec<Step>> {
        models.iter().map(|(name, model)| step(name, model)).collect()
    }

    fn run(context: &mut Context, models: &Models) -> Result<()> {
        let name = context.model.clone().context("train runs one model")?;
        let config = models.get(&name).with_context(|| format!("[train.{name}] is missing"))?;
        match Device::parse(&context.device).map_err(config_error)? {
            Device::Cpu => session::train::<TrainCpu>(context, &name, config, &CpuDevice::default()),
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                let device = codepair_model::CudaDevice::default();
                session::train::<codepair_model::TrainCuda>(context, &name, config, &device)
            }
        }
    }
}

fn step(name: &str, model: &TrainConfig) -> Result<Step> {
    model.check(name)?;
    let (value, changed) = model.values()?;
    let mut datasets = vec![format!("tokens_{}", model.source.tokenizer), format!("tokens_{}", model.target.tokenizer)];
    datasets.dedup();
    datasets.push("tokenizers".to_owned());
    Ok(Step {
        model: Some(name.to_owned()),
        config: serde_json::json!({ "train": { name: value } }),
        overrides: serde_json::json!({ "train": { name: changed } }),
        inputs: datasets.into_iter().map(|dataset| Input::new(dataset, "prepare")).collect(),
        ..Step::default()
    })
}
