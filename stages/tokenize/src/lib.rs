//! Tokenize: a tokenizer trained on the training split, and the token table of all examples.

mod sample;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, UInt32Array};
use codepair_runtime::{
    Config, Context, Input, Progress, Stage, Step, column, config_error, file_digest, input_error, ordered, overrides,
    sha256, text_column,
};
use codepair_schemas::DocumentField;
use codepair_tokenizer::{Cut, Tokenizer, encode, token_bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use crate::sample::Sample;

/// `[prepare.tokenizers.NAME]`, a step each: a model depends on those that it reads, and on no other.
pub type Tokenizers = BTreeMap<String, TokenizerConfig>;

/// A tokenizer, trained on the training split, and the token table of all examples that it makes.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerConfig {
    /// Tokens at most, special ones included.
    pub vocabulary: usize,
    /// What it is trained on and encodes: `text`, `code`, and `name` where names are searched.
    pub fields: Vec<DocumentField>,
    /// `bytes` keeps everything; `words` is for search.
    pub cut: Cut,
    /// Rows of the training split to train it on; of more than these, or of more than 256 MiB of text, a sample is taken.
    pub training_rows: u32,
    /// A `tokenizer.json` of Hugging Face's to take as it is, such as a pretrained model's own; it counts by content.
    #[serde(skip_serializing)]
    pub file: Option<String>,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            vocabulary: 8000,
            fields: vec![DocumentField::Text, DocumentField::Code],
            cut: Cut::Bytes,
            training_rows: 100_000,
            file: None,
        }
    }
}

/// The stage.
pub struct Tokenize;

impl TokenizerConfig {
    fn check(&self, name: &str) -> Result<()> {
        let wrong = |why: &str| Err(config_error(format!("prepare.tokenizers.{name}{why}")));
        if name.contains('-') {
            return wrong(": use letters, digits and _, for it names a table");
        }
        if self.fields.is_empty() || self.training_rows == 0 {
            return wrong(": fields and training_rows say what it is trained on; they cannot be empty or 0");
        }
        let plain = Self::default();
        if self.file.is_some()
            && (self.vocabulary, self.cut, self.training_rows) != (plain.vocabulary, plain.cut, plain.training_rows)
        {
            return wrong(".file: it is taken as it is; vocabulary, cut and training_rows are of one that is trained");
        }
        if self.vocabulary < 260 {
            return wrong(".vocabulary must be at least 260: 256 bytes, 3 special tokens and a pair");
        }
        Ok(())
    }

    /// The file, where one is given.
    fn path(&self, whole: &Config) -> Option<PathBuf> {
        self.file.as_ref().map(|file| whole.resolve(file))
    }

    /// The digest of the file, where one is given.
    fn digests(&self, name: &str, whole: &Config) -> Result<BTreeMap<String, String>> {
        let place = format!("prepare.tokenizers.{name}.file");
        let path = self.path(whole).into_iter();
        path.map(|path| {
            let digest = file_digest(&path).map_err(|error| input_error(format!("{place}: {error:#}")))?;
            parse(&std::fs::read(&path)?, &place)?;
            Ok(("file".to_owned(), digest))
        })
        .collect()
    }

    /// The tokenizer of the file, as it was when the run was planned.
    fn read(&self, name: &str, path: &Path, context: &Context) -> Result<Tokenizer> {
        let place = format!("prepare.tokenizers.{name}.file = {}", path.display());
        let bytes = std::fs::read(path).map_err(|error| input_error(format!("{place}: {error}")))?;
        if context.description.sources.get("file") != Some(&sha256(&bytes)) {
            return Err(input_error(format!("{place} changed since it was hashed; run it again")));
        }
        parse(&bytes, &place)
    }

    fn step(&self, name: &str, whole: &Config) -> Result<Step> {
        self.check(name)?;
        let value = serde_json::to_value(self)?;
        let changed = overrides(&value, &serde_json::to_value(Self::default())?);
        Ok(Step {
            model: Some(name.to_owned()),
            config: json!({ "prepare": { "tokenizers": { name: value } } }),
            overrides: json!({ "prepare": { "tokenizers": { name: changed } } }),
            inputs: vec![Input::new("examples", "prepare")],
            sources: self.digests(name, whole)?,
            ..Step::default()
        })
    }
}

/// Reads somebody's `tokenizer.json`.
fn parse(bytes: &[u8], place: &str) -> Result<Tokenizer> {
    Tokenizer::from_json(bytes)
        .map_err(|error| config_error(format!("{place} is no tokenizer.json of Hugging Face's: {error}")))
}

/// Warns of tokenizers that no model reads, where there are models: a name may be mistyped.
fn warn_of_unread(tokenizers: &Tokenizers, models: &BTreeMap<String, Value>) {
    let reads = |name: &String| {
        models.values().any(|model| ["source", "target"].iter().any(|side| model[side]["tokenizer"] == *name))
    };
    for name in tokenizers.keys().filter(|name| !models.is_empty() && !reads(name)) {
        tracing::warn!("[prepare.tokenizers.{name}] is read by no model");
    }
}

impl Stage for Tokenize {
    const NAME: &'static str = "tokenize";
    type Config = Tokenizers;

    fn steps(config: &Tokenizers, whole: &Config) -> Result<Vec<Step>> {
        warn_of_unread(config, &whole.section("train")?);
        config.iter().map(|(name, tokenizer)| tokenizer.step(name, whole)).collect()
    }

