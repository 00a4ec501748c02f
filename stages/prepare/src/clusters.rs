//! Clusters of duplicates: the row that is kept of each, and the way of edges to it.

use anyhow::Result;
use bytemuck::{Pod, Zeroable};
use codepair_runtime::Paged;

use crate::scratch::{OFTEN, SELDOM, Scratch};

/// For each row another one, or none.
pub(crate) struct Pointers(Paged<u64>);

impl Pointers {
    pub(crate) fn new(scratch: &Scratch, share: u64) -> Result<Self> {
        Ok(Self(scratch.rows(share)?))
    }

    pub(crate) fn get(&self, row: u64) -> Result<Option<u64>> {
        Ok(self.0.get(row)?.checked_sub(1))
    }

    pub(crate) fn set(&self, row: u64, other: u64) -> Result<()> {
        self.0.set(row, other + 1)
    }
}

/// Why a row is a duplicate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Near {
    /// `exact`, `near` or `structural`.
    pub(crate) kind: &'static str,
    /// The row at the other end of the edge that joins it to its cluster.
    pub(crate) neighbour: u64,
    /// Verified similarity of the two.
    pub(crate) jaccard: f64,
    /// The row that is kept.
    pub(crate) kept: u64,
}

/// Two rows that are duplicates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) is_structural: bool,
    pub(crate) rows: (u64, u64),
    pub(crate) jaccard: f64,
}

/// The connected components of edges: a union-find whose roots are the rows that are kept, and a tree of the edges that
/// joined two clusters, in which every row knows the first edge on its way to the tree's root; that is the row that is kept
/// once [`Clusters::settle`] was called.
pub(crate) struct Clusters {
    /// Towards the root of each row's cluster: a row, from 1; of a root with `SIZE` how many rows it has, 0 for itself alone.
    above: Paged<u64>,
    links: Paged<Link>,
    pub(crate) edges: u64,
    /// Pairs that are in one bucket, and were not compared.
    pub(crate) not_compared: u64,
}

/// Marks the size of a cluster.
const SIZE: u64 = 1 << 63;

/// The first edge on a row's way to the root.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Link {
    jaccard: f64,
    /// The row at its other end, from 1; 0 for a root.
    neighbour: u64,
    is_structural: u64,
}

impl Clusters {
    pub(crate) fn new(scratch: &Scratch) -> Result<Self> {
        Ok(Self { above: scratch.rows(OFTEN)?, links: scratch.rows(SELDOM)?, edges: 0, not_compared: 0 })
    }

    /// Joins the clusters of two rows, if they are two. `rank` says which rows are to be kept before others: of the
    /// smallest rank the first.
    pub(crate) fn join(&mut self, edge: Edge, rank: impl Fn(u64) -> Result<u8>) -> Result<()> {
        let (one, two) = (self.root(edge.rows.0)?, self.root(edge.rows.1)?);
        if one == two {
            return Ok(());
        }
        let (kept, other) = if (rank(one)?, one) < (rank(two)?, two) { (one, two) } else { (two, one) };
        // The edges of the smaller one turn round: no edge more often than clusters can double.
        let sizes = (self.size(one)?, self.size(two)?);
        let (from, to) = if sizes.0 < sizes.1 { edge.rows } else { (edge.rows.1, edge.rows.0) };
        self.above.set(other, kept + 1)?;
        self.above.set(kept, SIZE | (sizes.0 + sizes.1))?;
        self.edges += 1;
        self.turn(from, Link { jaccard: edge.jaccard, neighbour: to + 1, is_structural: edge.is_structural.into() })
    }

    fn above(&self, row: u64) -> Result<Option<u64>> {
        Ok(Some(self.above.get(row)?).filter(|above| above & SIZE == 0).and_then(|above| above.checked_sub(1)))
    }

    /// Rows of a cluster, by its root.
    fn size(&self, root: u64) -> Result<u64> {
        Ok((self.above.get(root)? & !SIZE).max(1))
    }

