//! All rows that could become examples, as one view, and their narrow keys.

use std::sync::Arc;

use anyhow::{Result, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use codepair_dedup::{ContaminationIndex, bands, shingles};
use codepair_runtime::{Context, block_on, integer_column, sha256, text_column};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use crate::{Prepare, TextPart, functions};

/// What decides about a row, without its text and code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) dataset: String,
    pub(crate) kind: String,
    pub(crate) parent_id: Option<String>,
    /// Reason for which the row is out before duplicates are looked at, and its detail.
    pub(crate) excluded: Option<(String, String)>,
    /// Position of the row that is kept of its exact duplicates; its own where it is that row.
    pub(crate) exact: usize,
    /// Test rows are kept before others: what leaks is the training row.
    pub(crate) split_rank: u64,
}

/// The text of a row: white space folded, and of docstrings the first paragraph unless all is asked for.
pub(crate) fn normal_text(text: &str, part: TextPart) -> String {
    let text = text.trim();
    let part = match part {
        TextPart::Full => text,
        TextPart::Summary => {
            let mut end = 0;
            let paragraph = text.split_inclusive('\n').take_while(|line| !line.trim().is_empty());
            paragraph.for_each(|line| end += line.len());
            &text[..end]
        }
    };
    part.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Program text with line feeds only, no trailing white space and no empty lines at its ends.
pub(crate) fn normal_code(code: &str) -> String {
    let lines: Vec<&str> = code.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// A key for exact duplicates.
fn key(fields: &[&str]) -> String {
    sha256(fields.join("\0").as_bytes())[..32].to_owned()
}

/// A session with the view `candidates` and the functions that the queries need.
pub(crate) fn session(context: &Context, config: &Prepare) -> Result<SessionContext> {
    let session = codepair_sql::session(context.threads);
    for dataset in ["functions", "problems", "synthetic_pairs"] {
        let holders: Vec<_> = context.inputs(dataset).map(|manifest| (manifest.as_ref(), dataset)).collect();
        codepair_sql::register(&session, &context.store, dataset, &holders)?;
    }
    let part = config.text;
    session.register_udf(functions::text("docstring_text", 1, move |row| Some(normal_text(row[0], part))));
    session.register_udf(functions::text("whole_text", 1, |row| Some(normal_text(row[0], TextPart::Full))));
    session.register_udf(functions::text("normal_code", 1, |row| Some(normal_code(row[0]))));
    session.register_udf(functions::text("code_key", 1, |row| Some(key(row))));
    session.register_udf(functions::text("pair_key", 3, |row| Some(key(row))));
    session.register_udf(functions::hashes("bands", bands));
    session.register_udf(functions::hashes("shingles", shingles));
    block_on(session.sql(CANDIDATES))?;
    let index = evaluation_texts(&session)?;
    tracing::info!("{} test texts that no training row may hold", index.len());
    session.register_udf(functions::text("contaminated_by", 1, move |row| index.find(row[0]).map(str::to_owned)));
    Ok(session)
}

const CANDIDATES: &str = r#"
create view candidates as
select 0 as rank, source, ordinal, id, 'functions' as dataset, 'original' as kind, cast(null as varchar) as parent_id,
       split, docstring_text(docstring) as text, normal_code(code) as code
from functions
union all
select 1, source, ordinal, id, 'problems', 'original', cast(null as varchar), split, whole_text(text), normal_code(code)
from problems
union all
select 2, generator, ordinal, id, 'synthetic_pairs', kind, parent_id, split, whole_text(text), normal_code(code)
from synthetic_pairs"#;

/// Test rows, and problems that are for testing or prompting.
fn evaluation_texts(session: &SessionContext) -> Result<ContaminationIndex> {
    let query = "select id, text, code from candidates where split in ('test', 'prompt') and kind = 'original' order by rank, source, ordinal";
    let mut index = ContaminationIndex::default();
    for batch in collect(session, query)? {
        let (ids, texts, codes) =
            (text_column(&batch, "id")?, text_column(&batch, "text")?, text_column(&batch, "code")?);
        for row in 0..batch.num_rows() {
            index.add(ids.value(row), texts.value(row));
            index.add(ids.value(row), codes.value(row));
        }
    }
    Ok(index)
}

/// Reasons come before duplicates: a row that is out anyway keeps no other row out.
const KEYS: &str = r#"
select cast(row_number() over (order by rank, source, ordinal) - 1 as bigint unsigned) as position, * from (
  select rank, source, ordinal, id, dataset, kind, parent_id,
         case split when 'test' then 0 when 'validation' then 1 else 2 end as split_rank,
         case
           when dataset = 'problems' and split in ('test', 'prompt') then 'evaluation_only'
           when text = '' then 'no_text'
           when split in ('train', 'validation') and contaminated_by(text) is not null then 'contaminated'
           when split in ('train', 'validation') and contaminated_by(code) is not null then 'contaminated'
         end as reason,
         case when split in ('train', 'validation') then coalesce(contaminated_by(text), contaminated_by(code)) end as collision,
         case when kind = 'original' then code_key(code) else pair_key(kind, text, code) end as exact_key,
         case when kind = 'original' then bands(code) end as bands
  from candidates)
order by position"#;

/// The keys of all rows, by position; and the table `keys` for later queries.
pub(crate) fn keys(session: &SessionContext) -> Result<Vec<Key>> {
    let batches = collect(session, KEYS)?;
    let mut keys = Vec::new();
    for batch in &batches {
        append_keys(batch, &mut keys)?;
    }
    if let Some(first) = batches.first() {
        let table = MemTable::try_new(first.schema(), vec![batches.clone()])?;
        session.register_table("keys", Arc::new(table))?;
        exact_duplicates(session, &mut keys)?;
    }
    Ok(keys)
}

fn append_keys(batch: &RecordBatch, keys: &mut Vec<Key>) -> Result<()> {
    let positions = integer_column(batch, "position")?;
    let ranks = integer_column(batch, "split_rank")?;
    let column = |name| text_column(batch, name);
    let (ids, sources, datasets, kinds) = (column("id")?, column("source")?, column("dataset")?, column("kind")?);
    let (parents, reasons, collisions) = (column("parent_id")?, column("reason")?, column("collision")?);
    let optional =
        |column: &arrow::array::StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    for row in 0..batch.num_rows() {
        ensure!(positions[row] as usize == keys.len(), "positions have a gap at {}", keys.len());
        let detail = || optional(collisions, row).map(|id| format!("holds a test text of {id}")).unwrap_or_default();
        keys.push(Key {
            id: ids.value(row).to_owned(),
            source: sources.value(row).to_owned(),
            dataset: datasets.value(row).to_owned(),
            kind: kinds.value(row).to_owned(),
            parent_id: optional(parents, row),
            excluded: optional(reasons, row)
                .map(|reason| (reason.clone(), if reason == "contaminated" { detail() } else { String::new() })),
            exact: keys.len(),
            split_rank: ranks[row],
        });
    }
    Ok(())
}

const EXACT: &str = "
select position, first_value(position) over (partition by exact_key order by split_rank, position) as kept
from keys where reason is null";

fn exact_duplicates(session: &SessionContext, keys: &mut [Key]) -> Result<()> {
    for batch in collect(session, EXACT)? {
        for (position, kept) in integer_column(&batch, "position")?.into_iter().zip(integer_column(&batch, "kept")?) {
            keys[position as usize].exact = kept as usize;
        }
    }
    Ok(())
}

/// Runs a query to its end.
pub(crate) fn collect(session: &SessionContext, query: &str) -> Result<Vec<RecordBatch>> {
    Ok(block_on(async { session.sql(query).await?.collect().await })?)
}

/// A column of lists of hashes.
pub(crate) fn hash_lists(batch: &RecordBatch, name: &str) -> Result<Vec<Vec<u64>>> {
    let lists = codepair_runtime::column(batch, name)?.as_list::<i32>();
    let values = lists.values().as_primitive::<arrow::datatypes::UInt64Type>();
    Ok(lists.value_offsets().windows(2).map(|w| values.values()[w[0] as usize..w[1] as usize].to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes_are_normalised() {
        assert_eq!(normal_text("\n First  line\n of it.\n\n Args: x\n", TextPart::Summary), "First line of it.");
        assert_eq!(normal_text(" a\n\nb ", TextPart::Full), "a b");
        assert_eq!(normal_text("  ", TextPart::Summary), "");
        assert_eq!(normal_code("\r\ndef f():  \r\n    pass\n\n"), "def f():\n    pass");
    }
}
