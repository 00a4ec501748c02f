//! Structural and near-duplicates: candidates by equal structure or a common band, every pair verified, clusters by the
//! edges.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use anyhow::Result;
use codepair_dedup::jaccard;
use codepair_runtime::{Progress, integer_column};
use datafusion::prelude::SessionContext;
use rayon::prelude::*;

use crate::candidates::{Keys, each_batch, equal};
use crate::scratch::Shingles;

/// In larger buckets a row is compared with the first rows and the one before it only.
const ALL_PAIRS: usize = 64;
/// Pairs that are verified at once.
const PAIRS: usize = 1 << 16;

/// Why a row is a duplicate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Near {
    /// `near` or `structural`.
    pub(crate) kind: &'static str,
    /// Position of the row at the other end of the edge that joins it to its cluster.
    pub(crate) neighbour: u64,
    /// Verified similarity of the two.
    pub(crate) jaccard: f64,
    /// Position of the row that is kept.
    pub(crate) kept: u64,
}

/// Two rows of one cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Edge {
    kind: &'static str,
    rows: (u64, u64),
    jaccard: f64,
}

/// Finds the structural (where `structural` says so) and near-duplicates among the rows that are no exact duplicates
/// (which are the keys of `exact`).
///
/// Edges are found in the order of the bands' hashes and the rows' positions, so they are the same however the work is
/// divided. Memory holds the edges that join two clusters, and one batch of pairs.
pub(crate) fn clusters(
    session: &SessionContext,
    keys: &Keys,
    exact: &HashMap<u64, u64>,
    threshold: f64,
    structural: bool,
    threads: usize,
) -> Result<HashMap<u64, Near>> {
    let mut finder = Finder::new(&keys.shingles, keys.positions.total, threshold, threads)?;
    if structural {
        equal(session, "structure_key", |position, first| {
            if exact.contains_key(&position) || exact.contains_key(&first) {
                return Ok(());
            }
            finder.structural(first, position)
        })?;
    }
    let progress = Progress::new("comparing rows", "pairs", 0);
    let mut unique = vec![true; keys.positions.total as usize];
    exact.keys().for_each(|&position| unique[position as usize] = false);
    let (mut band, mut bucket) = (0, Vec::new());
    each_batch(session, "select band, position from bands where came_again(band) order by band", |batch| {
        let (bands, positions) = (integer_column(batch, "band")?, integer_column(batch, "position")?);
        for (own, position) in bands.into_iter().zip(positions) {
            if own != band {
                finder.bucket(&mut bucket)?;
                band = own;
            }
            if unique[position as usize] {
                bucket.push(position);
            }
        }
        progress.set(finder.compared);
        Ok(())
    })?;
    finder.bucket(&mut bucket)?;
    finder.verify()?;
    tracing::info!("{} pairs compared, {} edges between duplicates", finder.compared, finder.edges.len());
    Ok(spread(&keys.ranks, &finder.edges))
}

/// The pairs of a bucket that are worth comparing: all, or in large ones each row with the first ones and the one before.
fn pairs_of(bucket: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    bucket.iter().enumerate().flat_map(move |(at, &row)| {
        let before = if at > ALL_PAIRS { Some((bucket[at - 1], row)) } else { None };
        bucket[..at.min(ALL_PAIRS)].iter().map(move |&other| (other, row)).chain(before)
    })
}

/// Pairs to verify, and the edges found.
struct Finder<'a> {
    shingles: &'a Shingles,
    threshold: f64,
    pool: rayon::ThreadPool,
    pairs: Vec<(u64, u64)>,
    /// Towards the root of each row's cluster; the root stands above itself.
    above: Vec<u64>,
    edges: Vec<Edge>,
    compared: u64,
}

impl<'a> Finder<'a> {
    fn new(shingles: &'a Shingles, rows: u64, threshold: f64, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let (pairs, above, edges) = (Vec::new(), (0..rows).collect(), Vec::new());
        Ok(Self { shingles, threshold, pool, pairs, above, edges, compared: 0 })
    }

    /// Takes the rows of one band, in any order.
    fn bucket(&mut self, rows: &mut Vec<u64>) -> Result<()> {
        if rows.len() > 1 {
            rows.sort_unstable();
            for (one, two) in pairs_of(rows) {
                if self.can_be_similar(one, two) && self.root(one) != self.root(two) {
                    self.pairs.push((one, two));
                    if self.pairs.len() >= PAIRS {
                        self.verify()?;
                    }
                }
            }
        }
        rows.clear();
        Ok(())
    }

    fn structural(&mut self, one: u64, two: u64) -> Result<()> {
        let jaccard = jaccard(&self.shingles.read(one)?, &self.shingles.read(two)?);
        self.join(Edge { kind: "structural", rows: (one, two), jaccard });
        Ok(())
    }

