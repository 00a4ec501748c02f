//! Token tables as pairs, on disk: in memory are caches of a fixed size, however many pairs there are.

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use bytemuck::{Pod, Zeroable};
use codepair_model::{Pair, Side, Task};
use codepair_runtime::{Context, Paged, PagedMap, Piece, Spool, column, input_error, text_column};
use codepair_schemas::DocumentField;
use codepair_tokenizer::{Tokenizer, token_ids};
use twox_hash::XxHash3_64;

use crate::TrainConfig;
use crate::documents::Documents;
use crate::mixture::Mixture;

/// Bytes of each array on disk that may be in memory.
pub(crate) const CACHE: u64 = 16 << 20;

/// A pair with the negatives that were made for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Example {
    pub(crate) pair: Pair,
    pub(crate) negatives: Vec<Vec<u32>>,
}

/// The examples of the two splits that training sees, and how many were left out.
pub(crate) struct Data {
    pub(crate) training: Examples,
    /// Which of them an epoch takes, where not all once.
    mixture: Option<Mixture>,
    pub(crate) validation: Examples,
    /// A generator cannot learn to end a target that is cut, so longer ones are left out.
    pub(crate) too_long: u64,
    /// How often each token stands in the targets that a generator learns from, their ends not counted.
    pub(crate) target_counts: Vec<u64>,
}

/// Examples by number.
pub(crate) struct Examples {
    spool: Spool,
    /// Of each example the lengths of its source and of its target's fields, and their tokens.
    pieces: Paged<Piece>,
    /// Of each example the tokens of source and target, all fields counted and cut as a document is.
    tokens: Paged<u64>,
    count: u64,
    negatives: Negatives,
    /// How the fields of a search model's target are put together.
    documents: Option<Documents>,
}

/// The negatives of all examples: for each a chain.
struct Negatives {
    /// The first and the last link of each example, from 1.
    ends: Paged<[u64; 2]>,
    links: Paged<Link>,
    count: u64,
}

/// A negative, and the one after it, from 1; 0 behind the last.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Link {
    piece: Piece,
    next: u64,
}

impl Examples {
    fn new(documents: Option<&Documents>) -> Result<Self> {
        let negatives = Negatives { ends: Paged::new(CACHE)?, links: Paged::new(CACHE)?, count: 0 };
        Ok(Self {
            spool: Spool::new()?,
            pieces: Paged::new(CACHE)?,
            tokens: Paged::new(CACHE)?,
            count: 0,
            negatives,
            documents: documents.cloned(),
        })
    }

    /// Words of an example before its tokens.
    fn head(&self) -> usize {
        1 + self.documents.as_ref().map_or(1, Documents::fields)
    }

    fn push(&mut self, source: &[u32], fields: &[Vec<u32>]) -> Result<()> {
        // No more of a field is ever shown.
        let most = self.documents.as_ref().map_or(usize::MAX, Documents::most);
        let fields: Vec<&[u32]> = fields.iter().map(|field| &field[..field.len().min(most)]).collect();
        let shown = fields.iter().map(|field| field.len()).sum::<usize>().min(most);
        self.tokens.set(self.count, (source.len() + shown) as u64)?;
        let mut words = vec![source.len() as u32];
        words.extend(fields.iter().map(|field| field.len() as u32));
        words.extend(source);
        fields.iter().for_each(|field| words.extend(*field));
        self.pieces.set(self.count, self.spool.put(bytemuck::cast_slice(&words))?)?;
        self.count += 1;
        Ok(())
    }

