//! Exact top-k by score.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A candidate and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Position of the candidate.
    pub candidate: usize,
    /// Its score; larger is better.
    pub score: f32,
}

impl Eq for Hit {}

impl Ord for Hit {
    /// Worse is greater, so that a heap's top is the worst hit kept; of equal scores the later candidate is worse.
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.candidate.cmp(&other.candidate))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The `k` best candidates, best first; ties in order of the candidates.
pub fn top_k(scores: impl IntoIterator<Item = f32>, k: usize) -> Vec<Hit> {
    top_k_where(scores, k, |_| true)
}

/// As [`top_k`], of the candidates that are wanted.
pub fn top_k_where(scores: impl IntoIterator<Item = f32>, k: usize, wanted: impl Fn(usize) -> bool) -> Vec<Hit> {
    let mut best = Best::new(k);
    best.keep(scores.into_iter().enumerate().map(|(candidate, score)| Hit { candidate, score }), wanted);
    best.finish()
}

/// The best hits so far.
pub(crate) struct Best {
    heap: BinaryHeap<Hit>,
    k: usize,
}

impl Best {
    pub(crate) fn new(k: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(k + 1), k }
    }

    /// Keeps the best wanted ones of these as well. They come after those before; of equal scores the earlier one stays.
    pub(crate) fn keep(&mut self, hits: impl Iterator<Item = Hit>, wanted: impl Fn(usize) -> bool) {
        let (heap, k) = (&mut self.heap, self.k);
        let least = |heap: &BinaryHeap<Hit>| match heap.peek() {
            Some(worst) if heap.len() == k => Some(worst.score),
            _ => None,
        };
        let mut bound = least(heap);
        for hit in hits {
            if k > 0 && bound.is_none_or(|bound| hit.score > bound) && wanted(hit.candidate) {
                // Zero has one sign, so that equal scores are equal.
                heap.push(Hit { score: hit.score + 0.0, ..hit });
                if heap.len() > k {
                    heap.pop();
                }
                bound = least(heap);
            }
        }
    }

    pub(crate) fn finish(self) -> Vec<Hit> {
        self.heap.into_sorted_vec()
    }
}

/// The rank of a candidate, from 1; ties count against it, and so does what cannot be compared.
#[must_use]
pub fn rank_of(scores: &[f32], candidate: usize) -> usize {
    let own = scores[candidate];
    let is_behind = |score: f32| score.partial_cmp(&own) == Some(Ordering::Less);
    scores.iter().enumerate().filter(|(i, score)| *i != candidate && !is_behind(**score)).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_count_against_the_candidate() {
        assert_eq!(rank_of(&[1.0, 1.0, 0.5], 0), 2);
        assert_eq!(rank_of(&[1.0, 1.0, 0.5], 2), 3);
        assert_eq!(rank_of(&[0.0, 1.0], 1), 1);
        assert_eq!(rank_of(&[f32::NAN, 1.0, 0.5], 0), 3);
        assert_eq!(rank_of(&[f32::NAN, 1.0, 0.5], 1), 2);
        assert_eq!(rank_of(&[f32::NAN; 4], 2), 4);
    }

    proptest! {
        #[test]
        fn equals_a_full_sort(scores in prop::collection::vec(0u8..9, 0..40), k in 0usize..50) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            order.truncate(k);
            let found: Vec<usize> = top_k(scores, k).into_iter().map(|hit| hit.candidate).collect();
            prop_assert_eq!(found, order);
        }
    }
}
