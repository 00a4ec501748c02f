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

    fn steps(models: &Models, whole: &Config) -> Result<Vec<Step>> {
        let tokenizers = &whole.section::<serde_json::Value>("prepare")?["tokenizers"];
        models
            .iter()
            .map(|(name, model)| {
                check_tokenizers(name, model, tokenizers)?;
                step(name, model)
            })
            .collect()
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

/// That the tokenizers of a model are there, and read what it wants of them.
fn check_tokenizers(name: &str, model: &TrainConfig, tokenizers: &serde_json::Value) -> Result<()> {
    // A config of the training alone says nothing of them.
    if tokenizers.is_null() {
        return Ok(());
    }
    for (side, wanted) in [("source", &model.source), ("target", &model.target)] {
        let key = format!("train.{name}.{side}");
        let Some(tokenizer) = tokenizers.get(&wanted.tokenizer) else {
            let known: Vec<&String> = tokenizers.as_object().into_iter().flat_map(|known| known.keys()).collect();
            return Err(config_error(format!(
                "{key}.tokenizer: there is no [prepare.tokenizers.{}]; there are {}",
                wanted.tokenizer,
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.into_iter().cloned().collect::<Vec<_>>().join(", ")
                }
            )));
        };
        let field = wanted.column.name();
        let reads = tokenizer.get("fields").and_then(serde_json::Value::as_array);
        if reads.is_some_and(|fields| !fields.iter().any(|read| read == field)) {
            return Err(config_error(format!(
                "{key}: [prepare.tokenizers.{}] does not read {field}; add it to its fields",
                wanted.tokenizer
            )));
        }
    }
    Ok(())
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
