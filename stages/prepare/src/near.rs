//! Structural and near-duplicates: candidates by equal structure or a common band, every pair verified.

use std::collections::BTreeSet;

use anyhow::Result;
use codepair_dedup::jaccard;
use codepair_runtime::{Piece, Progress, integer_column};
use datafusion::prelude::SessionContext;
use rayon::prelude::*;

use crate::candidates::each_batch;
use crate::clusters::{Clusters, Edge, Pointers};
use crate::keys::{Keys, equal};
use crate::scratch::{Scratch, hashes};

/// In larger buckets a row is compared with the test rows, the first rows and the one before it only.
const ALL_PAIRS: usize = 64;
/// Rows of one band that are sorted in memory.
const BAND_ROWS: usize = 1 << 20;
/// Pairs that are verified at once.
const PAIRS: usize = 1 << 16;

/// Finds the structural (where `structural` says so) and near-duplicates among the rows that are no exact duplicates
/// (which `exact` knows).
///
/// Edges are found in the order of the bands' hashes and the rows' positions, so they are the same however the work is
/// divided. Memory holds one batch of pairs.
pub(crate) fn clusters(
    session: &SessionContext,
    keys: &Keys,
    exact: &Pointers,
    (threshold, structural): (f64, bool),
    scratch: &Scratch,
    threads: usize,
) -> Result<Clusters> {
    let mut finder = Finder::new(keys, exact, threshold, scratch, threads)?;
    if structural {
        equal(session, "structure_key", |position, first| {
            if exact.get(position)?.is_some() || exact.get(first)?.is_some() {
                return Ok(());
            }
            finder.structural(first, position)
        })?;
    }
    let progress = Progress::new("comparing rows", "pairs", 0);
    let (mut band, mut rows) = (0, Vec::new());
    each_batch(session, "select band, position from bands where came_again(band) order by band", |batch| {
        let (bands, positions) = (integer_column(batch, "band")?, integer_column(batch, "position")?);
        for (own, position) in bands.into_iter().zip(positions) {
            if own != band {
                finder.band(session, band, &mut rows)?;
                band = own;
            }
            if rows.len() <= BAND_ROWS {
                rows.push(position);
            }
        }
        progress.set(finder.compared);
        Ok(())
    })?;
    finder.band(session, band, &mut rows)?;
    finder.verify()?;
    finder.clusters.settle(keys.positions.total)?;
    tracing::info!("{} pairs compared, {} edges between duplicates", finder.compared, finder.clusters.edges);
    Ok(finder.clusters)
}

/// Hands on the rows of one band in the order of their positions; where they are more than `most`, and so not all of them in
/// `rows`, SQL sorts them.
fn in_order(
    session: &SessionContext,
    band: u64,
    rows: &mut Vec<u64>,
    most: usize,
    mut use_row: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    if rows.len() > most {
        rows.clear();
        let query = format!("select position from bands where band = {band} order by position");
        return each_batch(session, &query, |batch| {
            integer_column(batch, "position")?.into_iter().try_for_each(&mut use_row)
        });
    }
    rows.sort_unstable();
    rows.drain(..).try_for_each(use_row)
}

/// A row to be compared.
#[derive(Clone, Copy)]
struct Row {
    position: u64,
    shingles: Piece,
}

/// The rows of one band, as far as the next ones are compared with them.
#[derive(Default)]
struct Bucket {
    /// Rows that are tested on, of a bucket that is too large to compare all pairs, in order: no copy of one may be missed.
    tested: Vec<Row>,
    first: Vec<Row>,
    last: Option<Row>,
    rows: u64,
    compared: u64,
}

impl Bucket {
    /// Takes a row, in the order of the positions, and hands on the pairs that are worth comparing. `pair` says whether the
    /// row is known to be a copy of a test row by now, so that there is no need for the others.
    fn add(&mut self, row: Row, mut pair: impl FnMut(Row, Row) -> Result<bool>) -> Result<()> {
        self.rows += 1;
        for &other in &self.first {
            self.compared += 1;
            pair(other, row)?;
        }
        if self.first.len() < ALL_PAIRS {
            // All that come later are compared with it, those that are tested on as well.
            self.first.push(row);
            if self.first.len() == ALL_PAIRS {
                let first: BTreeSet<u64> = self.first.iter().map(|row| row.position).collect();
                self.tested.retain(|tested| !first.contains(&tested.position));
            }
            return Ok(());
        }
        let is_tested = self.tested.binary_search_by_key(&row.position, |tested| tested.position).is_ok();
        for &other in self.tested.iter().filter(|_| !is_tested) {
            self.compared += 1;
            let (one, two) = if other.position < row.position { (other, row) } else { (row, other) };
            if pair(one, two)? {
                break;
            }
        }
        if let Some(before) = self.last.replace(row) {
            self.compared += 1;
            pair(before, row)?;
        }
        Ok(())
    }