    fn push_negative(&mut self, example: u64, target: &[u32]) -> Result<()> {
        let own = &mut self.negatives;
        let piece = self.spool.put(bytemuck::cast_slice(target))?;
        own.links.set(own.count, Link { piece, next: 0 })?;
        own.count += 1;
        let [first, last] = own.ends.get(example)?;
        if let Some(last) = last.checked_sub(1) {
            own.links.set(last, Link { next: own.count, ..own.links.get(last)? })?;
        }
        own.ends.set(example, [if last == 0 { own.count } else { first }, own.count])
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Tokens of an example's pair at most.
    pub(crate) fn tokens(&self, example: u64) -> Result<usize> {
        Ok(self.tokens.get(example)? as usize)
    }

    /// An example, with so many of its negatives at most; as training shows it where there is a seed, and else as validation does.
    pub(crate) fn get(&self, example: u64, negatives: usize, seed: Option<u64>) -> Result<Example> {
        let words = self.words(self.pieces.get(example)?)?;
        let (lengths, mut tokens) = words.split_at_checked(self.head()).context("an example has no words")?;
        let mut take = |length: &u32| {
            let (own, rest) = tokens.split_at(*length as usize);
            tokens = rest;
            own.to_vec()
        };
        let source = take(&lengths[0]);
        let mut fields: Vec<Vec<u32>> = lengths[1..].iter().map(take).collect();
        let target = match &self.documents {
            Some(documents) => documents.of(&fields, seed.map(|seed| seed ^ example)),
            None => fields.pop().unwrap_or_default(),
        };
        let pair = Pair { source, target };
        let mut found = Vec::new();
        let [mut next, _] = self.negatives.ends.get(example)?;
        while let Some(link) = next.checked_sub(1).filter(|_| found.len() < negatives) {
            let Link { piece, next: after } = self.negatives.links.get(link)?;
            found.push(self.words(piece)?);
            next = after;
        }
        Ok(Example { pair, negatives: found })
    }

    fn words(&self, piece: Piece) -> Result<Vec<u32>> {
        let mut words = vec![0u32; piece.bytes() / size_of::<u32>()];
        self.spool.read(piece, bytemuck::cast_slice_mut(&mut words))?;
        Ok(words)
    }
}

/// Reads the pairs, and then the negatives of those that are trained on.
pub(crate) fn read(
    context: &Context,
    config: &TrainConfig,
    tokenizers: [&Tokenizer; 2],
    vocabulary: usize,
) -> Result<Data> {
    let generation = config.model.task() == Task::Generation;
    let documents = || Documents::new(&config.source, &config.target, tokenizers[1]);
    let documents = (!generation).then(documents).transpose()?;
    let mut data = Data {
        training: Examples::new(documents.as_ref())?,
        mixture: (!config.source_weights.is_empty()).then(|| Mixture::new(config.seed)),
        validation: Examples::new(documents.as_ref())?,
        too_long: 0,
        target_counts: vec![0; vocabulary],
    };
    // Of each training example its number, from 1, by its id.
    let mut numbers = PagedMap::new(CACHE)?;
    let most = config.max_examples.map_or(u64::MAX, |most| most as u64);
    each_row(context, config, tokenizers[0], |row, source, fields| {
        let is_training = match (row.split, row.kind) {
            ("train", "original") => true,
            ("train", "positive") if config.synthetic_positives => true,
            ("validation", "original") => false,
            _ => return Ok(()),
        };
        if generation && fields[0].len() > config.target.max_tokens {
            data.too_long += u64::from(is_training);
            return Ok(());
        }
        let into = if is_training { &mut data.training } else { &mut data.validation };
        if is_training && into.count == most {
            return Ok(());
        }
        if let Some(mixture) = data.mixture.as_mut().filter(|_| is_training) {
            mixture.push(row.source, into.count, &config.source_weights)?;
        }
        into.push(source, fields)?;
        if is_training {
            fields.iter().flatten().for_each(|&token| data.target_counts[token as usize] += 1);
        }
        if is_training && !config.negatives.is_empty() {
            let number = into.count;
            numbers.update(hash(row.id), |known| if known == 0 { number } else { known })?;
        }
        Ok(())
    })?;
    if !config.negatives.is_empty() {
        read_negatives(context, config, tokenizers, &numbers, &mut data.training)?;
    }
    check(&data, config)?;
    let name = context.model.as_deref().unwrap_or_default();
    data.mixture
        .as_ref()
        .map_or(Ok(()), |mixture| mixture.check(&format!("train.{name}.source_weights"), &config.source_weights))?;
    Ok(data)
}

/// Reads the negatives of these examples: they may come before their pair, so this is a pass of its own.
fn read_negatives(
    context: &Context,
    config: &TrainConfig,
    tokenizers: [&Tokenizer; 2],
    numbers: &PagedMap,
    training: &mut Examples,
) -> Result<()> {
    let mut missing: Vec<&String> = config.negatives.iter().collect();
    each_row(context, config, tokenizers[0], |row, _, fields| {
        if row.kind != "negative" {
            return Ok(());
        }
        missing.retain(|name| *row.name != ***name);
        if row.split != "train" || !config.negatives.iter().any(|name| name == row.name) {
            return Ok(());
        }
        let parent = row.parent.map_or(Ok(0), |parent| numbers.get(hash(parent)))?;
        let Some(example) = parent.checked_sub(1) else { return Ok(()) };
        let document = training.documents.as_ref().map(|documents| documents.of(fields, None));
        training.push_negative(example, document.as_deref().unwrap_or(&fields[0]))
    })?;
    if !missing.is_empty() {
        let missing = missing.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            "negatives names {missing}, and no negative has that name: codepair sql \"select distinct name from examples where kind = 'negative'\""
        );
    }
    Ok(())
}

