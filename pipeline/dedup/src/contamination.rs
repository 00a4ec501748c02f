//! Training rows that hold what the models are tested on: queries, problems and solutions, test rows of at least eight
//! words, found word for word anywhere in a row's text or code, or as a text that is nearly the same.

use crate::hasher::HashedMap;
use crate::minhash::{bands, distinct_runs, fold, hash, jaccard, runs, word_length};

/// Shorter texts are too common to count.
const WORDS: usize = 8;
/// Words a shingle of a text.
const SHINGLE: usize = 5;

/// Texts that no training row may hold.
#[derive(Debug, Default)]
pub struct ContaminationIndex {
    /// Positions in `texts`, by the hash of the first eight words.
    anchors: HashedMap<Vec<u32>>,
    /// Positions in `texts`, by the bands of their shingles.
    bands: HashedMap<Vec<u32>>,
    /// Names of short texts, by the hash of all their words.
    whole: HashedMap<String>,
    texts: Vec<Text>,
    threshold: f64,
}

#[derive(Debug)]
struct Text {
    name: String,
    /// Hashes of the words, in order.
    words: Vec<u64>,
    /// Distinct hashes of five words, ascending.
    shingles: Vec<u64>,
}

impl ContaminationIndex {
    /// An index in which texts with a Jaccard similarity of `threshold` of their 5-word shingles are nearly the same.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        Self { threshold, ..Self::default() }
    }

    /// Adds a text under a name; texts of fewer than eight words are left out.
    pub fn add(&mut self, name: &str, text: &str) {
        let words = words(text);
        let (at, shingles) = (self.texts.len() as u32, shingles(&words));
        let Some(anchor) = anchors(&words).next() else { return };
        self.anchors.entry(anchor).or_default().push(at);
        for band in bands(&shingles) {
            self.bands.entry(band).or_default().push(at);
        }
        self.texts.push(Text { name: name.to_owned(), words, shingles });
    }

    /// Adds a text that counts where it is shorter than eight words as well: no row may be the same, though it may hold it.
    pub fn add_whole(&mut self, name: &str, text: &str) {
        let words = words(text);
        match words.len() {
            0 => {}
            1..WORDS => drop(self.whole.entry(fold(&words)).or_insert_with(|| name.to_owned())),
            _ => self.add(name, text),
        }
    }

    /// The name of a text that `row` holds word for word, or is as a whole.
    #[must_use]
    pub fn find(&self, row: &str) -> Option<&str> {
        if self.is_empty() {
            return None;
        }
        let words = words(row);
        if words.len() < WORDS {
            return self.whole.get(&fold(&words)).map(String::as_str);
        }
        anchors(&words).enumerate().find_map(|(start, anchor)| {
            let anchored = self.anchors.get(&anchor)?;
            let mut texts = anchored.iter().map(|&at| &self.texts[at as usize]);
            texts.find(|text| words[start..].starts_with(&text.words)).map(|text| text.name.as_str())
        })
    }

    /// The name of the first text that is nearly the same as `row`.
    #[must_use]
    pub fn find_similar(&self, row: &str) -> Option<&str> {
        let words = words(row);
        if self.texts.is_empty() || words.len() < WORDS {
            return None;
        }
        let shingles = shingles(&words);
        let candidates = bands(&shingles).into_iter().filter_map(|band| self.bands.get(&band)).flatten();
        let similar = candidates.filter(|&&at| jaccard(&self.texts[at as usize].shingles, &shingles) >= self.threshold);
        similar.min().map(|&at| self.texts[at as usize].name.as_str())
    }

    /// Texts in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len() + self.whole.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hashes of the lower-case words of letters, digits and underscores.
fn words(text: &str) -> Vec<u64> {
    let mut hashes = Vec::with_capacity(text.len() / 6);
    let mut lower = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = word_length(rest);
        if length == 0 {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(length);
        rest = after;
        lower.clear();
        if word.is_ascii() {
            lower.extend(word.bytes().map(|byte| byte.to_ascii_lowercase()));
        } else {
            lower.extend_from_slice(word.to_lowercase().as_bytes());
        }
        hashes.push(hash(&lower));
    }
    hashes
}

fn shingles(words: &[u64]) -> Vec<u64> {
    distinct_runs::<SHINGLE>(words)
}

/// A hash of every run of eight words.
fn anchors(words: &[u64]) -> impl Iterator<Item = u64> {
    runs::<WORDS>(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_anywhere_and_whole() {
        let mut index = ContaminationIndex::new(0.7);
        index.add("q1", "Write a function to find the sum of two numbers.");
        index.add("short", "find the sum");
        assert_eq!(index.len(), 1);
        assert_eq!(index.find("# Task: write a FUNCTION, to find the sum of two numbers!"), Some("q1"));
        assert_eq!(index.find("Write a function to find the sum of two"), None);
        assert_eq!(index.find("find the sum"), None);
        index.add_whole("query", "Python: read JSON file");
        index.add_whole("empty", " -- ");
        assert_eq!((index.len(), index.find("python read json file")), (2, Some("query")));
        assert_eq!(
            (index.find("read json file"), index.find("python read json file fast"), index.find("")),
            (None, None, None)
        );
        assert_eq!(ContaminationIndex::default().find("anything at all, however long the text may be here"), None);
    }

    #[test]
    fn texts_nearly_the_same_are_found() {
        let mut index = ContaminationIndex::new(0.7);
        let text = |last: &str| format!("Reads a file line by line and yields each of them without its {last}");
        index.add("one", &text("trailing line feed character"));
        index.add("two", "Something else that has more than eight words in it, all of them different");
        // 13 of 16 shingles in common.
        assert_eq!(index.find_similar(&text("trailing line feed byte")), Some("one"));
        assert_eq!(index.find_similar(&text("mind")), None);
        assert_eq!(index.find_similar("Reads a file"), None);
    }
}