    /// Pairs of these rows that were not handed on.
    fn not_compared(&self) -> u64 {
        (self.rows * self.rows.saturating_sub(1) / 2).saturating_sub(self.compared)
    }
}

/// Pairs to verify, and the clusters of those that are similar.
struct Finder<'a> {
    keys: &'a Keys,
    exact: &'a Pointers,
    threshold: f64,
    pool: rayon::ThreadPool,
    pairs: Vec<(Row, Row)>,
    clusters: Clusters,
    compared: u64,
}

impl<'a> Finder<'a> {
    fn new(keys: &'a Keys, exact: &'a Pointers, threshold: f64, scratch: &Scratch, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(Self { keys, exact, threshold, pool, pairs: Vec::new(), clusters: Clusters::new(scratch)?, compared: 0 })
    }

    /// Takes the rows of one band; `rows` is empty afterwards.
    fn band(&mut self, session: &SessionContext, band: u64, rows: &mut Vec<u64>) -> Result<()> {
        if rows.len() < 2 {
            rows.clear();
            return Ok(());
        }
        let mut bucket = Bucket::default();
        if rows.len() > ALL_PAIRS {
            bucket.tested = self.tested(session, band, rows)?;
        }
        in_order(session, band, rows, BAND_ROWS, |position| {
            if self.exact.get(position)?.is_some() {
                return Ok(());
            }
            let row = Row { position, shingles: self.keys.shingles.piece(position)? };
            bucket.add(row, |one, two| {
                self.pair(one, two)?;
                Ok(self.keys.rank(self.clusters.root(position)?)? == 0)
            })
        })?;
        self.clusters.not_compared += bucket.not_compared();
        Ok(())
    }

    /// The rows of a band that are tested on. `rows` stays as it is.
    fn tested(&self, session: &SessionContext, band: u64, rows: &[u64]) -> Result<Vec<Row>> {
        let mut tested = Vec::new();
        let mut copy = rows.to_vec();
        in_order(session, band, &mut copy, BAND_ROWS, |position| {
            if self.keys.rank(position)? == 0 && self.exact.get(position)?.is_none() {
                tested.push(Row { position, shingles: self.keys.shingles.piece(position)? });
            }
            Ok(())
        })?;
        Ok(tested)
    }

    fn structural(&mut self, one: u64, two: u64) -> Result<()> {
        let shingles = |row| hashes(&self.keys.shingles.spool, self.keys.shingles.piece(row)?);
        let jaccard = jaccard(&shingles(one)?, &shingles(two)?);
        self.clusters.join(Edge { is_structural: true, rows: (one, two), jaccard }, |row| self.keys.rank(row))
    }

    /// Takes a pair to verify, unless it is of one cluster, or cannot be similar.
    fn pair(&mut self, one: Row, two: Row) -> Result<()> {
        if !self.can_be_similar(one, two) || self.is_joined(one, two)? {
            return Ok(());
        }
        self.pairs.push((one, two));
        if self.pairs.len() >= PAIRS { self.verify() } else { Ok(()) }
    }

    /// Sets of very different size have no similarity worth reading them for.
    fn can_be_similar(&self, one: Row, two: Row) -> bool {
        let (one, two) = (one.shingles.bytes() as f64, two.shingles.bytes() as f64);
        one.min(two) >= self.threshold * one.max(two)
    }

    fn is_joined(&self, one: Row, two: Row) -> Result<bool> {
        Ok(self.clusters.root(one.position)? == self.clusters.root(two.position)?)
    }