fn hash(id: &str) -> u64 {
    XxHash3_64::oneshot(id.as_bytes())
}

/// That there is something to learn from, and a warning where much was left out.
fn check(data: &Data, config: &TrainConfig) -> Result<()> {
    let (training, validation, too_long) = (data.training.len(), data.validation.len(), data.too_long);
    if training == 0 || validation == 0 {
        return Err(input_error(format!(
            "there are {training} training and {validation} validation pairs, and {too_long} that were too long; ingest \
             more groups (top-level modules or repositories), let the source's shares leave some for each split, such as \
             shares = {{ validation = 0.2, test = 0.2 }}, or raise target.max_tokens"
        )));
    }
    let all = training + validation + too_long;
    if too_long * 4 > all {
        tracing::warn!(
            "{too_long} of {all} pairs are longer than target.max_tokens = {} and are left out: little is learned from the rest; raise it",
            config.target.max_tokens
        );
    }
    Ok(())
}

impl Data {
    /// How many examples an epoch has.
    pub(crate) fn rows(&self) -> u64 {
        self.mixture.as_ref().map_or(self.training.len(), Mixture::rows)
    }

    /// The example that is a row of an epoch.
    pub(crate) fn example(&self, epoch: u32, row: u64) -> Result<u64> {
        self.mixture.as_ref().map_or(Ok(row), |mixture| mixture.example(epoch, row))
    }
}

/// What a row of the token tables is.
struct Row<'a> {
    id: &'a str,
    source: &'a str,
    kind: &'a str,
    name: &'a str,
    parent: Option<&'a str>,
    split: &'a str,
}

/// Calls `use_row` with the rows of both token tables together: a source, cut and framed, and the fields of its target. What has no
/// tokens on a side is passed over.
fn each_row(
    context: &Context,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    mut use_row: impl FnMut(&Row, &[u32], &[Vec<u32>]) -> Result<()>,
) -> Result<()> {
    let main = config.target.document().iter().position(|field| *field == config.target.column.into()).unwrap_or(0);
    let tables = [&config.source, &config.target].map(|side| format!("tokens_{}", side.tokenizer));
    let columns = [&config.source, &config.target].map(|side| [&COLUMNS[..], &token_columns(side)].concat());
    let mut sources = Cursor::new(context.stream(&tables[0], &columns[0]), &config.source);
    let mut targets = Cursor::new(context.stream(&tables[1], &columns[1]), &config.target);
    loop {
        let (source, target) = match (sources.next()?, targets.next()?) {
            (Some(source), Some(target)) => (source, target),
            (None, None) => return Ok(()),
            _ => bail!("the token tables do not fit together: one has more rows"),
        };
        if source.0.id != target.0.id {
            bail!("the token tables do not fit together: {} and {}", source.0.id, target.0.id);
        }
        let (row, mut read, fields) = (source.0, source.1.concat(), target.1);
        if read.is_empty() || fields[main].is_empty() {
            continue;
        }
        tokenizer.fit(&mut read, config.source.max_tokens);
        use_row(&row, &read, &fields)?;
    }
}

