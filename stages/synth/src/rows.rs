//! Rows in and out.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

use anyhow::{Context as _, Result, bail};
use arrow::array::{RecordBatch, StringArray};
use codepair_runtime::{Attempt, Context, Digest, Position, RowWriter, Shard, Shards, sha256, text_column};
use codepair_schemas::rows::{Embedding, Rejected, Request, SyntheticPair};
use serde_json::{Map, Value};

use crate::openai::{Answers, Ledger, Server};

/// A row that pairs are made from, or whose text and code are embedded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parent {
    pub(crate) id: String,
    pub(crate) dataset: &'static str,
    pub(crate) source: String,
    /// Empty where nobody documented it.
    pub(crate) text: String,
    /// Empty of queries.
    pub(crate) code: String,
    pub(crate) language: String,
    pub(crate) group: String,
    pub(crate) split: String,
    /// Repository and path of a function; what a query says the user was in.
    pub(crate) context: String,
    /// Where it stands among all rows.
    pub(crate) position: Position,
}

impl Parent {
    /// What names it, and where it stands.
    pub(crate) fn place(&self) -> (&str, Position) {
        (&self.id, self.position)
    }

    pub(crate) fn has_text(&self) -> bool {
        !self.text.trim().is_empty()
    }
}

/// A dataset that parents come from: its columns for text, code and language, and those that say where it stands.
struct Origin {
    dataset: &'static str,
    columns: &'static [&'static str],
    text: &'static str,
    code: Option<&'static str>,
    context: &'static [&'static str],
}

const FUNCTIONS: Origin = Origin {
    dataset: "functions",
    columns: &["id", "source", "docstring", "code", "language", "group", "split", "repo", "path"],
    text: "docstring",
    code: Some("code"),
    context: &["repo", "path"],
};

const PROBLEMS: Origin = Origin {
    dataset: "problems",
    columns: &["id", "source", "text", "code", "group", "split"],
    text: "text",
    code: Some("code"),
    context: &[],
};

const QUERIES: Origin = Origin {
    dataset: "queries",
    columns: &["id", "source", "text", "context", "split"],
    text: "text",
    code: None,
    context: &["context"],
};

/// In the order in which generators read them.
const ORIGINS: [&Origin; 3] = [&FUNCTIONS, &PROBLEMS, &QUERIES];

/// Which splits are read. Pairs are made of training rows alone: nobody trains on others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Splits {
    Train,
    All,
}

impl Splits {
    fn has(self, split: &str) -> bool {
        self == Self::All || split == "train"
    }
}

/// Functions and problems, documented or not, in the order of the datasets.
pub(crate) fn parents(context: &Context, splits: Splits) -> impl Iterator<Item = Result<Parent>> {
    of(context, &FUNCTIONS, splits).chain(of(context, &PROBLEMS, splits))
}

/// Those of the training split with a text.
pub(crate) fn documented(context: &Context) -> impl Iterator<Item = Result<Parent>> {
    parents(context, Splits::Train).filter(|parent| parent.as_ref().map_or(true, Parent::has_text))
}

/// Queries.
pub(crate) fn queries(context: &Context, splits: Splits) -> impl Iterator<Item = Result<Parent>> {
    of(context, &QUERIES, splits)
}

/// At most `limit` of the rows, by the hash of their ids, in their order: the first so many would be of a few modules.
///
/// # Errors
/// The rows cannot be read.
pub(crate) fn limited<'a, I: Iterator<Item = Result<Parent>> + 'a>(
    limit: Option<usize>,
    rows: impl Fn() -> I,
) -> Result<Box<dyn Iterator<Item = Result<Parent>> + 'a>> {
    let Some(limit) = limit else { return Ok(Box::new(rows())) };
    // The greatest of the least hashes so far is on top.
    let mut least = BinaryHeap::new();
    for row in rows() {
        let hash = key(&row?.id);
        if least.len() < limit {
            least.push(hash);
        } else if least.peek().is_some_and(|greatest| hash < *greatest) {
            least.pop();
            least.push(hash);
        }
    }
    let most = least.into_vec().into_iter().max();
    let is_taken =
        move |row: &Result<Parent>| row.as_ref().map_or(true, |row| most.is_some_and(|most| key(&row.id) <= most));
    Ok(Box::new(rows().filter(is_taken)))
}

