//! All rows that could become examples, as one view, and the narrow keys that decide about them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hasher;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use arrow::array::{Array, AsArray, FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use codepair_code::first_paragraph;
use codepair_dedup::{BANDS, ContaminationIndex, Repeats, bands, normal_code, normal_text, shingles, structure};
use codepair_runtime::{Context, Progress, block_on, column, integer_column, short_digest, text_column};
use datafusion::prelude::SessionContext;
use futures::StreamExt as _;
use twox_hash::XxHash3_64;

use crate::scratch::{Scratch, Shingles};
use crate::{Prepare, TextPart, filters, functions};

/// The text of a row: white space folded, and of docstrings the first paragraph unless all is asked for.
pub(crate) fn text_of(text: &str, part: TextPart) -> String {
    match part {
        TextPart::Full => normal_text(text),
        TextPart::Summary => normal_text(first_paragraph(text)),
    }
}

/// A session with the view `candidates` and the functions that the queries need.
pub(crate) fn session(context: &Context, config: &Prepare, scratch: &Scratch) -> Result<SessionContext> {
    let session = codepair_sql::bounded_session(context.threads, context.memory_limit, scratch.path())?;
    for dataset in ["functions", "problems", "pairs", "queries", "synthetic_pairs"] {
        let holders: Vec<_> = context.inputs(dataset).map(|manifest| (manifest.as_ref(), dataset)).collect();
        codepair_sql::register(&session, &context.store, dataset, &holders)?;
    }
    let part = config.text;
    session.register_udf(functions::text("docstring_text", 1, move |row| Some(text_of(row[0], part))));
    session.register_udf(functions::text("whole_text", 1, |row| Some(normal_text(row[0]))));
    session.register_udf(functions::text("normal_code", 1, |row| Some(normal_code(row[0]))));
    session.register_udf(functions::key("code_key", 1, |row| Some(short_digest(row))));
    session.register_udf(functions::key("pair_key", 3, |row| Some(short_digest(row))));
    session.register_udf(functions::key("structure_key", 2, |row| structure(row[0], row[1])));
    session.register_udf(functions::hashes("shingles", shingles));
    session.register_udf(functions::hashes_of_hashes("bands", bands));
    filters::register(&session);
    block_on(session.sql(CANDIDATES))?;
    filters::check(&session, &config.filters)?;
    let EvaluationTexts { index, paired } = EvaluationTexts::read(&session, config.near_duplicate_threshold)?;
    tracing::info!("{} test texts that no training row may hold", index.len());
    let index = Arc::new(index);
    let similar = Arc::clone(&index);
    session.register_udf(functions::text("held_by", 1, move |row| index.find(row[0]).map(str::to_owned)));
    session.register_udf(functions::text("like_text", 1, move |row| similar.find_similar(row[0]).map(str::to_owned)));
    session.register_udf(functions::text("like_paired", 1, move |row| paired.find_similar(row[0]).map(str::to_owned)));
    Ok(session)
}

const CANDIDATES: &str = r#"
create view candidates as
select 0 as rank, source, ordinal, id, 'original' as kind, cast(null as varchar) as parent_id, language, split,
       docstring_text(docstring) as text, normal_code(code) as code
from functions
union all
select 1, source, ordinal, id, 'original', cast(null as varchar), 'python', split, whole_text(text), normal_code(code)
from problems
union all
select 2, source, ordinal, id, case when label = 0 then 'negative' else 'original' end, cast(null as varchar), language,
       split, whole_text(text), normal_code(code)
from pairs
union all
select 3, generator, ordinal, id, kind, parent_id, language, split, whole_text(text), normal_code(code)
from synthetic_pairs"#;

/// Test rows, problems that are for testing or prompting, and queries that are not there to learn from.
const EVALUATION_TEXTS: &str = "
select rank, source, ordinal, id, text, code from candidates where split in ('test', 'prompt')
union all select 4, source, ordinal, id, whole_text(text), '' from queries where split <> 'train'
order by rank, source, ordinal";

/// What models are tested on.
struct EvaluationTexts {
    /// Texts and codes.
    index: ContaminationIndex,
    /// The codes of test pairs. Those of functions and problems are found as near-duplicates.
    paired: ContaminationIndex,
}