    /// Compares the pairs that are not joined yet, and joins those that are similar.
    fn verify(&mut self) -> Result<()> {
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.sort_unstable();
        pairs.dedup();
        pairs.retain(|&(one, two)| self.root(one) != self.root(two));
        self.compared += pairs.len() as u64;
        let (shingles, threshold) = (self.shingles, self.threshold);
        // Pairs of one row stand together: it is read once.
        let groups: Vec<&[(u64, u64)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
        let compare = |group: &&[(u64, u64)]| -> Result<Vec<Edge>> {
            let own = shingles.read(group[0].0)?;
            let edges = group.iter().map(|&rows| {
                let jaccard = jaccard(&own, &shingles.read(rows.1)?);
                Ok(Edge { kind: "near", rows, jaccard })
            });
            edges.filter(|edge| edge.as_ref().map_or(true, |edge| edge.jaccard >= threshold)).collect()
        };
        let found: Vec<Vec<Edge>> = self.pool.install(|| groups.par_iter().map(compare).collect::<Result<_>>())?;
        found.into_iter().flatten().for_each(|edge| self.join(edge));
        pairs.clear();
        self.pairs = pairs;
        Ok(())
    }

    /// Sets of very different size have no similarity worth reading them for.
    fn can_be_similar(&self, one: u64, two: u64) -> bool {
        let (one, two) = (self.shingles.count(one) as f64, self.shingles.count(two) as f64);
        one.min(two) >= self.threshold * one.max(two)
    }

    /// Keeps an edge that joins two clusters.
    fn join(&mut self, edge: Edge) {
        let (one, two) = (self.root(edge.rows.0), self.root(edge.rows.1));
        if one != two {
            self.above[one.max(two) as usize] = one.min(two);
            self.edges.push(edge);
        }
    }

    /// Every row on the way is put closer to the root (path halving: van Leeuwen & van der Weide, 1977).
    fn root(&mut self, mut row: u64) -> u64 {
        while self.above[row as usize] != row {
            let next = self.above[self.above[row as usize] as usize];
            self.above[row as usize] = next;
            row = next;
        }
        row
    }
}

/// Clusters are the connected components of the edges. Of each the row of the most protected split is kept, the earliest
/// one; the others point along the shortest way of edges to it.
fn spread(ranks: &[u8], edges: &[Edge]) -> HashMap<u64, Near> {
    let mut neighbours: BTreeMap<u64, Vec<(u64, &Edge)>> = BTreeMap::new();
    for edge in edges {
        let (one, two) = edge.rows;
        neighbours.entry(one).or_default().push((two, edge));
        neighbours.entry(two).or_default().push((one, edge));
    }
    neighbours.values_mut().for_each(|list| list.sort_by_key(|(other, _)| *other));
    let mut order: Vec<u64> = neighbours.keys().copied().collect();
    order.sort_by_key(|&row| (ranks[row as usize], row));
    let mut seen = HashSet::new();
    let mut found = HashMap::new();
    for kept in order {
        if !seen.insert(kept) {
            continue;
        }
        let mut open = VecDeque::from([kept]);
        while let Some(row) = open.pop_front() {
            for &(other, edge) in &neighbours[&row] {
                if seen.insert(other) {
                    found.insert(other, Near { kind: edge.kind, neighbour: row, jaccard: edge.jaccard, kept });
                    open.push_back(other);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edge(one: u64, two: u64, jaccard: f64) -> Edge {
        Edge { kind: "near", rows: (one, two), jaccard }
    }

    #[test]
    fn the_test_row_is_kept() {
        let found = spread(&[2, 2, 0, 2], &[edge(0, 1, 0.8), edge(1, 2, 0.9)]);
        assert_eq!(found[&1], Near { kind: "near", neighbour: 2, jaccard: 0.9, kept: 2 });
        assert_eq!(found[&0], Near { kind: "near", neighbour: 1, jaccard: 0.8, kept: 2 });
        assert!(!found.contains_key(&2) && !found.contains_key(&3));
    }

    #[test]
    fn large_buckets_are_compared_with_their_first_rows() {
        let bucket: Vec<u64> = (0..200).collect();
        let pairs: Vec<(u64, u64)> = pairs_of(&bucket).collect();
        assert_eq!(pairs.iter().filter(|pair| pair.1 == 50).count(), 50);
        assert_eq!(pairs.iter().filter(|pair| pair.1 == 199).count(), ALL_PAIRS + 1);
        assert!(pairs.contains(&(198, 199)));
        assert_eq!(pairs.iter().collect::<HashSet<_>>().len(), pairs.len());
    }

    proptest! {
        /// Keepers and clusters do not depend on the order of the edges, and each cluster keeps exactly one row.
        #[test]
        fn clusters_depend_on_the_edges_alone(pairs in prop::collection::vec((0u64..20, 0u64..20), 0..40), ranks in prop::collection::vec(0u8..3, 20)) {
            let edges: Vec<_> = pairs.into_iter().filter(|(a, b)| a != b).map(|(a, b)| edge(a.min(b), a.max(b), 0.8)).collect();
            let mut unique = edges;
            unique.sort_by_key(|e| e.rows);
            unique.dedup();
            let found = spread(&ranks, &unique);
            unique.reverse();
            prop_assert_eq!(&found, &spread(&ranks, &unique));
            for Edge { rows: (a, b), .. } in unique {
                let root = |row: u64| found.get(&row).map_or(row, |near| near.kept);
                prop_assert_eq!(root(a), root(b));
                prop_assert!(ranks[root(a) as usize] <= ranks[a as usize]);
                prop_assert!(!found.contains_key(&root(a)));
            }
        }
    }
}
