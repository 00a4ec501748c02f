//! The narrow keys that decide about the rows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use arrow::array::{Array, AsArray, BooleanArray, FixedSizeBinaryArray, RecordBatch, UInt8Array, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use bytemuck::{Pod, Zeroable};
use codepair_dedup::{BANDS, Repeats};
use codepair_runtime::{Paged, Progress, column, integer_column, text_column};
use datafusion::prelude::SessionContext;

use crate::candidates::{Positions, each_batch, id_hash};
use crate::clusters::Pointers;
use crate::evaluation::{Evaluation, HELD};
use crate::scratch::{ByRow, SELDOM, Scratch, ScratchTable};
use crate::{Prepare, filters, functions};

/// What decides about the rows, by position, on disk.
pub(crate) struct Keys {
    pub(crate) positions: Positions,
    states: Paged<State>,
    reason_names: Vec<String>,
    evaluation: Evaluation,
    /// The rows that synthetic pairs were made from.
    pub(crate) parents: Pointers,
    pub(crate) ids: ByRow,
    pub(crate) shingles: ByRow,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct State {
    rank: u8,
    /// Number of the reason for which a row is out before duplicates are looked at; 0 for none.
    reason: u8,
}

/// The reason of rows that are looked at as duplicates of others, but are no examples themselves.
pub(crate) const EVALUATION_ONLY: &str = "evaluation_only";
/// The reason of rows that nobody documented.
pub(crate) const NO_TEXT: &str = "no_text";
/// The reason of rows that hold what models are tested on.
pub(crate) const CONTAMINATED: &str = "contaminated";

impl Keys {
    /// Test rows (0) are kept before those for validation (1), and these before others: what leaks is the training row.
    pub(crate) fn rank(&self, position: u64) -> Result<u8> {
        Ok(self.states.get(position)?.rank)
    }

    /// The reason for which a row is out before duplicates are looked at.
    pub(crate) fn reason(&self, position: u64) -> Result<Option<&str>> {
        let number = usize::from(self.states.get(position)?.reason);
        Ok(number.checked_sub(1).map(|at| self.reason_names[at].as_str()))
    }

    /// How often rows were read to find these.
    pub(crate) fn passes(&self) -> u64 {
        self.evaluation.passes
    }

    /// Tested texts that are not looked for, because more rows hold them than `boilerplate_texts` allows.
    pub(crate) fn boilerplate(&self) -> Result<Vec<String>> {
        self.evaluation.boilerplate.iter().map(|number| self.ids.text(*number)).collect()
    }