impl EvaluationTexts {
    fn read(session: &SessionContext, threshold: f64) -> Result<Self> {
        let (mut index, mut paired) = (ContaminationIndex::new(threshold), ContaminationIndex::new(threshold));
        each_batch(session, EVALUATION_TEXTS, |batch| {
            let column = |name| text_column(batch, name);
            let (ids, texts, codes) = (column("id")?, column("text")?, column("code")?);
            for (row, rank) in integer_column(batch, "rank")?.into_iter().enumerate() {
                let (id, text, code) = (ids.value(row), texts.value(row), codes.value(row));
                match rank {
                    // Short documentation is too common to count.
                    0 => index.add(id, text),
                    _ => index.add_whole(id, text),
                }
                index.add(id, code);
                if rank == 2 {
                    paired.add(id, code);
                }
            }
            Ok(())
        })?;
        Ok(Self { index, paired })
    }
}

/// Where the rows of each source begin when all candidates are numbered: by source, by dataset within a source, by
/// ordinal within a dataset. Numbers of rows that ingest rejected stay free.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    starts: BTreeMap<(String, u8), u64>,
    pub(crate) total: u64,
}

impl Positions {
    fn new(session: &SessionContext) -> Result<Self> {
        let mut positions = Self::default();
        let query = "select source, rank, max(ordinal) + 1 as numbers from candidates group by source, rank order by source, rank";
        each_batch(session, query, |batch| {
            let sources = text_column(batch, "source")?;
            let numbers = integer_column(batch, "rank")?.into_iter().zip(integer_column(batch, "numbers")?);
            for (row, (rank, numbers)) in numbers.enumerate() {
                positions.starts.insert((sources.value(row).to_owned(), rank as u8), positions.total);
                positions.total += numbers;
            }
            Ok(())
        })?;
        Ok(positions)
    }

    /// The number of the first row of a source in a dataset.
    pub(crate) fn start(&self, source: &str, rank: u8) -> Result<u64> {
        let start = self.starts.get(&(source.to_owned(), rank));
        start.copied().with_context(|| format!("{source} was not there when the rows were numbered"))
    }

    /// The sources, in the order of their rows.
    pub(crate) fn sources(&self) -> Vec<&str> {
        let mut sources: Vec<&str> = self.starts.keys().map(|(source, _)| source.as_str()).collect();
        sources.dedup();
        sources
    }
}

/// What decides about the rows, by position: a few bytes each.
pub(crate) struct Keys {
    pub(crate) positions: Positions,
    /// Test rows are kept before others: what leaks is the training row.
    pub(crate) ranks: Vec<u8>,
    /// Number of the reason for which a row is out before duplicates are looked at; 0 for none.
    pub(crate) reasons: Vec<u8>,
    pub(crate) reason_names: Vec<String>,
    /// What a contaminated row collided with.
    pub(crate) collisions: HashMap<u64, String>,
    /// Positions of the rows that synthetic pairs were made from, by a hash of their ids.
    pub(crate) parents: HashMap<u64, u64>,
    pub(crate) shingles: Shingles,
}

/// The reason of rows that are looked at as duplicates of others, but are no examples themselves.
pub(crate) const EVALUATION_ONLY: &str = "evaluation_only";
/// The reason of rows that nobody documented.
pub(crate) const NO_TEXT: &str = "no_text";

impl Keys {
    /// The reason for which a row is out before duplicates are looked at.
    pub(crate) fn reason(&self, position: u64) -> Option<&str> {
        match self.reasons[position as usize] {
            0 => None,
            number => Some(&self.reason_names[usize::from(number) - 1]),
        }
    }
}

pub(crate) fn id_hash(id: &str) -> u64 {
    let mut hash = XxHash3_64::new();
    hash.write(id.as_bytes());
    hash.finish()
}

/// Reasons come before duplicates: a row that is out anyway keeps no other row out. `{filters}` are the config's, `{text}`
/// is what rows without text are.
const KEYS: &str = r#"
select rank, source, ordinal, id, split_rank, reason, held, exact_key,
       case when judged then structure_key(code, language) end as structure_key, shingles, bands(shingles) as bands
from (
  select *, case when judged then shingles(code) end as shingles
  from (
    select *, kind = 'original' and rank < 2 and (reason is null or reason = 'evaluation_only') as judged,
           case when reason is null or reason = 'evaluation_only' then
             case when kind = 'original' and rank < 2 then code_key(code) else pair_key(kind, text, code) end end as exact_key
    from (
      select *, case when held is not null then 'contaminated' else first_reason end as reason
      from (
        select *, case when first_reason is null and split in ('train', 'validation')
                       then coalesce(held_by(text), held_by(code), like_text(text),
                                      case when rank > 1 then like_text(code) else like_paired(code) end) end as held
        from (
          select *, case split when 'test' then 0 when 'prompt' then 0 when 'validation' then 1 else 2 end as split_rank,
                 case when rank = 1 and split in ('test', 'prompt') then 'evaluation_only'
                      when split = 'corpus' then 'corpus_only'
                      {text}
                      {filters}
                 end as first_reason
          from candidates)))))"#;

