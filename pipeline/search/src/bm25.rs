//! BM25 (Robertson & Zaragoza, 2009) with Lucene's idf, `ln(1 + (N − df + 0.5) / (df + 0.5))`, k1 = 1.2 and b = 0.75.

use std::collections::HashMap;

const K1: f32 = 1.2;
const B: f32 = 0.75;

/// An inverted index over documents of words.
pub struct Bm25 {
    postings: HashMap<String, Vec<(u32, f32)>>,
    documents: usize,
}

impl Bm25 {
    /// Indexes documents, each a sequence of words.
    pub fn new<D: IntoIterator<Item = String>>(documents: impl IntoIterator<Item = D>) -> Self {
        let mut counts: HashMap<String, Vec<(u32, f32)>> = HashMap::new();
        let mut lengths: Vec<f32> = Vec::new();
        for (id, document) in documents.into_iter().enumerate() {
            let mut own: HashMap<String, f32> = HashMap::new();
            for word in document {
                *own.entry(word).or_default() += 1.0;
            }
            lengths.push(own.values().sum());
            for (word, count) in own {
                counts.entry(word).or_default().push((id as u32, count));
            }
        }
        let mean = lengths.iter().sum::<f32>() / lengths.len().max(1) as f32;
        for postings in counts.values_mut() {
            let frequency = postings.len() as f32;
            let idf = (1.0 + (lengths.len() as f32 - frequency + 0.5) / (frequency + 0.5)).ln();
            for (id, weight) in postings.iter_mut() {
                let norm = K1 * (1.0 - B + B * lengths[*id as usize] / mean);
                *weight = idf * *weight * (K1 + 1.0) / (*weight + norm);
            }
        }
        Self { postings: counts, documents: lengths.len() }
    }

    /// The score of every document for a query; a word counts as often as the query has it.
    pub fn scores(&self, query: impl IntoIterator<Item = String>) -> Vec<f32> {
        let mut scores = vec![0.0; self.documents];
        for word in query {
            for (id, weight) in self.postings.get(&word).into_iter().flatten() {
                scores[*id as usize] += weight;
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    /// Computed by hand: N = 3, df(cat) = 2, df(mat) = 1, lengths 3, 2, 1, mean 2.
    #[test]
    fn equals_the_formula() {
        let index = Bm25::new(["cat on mat", "cat dog", "bird"].map(words));
        let scores = index.scores(words("cat mat"));
        let idf = |df: f32| (1.0 + (3.0 - df + 0.5) / (df + 0.5)).ln();
        let part = |length: f32| 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * length / 2.0));
        let expected = [(idf(2.0) + idf(1.0)) * part(3.0), idf(2.0) * part(2.0), 0.0];
        for (score, expected) in scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-6, "{score} {expected}");
        }
        assert!(Bm25::new(Vec::<Vec<String>>::new()).scores(words("cat")).is_empty());
    }
}