    /// The id of what a contaminated row collides with.
    pub(crate) fn collision(&self, position: u64) -> Result<String> {
        self.ids.text(self.evaluation.collision(position)?)
    }
}

/// Reasons come before duplicates: a row that is out anyway keeps no other row out. `{filters}` are the config's, `{text}`
/// is what rows without text are, `{held}` is what a row collides with.
const KEYS: &str = r#"
select rank, source, ordinal, id, parent_id, split_rank, reason, held, exact_key,
       case when judged then structure end as structure_key, shingles, bands(shingles) as bands
from (
  select *, case when judged then shingles(code) end as shingles
  from (
    select *, kind = 'original' and rank < 2 and (reason is null or reason = 'evaluation_only') as judged,
           case when reason is null or reason = 'evaluation_only' then
             case when kind = 'original' and rank < 2 then code_key(code) else pair_key(kind, text, code) end end as exact_key
    from (
      select *, case when held is not null then 'contaminated' else first_reason end as reason
      from (
        select *, case when first_reason is null and split in ('train', 'validation') then {held} end as held
        from (
          select *, case when first_reason is null or first_reason = 'evaluation_only' then structure(code, language) end
                      as structure
          from (
            select *, case split when 'test' then 0 when 'prompt' then 0 when 'validation' then 1 else 2 end as split_rank,
                   case when rank = 1 and split in ('test', 'prompt') then 'evaluation_only'
                        when split = 'corpus' then 'corpus_only'
                        when split in ('train', 'validation') and repo_is_tested(source, repo) then 'tested_repo'
                        {text}
                        {filters}
                   end as first_reason
            from candidates))))))"#;

/// Reads all rows once: what decides about each goes into `Keys`, what is to be sorted into the tables `keys` (position,
/// rank, exact and structure key) and `bands` (band, position). Where the texts that models are tested on do not fit in
/// memory together, rows are read once more for each part of them.
pub(crate) fn keys(session: &SessionContext, config: &Prepare, scratch: &Scratch) -> Result<Keys> {
    let positions = Positions::new(session)?;
    let mut ids = scratch.by_row()?;
    let evaluation = Evaluation::new(session, &positions, config, scratch, &mut ids)?;
    register_tested_repos(session)?;
    let mut reader = KeyReader {
        compared: Compared::new(scratch, positions.total)?,
        family: positions.has_synthetic().then(|| Family::new(scratch)).transpose()?,
        states: scratch.rows(SELDOM)?,
        reason_names: Vec::new(),
        ids,
        evaluation,
        positions,
    };
    let text = if config.keep_rows_without_text { "" } else { "when text = '' then 'no_text'" };
    let query =
        KEYS.replace("{held}", HELD).replace("{text}", text).replace("{filters}", &filters::arms(&config.filters));
    let progress = Progress::new("looking at all rows", "rows", reader.positions.total);
    let looked = each_batch(session, &query, |batch| {
        progress.add(batch.num_rows() as u64);
        reader.batch(batch)
    });
    looked.map_err(|error| filters::explain(session, &config.filters, error))?;
    let KeyReader { compared, family, states, reason_names, ids, evaluation, positions } = reader;
    let parents = Pointers::new(scratch, SELDOM)?;
    family.map_or(Ok(()), |family| family.parents(session, &parents))?;
    let shingles = compared.register(session)?;
    Ok(Keys { positions, states, reason_names, evaluation, parents, ids, shingles })
}

/// Makes known which repositories have test rows in one source: their rows in another are no training rows.
fn register_tested_repos(session: &SessionContext) -> Result<()> {
    let mut tested: HashMap<String, BTreeSet<String>> = HashMap::new();
    // The group of a pair is its repository, where it names one.
    let query = "select distinct lower(repo) as repo, source from candidates where split = 'test' and repo <> '' and rank in (0, 2)";
    each_batch(session, query, |batch| {
        let (repos, sources) = (text_column(batch, "repo")?, text_column(batch, "source")?);
        for row in 0..batch.num_rows() {
            tested.entry(repos.value(row).to_owned()).or_default().insert(sources.value(row).to_owned());
        }
        Ok(())
    })?;
    session.register_udf(functions::predicate_of("repo_is_tested", 2, move |row| {
        tested.get(&row[1].to_lowercase()).is_some_and(|sources| sources.iter().any(|source| source != row[0]))
    }));
    Ok(())
}

struct KeyReader {
    compared: Compared,
    family: Option<Family>,
    states: Paged<State>,
    reason_names: Vec<String>,
    ids: ByRow,
    evaluation: Evaluation,
    positions: Positions,
}

impl KeyReader {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let positions = self.positions.of(batch)?;
        let ranks = integer_column(batch, "split_rank")?;
        let (ids, reasons) = (text_column(batch, "id")?, text_column(batch, "reason")?);
        let held = column(batch, "held")?.as_primitive::<UInt64Type>();
        let mut found_before = vec![false; positions.len()];
        for (row, &position) in positions.iter().enumerate() {
            let mut reason = reasons.is_valid(row).then(|| reasons.value(row));
            if reason.is_none_or(|reason| reason == CONTAMINATED)
                && self.evaluation.least(position, held.is_valid(row).then(|| held.value(row)))?
            {
                found_before[row] = reason.is_none();
                reason = Some(CONTAMINATED);
            }
            let reason = reason.map_or(Ok(0), |reason| self.number(reason))?;
            self.states.set(position, State { rank: ranks[row] as u8, reason })?;
            self.ids.put(position, ids.value(row).as_bytes())?;
        }
        if let Some(family) = &mut self.family {
            family.add(batch, &positions)?;
        }
        if !found_before.contains(&true) {
            return self.compared.add(batch, positions);
        }
        let others: BooleanArray = found_before.iter().map(|found| Some(!found)).collect();
        let others = filter_record_batch(batch, &others)?;
        self.compared.add(&others, self.positions.of(&others)?)
    }

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

/// By what rows are compared: two tables that are sorted later, and the sets of shingles.
struct Compared {
    keys: ScratchTable,
    bands: ScratchTable,
    shingles: ByRow,
    repeats: Repeats,
}

impl Compared {
    fn new(scratch: &Scratch, rows: u64) -> Result<Self> {
        let keys = Schema::new(vec![
            Field::new("position", DataType::UInt64, false),
            Field::new("split_rank", DataType::UInt8, false),
            Field::new("exact_key", DataType::FixedSizeBinary(16), true),
            Field::new("structure_key", DataType::FixedSizeBinary(16), true),
        ]);
        let bands = Schema::new(vec![
            Field::new("band", DataType::UInt64, false),
            Field::new("position", DataType::UInt64, false),
        ]);
        Ok(Self {
            keys: scratch.table("keys", Arc::new(keys))?,
            bands: scratch.table("bands", Arc::new(bands))?,
            shingles: scratch.by_row()?,
            repeats: Repeats::new((rows * BANDS as u64).min(scratch.share(8))),
        })
    }