/// Reads all rows once: what decides about each goes into `Keys`, what is to be sorted into the tables `keys` (position,
/// rank, exact and structure key) and `bands` (band, position).
pub(crate) fn keys(session: &SessionContext, config: &Prepare, scratch: &Scratch) -> Result<Keys> {
    let positions = Positions::new(session)?;
    let parents = parents(session)?;
    let total = positions.total as usize;
    let mut reader = KeyReader {
        tables: Tables::new(scratch, total as u64)?,
        shingles: scratch.shingles()?,
        keys: Columns { ranks: vec![0; total], reasons: vec![0; total], ..Columns::default() },
        positions,
        parents: parents.into_iter().map(|hash| (hash, None)).collect(),
    };
    let text = if config.keep_rows_without_text { "" } else { "when text = '' then 'no_text'" };
    let query = KEYS.replace("{text}", text).replace("{filters}", &filters::arms(&config.filters));
    let progress = Progress::new("looking at all rows", "rows", reader.positions.total);
    each_batch(session, &query, |batch| {
        progress.add(batch.num_rows() as u64);
        reader.batch(batch)
    })?;
    let KeyReader { tables, shingles, keys, positions, parents } = reader;
    tables.register(session)?;
    let parents = parents.into_iter().filter_map(|(hash, position)| Some((hash, position?))).collect();
    let Columns { ranks, reasons, reason_names, collisions } = keys;
    Ok(Keys { positions, ranks, reasons, reason_names, collisions, parents, shingles: shingles.finish()? })
}

/// Hashes of the ids of the rows that synthetic pairs were made from.
fn parents(session: &SessionContext) -> Result<HashSet<u64>> {
    let mut parents = HashSet::new();
    each_batch(session, "select distinct parent_id from synthetic_pairs", |batch| {
        parents.extend(text_column(batch, "parent_id")?.iter().flatten().map(id_hash));
        Ok(())
    })?;
    Ok(parents)
}

#[derive(Default)]
struct Columns {
    ranks: Vec<u8>,
    reasons: Vec<u8>,
    reason_names: Vec<String>,
    collisions: HashMap<u64, String>,
}

struct KeyReader {
    tables: Tables,
    shingles: crate::scratch::ShingleWriter,
    keys: Columns,
    positions: Positions,
    parents: HashMap<u64, Option<u64>>,
}

impl KeyReader {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let positions = self.positions_of(batch)?;
        let ranks = integer_column(batch, "split_rank")?;
        let (ids, reasons, held) =
            (text_column(batch, "id")?, text_column(batch, "reason")?, text_column(batch, "held")?);
        let lists = column(batch, "shingles")?.as_list::<i32>();
        let shingles = lists.values().as_primitive::<UInt64Type>().values();
        for (row, &position) in positions.iter().enumerate() {
            self.keys.ranks[position as usize] = ranks[row] as u8;
            if reasons.is_valid(row) {
                self.keys.reasons[position as usize] = self.keys.number(reasons.value(row))?;
            }
            if held.is_valid(row) {
                self.keys.collisions.insert(position, held.value(row).to_owned());
            }
            if let Some(parent) = self.parents.get_mut(&id_hash(ids.value(row))) {
                *parent = Some(position);
            }
            if lists.is_valid(row) {
                let bounds = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
                self.shingles.add(position, &shingles[bounds])?;
            }
        }
        self.tables.add(batch, positions, &ranks)
    }

    fn positions_of(&self, batch: &RecordBatch) -> Result<Vec<u64>> {
        let (ranks, ordinals) = (integer_column(batch, "rank")?, integer_column(batch, "ordinal")?);
        let sources = text_column(batch, "source")?;
        let mut last: Option<(&str, u64, u64)> = None;
        let mut positions = Vec::with_capacity(ordinals.len());
        for (row, ordinal) in ordinals.into_iter().enumerate() {
            let start = match last {
                Some((source, rank, start)) if source == sources.value(row) && rank == ranks[row] => start,
                _ => self.positions.start(sources.value(row), ranks[row] as u8)?,
            };
            last = Some((sources.value(row), ranks[row], start));
            positions.push(start + ordinal);
        }
        Ok(positions)
    }
}

