//! Vectors of texts and codes, from any server with `/v1/embeddings` or from a model that codepair trained.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use async_openai::types::embeddings::{CreateEmbeddingRequest, EmbeddingInput, EncodingFormat};
use base64::Engine as _;
use codepair_model::{Cpu, CpuDevice, Role, Trained};
use codepair_runtime::{Config, Context, Position, Progress, config_error};
use codepair_schemas::Field;
use codepair_schemas::rows::Embedding;
use serde_json::{Map, Value};

use super::GeneratorKind;
use crate::openai::{
    Answers, Asked, Client, FaultOf, Forecast, Job, Jobs, OPENAI, REFUSED, Server, ask, asking, forecast, spending,
    texts_of,
};
use crate::rows::key;
use crate::rows::{Made, Parent, Splits, chunked, count, limited, of_shard, parents, queries};

/// Rows that a pinned model encodes at once.
const CHUNK: usize = 2048;

asking! {
    /// What is embedded, by whom: rows of every split, for what is searched is embedded too. `model = "NAME@FINGERPRINT"` is a model that codepair trained, and needs no server.
    pub struct Embed {
        /// Of `text` and `code`.
        fields: Vec<Field> = vec![Field::Text, Field::Code],
        /// Embed queries as well.
        queries: bool = true,
        /// Put what is known of a query's document or project before its text.
        with_context: bool = false,
        /// Embed only so many rows, by the hash of their ids.
        limit: Option<usize> = None,
        /// Texts of one request at most. Where one ends the texts decide, so that a row more or less asks again for its
        /// neighbours alone.
        batch: usize = 64,
        /// Floats of a vector, where the model can make shorter ones.
        dimensions: Option<u32> = None,
        /// Make all vectors one long.
        normalise: bool = true,
    }
}

/// One text to embed.
struct Item {
    id: String,
    dataset: &'static str,
    field: Field,
    text: String,
    position: Position,
}

impl GeneratorKind for Embed {
    fn files(&self, _config: &Config) -> Result<BTreeMap<String, String>> {
        if self.batch == 0 || self.fields.is_empty() {
            return Err(config_error("batch must be at least 1, and fields name text, code or both"));
        }
        self.server().check()?;
        Ok(BTreeMap::new())
    }

    fn generate(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        if self.is_pinned() { self.by_model(context, name, made) } else { self.by_server(context, name, made) }
    }

    fn forecast(&self, context: &Context, name: &str) -> Result<Option<Forecast>> {
        if self.is_pinned() {
            return Ok(None);
        }
        let (_, jobs, _) = self.jobs(context)?;
        forecast(context, name, &self.server(), &jobs, 0, FAULT).map(Some)
    }

    fn spent(&self, context: &Context, name: &str) -> Result<Vec<(&'static str, Value)>> {
        if self.is_pinned() { Ok(Vec::new()) } else { spending(context, name, &self.server(), 0) }
    }

    fn asks(&self) -> bool {
        !self.is_pinned()
    }

    fn makes_vectors(&self) -> bool {
        true
    }

    fn reads_queries(&self) -> bool {
        self.queries
    }
}

