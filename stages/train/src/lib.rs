//! Train: one loop for every model. Token tables in; weights, config and tokenizers out.

mod averaging;
mod batches;
mod best;
mod checkpoint;
mod clip;
mod config;
mod data;
mod documents;
mod events;
mod init;
mod mixture;
mod optimizers;
mod sampling;
mod schedule;
mod session;
mod sums;
mod tensors;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use codepair_model::{CpuDevice, Device, TrainCpu};
use codepair_runtime::{Config, Context, Input, Stage, Step, config_error, input_error};

pub use batches::Epoch;
pub use config::TrainConfig;
pub use init::Init;

use init::First;

/// `[train.NAME]`, one table a model.
pub type Models = BTreeMap<String, TrainConfig>;

/// The stage.
pub struct Train;

impl Stage for Train {
    const NAME: &'static str = "train";
    type Config = Models;

    fn steps(models: &Models, whole: &Config) -> Result<Vec<Step>> {
        Device::check_config(whole, Self::NAME)?;
        let tokenizers = &whole.section::<serde_json::Value>("tokenize")?;
        models
            .iter()
            .map(|(name, model)| {
                check_tokenizers(name, model, tokenizers)?;
                if !model.negatives.is_empty() && !has_negatives(whole) {
                    return Err(config_error(format!(
                        "train.{name}.negatives: no [synth.NAME] makes any; a table with kind = \"mined\" or \"offline\" does"
                    )));
                }
                check_sources(name, model, whole)?;
                step(name, model, whole)
            })
            .collect()
    }

    fn run(context: &mut Context, models: &Models) -> Result<()> {
        let name = context.model.clone().context("train runs one model")?;
        let config = models.get(&name).with_context(|| format!("[train.{name}] is missing"))?;
        if let Some(own) = context.config.variations(Self::NAME).iter().find(|one| one.name == name) {
            tracing::info!("{name} is {} with {}", own.of, own.all_settings());
        }
        check_splits(context)?;
        let first = First::of(&name, config, &context.config)?;
        init::check_digests(context, &name, &first)?;
        let config = &first.resolved(&name, config, &context.config)?;
        match Device::parse(&context.device).map_err(config_error)? {
            Device::Cpu => session::train::<TrainCpu>(context, &name, (config, &first), &CpuDevice::default()),
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                let device = codepair_model::CudaDevice::default();
                session::train::<codepair_model::TrainCuda>(context, &name, (config, &first), &device)
            }
        }
    }
}

/// Whether a config has what makes negatives; one of the training alone says nothing of that.
fn has_negatives(whole: &Config) -> bool {
    let sources = whole.raw("ingest");
    let has_labels = |source: &serde_json::Value| source["kind"] == "cosqa" || !source["columns"]["label"].is_null();
    let mut sources = sources.as_object().into_iter().flatten().map(|(_, source)| source).peekable();
    sources.peek().is_none() || !whole.tables("synth").is_empty() || sources.any(has_labels)
}

/// That sources with a weight are tables of the config, where it has any.
fn check_sources(name: &str, model: &TrainConfig, whole: &Config) -> Result<()> {
    let known = [whole.tables("ingest"), whole.tables("synth")].concat();
    let Some(unknown) = model.source_weights.keys().find(|source| !known.contains(source)) else { return Ok(()) };
    if whole.tables("ingest").is_empty() {
        return Ok(());
    }
    Err(config_error(format!(
        "train.{name}.source_weights.{unknown}: there is no [ingest.{unknown}] and no [synth.{unknown}]; there are {}",
        known.join(", ")
    )))
}

/// That there are rows to learn from, to choose an epoch by and to test on, before anything is trained. A token table
/// that was not made by `tokenize` does not say.
fn check_splits(context: &Context) -> Result<()> {
    let tokenized = context.all_inputs().iter().map(|input| &input.manifest.notes);
    let Some((notes, splits)) = tokenized.filter_map(|notes| Some((notes, notes.get("splits")?.as_object()?))).next()
    else {
        return Ok(());
    };
    let rows = |split: &str| splits.get(split).and_then(serde_json::Value::as_u64).unwrap_or(0);
    // Problems that are for testing are no examples.
    let has_problems = notes.get("rows_for_testing").and_then(serde_json::Value::as_u64).is_some_and(|rows| rows > 0);
    let all = ["train", "validation", "test"];
    let empty: Vec<&str> =
        all.into_iter().filter(|split| rows(split) == 0 && !(*split == "test" && has_problems)).collect();
    if empty.is_empty() {
        return Ok(());
    }
    let which = if empty.len() == 1 { "split" } else { "splits" };
    let empty = empty.join(" and ");
    let said = all.map(|split| format!("{split} {}", rows(split))).join(", ");
    Err(input_error(format!(
        "no rows are in the {which} {empty} ({said}): let a source give it some, such as [ingest.NAME] shares = {{ validation = 0.1, \
         test = 0.1 }}, or add a source; what was left out: codepair sql \"select reason, count(*) from rejected group by 1\""
    )))
}

/// That the tokenizers of a model are there, and read what it wants of them.
fn check_tokenizers(name: &str, model: &TrainConfig, tokenizers: &serde_json::Value) -> Result<()> {
    // A config of the training alone says nothing of them.
    if tokenizers.as_object().is_none_or(serde_json::Map::is_empty) {
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
        let reads = tokenizer.get("fields").and_then(serde_json::Value::as_array);
        let is_read = |field: &str| match reads {
            Some(fields) => fields.iter().any(|read| read == field),
            // As a tokenizer has it where nothing is said.
            None => field != "name",
        };
        if let Some(field) = wanted.document().into_iter().find(|field| !is_read(field.name())) {
            return Err(config_error(format!(
                "{key}: [prepare.tokenizers.{}] does not read {}; add it to its fields",
                wanted.tokenizer,
                field.name()
            )));
        }
    }
    Ok(())
}

fn step(name: &str, model: &TrainConfig, whole: &Config) -> Result<Step> {
    let first = First::of(name, model, whole)?;
    let model = &first.resolved(name, model, whole)?;
    model.check(name)?;
    let (value, changed) = model.values()?;
    let mut tokenizers = vec![&model.source.tokenizer, &model.target.tokenizer];
    tokenizers.dedup();
    let inputs = |name: &String| {
        let step = format!("tokenize:{name}");
        [Input::new(format!("tokens_{name}"), &*step), Input::new("tokenizers", step)]
    };
    Ok(Step {
        model: Some(name.to_owned()),
        config: serde_json::json!({ "train": { name: value } }),
        overrides: serde_json::json!({ "train": { name: changed } }),
        sources: first.digests()?,
        inputs: tokenizers.into_iter().flat_map(inputs).collect(),
        ..Step::default()
    })
}
