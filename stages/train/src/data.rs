//! Token tables as pairs.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, AsArray};
use codepair_model::{Pair, Side, Task};
use codepair_runtime::{Context, column, input_error, text_column};
use codepair_tokenizer::token_ids;

use crate::TrainConfig;

/// A pair with the negatives that were made for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Example {
    pub(crate) pair: Pair,
    pub(crate) negatives: Vec<Vec<u32>>,
}

/// The examples of the two splits that training sees, and how many were left out.
pub(crate) struct Data {
    pub(crate) training: Vec<Example>,
    pub(crate) validation: Vec<Example>,
    /// A generator cannot learn to end a target that is cut, so longer ones are left out.
    pub(crate) too_long: u64,
}

struct Row {
    id: String,
    kind: String,
    name: String,
    parent: Option<String>,
    split: String,
    tokens: Vec<u32>,
}

/// Reads the pairs.
pub(crate) fn read(context: &Context, config: &TrainConfig) -> Result<Data> {
    let sources = rows(context, &config.source)?;
    let targets = rows(context, &config.target)?;
    let generation = config.model.task() == Task::Generation;
    let mut data = Data { training: Vec::new(), validation: Vec::new(), too_long: 0 };
    let mut negatives: HashMap<String, Vec<Vec<u32>>> = HashMap::new();
    let mut parents: Vec<Option<String>> = Vec::new();
    let mut missing: Vec<&String> = config.negatives.iter().collect();
    for (source, target) in sources.into_iter().zip(targets) {
        if source.id != target.id {
            bail!("the token tables do not fit together: {} and {}", source.id, target.id);
        }
        missing.retain(|name| source.kind != "negative" || source.name != **name);
        let mut pair = Pair { source: source.tokens, target: target.tokens };
        pair.source.truncate(config.source.max_tokens);
        if pair.source.is_empty() || pair.target.is_empty() {
            continue;
        }
        if generation && pair.target.len() > config.target.max_tokens {
            data.too_long += u64::from(source.split == "train" && source.kind != "negative");
            continue;
        }
        pair.target.truncate(config.target.max_tokens);
        match (source.split.as_str(), source.kind.as_str()) {
            ("train", "negative") if !config.negatives.contains(&source.name) => {}
            ("train", "negative") => negatives.entry(source.parent.unwrap_or_default()).or_default().push(pair.target),
            ("train", "positive") if !config.synthetic_positives => {}
            ("train", _) => {
                data.training.push(Example { pair, negatives: Vec::new() });
                parents.push(Some(source.id));
            }
            ("validation", "original") => data.validation.push(Example { pair, negatives: Vec::new() }),
            _ => {}
        }
    }
    for (example, id) in data.training.iter_mut().zip(parents) {
        example.negatives = id.and_then(|id| negatives.remove(&id)).unwrap_or_default();
        example.negatives.truncate(config.negatives_per_pair.unwrap_or(usize::MAX));
    }
    if !missing.is_empty() {
        let missing = missing.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            "negatives names {missing}, and no negative has that name: codepair sql \"select distinct name from examples where kind = 'negative'\""
        );
    }
    data.training.truncate(config.max_examples.unwrap_or(usize::MAX));
    if data.training.is_empty() || data.validation.is_empty() {
        let (training, validation, too_long) = (data.training.len(), data.validation.len(), data.too_long);
        return Err(input_error(format!(
            "there are {training} training and {validation} validation pairs, and {too_long} that were too long; ingest \
             more groups (top-level modules or repositories), let the source's shares leave some for each split, such as \
             shares = {{ validation = 0.2, test = 0.2 }}, or raise target.max_tokens"
        )));
    }
    let all = (data.training.len() + data.validation.len()) as u64 + data.too_long;
    if data.too_long * 4 > all {
        tracing::warn!(
            "{} of {all} pairs are longer than target.max_tokens = {} and are left out: little is learned from the rest; raise it",
            data.too_long,
            config.target.max_tokens
        );
    }
    Ok(data)
}

fn rows(context: &Context, side: &Side) -> Result<Vec<Row>> {
    let field = side.column.name();
    let dataset = format!("tokens_{}", side.tokenizer);
    let mut rows = Vec::new();
    for batch in context.read(&dataset, &["id", "kind", "name", "parent_id", "split", field])? {
        let (ids, kinds) = (text_column(&batch, "id")?, text_column(&batch, "kind")?);
        let names = text_column(&batch, "name")?;
        let (parents, splits) = (text_column(&batch, "parent_id")?, text_column(&batch, "split")?);
        let tokens = column(&batch, field)?.as_binary::<i32>();
        let schema = batch.schema();
        let width: usize = schema.metadata().get("token_bytes").context("token_bytes is missing")?.parse()?;
        for row in 0..batch.num_rows() {
            if tokens.is_null(row) {
                return Err(input_error(format!("the tokenizer {} does not read {field}", side.tokenizer)));
            }
            rows.push(Row {
                id: ids.value(row).to_owned(),
                kind: kinds.value(row).to_owned(),
                name: names.value(row).to_owned(),
                parent: parents.is_valid(row).then(|| parents.value(row).to_owned()),
                split: splits.value(row).to_owned(),
                tokens: token_ids(tokens.value(row), width),
            });
        }
    }
    Ok(rows)
}
