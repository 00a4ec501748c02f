//! Near-duplicates: candidates by bands, every pair verified, clusters by the verified edges.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use codepair_dedup::jaccard;
use codepair_runtime::column;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use rayon::prelude::*;

use crate::candidates::{Key, collect, hash_lists};

/// In larger buckets a row is compared with the first row and its neighbours only.
const ALL_PAIRS: usize = 64;

/// Why a row is a near-duplicate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Near {
    /// Position of the row at the other end of the edge that joins it to its cluster.
    pub(crate) neighbour: usize,
    /// Verified similarity of the two.
    pub(crate) jaccard: f64,
    /// Position of the row that is kept.
    pub(crate) kept: usize,
}

/// Finds the near-duplicates among the original rows that are no exact duplicates.
pub(crate) fn clusters(
    session: &SessionContext,
    keys: &[Key],
    threshold: f64,
    threads: usize,
) -> Result<HashMap<usize, Near>> {
    let unique: Vec<u64> = (0..keys.len())
        .filter(|&i| keys[i].excluded.is_none() && keys[i].kind == "original" && keys[i].exact == i)
        .map(|i| i as u64)
        .collect();
    if unique.is_empty() {
        return Ok(HashMap::new());
    }
    register_positions(session, "unique_rows", unique)?;
    let pairs = candidate_pairs(session)?;
    let shingles = shingles(session, keys, &pairs)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let edges: Vec<(usize, usize, f64)> = pool.install(|| {
        let verify = |&(a, b): &(usize, usize)| Some((a, b, jaccard(shingles.get(&a)?, shingles.get(&b)?)));
        pairs.par_iter().filter_map(verify).filter(|(_, _, similarity)| *similarity >= threshold).collect()
    });
    tracing::info!("{} candidate pairs, {} near-duplicate pairs", pairs.len(), edges.len());
    Ok(spread(keys, &edges))
}

fn register_positions(session: &SessionContext, table: &str, positions: Vec<u64>) -> Result<()> {
    let schema = Arc::new(Schema::new(vec![Field::new("position", DataType::UInt64, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(UInt64Array::from(positions))])?;
    session.register_table(table, Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))?;
    Ok(())
}

const BUCKETS: &str = "
select array_agg(position order by position) as positions
from (select k.position, unnest(k.bands) as band from keys k left semi join unique_rows u on k.position = u.position)
group by band having count(*) > 1";

/// Pairs that share a band, each once, in order.
fn candidate_pairs(session: &SessionContext) -> Result<Vec<(usize, usize)>> {
    let mut pairs = HashSet::new();
    for batch in collect(session, BUCKETS)? {
        let lists = column(&batch, "positions")?.as_list::<i32>();
        for bucket in lists.iter().flatten() {
            let bucket = bucket.as_primitive::<UInt64Type>().values();
            if bucket.len() <= ALL_PAIRS {
                for (i, &a) in bucket.iter().enumerate() {
                    pairs.extend(bucket[i + 1..].iter().map(|&b| (a as usize, b as usize)));
                }
            } else {
                pairs.extend(bucket.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)));
                pairs.extend(bucket[1..].iter().map(|&b| (bucket[0] as usize, b as usize)));
            }
        }
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_unstable();
    Ok(pairs)
}

/// The shingles of the rows in any pair.
fn shingles(session: &SessionContext, keys: &[Key], pairs: &[(usize, usize)]) -> Result<HashMap<usize, Vec<u64>>> {
    let mut needed: Vec<u64> = pairs.iter().flat_map(|&(a, b)| [a as u64, b as u64]).collect();
    needed.sort_unstable();
    needed.dedup();
    if needed.is_empty() {
        return Ok(HashMap::new());
    }
    let by_id: HashMap<&str, usize> = needed.iter().map(|&p| (keys[p as usize].id.as_str(), p as usize)).collect();
    register_positions(session, "paired_rows", needed)?;
    let query = "select id, shingles(code) as shingles from candidates
        where id in (select k.id from keys k left semi join paired_rows p on k.position = p.position)";
    let mut found = HashMap::new();
    for batch in collect(session, query)? {
        let ids = codepair_runtime::text_column(&batch, "id")?;
        for (row, list) in hash_lists(&batch, "shingles")?.into_iter().enumerate() {
            if let Some(&position) = by_id.get(ids.value(row)) {
                found.insert(position, list);
            }
        }
    }
    Ok(found)
}

/// Clusters are the connected components of the edges. Of each the row of the most protected split is kept, the
/// earliest one; the others point along the shortest way of edges to it. Depends on the edges alone, not on their order.
fn spread(keys: &[Key], edges: &[(usize, usize, f64)]) -> HashMap<usize, Near> {
    let mut neighbours: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
    for &(a, b, similarity) in edges {
        neighbours.entry(a).or_default().push((b, similarity));
        neighbours.entry(b).or_default().push((a, similarity));
    }
    neighbours.values_mut().for_each(|list| list.sort_by_key(|(other, _)| *other));
    let mut order: Vec<usize> = neighbours.keys().copied().collect();
    order.sort_by_key(|&row| (keys[row].split_rank, row));
    let mut seen = HashSet::new();
    let mut found = HashMap::new();
    for kept in order {
        if !seen.insert(kept) {
            continue;
        }
        let mut open = VecDeque::from([kept]);
        while let Some(row) = open.pop_front() {
            for &(other, jaccard) in &neighbours[&row] {
                if seen.insert(other) {
                    found.insert(other, Near { neighbour: row, jaccard, kept });
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

    fn keys(ranks: &[u64]) -> Vec<Key> {
        ranks.iter().map(|&split_rank| Key { split_rank, ..Key::default() }).collect()
    }

    #[test]
    fn the_test_row_is_kept() {
        let found = spread(&keys(&[2, 2, 0, 2]), &[(0, 1, 0.8), (1, 2, 0.9)]);
        assert_eq!(found[&1], Near { neighbour: 2, jaccard: 0.9, kept: 2 });
        assert_eq!(found[&0], Near { neighbour: 1, jaccard: 0.8, kept: 2 });
        assert!(!found.contains_key(&2) && !found.contains_key(&3));
    }

    proptest! {
        /// Keepers and clusters do not depend on the order of the edges, and each cluster keeps exactly one row.
        #[test]
        fn clusters_depend_on_the_edges_alone(pairs in prop::collection::vec((0usize..20, 0usize..20), 0..40), ranks in prop::collection::vec(0u64..3, 20)) {
            let keys = keys(&ranks);
            let edges: Vec<_> = pairs.into_iter().filter(|(a, b)| a != b).map(|(a, b)| (a.min(b), a.max(b), 0.8)).collect();
            let mut unique = edges;
            unique.sort_by_key(|e| (e.0, e.1));
            unique.dedup();
            let found = spread(&keys, &unique);
            unique.reverse();
            prop_assert_eq!(&found, &spread(&keys, &unique));
            for (a, b, _) in unique {
                let root = |row: usize| found.get(&row).map_or(row, |near| near.kept);
                prop_assert_eq!(root(a), root(b));
                prop_assert!(keys[root(a)].split_rank <= keys[a].split_rank);
                prop_assert!(!found.contains_key(&root(a)));
            }
        }
    }
}