impl Embed {
    fn is_pinned(&self) -> bool {
        let print = self.model.split_once('@').map_or("", |(_, print)| print);
        self.base_url == OPENAI && (8..=32).contains(&print.len()) && print.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    fn rows<'a>(&self, context: &'a Context) -> Result<Box<dyn Iterator<Item = Result<Parent>> + 'a>> {
        let has_queries = self.queries;
        limited(self.limit, move || {
            let asked = has_queries.then(|| queries(context, Splits::All)).into_iter().flatten();
            parents(context, Splits::All).chain(asked)
        })
    }

    /// What there is to embed of a row.
    fn items(&self, parent: &Parent) -> Vec<Item> {
        let mut position = parent.position;
        let item = |field: &Field| {
            // Each has a place of its own: which other fields a shard embeds is not known.
            let own = position;
            position = position.next();
            let text = match field {
                Field::Code => parent.code.clone(),
                Field::Text if self.with_context && parent.dataset == "queries" && !parent.context.is_empty() => {
                    format!("{}\n{}", parent.context, parent.text)
                }
                Field::Text => parent.text.clone(),
            };
            Item { id: parent.id.clone(), dataset: parent.dataset, field: *field, text, position: own }
        };
        self.fields.iter().map(item).filter(|item| !item.text.trim().is_empty()).collect()
    }

    fn put(&self, name: &str, item: Item, mut vector: Vec<f32>, request: Option<&str>, made: &mut Made) -> Result<()> {
        if self.normalise {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|x| *x /= length);
            }
        }
        made.embedding(
            name,
            item.position,
            Embedding {
                id: item.id,
                dataset: item.dataset.to_owned(),
                field: item.field.name().to_owned(),
                model: self.model.clone(),
                vector,
                request: request.map(str::to_owned),
                ..Embedding::default()
            },
        )
    }

    fn by_model(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        let device = CpuDevice::default();
        let model = Trained::<Cpu>::pinned(&context.store, &self.model, &device)?;
        let rows = count(context, &["functions", "problems", "queries"]);
        let progress = Progress::new(&format!("embedding for {name}"), "rows", rows);
        chunked(of_shard(context, self.rows(context)?, |row| row.id.clone()), CHUNK, |rows| {
            let items: Vec<Item> = rows.iter().flat_map(|parent| self.items(parent)).collect();
            let of =
                |field| items.iter().filter(move |i| i.field == field).map(|i| i.text.as_str()).collect::<Vec<_>>();
            let mut texts = model.vectors(Role::Query, &of(Field::Text), &device)?.into_iter();
            let mut codes = model.vectors(Role::Document, &of(Field::Code), &device)?.into_iter();
            progress.add(rows.len() as u64);
            for item in items {
                let vector = if item.field == Field::Text { texts.next() } else { codes.next() };
                self.put(name, item, vector.unwrap_or_default(), None, made)?;
            }
            Ok(())
        })
    }

    fn by_server(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        let (client, jobs, has_neighbours) = self.jobs(context)?;
        let server = self.server();
        // A text that is too long has its neighbours refused as well: all of them are asked for alone before it is said that
        // the server refuses everything.
        let mut answers = ask(&asking_for(context, name, &server, &jobs, has_neighbours), client)?;
        answers.summary.iter().for_each(|(key, value)| made.note(name, key, value.clone()));
        let alone = self.ask_alone(context, name, &jobs, &answers)?;
        if alone.is_some() {
            let refused: Vec<&Job> = jobs.list().iter().filter(|job| is_refused(&answers, job)).collect();
            for job in refused {
                // Each of its texts is answered for by itself.
                answers.unanswered.entry(job.key.clone()).and_modify(|(reason, _)| *reason = REFUSED);
            }
        }
        for answers in alone.iter().map(|(_, alone)| alone).chain([&answers]) {
            made.check_open(name, &server, answers)?;
        }
        if let Some((_, answers)) = &alone {
            let summary = answers.summary.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
            made.note(name, "alone", summary.collect::<Map<_, _>>());
        }
        let mut answered = jobs.list().iter();
        let mut answered_alone = alone.iter().flat_map(|(jobs, _)| jobs.list());
        self.batches(context, |items| {
            let Some(job) = answered.next() else { return Ok(()) };
            match &alone {
                Some((_, alone)) if is_refused(&answers, job) && items.len() > 1 => {
                    for (item, job) in items.into_iter().zip(answered_alone.by_ref()) {
                        self.take(name, vec![item], job, alone, made)?;
                    }
                    Ok(())
                }
                _ => self.take(name, items, job, &answers, made),
            }
        })?;
        made.snapshot(name, answers.ledger, jobs.keys());
        if let Some((jobs, answers)) = alone {
            made.snapshot(name, answers.ledger, jobs.keys());
        }
        Ok(())
    }

    /// Asks for each text of the refused requests by itself: one that is too long is not to cost its neighbours their vectors.
    fn ask_alone(
        &self,
        context: &Context,
        name: &str,
        jobs: &Jobs,
        answers: &Answers,
    ) -> Result<Option<(Jobs, Answers)>> {
        if !jobs.list().iter().any(|job| is_refused(answers, job)) {
            return Ok(None);
        }
        let mut asked = jobs.list().iter();
        let alone = self.alone(context, || asked.next().is_some_and(|job| is_refused(answers, job)))?;
        if alone.list().is_empty() {
            return Ok(None);
        }
        tracing::info!("{name}: the texts of refused requests are asked for one by one");
        let server = self.server();
        let client = server.client("/embeddings")?;
        let has_hope = jobs.list().iter().any(|job| answers.ledger.has(&job.key));
        let asked = Asked { may_be_shared: true, ..asking_for(context, name, &server, &alone, has_hope) };
        let answers = ask(&asked, client)?;
        Ok(Some((alone, answers)))
    }

    /// A request for each text of the requests that are wanted; those of one text are that already.
    fn alone(&self, context: &Context, mut is_wanted: impl FnMut() -> bool) -> Result<Jobs> {
        let mut alone = Jobs::new(self.server().client("/embeddings")?.endpoint())?;
        self.batches(context, |items| {
            if !is_wanted() || items.len() == 1 {
                return Ok(());
            }
            items.iter().try_for_each(|item| alone.add(&self.payload(std::slice::from_ref(item))?))
        })?;
        Ok(alone)
    }

    /// The vectors that a request was answered with, or why there are none.
    fn take(&self, name: &str, items: Vec<Item>, job: &Job, answers: &Answers, made: &mut Made) -> Result<()> {
        let found = answers.ledger.find(&job.key)?.map(|answer| parse(&answer.response, items.len()));
        let (reason, words) = match found {
            Some(Ok(vectors)) => {
                let mut vectors = items.into_iter().zip(vectors);
                return vectors.try_for_each(|(item, vector)| self.put(name, item, vector, Some(&job.key), made));
            }
            Some(Err(words)) => ("malformed_answer", words),
            None => answers.unanswered.get(&job.key).cloned().unwrap_or_default(),
        };
        let words = format!("{words} (request {})", job.key);
        items.iter().for_each(|item| made.reject(name, (&item.id, item.position), reason, words.clone()));
        Ok(())
    }

    /// All requests, and whether any asks for several texts.
    fn jobs(&self, context: &Context) -> Result<(Client, Jobs, bool)> {
        let client = self.server().client("/embeddings")?;
        let (mut jobs, mut has_neighbours) = (Jobs::new(client.endpoint())?, false);
        self.batches(context, |items| {
            has_neighbours |= items.len() > 1;
            jobs.add(&self.payload(&items)?)
        })?;
        Ok((client, jobs, has_neighbours))
    }

    /// Whether a request ends with this text.
    fn is_last(&self, text: &str) -> bool {
        key(text).is_multiple_of(self.batch as u64)
    }

    /// Calls with the texts of one request after another, of those that are this shard's.
    fn batches(&self, context: &Context, mut work: impl FnMut(Vec<Item>) -> Result<()>) -> Result<()> {
        let mut batch = Vec::new();
        // A request is one shard's, whosever rows it asks about: one process makes the same ones.
        let mut work = |batch: Vec<Item>| {
            // Where a batch ends the hash of its last text decides; which shard's it is another one does.
            let texts = || batch.iter().map(|item| item.text.as_str()).collect::<Vec<_>>().join("\0");
            if context.shard.is_all() || context.shard.has(key(&format!("batch\0{}", texts()))) {
                work(batch)
            } else {
                Ok(())
            }
        };
        for parent in self.rows(context)? {
            for item in self.items(&parent?) {
                let is_last = self.is_last(&item.text);
                batch.push(item);
                if is_last || batch.len() == self.batch {
                    work(std::mem::take(&mut batch))?;
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { work(batch) }
    }

    fn payload(&self, items: &[Item]) -> Result<String> {
        Ok(serde_json::to_string(&CreateEmbeddingRequest {
            model: self.model.clone(),
            input: EmbeddingInput::StringArray(items.iter().map(|item| item.text.clone()).collect()),
            // A third of the bytes, and exact; servers that do not know it answer with numbers.
            encoding_format: Some(EncodingFormat::Base64),
            user: None,
            dimensions: self.dimensions,
        })?)
    }
}

/// All requests of a generator; what is wrong with an answer to one of them.
fn asking_for<'a>(
    context: &'a Context,
    generator: &'a str,
    server: &'a Server,
    jobs: &'a Jobs,
    is_patient: bool,
) -> Asked<'a> {
    Asked { context, generator, server, jobs, answer_tokens: 0, fault: FAULT, may_be_shared: false, is_patient }
}