const COLUMNS: [&str; 6] = ["id", "source", "kind", "name", "parent_id", "split"];

/// The columns of a token table that a side is made of.
fn token_columns(side: &Side) -> Vec<&'static str> {
    side.document().into_iter().map(|field| field.token_columns()[0]).collect()
}

/// A token table being read in order.
struct Cursor<'a, I> {
    batches: I,
    side: &'a Side,
    batch: Option<Batch>,
    row: usize,
}

/// The columns of a batch, found once.
struct Batch {
    texts: [StringArray; COLUMNS.len()],
    /// Of each field.
    tokens: Vec<BinaryArray>,
    rows: usize,
    width: usize,
}

impl<'a, I: Iterator<Item = Result<RecordBatch>>> Cursor<'a, I> {
    fn new(batches: I, side: &'a Side) -> Self {
        Self { batches, side, batch: None, row: 0 }
    }

    /// The next row and the tokens of each field.
    fn next(&mut self) -> Result<Option<(Row<'_>, Vec<Vec<u32>>)>> {
        self.row += 1;
        while self.batch.as_ref().is_none_or(|batch| self.row >= batch.rows) {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            (self.batch, self.row) = (Some(Batch::of(&batch?, self.side)?), 0);
        }
        let Some(batch) = &self.batch else { return Ok(None) };
        let [id, source, kind, name, parent, split] = &batch.texts;
        let row = Row {
            id: id.value(self.row),
            source: source.value(self.row),
            kind: kind.value(self.row),
            name: name.value(self.row),
            parent: parent.is_valid(self.row).then(|| parent.value(self.row)),
            split: split.value(self.row),
        };
        let tokens = batch.tokens.iter().map(|tokens| token_ids(tokens.value(self.row), batch.width));
        Ok(Some((row, tokens.collect())))
    }
}

impl Batch {
    fn of(batch: &RecordBatch, side: &Side) -> Result<Self> {
        let tokens = |field: &DocumentField| {
            let tokens = column(batch, field.token_columns()[0])?.as_binary::<i32>().clone();
            if tokens.null_count() > 0 {
                let field = field.name();
                return Err(input_error(format!("the tokenizer {} does not read {field}", side.tokenizer)));
            }
            Ok(tokens)
        };
        let tokens = side.document().iter().map(tokens).collect::<Result<Vec<_>>>()?;
        let texts = COLUMNS.map(|name| text_column(batch, name).cloned());
        let [id, source, kind, name, parent, split] = texts;
        let schema = batch.schema();
        let width = schema.metadata().get("token_bytes").context("token_bytes is missing")?.parse()?;
        Ok(Self { texts: [id?, source?, kind?, name?, parent?, split?], tokens, rows: batch.num_rows(), width })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Negatives come in any order, and are found by their example in the order in which they came.
    #[test]
    fn examples_are_read_by_number() {
        let mut examples = Examples::new(None).unwrap();
        let pair = |n: u32| Pair { source: vec![n; n as usize % 3 + 1], target: vec![n, 7, n] };
        (0..100).for_each(|n| examples.push(&pair(n).source, &[pair(n).target]).unwrap());
        for negative in 0..50u32 {
            examples.push_negative(u64::from(negative * 3 % 10), &[negative; 2]).unwrap();
        }
        assert_eq!((examples.len(), examples.tokens(4).unwrap()), (100, 5));
        for n in 0..100 {
            let expected: Vec<Vec<u32>> =
                (0..50).filter(|negative| negative * 3 % 10 == n).map(|n| vec![n; 2]).collect();
            let found = examples.get(u64::from(n), usize::MAX, None).unwrap();
            assert_eq!((found.pair, &found.negatives), (pair(n), &expected));
            assert_eq!(examples.get(u64::from(n), 2, Some(1)).unwrap().negatives, expected[..expected.len().min(2)]);
        }
    }
}
