//! Tokenizers trained on the training split, and the token tables of all examples.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, UInt32Array};
use codepair_runtime::{Attempt, Context, Progress, column, ordered, text_column};
use codepair_sql::{encode, token_bytes};
use codepair_tokenizer::Tokenizer;
use serde_json::json;

use crate::candidates::id_hash;
use crate::{Field, Prepare, TokenizerConfig};

/// Trains every tokenizer and writes its `tokens_NAME`.
pub(crate) fn write(context: &mut Context, config: &Prepare) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(context.threads).build()?;
    for (name, settings) in &config.tokenizers {
        let began = Instant::now();
        let tokenizer = pool.install(|| train(settings, &context.attempt))?;
        let training = began.elapsed().as_secs_f64();
        let token_bytes = token_bytes(&tokenizer);
        let metadata = [("token_bytes", token_bytes.to_string()), ("tokenizer", name.clone())];
        let mut writer = context.attempt.writer_with(&format!("tokens_{name}"), &metadata)?;
        let progress = Progress::new(&format!("encoding with {name}"), "rows", context.attempt.rows("examples"));
        let attempt = &context.attempt;
        ordered(
            context.threads,
            |emit| attempt.read_back("examples", &COLUMNS).try_for_each(|batch| emit(batch?)),
            |batch| encode_batch(&batch, settings, &tokenizer),
            |batch| {
                progress.add(batch.num_rows() as u64);
                writer.write(batch)
            },
        )?;
        context.attempt.finish(writer)?;
        let encoding = began.elapsed().as_secs_f64() - training;
        let vocabulary = tokenizer.vocabulary();
        tracing::info!(
            "tokenizer {name}: {vocabulary} tokens, {training:.1} s to train, {encoding:.1} s to encode with"
        );
        let note = json!({ "vocabulary": vocabulary, "training_seconds": training, "encoding_seconds": encoding });
        context.attempt.note(&format!("tokenizers.{name}"), note);
        context.attempt.add_file("tokenizers", &format!("{name}.json"), tokenizer.to_json()?.into_bytes())?;
    }
    Ok(())
}

const COLUMNS: [&str; 8] = ["id", "ordinal", "kind", "name", "parent_id", "split", "text", "code"];

/// Bytes of text that a tokenizer is trained on at most: the sample is in memory.
const SAMPLE_BYTES: usize = 256 << 20;

/// Trains on a sample of the training rows: those whose ids have the smallest hashes, so that a row more or less changes
/// little.
fn train(settings: &TokenizerConfig, attempt: &Attempt) -> Result<Tokenizer> {
    let (mut rows, mut bytes) = (0u32, 0usize);
    for_training(attempt, |batch, row| {
        rows += 1;
        for field in &settings.fields {
            bytes += text_column(batch, field.name())?.value(row).len();
        }
        Ok(())
    })?;
    let of_rows = f64::from(settings.training_rows) / f64::from(rows).max(1.0);
    let share = of_rows.min(SAMPLE_BYTES as f64 / bytes.max(1) as f64);
    let limit = if share < 1.0 { (share * u64::MAX as f64) as u64 } else { u64::MAX };
    let mut texts = Vec::new();
    for_training(attempt, |batch, row| {
        if id_hash(text_column(batch, "id")?.value(row)) <= limit {
            for field in &settings.fields {
                texts.push(text_column(batch, field.name())?.value(row).to_owned());
            }
        }
        Ok(())
    })?;
    Ok(Tokenizer::train(texts.iter().map(String::as_str), settings.vocabulary, settings.cut)?)
}

/// Every row of the training split that is no negative.
fn for_training(attempt: &Attempt, mut use_row: impl FnMut(&RecordBatch, usize) -> Result<()>) -> Result<()> {
    for batch in attempt.read_back("examples", &COLUMNS) {
        let batch = batch?;
        let (splits, kinds) = (text_column(&batch, "split")?, text_column(&batch, "kind")?);
        for row in 0..batch.num_rows() {
            if splits.value(row) == "train" && kinds.value(row) != "negative" {
                use_row(&batch, row)?;
            }
        }
    }
    Ok(())
}

/// The token columns of a batch; nothing for a field the tokenizer does not read.
fn encode_batch(batch: &RecordBatch, settings: &TokenizerConfig, tokenizer: &Tokenizer) -> Result<RecordBatch> {
    let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
    for name in ["id", "ordinal", "kind", "name", "parent_id", "split"] {
        columns.push((name, Arc::clone(column(batch, name)?)));
    }
    for (field, length) in [(Field::Text, "text_length"), (Field::Code, "code_length")] {
        let (tokens, lengths) = match settings.fields.contains(&field) {
            true => {
                let tokens = encode(text_column(batch, field.name())?.iter(), tokenizer)?;
                let lengths = tokens.offsets().lengths().map(|bytes| (bytes / token_bytes(tokenizer)) as u32);
                let lengths = UInt32Array::from_iter_values(lengths);
                (Arc::new(tokens) as ArrayRef, Arc::new(lengths) as ArrayRef)
            }
            false => no_tokens(batch.num_rows()),
        };
        columns.extend([(field.name(), tokens), (length, lengths)]);
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn no_tokens(rows: usize) -> (ArrayRef, ArrayRef) {
    let mut none = BinaryBuilder::new();
    none.append_nulls(rows);
    (Arc::new(none.finish()), Arc::new(UInt32Array::from(vec![0; rows])))
}