fn of<'a>(context: &'a Context, origin: &'static Origin, splits: Splits) -> impl Iterator<Item = Result<Parent>> + 'a {
    let batches = context.stream(origin.dataset, origin.columns);
    // The rows of the datasets before it are counted too, for a generator may read several.
    let before: Vec<&str> =
        ORIGINS.iter().map(|origin| origin.dataset).take_while(|name| *name != origin.dataset).collect();
    let mut first = count(context, &before);
    batches.flat_map(move |batch| {
        let read = batch.and_then(|batch| {
            let parents = read(origin, splits, first, &batch)?;
            first += batch.num_rows() as u64;
            Ok(parents)
        });
        match read {
            Ok(parents) => parents.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    })
}

fn read(origin: &'static Origin, splits: Splits, first: u64, batch: &RecordBatch) -> Result<Vec<Parent>> {
    let find = |name: &str| origin.columns.contains(&name).then(|| text_column(batch, name)).transpose();
    let value = |column: Option<&StringArray>, row| column.map_or(String::new(), |column| column.value(row).to_owned());
    let (id, source, text) = (find("id")?, find("source")?, find(origin.text)?);
    let code = origin.code.map(|name| text_column(batch, name)).transpose()?;
    let (language, group, split) = (find("language")?, find("group")?, text_column(batch, "split")?);
    let context = origin.context.iter().map(|name| text_column(batch, name)).collect::<Result<Vec<_>>>()?;
    let seen = (0..batch.num_rows()).filter(|row| splits.has(split.value(*row)));
    let parent = |row| Parent {
        id: value(id, row),
        dataset: origin.dataset,
        source: value(source, row),
        text: value(text, row),
        code: value(code, row),
        language: language.map_or("python", |column| column.value(row)).to_owned(),
        group: value(group, row),
        split: split.value(row).to_owned(),
        context: context.iter().map(|column| column.value(row)).collect::<Vec<_>>().join(" "),
        position: Position::of(first + row as u64),
    };
    Ok(seen.map(parent).collect())
}

/// Of some rows those that this process has to see to: by the hash of what `of` says of them.
pub(crate) fn of_shard<'a>(
    context: &'a Context,
    rows: impl Iterator<Item = Result<Parent>> + 'a,
    of: impl Fn(&Parent) -> String + 'a,
) -> impl Iterator<Item = Result<Parent>> + 'a {
    let shard = context.shard;
    rows.filter(move |row| shard.is_all() || row.as_ref().map_or(true, |row| shard.has(key(&of(row)))))
}

/// 64 bits of a SHA-256.
pub(crate) fn key(text: &str) -> u64 {
    u64::from_str_radix(&sha256(text.as_bytes())[..16], 16).unwrap_or_default()
}

/// Rows of datasets, those of all splits.
pub(crate) fn count(context: &Context, datasets: &[&str]) -> u64 {
    datasets.iter().flat_map(|dataset| context.inputs(dataset).map(|manifest| manifest.rows(dataset))).sum()
}

/// Calls with so many rows at a time.
pub(crate) fn chunked(
    rows: impl Iterator<Item = Result<Parent>>,
    size: usize,
    mut work: impl FnMut(Vec<Parent>) -> Result<()>,
) -> Result<()> {
    let mut chunk = Vec::with_capacity(size);
    for row in rows {
        chunk.push(row?);
        if chunk.len() == size {
            work(std::mem::replace(&mut chunk, Vec::with_capacity(size)))?;
        }
    }
    if chunk.is_empty() { Ok(()) } else { work(chunk) }
}

/// What a pair says of its parent's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PairKind {
    /// The code does what the text says.
    Positive,
    /// It does not.
    Negative,
}

impl PairKind {
    fn name(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
        }
    }
}

