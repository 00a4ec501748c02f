//! What models are tested on, which no training row may hold.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::AsArray as _;
use arrow::datatypes::UInt64Type;
use codepair_dedup::{ContaminationIndex, Held};
use codepair_runtime::{Paged, Progress, column, integer_column, text_column};
use datafusion::prelude::SessionContext;

use crate::candidates::{Positions, each_batch};
use crate::scratch::{ByRow, SELDOM, Scratch};
use crate::{Prepare, functions};

/// Test rows, problems that are for testing or prompting, and queries that are not there to learn from.
const TEXTS: &str = "
select rank, source, ordinal, id, text, code, structure(code, language) as structure
from candidates where split in ('test', 'prompt')
union all select 4, source, ordinal, id, whole_text(text), '', null from queries where split <> 'train'";

/// What a row of the view `candidates`, beside which its structure stands, collides with: a number of which the smallest counts.
pub(crate) const HELD: &str = "coalesce(held_by_text(text), held_by_code(code), like_text(text),
  case when rank > 1 then like_code(code) else like_paired_code(code) end,
  case when rank > 1 then same_structure(structure) else same_paired_structure(structure) end)";

/// The part of the memory that texts may take: there is a pass over all rows for each so many.
const SHARE: u64 = 8;

/// What rows were found to collide with.
pub(crate) struct Evaluation {
    /// The least collision of each row so far, from 1.
    held: Paged<u64>,
    pub(crate) passes: u64,
    /// The numbers of tested rows whose texts are not looked for, because so many rows hold them.
    pub(crate) boilerplate: Vec<u64>,
}

impl Evaluation {
    /// Reads the texts, in any order, and adds the ids of queries to those of all rows. Of texts that do not fit in memory
    /// together, all but the last are looked for here; for those the session has the functions of `HELD`.
    pub(crate) fn new(
        session: &SessionContext,
        positions: &Positions,
        config: &Prepare,
        scratch: &Scratch,
        ids: &mut ByRow,
    ) -> Result<Self> {
        let boilerplate = match config.boilerplate_texts {
            Some(most) => Self::boilerplate(session, positions, config, scratch, most)?,
            None => BTreeSet::new(),
        };
        Self::read(session, positions, config, scratch, &boilerplate, Some(ids))
    }

    /// The numbers of texts that more than `most` rows collide with: a pass over all rows of its own.
    fn boilerplate(
        session: &SessionContext,
        positions: &Positions,
        config: &Prepare,
        scratch: &Scratch,
        most: u64,
    ) -> Result<BTreeSet<u64>> {
        let own = Self::read(session, positions, config, scratch, &BTreeSet::new(), None)?;
        own.look(session, positions)?;
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for position in 0..positions.total {
            if own.is_held_by_text(position)? {
                *counts.entry(own.collision(position)?).or_default() += 1;
            }
        }
        let found: BTreeSet<u64> =
            counts.into_iter().filter(|(_, rows)| *rows > most).map(|(number, _)| number).collect();
        tracing::info!(
            "{} tested texts are boilerplate, which more than {most} rows hold, and are not looked for",
            found.len()
        );
        Ok(found)
    }

    /// Reads the texts but those of the rows in `without`.
    fn read(
        session: &SessionContext,
        positions: &Positions,
        config: &Prepare,
        scratch: &Scratch,
        without: &BTreeSet<u64>,
        mut ids: Option<&mut ByRow>,
    ) -> Result<Self> {
        let new_part = || Part::new(config.near_duplicate_threshold);
        let mut own = Self { held: scratch.rows(SELDOM)?, passes: 1, boilerplate: without.iter().copied().collect() };
        let (mut part, mut rows) = (new_part(), 0);
        each_batch(session, TEXTS, |batch| {
            let column = |name| text_column(batch, name);
            let (names, texts, codes) = (column("id")?, column("text")?, column("code")?);
            let structures = functions::keys_of(codepair_runtime::column(batch, "structure")?);
            let ranks = integer_column(batch, "rank")?;
            for ((row, number), structure) in positions.of(batch)?.into_iter().enumerate().zip(structures) {
                // The code of a row whose text everybody writes is looked for all the same.
                let text = if without.contains(&number) { "" } else { texts.value(row) };
                part.add(number, ranks[row], text, codes.value(row), structure);
                if number >= positions.total
                    && let Some(ids) = &mut ids
                {
                    ids.put(number, names.value(row).as_bytes())?;
                }
            }
            rows += batch.num_rows();
            if part.bytes() > scratch.share(SHARE) {
                std::mem::replace(&mut part, new_part()).register(session);
                own.look(session, positions)?;
                // Frees them before the next ones are read.
                new_part().register(session);
                own.passes += 1;
            }
            Ok(())
        })?;
        part.register(session);
        tracing::info!("{rows} test rows and queries that no training row may hold");
        Ok(own)
    }