    fn add(&mut self, batch: &RecordBatch, positions: Vec<u64>) -> Result<()> {
        let lists = column(batch, "shingles")?.as_list::<i32>();
        let shingles = lists.values().as_primitive::<UInt64Type>().values();
        for (row, (bounds, &position)) in lists.value_offsets().windows(2).zip(&positions).enumerate() {
            if lists.is_valid(row) {
                let own = &shingles[bounds[0] as usize..bounds[1] as usize];
                self.shingles.put(position, bytemuck::cast_slice(own))?;
            }
        }
        let lists = column(batch, "bands")?.as_list::<i32>();
        let mut owners = Vec::with_capacity(lists.values().len());
        for (bounds, &position) in lists.value_offsets().windows(2).zip(&positions) {
            owners.extend(std::iter::repeat_n(position, (bounds[1] - bounds[0]) as usize));
        }
        let first = lists.value_offsets()[0] as usize;
        let hashes = lists.values().slice(first, owners.len());
        self.repeats.add(hashes.as_primitive::<UInt64Type>().values());
        self.bands.write(vec![hashes, Arc::new(UInt64Array::from(owners))])?;
        let ranks = integer_column(batch, "split_rank")?.into_iter().map(|rank| Some(rank as u8));
        self.keys.write(vec![
            Arc::new(UInt64Array::from(positions)),
            Arc::new(ranks.collect::<UInt8Array>()),
            Arc::clone(column(batch, "exact_key")?),
            Arc::clone(column(batch, "structure_key")?),
        ])
    }

    fn register(self, session: &SessionContext) -> Result<ByRow> {
        let repeats = self.repeats;
        session.register_udf(functions::number_predicate("came_again", move |band| repeats.has(band)));
        self.keys.register(session)?;
        self.bands.register(session)?;
        Ok(self.shingles)
    }
}

/// The ids of all rows and of the rows that synthetic pairs were made from, to be brought together by a sort.
struct Family(ScratchTable);

impl Family {
    fn new(scratch: &Scratch) -> Result<Self> {
        let schema = Schema::new(vec![
            Field::new("id_hash", DataType::UInt64, false),
            Field::new("is_child", DataType::UInt8, false),
            Field::new("position", DataType::UInt64, false),
        ]);
        Ok(Self(scratch.table("family", Arc::new(schema))?))
    }

    fn add(&mut self, batch: &RecordBatch, positions: &[u64]) -> Result<()> {
        for (name, is_child) in [("id", 0), ("parent_id", 1)] {
            let rows = text_column(batch, name)?.iter().zip(positions);
            let rows = rows.filter_map(|(id, &position)| Some((id_hash(id?), position)));
            let (hashes, positions): (Vec<_>, Vec<_>) = rows.unzip();
            let children = UInt8Array::from(vec![is_child; hashes.len()]);
            let columns = [UInt64Array::from(hashes), UInt64Array::from(positions)].map(Arc::new);
            let [hashes, positions] = columns;
            self.0.write(vec![hashes, Arc::new(children), positions])?;
        }
        Ok(())
    }

    /// Finds the parent of each child: of several rows with one id the first.
    fn parents(self, session: &SessionContext, parents: &Pointers) -> Result<()> {
        self.0.register(session)?;
        let mut parent = None;
        let query = "select id_hash, is_child, position from family order by id_hash, is_child, position";
        each_batch(session, query, |batch| {
            let column = |name| integer_column(batch, name);
            let rows = column("id_hash")?.into_iter().zip(column("is_child")?).zip(column("position")?);
            for ((hash, is_child), position) in rows {
                match parent {
                    Some((id, parent)) if id == hash && is_child == 1 => parents.set(position, parent)?,
                    Some((id, _)) if id == hash => {}
                    _ if is_child == 0 => parent = Some((hash, position)),
                    _ => {}
                }
            }
            Ok(())
        })
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