    /// Compares the pairs that are not joined yet, and joins those that are similar.
    fn verify(&mut self) -> Result<()> {
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.sort_unstable_by_key(|(one, two)| (one.position, two.position));
        pairs.dedup_by_key(|(one, two)| (one.position, two.position));
        let mut open = Vec::with_capacity(pairs.len());
        for (one, two) in pairs.drain(..) {
            if !self.is_joined(one, two)? {
                open.push((one, two));
            }
        }
        self.pairs = pairs;
        self.compared += open.len() as u64;
        let (spool, threshold) = (&self.keys.shingles.spool, self.threshold);
        // Pairs of one row stand together: it is read once.
        let groups: Vec<&[(Row, Row)]> = open.chunk_by(|a, b| a.0.position == b.0.position).collect();
        let compare = |group: &&[(Row, Row)]| -> Result<Vec<Edge>> {
            let own = hashes(spool, group[0].0.shingles)?;
            let edges = group.iter().map(|(one, two)| {
                let jaccard = jaccard(&own, &hashes(spool, two.shingles)?);
                Ok(Edge { is_structural: false, rows: (one.position, two.position), jaccard })
            });
            edges.filter(|edge| edge.as_ref().map_or(true, |edge| edge.jaccard >= threshold)).collect()
        };
        let found: Vec<Vec<Edge>> = self.pool.install(|| groups.par_iter().map(compare).collect::<Result<_>>())?;
        let rank = |row| self.keys.rank(row);
        found.into_iter().flatten().try_for_each(|edge| self.clusters.join(edge, rank))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use arrow::array::{RecordBatch, UInt64Array};

    use super::*;

    #[test]
    fn large_buckets_are_compared_with_their_first_rows() {
        let (mut bucket, mut pairs) = (Bucket::default(), Vec::new());
        for position in 0..200 {
            let row = Row { position, shingles: Piece::default() };
            let pair = |one: Row, two: Row| {
                pairs.push((one.position, two.position));
                Ok(false)
            };
            bucket.add(row, pair).unwrap();
        }
        assert_eq!(pairs[..3], [(0, 1), (0, 2), (1, 2)]);
        assert_eq!(pairs.iter().filter(|pair| pair.1 == 50).count(), 50);
        assert_eq!(pairs.iter().filter(|pair| pair.1 == 199).count(), ALL_PAIRS + 1);
        assert!(pairs.contains(&(198, 199)));
        assert_eq!(pairs.iter().collect::<HashSet<_>>().len(), pairs.len());
        assert_eq!(bucket.not_compared(), 200 * 199 / 2 - pairs.len() as u64);
    }

    #[test]
    fn rows_that_are_tested_on_are_compared_with_all() {
        let row = |position| Row { position, shingles: Piece::default() };
        let mut bucket = Bucket { tested: vec![row(3), row(150), row(190)], ..Bucket::default() };
        let mut pairs = Vec::new();
        for position in 0..200 {
            let pair = |one: Row, two: Row| {
                pairs.push((one.position, two.position));
                // Row 100 is found to be a copy of the first.
                Ok(two.position == 100 || one.position == 100)
            };
            bucket.add(row(position), pair).unwrap();
        }
        let is_compared = |one: u64, two: u64| pairs.contains(&(one.min(two), one.max(two)));
        for tested in [3, 150, 190] {
            let all = (0..200).filter(|other| ![tested, 100, 3, 150, 190].contains(other));
            assert!(all.into_iter().all(|other| is_compared(tested, other)), "{tested}");
        }
        assert!(is_compared(3, 100) && !is_compared(100, 190));
    }

    #[test]
    fn a_band_of_too_many_rows_is_sorted_by_sql() {
        let session = SessionContext::new();
        let (large, positions) = (u64::MAX - 1, [5, 1, 4, 2, 3]);
        let columns =
            [[7, large, large, 7, large], positions].map(|column| Arc::new(UInt64Array::from(column.to_vec())) as _);
        let batch = RecordBatch::try_from_iter(["band", "position"].into_iter().zip(columns)).unwrap();
        session.register_batch("bands", batch).unwrap();
        for (most, expected) in [(2, [1, 3, 4]), (3, [8, 9, 9])] {
            let (mut rows, mut seen) = (vec![9, 8, 9], Vec::new());
            let mut use_row = |row| {
                seen.push(row);
                Ok(())
            };
            in_order(&session, large, &mut rows, most, &mut use_row).unwrap();
            assert_eq!((seen.as_slice(), rows.len()), (&expected[..], 0));
        }
    }
}