/// All that the generators made; pairs and vectors are written as they come.
pub(crate) struct Made {
    pairs: RowWriter<SyntheticPair>,
    /// Nothing once the vectors are ended.
    embeddings: Option<RowWriter<Embedding>>,
    rejected: Vec<Rejected>,
    /// The requests that were used, and the ledger that holds them.
    requests: Vec<(String, usize)>,
    ledgers: Vec<(String, Ledger)>,
    /// What each generator did, for the manifest.
    notes: BTreeMap<String, Map<String, Value>>,
    /// Pairs, vectors and rejected rows of each generator: the next ordinal.
    counts: HashMap<String, u64>,
    /// Where the next row of each generator stands at least, where this is one of several shards.
    positions: Option<HashMap<String, Position>>,
    /// Of pairs: 64 bits each.
    ids: HashSet<u64>,
    /// What is open of generators, in words.
    open: BTreeMap<String, String>,
}

/// A pair before it has its place.
pub(crate) struct Pair {
    pub(crate) kind: PairKind,
    pub(crate) edit: String,
    pub(crate) text: String,
    pub(crate) code: String,
    pub(crate) provenance: Provenance,
}

/// Where a pair comes from; nothing where no model made it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Provenance {
    /// Hash of the API request.
    pub(crate) request: Option<String>,
    pub(crate) model: Option<String>,
    /// Digest of the prompt's files.
    pub(crate) prompt: Option<String>,
    /// Of sampling or mining, as JSON.
    pub(crate) parameters: Option<String>,
    pub(crate) seed: Option<i64>,
}

impl Made {
    pub(crate) fn new(attempt: &Attempt, shard: Shard) -> Result<Self> {
        Ok(Self {
            positions: (!shard.is_all()).then(HashMap::new),
            pairs: attempt.row_writer()?,
            embeddings: Some(attempt.row_writer()?),
            rejected: Vec::new(),
            requests: Vec::new(),
            ledgers: Vec::new(),
            notes: BTreeMap::new(),
            counts: HashMap::new(),
            ids: HashSet::new(),
            open: BTreeMap::new(),
        })
    }

    /// The ordinal of the next row of a generator, made of what stands at `position`.
    fn next(&mut self, generator: &str, position: Position) -> u64 {
        let count = self.counts.entry(generator.to_owned()).or_default();
        *count += 1;
        let Some(positions) = &mut self.positions else { return *count - 1 };
        let next = positions.entry(generator.to_owned()).or_default();
        let own = position.max(*next);
        *next = own.next();
        own.ordinal()
    }

    /// Notes something of a generator for the manifest.
    pub(crate) fn note(&mut self, generator: &str, key: &str, value: impl Into<Value>) {
        self.notes.entry(generator.to_owned()).or_default().insert(key.to_owned(), value.into());
    }

    /// Pairs, vectors and rejected rows of a generator so far.
    pub(crate) fn count(&self, generator: &str) -> u64 {
        self.counts.get(generator).copied().unwrap_or(0)
    }

    pub(crate) fn pair(&mut self, generator: &str, parent: &Parent, pair: Pair) -> Result<()> {
        let ordinal = self.next(generator, parent.position);
        let mut digest = Digest::default();
        let request = pair.provenance.request.as_deref().unwrap_or_default();
        for field in [generator, &parent.id, pair.kind.name(), &pair.edit, &pair.text, &pair.code, request] {
            digest.field(field);
        }
        // Where a row stands decides nothing: one more before it must not rename it. What is equal in all else is numbered.
        let mut id = digest.clone().finish()[..16].to_owned();
        let mut copies = 0;
        while !self.ids.insert(u64::from_str_radix(&id, 16)?) {
            copies += 1;
            let mut copy = digest.clone();
            copy.field(&copies.to_string());
            id = copy.finish()[..16].to_owned();
        }
        self.pairs.push(SyntheticPair {
            id,
            generator: generator.to_owned(),
            ordinal,
            kind: pair.kind.name().to_owned(),
            edit: pair.edit,
            parent_id: parent.id.clone(),
            parent_dataset: parent.dataset.to_owned(),
            source: parent.source.clone(),
            text: pair.text,
            code: pair.code,
            language: parent.language.clone(),
            group: parent.group.clone(),
            split: parent.split.clone(),
            request: pair.provenance.request,
            model: pair.provenance.model,
            prompt: pair.provenance.prompt,
            parameters: pair.provenance.parameters,
            seed: pair.provenance.seed,
        })
    }