    /// Makes the rows that are kept, of so many in all, the roots of their trees. No edge may follow.
    pub(crate) fn settle(&self, rows: u64) -> Result<()> {
        for row in 0..rows {
            if self.above(row)?.is_none() && self.links.get(row)?.neighbour != 0 {
                self.turn(row, Link::zeroed())?;
            }
        }
        Ok(())
    }

    /// Makes `row` the root of its tree, every edge on its way to the former one pointing backwards, and hangs it up.
    fn turn(&self, mut row: u64, mut link: Link) -> Result<()> {
        loop {
            let before = self.links.get(row)?;
            self.links.set(row, link)?;
            let Some(next) = before.neighbour.checked_sub(1) else { return Ok(()) };
            link = Link { neighbour: row + 1, ..before };
            row = next;
        }
    }

    /// The row that is kept of a row's cluster. Every row on the way is put closer to it (path halving: van Leeuwen & van
    /// der Weide, 1977).
    pub(crate) fn root(&self, mut row: u64) -> Result<u64> {
        while let Some(above) = self.above(row)? {
            let Some(next) = self.above(above)? else { return Ok(above) };
            self.above.set(row, next + 1)?;
            row = next;
        }
        Ok(row)
    }

    /// Why a row is a duplicate, if it is one.
    pub(crate) fn near(&self, row: u64) -> Result<Option<Near>> {
        let Link { jaccard, neighbour, is_structural } = self.links.get(row)?;
        let Some(neighbour) = neighbour.checked_sub(1) else { return Ok(None) };
        let kind = if is_structural != 0 { "structural" } else { "near" };
        Ok(Some(Near { kind, neighbour, jaccard, kept: self.root(row)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clusters(ranks: &[u8], edges: &[(u64, u64)]) -> Vec<Option<Near>> {
        let mut clusters = Clusters::new(&Scratch::new(Some(0)).unwrap()).unwrap();
        for &(one, two) in edges {
            let edge = Edge { is_structural: one + two == 3, rows: (one, two), jaccard: (one + two) as f64 };
            clusters.join(edge, |row| Ok(ranks[row as usize])).unwrap();
        }
        clusters.settle(ranks.len() as u64).unwrap();
        (0..ranks.len() as u64).map(|row| clusters.near(row).unwrap()).collect()
    }

    #[test]
    fn the_test_row_is_kept() {
        let found = clusters(&[2, 2, 0, 2], &[(0, 1), (1, 2)]);
        assert_eq!(found[1], Some(Near { kind: "structural", neighbour: 2, jaccard: 3.0, kept: 2 }));
        assert_eq!(found[0], Some(Near { kind: "near", neighbour: 1, jaccard: 1.0, kept: 2 }));
        assert_eq!((&found[2], &found[3]), (&None, &None));
    }

    proptest! {
        /// Each component keeps its best row, and from every other a way of edges leads there.
        #[test]
        fn every_row_leads_to_the_best_one(edges in prop::collection::vec((0u64..20, 0u64..20), 0..40), ranks in prop::collection::vec(0u8..3, 20)) {
            let found = clusters(&ranks, &edges);
            let kept = |row: u64| found[row as usize].as_ref().map_or(row, |near| near.kept);
            for &(one, two) in &edges {
                prop_assert_eq!(kept(one), kept(two));
            }
            for row in 0..20 {
                let best = kept(row);
                prop_assert_eq!(kept(best), best);
                prop_assert!((ranks[best as usize], best) <= (ranks[row as usize], row));
                let mut at = row;
                for _ in 0..20 {
                    let Some(near) = &found[at as usize] else { break };
                    prop_assert!(edges.contains(&(at, near.neighbour)) || edges.contains(&(near.neighbour, at)));
                    prop_assert_eq!(near.jaccard, (at + near.neighbour) as f64);
                    at = near.neighbour;
                }
                prop_assert_eq!(at, best);
            }
        }
    }
}
