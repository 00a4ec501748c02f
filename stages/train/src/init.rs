//! `init`: the weights that a training begins with in place of fresh ones.

use anyhow::{Context as _, Result};
use codepair_model::{ModelCard, ModelConfig, pinned};
use codepair_runtime::{Context, config_error};
use codepair_tokenizer::Tokenizer;

/// The weights of a trained model that reads and writes the same tokens.
pub(crate) fn weights(
    context: &Context,
    name: &str,
    (init, model): (&str, &ModelConfig),
    tokenizers: [&Tokenizer; 2],
) -> Result<Vec<u8>> {
    let manifest = pinned(&context.store, init).with_context(|| format!("train.{name}.init"))?;
    let card = ModelCard::of(&context.store, &manifest)?;
    let differing = differing(&serde_json::to_value(&card.model)?, &serde_json::to_value(model)?);
    if !differing.is_empty() {
        let differing = differing.join(", ");
        return Err(config_error(format!(
            "train.{name}.init: {init} has another model.{differing}; take the same here"
        )));
    }
    for (side, tokenizer) in ["source", "target"].into_iter().zip(tokenizers) {
        let theirs = manifest.read_named(&context.store, &format!("models/{side}_tokenizer.json"))?;
        if Tokenizer::from_json(&theirs)?.to_json()? != tokenizer.to_json()? {
            return Err(config_error(format!(
                "train.{name}.init: {init} has another {side} tokenizer; take the [prepare.tokenizers] and the data that it was trained with"
            )));
        }
    }
    Ok(manifest.read_named(&context.store, "models/model.safetensors")?.to_vec())
}

/// Keys in which two models differ; dropout may.
fn differing(one: &serde_json::Value, other: &serde_json::Value) -> Vec<String> {
    let keys =
        |of: &serde_json::Value| of.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let mut all = [keys(one), keys(other)].concat();
    all.sort();
    all.dedup();
    // What is off may be left out of the text.
    let value = |of: &serde_json::Value, key: &str| of.get(key).cloned().filter(|value| *value != false);
    all.retain(|key| key != "dropout" && key != "loss" && value(one, key) != value(other, key));
    all
}
