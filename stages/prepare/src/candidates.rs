//! All rows that could become examples, as one view, and their numbers.

use std::collections::BTreeMap;
use std::hash::Hasher;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use codepair_code::first_paragraph;
use codepair_dedup::{bands, normal_code, normal_text, shingles, structure};
use codepair_runtime::{Context, block_on, integer_column, short_digest, text_column};
use datafusion::prelude::SessionContext;
use futures::StreamExt as _;
use twox_hash::XxHash3_64;

use crate::scratch::Scratch;
use crate::{Prepare, TextPart, filters, functions};

/// The rank of synthetic pairs in `candidates`.
const SYNTHETIC: u8 = 3;

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
    for dataset in DATASETS {
        let holders: Vec<_> = context.inputs(dataset).map(|manifest| (manifest.as_ref(), dataset)).collect();
        codepair_sql::register(&session, &context.store, dataset, &holders)?;
    }
    with_candidates(&session, config)?;
    Ok(session)
}

/// That the config's filters can be planned, before there are rows.
pub(crate) fn check_filters(config: &Prepare) -> Result<()> {
    if config.filters.is_empty() {
        return Ok(());
    }
    let session = codepair_sql::session(1);
    DATASETS.iter().try_for_each(|dataset| codepair_sql::register_empty(&session, dataset))?;
    with_candidates(&session, config)
}

/// What the view `candidates` is made of.
const DATASETS: [&str; 5] = ["functions", "problems", "pairs", "queries", "synthetic_pairs"];

fn with_candidates(session: &SessionContext, config: &Prepare) -> Result<()> {
    let part = config.text;
    session.register_udf(functions::text("docstring_text", 1, move |row| Some(text_of(row[0], part))));
    session.register_udf(functions::text("whole_text", 1, |row| Some(normal_text(row[0]))));
    session.register_udf(functions::text("normal_code", 1, |row| Some(normal_code(row[0]))));
    session.register_udf(functions::key("code_key", 1, |row| Some(short_digest(row))));
    session.register_udf(functions::key("pair_key", 3, |row| Some(short_digest(row))));
    let is_structural = config.structural_duplicates;
    let own_structure = move |row: &[&str]| if is_structural { structure(row[0], row[1]) } else { None };
    session.register_udf(functions::key("structure", 2, own_structure));
    session.register_udf(functions::hashes("shingles", shingles));
    session.register_udf(functions::hashes_of_hashes("bands", bands));
    filters::register(session);
    block_on(session.sql(CANDIDATES))?;
    filters::check(session, &config.filters)
}

const CANDIDATES: &str = r#"
create view candidates as
select 0 as rank, source, ordinal, id, 'original' as kind, cast(null as varchar) as parent_id, language, split,
       docstring_text(docstring) as text, normal_code(code) as code, repo, path, licence, origin
from functions
union all
select 1, source, ordinal, id, 'original', cast(null as varchar), 'python', split, whole_text(text), normal_code(code), '', '',
       licence, origin
from problems
union all
select 2, source, ordinal, id, case when label = 0 then 'negative' else 'original' end, cast(null as varchar), language,
       split, whole_text(text), normal_code(code), "group", '', licence, origin
from pairs
union all
select 3, generator, ordinal, id, kind, parent_id, language, split, whole_text(text), normal_code(code), '', '', '', ''
from synthetic_pairs"#;

/// Where the rows of each source begin when all candidates are numbered: by source, by dataset within a source, by
/// ordinal within a dataset. Numbers of rows that ingest rejected stay free. Queries, which are no candidates, come after
/// all.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    starts: BTreeMap<(String, u8), u64>,
    pub(crate) total: u64,
}

const NUMBERS: &str = "select source, rank, max(ordinal) + 1 as numbers from candidates group by source, rank \
                       order by source, rank";
const QUERY_NUMBERS: &str =
    "select source, 4 as rank, max(ordinal) + 1 as numbers from queries group by source order by source";

impl Positions {
    pub(crate) fn new(session: &SessionContext) -> Result<Self> {
        let mut own = Self::default();
        own.total = own.number(session, NUMBERS, 0)?;
        own.number(session, QUERY_NUMBERS, own.total)?;
        Ok(own)
    }

    /// Numbers the sources of a query from `next` on, and says where their numbers end.
    fn number(&mut self, session: &SessionContext, query: &str, mut next: u64) -> Result<u64> {
        each_batch(session, query, |batch| {
            let sources = text_column(batch, "source")?;
            let numbers = integer_column(batch, "rank")?.into_iter().zip(integer_column(batch, "numbers")?);
            for (row, (rank, numbers)) in numbers.enumerate() {
                self.starts.insert((sources.value(row).to_owned(), rank as u8), next);
                next += numbers;
            }
            Ok(())
        })?;
        Ok(next)
    }

    /// The number of the first row of a source in a dataset.
    pub(crate) fn start(&self, source: &str, rank: u8) -> Result<u64> {
        let start = self.starts.get(&(source.to_owned(), rank));
        start.copied().with_context(|| format!("{source} was not there when the rows were numbered"))
    }

    /// Whether there are rows that were made from others.
    pub(crate) fn has_synthetic(&self) -> bool {
        self.starts.keys().any(|(_, rank)| *rank == SYNTHETIC)
    }

    /// The sources, in the order of their rows.
    pub(crate) fn sources(&self) -> Vec<&str> {
        let mut sources: Vec<&str> = self.starts.keys().map(|(source, _)| source.as_str()).collect();
        sources.dedup();
        sources
    }

    /// The numbers of a batch's rows.
    pub(crate) fn of(&self, batch: &RecordBatch) -> Result<Vec<u64>> {
        let (ranks, ordinals) = (integer_column(batch, "rank")?, integer_column(batch, "ordinal")?);
        let sources = text_column(batch, "source")?;
        let mut last: Option<(&str, u64, u64)> = None;
        let mut positions = Vec::with_capacity(ordinals.len());
        for (row, ordinal) in ordinals.into_iter().enumerate() {
            let start = match last {
                Some((source, rank, start)) if source == sources.value(row) && rank == ranks[row] => start,
                _ => self.start(sources.value(row), ranks[row] as u8)?,
            };
            last = Some((sources.value(row), ranks[row], start));
            positions.push(start + ordinal);
        }
        Ok(positions)
    }
}

pub(crate) fn id_hash(id: &str) -> u64 {
    let mut hash = XxHash3_64::new();
    hash.write(id.as_bytes());
    hash.finish()
}

/// Runs a query and hands its batches on as they come.
pub(crate) fn each_batch(
    session: &SessionContext,
    query: &str,
    mut use_batch: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut stream =
        block_on(async { session.sql(query).await?.execute_stream().await }).map_err(codepair_sql::explain)?;
    while let Some(batch) = block_on(stream.next()) {
        use_batch(&batch.map_err(codepair_sql::explain)?)?;
    }
    Ok(())
}