/// What is wrong with an answer.
const FAULT: FaultOf<'static> = &|payload: &str, response: &str| parse(response, texts_of(payload)).err();

/// Whether a request was refused, now or before, where there is no money to ask again.
fn is_refused(answers: &Answers, job: &Job) -> bool {
    let why = answers.unanswered.get(&job.key);
    why.is_some_and(|(reason, _)| *reason == REFUSED || answers.ledger.was_refused(&job.key))
}

/// The vectors in a response's body, as numbers or as base64 of little-endian floats, in the order of the inputs.
///
/// # Errors
/// What about it is wrong.
fn parse(response: &str, count: usize) -> Result<Vec<Vec<f32>>, String> {
    let body: Value = serde_json::from_str(response).map_err(|e| format!("the response is no JSON: {e}"))?;
    let data = body["data"].as_array().ok_or("the response has no data")?;
    let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); count];
    for (at, entry) in data.iter().enumerate() {
        let index = entry["index"].as_u64().map_or(at, |index| index as usize);
        let place = vectors.get_mut(index).ok_or_else(|| format!("index {index} of {count} inputs"))?;
        *place = vector(&entry["embedding"]).map_err(|error| error.to_string())?;
    }
    let width = vectors.first().map_or(0, Vec::len);
    if width == 0 || vectors.iter().any(|vector| vector.len() != width) {
        return Err(format!("{} vectors for {count} inputs, or of different lengths", data.len()));
    }
    Ok(vectors)
}