    /// Looks for the texts that are registered in all rows.
    fn look(&self, session: &SessionContext, positions: &Positions) -> Result<()> {
        let progress = Progress::new("looking for test texts", "rows", positions.total);
        let query = format!(
            "select rank, source, ordinal, {HELD} as held \
             from (select *, structure(code, language) as structure from candidates where split in ('train', 'validation'))"
        );
        each_batch(session, &query, |batch| {
            progress.add(batch.num_rows() as u64);
            let found = column(batch, "held")?.as_primitive::<UInt64Type>();
            positions.of(batch)?.into_iter().zip(found).try_for_each(|(row, found)| self.least(row, found).map(drop))
        })
    }

    /// Adds a collision of a row, and gives back whether it has one, now or from before.
    pub(crate) fn least(&self, position: u64, found: Option<u64>) -> Result<bool> {
        let before = self.held.get(position)?.checked_sub(1);
        let Some(least) = before.into_iter().chain(found).min() else { return Ok(false) };
        if before != Some(least) {
            self.held.set(position, least + 1)?;
        }
        Ok(true)
    }

    /// Whether a row collides by its text.
    fn is_held_by_text(&self, position: u64) -> Result<bool> {
        let found_as = self.held.get(position)?.checked_sub(1).map(|held| held >> (START_BITS + NUMBER_BITS));
        Ok(matches!(found_as, Some(0 | 2)))
    }

    /// The number of the row or query that a contaminated row collides with.
    pub(crate) fn collision(&self, position: u64) -> Result<u64> {
        let collision = self.held.get(position)?.checked_sub(1).context("a contaminated row holds nothing")?;
        Ok(collision & ((1 << NUMBER_BITS) - 1))
    }
}

/// Texts that fit in memory together.
struct Part {
    /// Texts and codes.
    index: ContaminationIndex,
    /// The codes of test pairs. Those of functions and problems are found as near-duplicates.
    paired: ContaminationIndex,
    /// The same by their structure, where that makes duplicates; the first row of each counts.
    structures: HashMap<u128, u64>,
    paired_structures: HashMap<u128, u64>,
}

/// Bytes of a structure in a map, about.
const STRUCTURE_BYTES: usize = 48;

impl Part {
    fn new(threshold: f64) -> Self {
        Self {
            index: ContaminationIndex::new(threshold),
            paired: ContaminationIndex::new(threshold),
            structures: HashMap::new(),
            paired_structures: HashMap::new(),
        }
    }

    fn add(&mut self, number: u64, rank: u64, text: &str, code: &str, structure: Option<u128>) {
        match rank {
            // Short documentation is too common to count.
            0 => self.index.add(number, text),
            _ => self.index.add_whole(number, text),
        }
        self.index.add(number, code);
        let first = |found: &mut HashMap<u128, u64>| {
            if let Some(structure) = structure {
                let known = found.entry(structure).or_insert(number);
                *known = number.min(*known);
            }
        };
        first(&mut self.structures);
        if rank == 2 {
            self.paired.add(number, code);
            first(&mut self.paired_structures);
        }
    }

    fn bytes(&self) -> u64 {
        let structures = self.structures.len() + self.paired_structures.len();
        (self.index.bytes() + self.paired.bytes() + structures * STRUCTURE_BYTES) as u64
    }

    /// Makes the functions of `HELD` look for these texts.
    fn register(self, session: &SessionContext) {
        let (index, paired) = (Arc::new(self.index), Arc::new(self.paired));
        for (found_as, name) in [(0, "held_by_text"), (1, "held_by_code")] {
            let index = Arc::clone(&index);
            let find = move |row: &str| index.find(row).map(|held| collision(found_as, held));
            session.register_udf(functions::number(name, find));
        }
        let like = [(2, "like_text", &index), (3, "like_code", &index), (3, "like_paired_code", &paired)];
        for (found_as, name, index) in like {
            let index = Arc::clone(index);
            let whole = move |number| collision(found_as, Held { start: 0, number });
            session.register_udf(functions::number(name, move |row| index.find_similar(row).map(whole)));
        }
        let same = [("same_structure", self.structures), ("same_paired_structure", self.paired_structures)];
        for (name, known) in same {
            let find = move |own| known.get(&own).map(|number| collision(4, Held { start: 0, number: *number }));
            session.register_udf(functions::number_of_key(name, find));
        }
    }
}

const NUMBER_BITS: u32 = 40;
const START_BITS: u32 = 21;

/// One number that orders what a row collides with: by the way it was found, by its place in the row, by the text's own
/// number. So the least one is the same in how many parts ever the texts are looked for.
fn collision(found_as: u64, held: Held) -> u64 {
    let start = (held.start as u64).min((1 << START_BITS) - 1);
    (found_as << START_BITS | start) << NUMBER_BITS | held.number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collisions_are_ordered_by_way_and_place_and_number() {
        let collision = |found_as, start, number| collision(found_as, Held { start, number });
        let ordered = [
            collision(0, 0, 7),
            collision(0, 1, 3),
            collision(0, 1, 4),
            collision(0, usize::MAX, 0),
            collision(1, 0, 0),
            collision(3, 0, (1 << NUMBER_BITS) - 1),
            collision(4, usize::MAX, (1 << NUMBER_BITS) - 1),
        ];
        assert!(ordered.is_sorted(), "{ordered:?}");
        assert_eq!(ordered[2] & ((1 << NUMBER_BITS) - 1), 4);
    }
}