impl Columns {
    /// The number of a reason, from 1.
    fn number(&mut self, reason: &str) -> Result<u8> {
        let known = self.reason_names.iter().position(|name| name == reason);
        let at = known.unwrap_or_else(|| {
            self.reason_names.push(reason.to_owned());
            self.reason_names.len() - 1
        });
        u8::try_from(at + 1).context("there are more than 255 filters")
    }
}

/// The two tables that are sorted later.
struct Tables {
    keys: crate::scratch::ScratchTable,
    bands: crate::scratch::ScratchTable,
    keys_schema: Arc<Schema>,
    bands_schema: Arc<Schema>,
    repeats: Repeats,
}

impl Tables {
    fn new(scratch: &Scratch, rows: u64) -> Result<Self> {
        let field = |name: &str, kind: DataType, nullable| Field::new(name, kind, nullable);
        let keys_schema = Arc::new(Schema::new(vec![
            field("position", DataType::UInt64, false),
            field("split_rank", DataType::UInt8, false),
            field("exact_key", DataType::FixedSizeBinary(16), true),
            field("structure_key", DataType::FixedSizeBinary(16), true),
        ]));
        let bands_schema = Arc::new(Schema::new(vec![
            field("band", DataType::UInt64, false),
            field("position", DataType::UInt64, false),
        ]));
        Ok(Self {
            keys: scratch.table("keys", Arc::clone(&keys_schema))?,
            bands: scratch.table("bands", Arc::clone(&bands_schema))?,
            keys_schema,
            bands_schema,
            repeats: Repeats::new(rows * BANDS as u64),
        })
    }

    fn add(&mut self, batch: &RecordBatch, positions: Vec<u64>, ranks: &[u64]) -> Result<()> {
        let lists = column(batch, "bands")?.as_list::<i32>();
        let mut owners = Vec::with_capacity(lists.values().len());
        for (bounds, &position) in lists.value_offsets().windows(2).zip(&positions) {
            owners.extend(std::iter::repeat_n(position, (bounds[1] - bounds[0]) as usize));
        }
        let first = lists.value_offsets()[0] as usize;
        let hashes = lists.values().slice(first, owners.len());
        self.repeats.add(hashes.as_primitive::<UInt64Type>().values());
        let bands = vec![hashes, Arc::new(UInt64Array::from(owners)) as _];
        self.bands.write(&RecordBatch::try_new(Arc::clone(&self.bands_schema), bands)?)?;
        let keys = vec![
            Arc::new(UInt64Array::from(positions)) as _,
            Arc::new(ranks.iter().map(|&rank| Some(rank as u8)).collect::<UInt8Array>()) as _,
            Arc::clone(column(batch, "exact_key")?),
            Arc::clone(column(batch, "structure_key")?),
        ];
        self.keys.write(&RecordBatch::try_new(Arc::clone(&self.keys_schema), keys)?)
    }

    fn register(self, session: &SessionContext) -> Result<()> {
        let repeats = self.repeats;
        session.register_udf(functions::number_predicate("came_again", move |band| repeats.has(band)));
        self.keys.register(session)?;
        self.bands.register(session)
    }
}

/// Rows with an equal key: each position with the first of its key, the most protected split first.
pub(crate) fn equal(session: &SessionContext, key: &str, mut found: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let query = format!(
        "select {key}, split_rank, position from keys where {key} is not null order by {key}, split_rank, position"
    );
    let mut last: Option<([u8; 16], u64)> = None;
    each_batch(session, &query, |batch| {
        let keys: &FixedSizeBinaryArray = column(batch, key)?.as_fixed_size_binary();
        ensure!(keys.value_length() == 16, "{key} has another length");
        for (row, position) in integer_column(batch, "position")?.into_iter().enumerate() {
            let mut own = [0; 16];
            own.copy_from_slice(keys.value(row));
            match last {
                Some((key, first)) if key == own => found(position, first)?,
                _ => last = Some((own, position)),
            }
        }
        Ok(())
    })
}

/// Runs a query and hands its batches on as they come.
pub(crate) fn each_batch(
    session: &SessionContext,
    query: &str,
    mut use_batch: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut stream = block_on(async { session.sql(query).await?.execute_stream().await })?;
    while let Some(batch) = block_on(stream.next()) {
        use_batch(&batch?)?;
    }
    Ok(())
}
