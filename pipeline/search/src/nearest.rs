//! The nearest vectors by dot product, exactly, in memory that does not grow with the corpus: it comes block by block, and
//! only the best of it stay.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::top_k::{Best, Hit};

/// Queries that one thread takes at a time; their scores stay in its cache.
const QUERIES: usize = 128;
/// Rows of the corpus that are scored at a time.
const ROWS: usize = 1024;

/// A search of many queries at once.
pub struct Nearest<'a> {
    queries: &'a [f32],
    width: usize,
    best: Vec<Best>,
    seen: usize,
}

impl<'a> Nearest<'a> {
    /// Looks for so many of the best as `k` says of each query. `queries` holds one vector of `width` floats after another.
    ///
    /// # Panics
    /// `queries` is no multiple of `width`.
    #[must_use]
    pub fn new(queries: &'a [f32], width: usize, k: impl Fn(usize) -> usize) -> Self {
        assert!(width > 0 && queries.len().is_multiple_of(width), "{} floats of width {width}", queries.len());
        let best = (0..queries.len() / width).map(|query| Best::new(k(query))).collect();
        Self { queries, width, best, seen: 0 }
    }

    /// Looks at the next vectors of the corpus; `wanted` says which positions count.
    ///
    /// # Panics
    /// `corpus` is no multiple of the width.
    pub fn search(&mut self, corpus: &[f32], wanted: impl Fn(usize) -> bool + Sync) {
        let (width, first) = (self.width, self.seen);
        assert!(corpus.len().is_multiple_of(width), "{} floats of width {width}", corpus.len());
        self.seen += corpus.len() / width;
        let parts = self.best.par_chunks_mut(QUERIES).zip(self.queries.par_chunks(QUERIES * width));
        parts.for_each_init(Vec::new, |scores, (best, queries)| {
            for (number, block) in corpus.chunks(ROWS * width).enumerate() {
                let rows = block.len() / width;
                products(queries, block, width, scores);
                for (best, scores) in best.iter_mut().zip(scores.chunks(rows)) {
                    let hits = scores.iter().enumerate();
                    let hits = hits.map(|(row, &score)| Hit { candidate: first + number * ROWS + row, score });
                    best.keep(hits, &wanted);
                }
            }
        });
    }

    /// The hits of each query, best first; of equal scores the earlier first.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<Hit>> {
        self.best.into_iter().map(Best::finish).collect()
    }
}

/// The dot products of all pairs, one row a query.
fn products(queries: &[f32], corpus: &[f32], width: usize, scores: &mut Vec<f32>) {
    let (rows, columns) = (queries.len() / width, corpus.len() / width);
    scores.resize(rows * columns, 0.0);
    assert!(queries.len() == rows * width && corpus.len() == columns * width && scores.len() == rows * columns);
    let stride = |length: usize| length as isize;
    #[allow(unsafe_code, reason = "gemm takes pointers; the lengths are those that the strides span, as asserted")]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            width,
            scores.as_mut_ptr(),
            1,
            stride(columns),
            false,
            queries.as_ptr(),
            1,
            stride(width),
            corpus.as_ptr(),
            stride(width),
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The dot product of two vectors; of unit vectors the cosine.
#[must_use]
pub fn dot(one: &[f32], two: &[f32]) -> f32 {
    one.iter().zip(two).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top_k;
    use proptest::prelude::*;

    proptest! {
        /// Whole numbers, so that sums are exact in any order, and many scores are equal.
        #[test]
        fn equals_scoring_one_by_one(
            queries in 1usize..300, corpus in 0usize..2500, width in 1usize..9, k in 1usize..6, cut in 1usize..999, seed in 0u32..999
        ) {
            let number = |i: usize| (((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) % 5) as f32 - 2.0;
            let queries: Vec<f32> = (0..queries * width).map(number).collect();
            let corpus: Vec<f32> = (0..corpus * width).map(|i| number(i + 7919)).collect();
            let wanted = |position: usize| !position.is_multiple_of(3);
            let mut nearest = Nearest::new(&queries, width, |_| k);
            corpus.chunks(cut * width).for_each(|block| nearest.search(block, wanted));
            for (query, hits) in queries.chunks(width).zip(nearest.finish()) {
                let all: Vec<f32> = corpus.chunks(width).map(|row| dot(query, row) + 0.0).collect();
                let scores = all.iter().enumerate().map(|(i, s)| if wanted(i) { *s } else { f32::NEG_INFINITY });
                let mut expected = top_k(scores, k);
                expected.retain(|hit| wanted(hit.candidate));
                prop_assert_eq!(hits, expected);
            }
        }
    }
}