    fn run(context: &mut Context, config: &Tokenizers) -> Result<()> {
        let name = context.model.clone().context("tokenize runs one tokenizer")?;
        let settings = config.get(&name).with_context(|| format!("[prepare.tokenizers.{name}] is missing"))?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(context.threads).build()?;
        let began = Instant::now();
        let tokenizer = match settings.path(&context.config) {
            Some(path) => settings.read(&name, &path, context)?,
            None => pool.install(|| train(settings, context))?,
        };
        let training = began.elapsed().as_secs_f64();
        write(context, &name, settings, &tokenizer)?;
        let encoding = began.elapsed().as_secs_f64() - training;
        let vocabulary = tokenizer.vocabulary();
        tracing::info!("{name}: {vocabulary} tokens, {training:.1} s to train, {encoding:.1} s to encode with");
        note_splits(context);
        let attempt = &mut context.attempt;
        attempt.note("vocabulary", vocabulary);
        attempt.note("training_seconds", training);
        attempt.note("encoding_seconds", encoding);
        attempt.add_file("tokenizers", &format!("{name}.json"), tokenizer.to_json()?.into_bytes())
    }
}

/// Hands on how many examples each split has, and how many rows are for testing alone: whoever trains asks for that.
fn note_splits(context: &mut Context) {
    let prepared = context.inputs("examples").next().cloned();
    if let Some(splits) = prepared.as_ref().and_then(|prepared| prepared.notes.get("splits")) {
        context.attempt.note("splits", splits.clone());
    }
    let for_testing = prepared.as_ref().and_then(|prepared| prepared.rejected.get("evaluation_only"));
    context.attempt.note("rows_for_testing", for_testing.copied().unwrap_or(0));
}

/// What a token table has of each example beside its tokens.
const COLUMNS: [&str; 7] = ["id", "ordinal", "source", "kind", "name", "parent_id", "split"];

/// Bytes of text that a tokenizer is trained on at most: the sample is in memory.
const SAMPLE_BYTES: usize = 256 << 20;

/// Trains on a sample of the training rows: those whose ids have the smallest hashes, so that a row more or less changes
/// little.
fn train(settings: &TokenizerConfig, context: &Context) -> Result<Tokenizer> {
    let mut sample = Sample::new(settings.training_rows, SAMPLE_BYTES);
    let columns = with_fields(&["id", "split", "kind"], settings);
    for batch in context.stream("examples", &columns) {
        let batch = batch?;
        let column = |name| text_column(&batch, name);
        let (ids, splits, kinds) = (column("id")?, column("split")?, column("kind")?);
        let fields: Vec<_> = settings.fields.iter().map(|field| column(field.name())).collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            if splits.value(row) == "train" && kinds.value(row) != "negative" {
                // What was made has the name of how.
                let is_read = |field: &DocumentField| *field != DocumentField::Name || kinds.value(row) == "original";
                sample.add(XxHash3_64::oneshot(ids.value(row).as_bytes()), || {
                    let read = settings.fields.iter().zip(&fields).filter(|(field, _)| is_read(field));
                    read.map(|(_, texts)| texts.value(row))
                });
            }
        }
        sample.shrink();
    }
    Ok(Tokenizer::train(sample.texts(), settings.vocabulary, settings.cut)?)
}

/// Columns, and the texts that the tokenizer reads.
fn with_fields<'a>(columns: &[&'a str], settings: &TokenizerConfig) -> Vec<&'a str> {
    let fields = settings.fields.iter().map(|field| field.name()).filter(|field| !columns.contains(field));
    columns.iter().copied().chain(fields).collect()
}

/// Writes the token table of all examples.
fn write(context: &mut Context, name: &str, settings: &TokenizerConfig, tokenizer: &Tokenizer) -> Result<()> {
    let metadata = [("token_bytes", token_bytes(tokenizer).to_string()), ("tokenizer", name.to_owned())];
    let mut writer = context.attempt.writer_with(&format!("tokens_{name}"), &metadata)?;
    let rows = context.inputs("examples").map(|manifest| manifest.rows("examples")).sum();
    let progress = Progress::new(&format!("encoding with {name}"), "rows", rows);
    let (from, columns) = (&*context, with_fields(&COLUMNS, settings));
    ordered(
        from.threads,
        |emit| from.stream("examples", &columns).try_for_each(|batch| emit(batch?)),
        |batch| encode_batch(&batch, settings, tokenizer),
        |batch| {
            progress.add(batch.num_rows() as u64);
            writer.write(batch)
        },
    )?;
    context.attempt.finish(writer)
}

/// The token columns of a batch; nothing for a field the tokenizer does not read.
fn encode_batch(batch: &RecordBatch, settings: &TokenizerConfig, tokenizer: &Tokenizer) -> Result<RecordBatch> {
    let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
    for name in COLUMNS {
        columns.push((name, Arc::clone(column(batch, name)?)));
    }
    let kinds = text_column(batch, "kind")?;
    for field in DocumentField::ALL {
        let (tokens, lengths) = match settings.fields.contains(&field) {
            true => {
                let texts = text_column(batch, field.name())?.iter().zip(kinds);
                // What was made has the name of how.
                let is_named = |kind| field != DocumentField::Name || kind == Some("original");
                let tokens = encode(texts.map(|(text, kind)| text.filter(|_| is_named(kind)).or(Some(""))), tokenizer)?;
                let lengths = tokens.offsets().lengths().map(|bytes| (bytes / token_bytes(tokenizer)) as u32);
                let lengths = UInt32Array::from_iter_values(lengths);
                (Arc::new(tokens) as ArrayRef, Arc::new(lengths) as ArrayRef)
            }
            false => no_tokens(batch.num_rows()),
        };
        let [name, length] = field.token_columns();
        columns.extend([(name, tokens), (length, lengths)]);
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn no_tokens(rows: usize) -> (ArrayRef, ArrayRef) {
    let mut none = BinaryBuilder::new();
    none.append_nulls(rows);
    (Arc::new(none.finish()), Arc::new(UInt32Array::from(vec![0; rows])))
}
