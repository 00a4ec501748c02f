//! Training rows that hold what the models are tested on: queries, problems and solutions, test rows of at least eight
//! words, found word for word anywhere in a row's text or code, or as a text that is nearly the same.

use crate::hasher::HashedMap;
use crate::minhash::{BANDS, bands, distinct_runs, fold, hash, jaccard, runs, word_length};

/// Shorter texts are too common to count.
const WORDS: usize = 8;
/// Words a shingle of a text.
const SHINGLE: usize = 5;

/// Texts that no training row may hold; of each about a kilobyte is in memory, and four bytes a word.
#[derive(Debug, Default)]
pub struct ContaminationIndex {
    /// Texts by the hash of their first eight words.
    anchors: Chains,
    /// Texts by the bands of their shingles.
    bands: Chains,
    /// Names of short texts, by the hash of all their words.
    whole: HashedMap<String>,
    names: Vec<String>,
    /// Hashes of the words of all texts, one text after another.
    words: Vec<u32>,
    /// Where the words of each text end.
    ends: Vec<usize>,
    threshold: f64,
}

/// Numbers by hashes: of each hash the last entry, of each entry the one before it of the same hash.
#[derive(Debug, Default)]
struct Chains {
    last: HashedMap<u32>,
    before: Vec<u32>,
}

/// Before the first entry of a hash.
const NONE: u32 = u32::MAX;

impl Chains {
    /// Adds an entry, which gets the next number.
    fn push(&mut self, hash: u64) {
        let entry = self.before.len() as u32;
        self.before.push(self.last.insert(hash, entry).unwrap_or(NONE));
    }

    /// The entries of a hash.
    fn of(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mut next = self.last.get(&hash).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let entry = (next != NONE).then_some(next as usize)?;
            next = self.before[entry];
            Some(entry)
        })
    }
}

impl ContaminationIndex {
    /// An index in which texts with a Jaccard similarity of `threshold` of their 5-word shingles are nearly the same.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        Self { threshold, ..Self::default() }
    }

    /// Adds a text under a name; texts of fewer than eight words are left out.
    pub fn add(&mut self, name: &str, text: &str) {
        self.add_words(name, &words(text));
    }

    fn add_words(&mut self, name: &str, words: &[u64]) {
        let Some(anchor) = anchors(words).next() else { return };
        self.anchors.push(anchor);
        bands(&shingles(words)).into_iter().for_each(|band| self.bands.push(band));
        self.words.extend(words.iter().map(|&word| word as u32));
        self.ends.push(self.words.len());
        self.names.push(name.to_owned());
    }

    /// Adds a text that counts where it is shorter than eight words as well: no row may be the same, though it may hold it.
    pub fn add_whole(&mut self, name: &str, text: &str) {
        let words = words(text);
        match words.len() {
            0 => {}
            1..WORDS => drop(self.whole.entry(fold(&words)).or_insert_with(|| name.to_owned())),
            _ => self.add_words(name, &words),
        }
    }

    /// The hashes of the words of a text.
    fn words(&self, text: usize) -> impl ExactSizeIterator<Item = u64> {
        let start = text.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.words[start..self.ends[text]].iter().map(|&word| u64::from(word))
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
            let begins_here = |text: &usize| {
                let own = self.words(*text);
                own.len() <= words.len() - start && own.eq(words[start..].iter().copied().take(self.words(*text).len()))
            };
            self.anchors.of(anchor).filter(begins_here).min().map(|text| self.names[text].as_str())
        })
    }

    /// The name of the first text that is nearly the same as `row`.
    #[must_use]
    pub fn find_similar(&self, row: &str) -> Option<&str> {
        if self.names.is_empty() {
            return None;
        }
        let words = words(row);
        if words.len() < WORDS {
            return None;
        }
        let own = shingles(&words);
        let mut candidates: Vec<usize> =
            bands(&own).into_iter().flat_map(|band| self.bands.of(band)).map(|entry| entry / BANDS).collect();
        candidates.sort_unstable();
        candidates.dedup();
        let is_similar = |text: &usize| {
            let words: Vec<u64> = self.words(*text).collect();
            jaccard(&shingles(&words), &own) >= self.threshold
        };
        candidates.into_iter().find(is_similar).map(|text| self.names[text].as_str())
    }

    /// Texts in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len() + self.whole.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hashes of 32 bits of the lower-case words of letters, digits and underscores.
fn words(text: &str) -> Vec<u64> {
    let mut hashes = Vec::with_capacity(text.len() / 6);
    // All letters at once, then those that are not ASCII word by word.
    let lower = text.to_ascii_lowercase();
    let mut rest = lower.as_str();
    while let Some(first) = rest.chars().next() {
        let length = word_length(rest);
        if length == 0 {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(length);
        rest = after;
        let hash = if word.is_ascii() { hash(word.as_bytes()) } else { hash(word.to_lowercase().as_bytes()) };
        hashes.push(u64::from(hash as u32));
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
        // Of several the first.
        index.add("three", &text("trailing line feed byte"));
        assert_eq!(index.find_similar(&text("trailing line feed byte")), Some("one"));
        assert_eq!(index.find(&text("trailing line feed byte")), Some("three"));
    }
}
