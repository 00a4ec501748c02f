//! BM25 (Robertson & Zaragoza, 2009) with Lucene's idf, `ln(1 + (N − df + 0.5) / (df + 0.5))`, k1 = 1.2 and b = 0.75.

use std::collections::HashMap;

use rayon::prelude::*;

const K1: f32 = 1.2;
const B: f32 = 0.75;

/// An inverted index over documents of words: six bytes a word and document.
#[derive(Default)]
pub struct Bm25 {
    words: HashMap<String, u32>,
    postings: Vec<Postings>,
    lengths: Vec<f32>,
    words_in_all: f64,
}

/// The documents that hold a word, and how often each does.
#[derive(Default)]
struct Postings {
    documents: Vec<u32>,
    counts: Vec<u16>,
}

/// How often each word is in a text.
type Bag = HashMap<String, u16>;

fn bag(words: impl IntoIterator<Item = String>) -> Bag {
    let mut bag = Bag::new();
    for word in words {
        let count = bag.entry(word).or_default();
        *count = count.saturating_add(1);
    }
    bag
}

impl Bm25 {
    /// Indexes documents, each a sequence of words.
    pub fn new<D: IntoIterator<Item = String>>(documents: impl IntoIterator<Item = D>) -> Self {
        let mut index = Self::default();
        documents.into_iter().for_each(|document| index.put(bag(document)));
        index
    }

    /// Adds documents, which are cut into words on all cores.
    pub fn extend<'d, D: Sync, W: IntoIterator<Item = String>>(
        &mut self,
        documents: &'d [D],
        words: impl Fn(&'d D) -> W + Sync,
    ) {
        let bags: Vec<Bag> = documents.par_iter().map(|document| bag(words(document))).collect();
        bags.into_iter().for_each(|bag| self.put(bag));
    }

    fn put(&mut self, bag: Bag) {
        let document = self.lengths.len() as u32;
        let length: u32 = bag.values().map(|count| u32::from(*count)).sum();
        self.lengths.push(length as f32);
        self.words_in_all += f64::from(length);
        for (word, count) in bag {
            let fresh = self.postings.len() as u32;
            let number = *self.words.entry(word).or_insert(fresh);
            if number == fresh {
                self.postings.push(Postings::default());
            }
            let postings = &mut self.postings[number as usize];
            postings.documents.push(document);
            postings.counts.push(count);
        }
    }

    /// Documents in the index.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    fn idf(&self, documents: usize) -> f32 {
        let frequency = documents as f32;
        (1.0 + (self.lengths.len() as f32 - frequency + 0.5) / (frequency + 0.5)).ln()
    }

    /// What a word that a document of some length has so often adds to its score.
    fn weight(&self, idf: f32, count: f32, length: f32) -> f32 {
        let mean = (self.words_in_all / self.lengths.len().max(1) as f64) as f32;
        idf * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length / mean))
    }

    /// The score of every document for a query; a word counts as often as the query has it.
    pub fn scores(&self, query: impl IntoIterator<Item = String>) -> Vec<f32> {
        let mut scores = vec![0.0; self.lengths.len()];
        for word in query {
            let Some(postings) = self.words.get(&word).map(|number| &self.postings[*number as usize]) else { continue };
            let idf = self.idf(postings.documents.len());
            for (document, count) in postings.documents.iter().zip(&postings.counts) {
                let document = *document as usize;
                scores[document] += self.weight(idf, f32::from(*count), self.lengths[document]);
            }
        }
        scores
    }

    /// The score that a document which is not in the index would have.
    pub fn score_of(&self, query: impl IntoIterator<Item = String>, document: impl IntoIterator<Item = String>) -> f32 {
        let bag = bag(document);
        let length: f32 = bag.values().map(|count| f32::from(*count)).sum();
        let words = query.into_iter().filter_map(|word| {
            let documents = self.words.get(&word).map_or(0, |number| self.postings[*number as usize].documents.len());
            Some((documents, f32::from(*bag.get(&word)?)))
        });
        words.map(|(documents, count)| self.weight(self.idf(documents), count, length)).sum()
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

    #[test]
    fn documents_outside_are_scored_as_those_inside() {
        let documents = ["cat on cat mat", "cat dog", "bird"];
        let mut index = Bm25::default();
        index.extend(&documents[..1], |text| words(text));
        index.extend(&documents[1..], |text| words(text));
        let scores = index.scores(words("cat mat fish"));
        for (document, score) in documents.iter().zip(scores) {
            assert!((index.score_of(words("cat mat fish"), words(document)) - score).abs() < 1e-6, "{document}");
        }
        assert!(index.score_of(words("fish"), words("fish")) > 0.0, "a word that only the document has");
    }
}
