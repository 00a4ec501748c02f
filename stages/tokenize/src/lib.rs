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
    let mut sample = Sample::new(settings.training_rows, SAMPLE_BYTES);
    for batch in attempt.read_back("examples", &COLUMNS) {
        let batch = batch?;
        let column = |name| text_column(&batch, name);
        let (ids, splits, kinds) = (column("id")?, column("split")?, column("kind")?);
        let fields: Vec<_> = settings.fields.iter().map(|field| column(field.name())).collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            if splits.value(row) == "train" && kinds.value(row) != "negative" {
                sample.add(id_hash(ids.value(row)), || fields.iter().map(|texts| texts.value(row)));
            }
        }
        sample.shrink();
    }
    Ok(Tokenizer::train(sample.texts(), settings.vocabulary, settings.cut)?)
}

/// A share of rows by their hashes, so small that it holds about so many rows and bytes at most. It falls as rows come: what is
/// out of it once stays out.
struct Sample {
    most: (u32, usize),
    rows: u32,
    bytes: usize,
    /// Hashes from which rows are left out.
    limit: u64,
    taken: Vec<(u64, Vec<String>)>,
}

impl Sample {
    fn new(rows: u32, bytes: usize) -> Self {
        Self { most: (rows, bytes), rows: 0, bytes: 0, limit: u64::MAX, taken: Vec::new() }
    }

    fn add<'a, T: Iterator<Item = &'a str>>(&mut self, hash: u64, texts: impl Fn() -> T) {
        self.rows += 1;
        self.bytes += texts().map(str::len).sum::<usize>();
        if hash <= self.limit {
            self.taken.push((hash, texts().map(str::to_owned).collect()));
        }
    }

    /// Leaves out what is too much after the rows so far.
    fn shrink(&mut self) {
        let of_rows = f64::from(self.most.0) / f64::from(self.rows).max(1.0);
        let share = of_rows.min(self.most.1 as f64 / self.bytes.max(1) as f64);
        if share < 1.0 {
            self.limit = (share * u64::MAX as f64) as u64;
            self.taken.retain(|(hash, _)| *hash <= self.limit);
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.taken.iter().flat_map(|(_, texts)| texts).map(String::as_str)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the smallest hashes, whenever they come; and all of what fits.
    #[test]
    fn a_sample_is_the_same_in_whatever_pieces_rows_come() {
        let hash = |row: u64| id_hash(&row.to_string());
        let sample = |rows: u32, bytes: usize, often: u64| {
            let mut sample = Sample::new(rows, bytes);
            for row in 0..1000 {
                sample.add(hash(row), || ["text", "code"].into_iter());
                if row % often == often - 1 {
                    sample.shrink();
                }
            }
            sample.shrink();
            sample
        };
        let few = sample(100, SAMPLE_BYTES, 7);
        assert!((70..130).contains(&few.taken.len()), "{}", few.taken.len());
        assert!((0..1000).all(|row| few.taken.iter().any(|(own, _)| *own == hash(row)) == (hash(row) <= few.limit)));
        assert_eq!(few.taken, sample(100, SAMPLE_BYTES, 1000).taken);
        // Eight bytes a row.
        assert_eq!(sample(1000, 800, 10).taken, few.taken);
        assert_eq!(sample(1000, 8000, 10).texts().count(), 2000);
    }
}