fn vector(value: &Value) -> Result<Vec<f32>> {
    let vector: Vec<f32> = match value {
        Value::String(text) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
            let (floats, rest) = bytes.as_chunks::<4>();
            ensure!(rest.is_empty(), "an embedding of {} bytes is no list of floats", bytes.len());
            floats.iter().map(|float| f32::from_le_bytes(*float)).collect()
        }
        other => serde_json::from_value(other.clone())?,
    };
    ensure!(vector.iter().all(|x| x.is_finite()), "an embedding has numbers that are none");
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_as_numbers_and_as_base64() {
        // 1.0 and -2.0, little-endian.
        let body = r#"{"data": [{"index": 1, "embedding": [0.5, 4]}, {"index": 0, "embedding": "AACAPwAAAMA="}]}"#;
        assert_eq!(parse(body, 2).unwrap(), [[1.0, -2.0], [0.5, 4.0]]);
        for (body, count, word) in [
            (body, 3, "2 vectors for 3 inputs"),
            (body, 1, "index 1 of 1"),
            ("{}", 1, "no data"),
            (r#"{"data": [{"embedding": "AACA"}]}"#, 1, "3 bytes"),
            (r#"{"data": [{"embedding": "!"}]}"#, 1, "Invalid"),
            (r#"{"data": [{"embedding": []}]}"#, 1, "1 vectors"),
        ] {
            let error = parse(body, count).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn pinned_models_are_told_from_servers() {
        let named = |model: &str, base_url: &str| {
            Embed { model: model.to_owned(), base_url: base_url.to_owned(), ..Embed::default() }.is_pinned()
        };
        assert!(named("nbow@0123456789abcdef0123456789abcdef", OPENAI));
        assert!(!named("@cf/baai/bge-base-en", OPENAI));
        assert!(!named("nbow@0123456789abcdef0123456789abcdef", "http://127.0.0.1/v1"));
    }
}
