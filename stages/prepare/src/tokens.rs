//! Tokenizers trained on the training split, and the token tables of all examples.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use codepair_runtime::{Context, Progress};
use codepair_schemas::rows::Example;
use codepair_tokenizer::Tokenizer;
use rayon::prelude::*;

use crate::{Field, Prepare, TokenizerConfig};

const CHUNK_ROWS: usize = 4096;

/// Trains every tokenizer and writes its `tokens_NAME`.
pub(crate) fn write(context: &mut Context, config: &Prepare, examples: &[Example]) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(context.threads).build()?;
    for (name, settings) in &config.tokenizers {
        let tokenizer = pool.install(|| train(settings, examples))?;
        tracing::info!("tokenizer {name}: {} tokens", tokenizer.vocabulary());
        let token_bytes = if tokenizer.vocabulary() <= 1 << 16 { 2 } else { 4 };
        let metadata = [("token_bytes", token_bytes.to_string()), ("tokenizer", name.clone())];
        let mut writer = context.attempt.writer_with(&format!("tokens_{name}"), &metadata)?;
        let progress = Progress::new(&format!("encoding with {name}"), "rows", examples.len() as u64);
        for chunk in examples.chunks(CHUNK_ROWS) {
            let batch = pool.install(|| encode(chunk, settings, &tokenizer, token_bytes))?;
            writer.write(batch)?;
            progress.add(chunk.len() as u64);
        }
        context.attempt.finish(writer)?;
        context.attempt.add_file("tokenizers", &format!("{name}.json"), tokenizer.to_json()?.into_bytes())?;
    }
    Ok(())
}

fn train(settings: &TokenizerConfig, examples: &[Example]) -> Result<Tokenizer> {
    let seen = examples.iter().filter(|e| e.split == "train" && e.kind != "negative");
    let fields = &settings.fields;
    let texts = seen.flat_map(|example| fields.iter().map(|field| content(example, *field)));
    Ok(Tokenizer::train(texts, settings.vocabulary, settings.cut)?)
}

fn content(example: &Example, field: Field) -> &str {
    match field {
        Field::Text => &example.text,
        Field::Code => &example.code,
    }
}

/// Nothing for a field the tokenizer does not read.
fn encode(
    chunk: &[Example],
    settings: &TokenizerConfig,
    tokenizer: &Tokenizer,
    token_bytes: usize,
) -> Result<RecordBatch> {
    let field = |field: Field| -> Result<(ArrayRef, ArrayRef)> {
        if !settings.fields.contains(&field) {
            let none = BinaryArray::from(vec![None::<&[u8]>; chunk.len()]);
            return Ok((Arc::new(none), Arc::new(UInt32Array::from(vec![0; chunk.len()]))));
        }
        let encoded: Vec<Vec<u32>> =
            chunk.par_iter().map(|example| tokenizer.encode(content(example, field))).collect::<Result<_, _>>()?;
        let bytes = encoded
            .iter()
            .map(|ids| ids.iter().flat_map(|id| id.to_le_bytes().into_iter().take(token_bytes)).collect());
        let bytes: Vec<Vec<u8>> = bytes.collect();
        let lengths: UInt32Array = encoded.iter().map(|ids| Some(ids.len() as u32)).collect();
        Ok((Arc::new(bytes.iter().map(|b| Some(b.as_slice())).collect::<BinaryArray>()), Arc::new(lengths)))
    };
    let (text, text_length) = field(Field::Text)?;
    let (code, code_length) = field(Field::Code)?;
    let texts = |value: fn(&Example) -> Option<&str>| -> ArrayRef {
        Arc::new(chunk.iter().map(value).collect::<StringArray>())
    };
    let ordinals: UInt64Array = chunk.iter().map(|example| Some(example.ordinal)).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("id", texts(|e| Some(&e.id)), false),
        ("ordinal", Arc::new(ordinals) as ArrayRef, false),
        ("kind", texts(|e| Some(&e.kind)), false),
        ("name", texts(|e| Some(&e.name)), false),
        ("parent_id", texts(|e| e.parent_id.as_deref()), true),
        ("split", texts(|e| Some(&e.split)), false),
        ("text", text, true),
        ("text_length", text_length, false),
        ("code", code, true),
        ("code_length", code_length, false),
    ])?)
}