    /// A vector of a parent's `field`; the generator and its place are filled in.
    pub(crate) fn embedding(&mut self, generator: &str, position: Position, embedding: Embedding) -> Result<()> {
        let ordinal = self.next(generator, position);
        let writer = self.embeddings.as_mut().context("vectors are made before pairs")?;
        writer.push(Embedding { generator: generator.to_owned(), ordinal, ..embedding })
    }

    /// A pair or vector that could not be made of a row.
    pub(crate) fn reject(
        &mut self,
        generator: &str,
        (id, position): (&str, Position),
        reason: &str,
        detail: impl Into<String>,
    ) {
        let ordinal = self.next(generator, position);
        self.rejected.push(Rejected {
            stage: "synth".to_owned(),
            source: generator.to_owned(),
            ordinal,
            id: id.to_owned(),
            reason: reason.to_owned(),
            detail: detail.into(),
        });
    }

    /// Keeps the requests that a generator used of a ledger.
    pub(crate) fn snapshot(&mut self, generator: &str, ledger: Ledger, used: impl IntoIterator<Item = String>) {
        let place = self.ledgers.len();
        self.requests.extend(used.into_iter().map(|request| (request, place)));
        self.ledgers.push((generator.to_owned(), ledger));
    }

    /// Goes on only where no request is open, or the config wants what there is all the same: an artifact that lacks answers
    /// must not pass for a finished one.
    ///
    /// # Errors
    /// Requests are open, for want of money or because they failed in passing; what was answered is in the ledger.
    pub(crate) fn check_open(&mut self, generator: &str, server: &Server, answers: &Answers) -> Result<()> {
        let Some(open) = answers.open() else { return Ok(()) };
        if !server.partial {
            bail!(
                "not all requests have an answer: {open}. What was answered is kept; run it again to go on from there, or publish \
                 what there is with partial = true"
            );
        }
        tracing::warn!("{generator}: incomplete: {open}");
        self.open.insert(generator.to_owned(), open);
        Ok(())
    }

    /// Ends the vectors, so that they can be read back.
    pub(crate) fn finish_embeddings(&mut self, attempt: &mut Attempt) -> Result<()> {
        self.embeddings.take().map_or(Ok(()), |writer| attempt.finish_rows(writer))
    }

    pub(crate) fn write(mut self, attempt: &mut Attempt) -> Result<()> {
        if !self.open.is_empty() {
            let open = self.open.iter().map(|(generator, open)| format!("{generator}: {open}"));
            attempt.mark_incomplete(open.collect::<Vec<_>>().join("; "));
        }
        for (generator, note) in self.notes {
            attempt.note(&generator, note);
        }
        for row in &self.rejected {
            attempt.count_rejected(&row.reason, 1);
        }
        attempt.finish_rows(self.pairs)?;
        self.requests.sort();
        self.requests.dedup_by(|a, b| a.0 == b.0);
        let mut requests = attempt.row_writer()?;
        for (request, place) in self.requests {
            let (generator, ledger) = &self.ledgers[place];
            for row in ledger.all(&request)? {
                requests.push(Request { generator: generator.clone(), ..row })?;
            }
        }
        attempt.finish_rows(requests)?;
        // Generators of vectors run first, and may stand behind others in the order of names.
        self.rejected.sort_by(|a, b| a.source.cmp(&b.source).then(a.ordinal.cmp(&b.ordinal)));
        attempt.write_rows(self.rejected)
    }
}

/// Puts together what shards made, and notes of the generators.
pub(crate) fn merge(context: &mut Context, shards: &Shards, notes: BTreeMap<String, Value>) -> Result<()> {
    let numbered = [("synthetic_pairs", "generator"), ("embeddings", "generator"), ("rejected", "source")];
    shards.merge_numbered(&mut context.attempt, &numbered, Ok)?;
    // Several shards may have used a request, of which the first generator counts.
    shards.merge_distinct(&mut context.attempt, "requests", &["request", "attempt", "generator"], 2)?;
    shards.rejected().iter().for_each(|(reason, rows)| context.attempt.count_rejected(reason, *rows));
    notes.into_iter().for_each(|(key, note)| context.attempt.note(&key, note));
    if let Some(open) = shards.incomplete() {
        context.attempt.mark_incomplete(open);
    }
    Ok(())
}
