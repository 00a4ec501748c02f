//! Training rows that hold what the models are tested on: queries, problems and solutions, test rows of at least eight
//! words, found word for word anywhere in a row's text or code, or as a text that is nearly the same.

use crate::hasher::HashedMap;
use crate::minhash::{BANDS, bands, distinct_runs, fold, hash, jaccard, runs, word_length};

/// Shorter texts are too common to count.
const WORDS: usize = 8;
/// Words a shingle of a text.
const SHINGLE: usize = 5;

/// Texts that no training row may hold, by the numbers that their owner gave them.
#[derive(Debug, Default)]
pub struct ContaminationIndex {
    /// Texts by the hash of their first eight words.
    anchors: Chains,
    /// Texts by the bands of their shingles.
    bands: Chains,
    /// Numbers of short texts, by the hash of all their words.
    whole: HashedMap<u64>,
    numbers: Vec<u64>,
    /// Hashes of the words of all texts, one text after another.
    words: Vec<u32>,
    /// Where the words of each text end.
    ends: Vec<usize>,
    threshold: f64,
}

/// Numbers by hashes of which 32 bits count: entries that share a slot form a chain, the last one first.
#[derive(Debug, Default)]
struct Chains {
    /// The last entry of each slot; as many slots as a power of two.
    last: Vec<u32>,
    /// Of each entry its hash, and the entry before it in its slot.
    entries: Vec<(u32, u32)>,
}

/// A text that a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The word of the row at which it begins.
    pub start: usize,
    /// Its number.
    pub number: u64,
}

/// Before the first entry of a hash.
const NONE: u32 = u32::MAX;

impl Chains {
    /// Adds an entry, which gets the next number.
    fn push(&mut self, hash: u64) {
        if self.entries.len() == self.last.len() {
            self.last = vec![NONE; (2 * self.last.len()).max(16)];
            (0..self.entries.len()).for_each(|entry| self.hang(entry));
        }
        self.entries.push((hash as u32, NONE));
        self.hang(self.entries.len() - 1);
    }

    /// Makes an entry the last one of its slot.
    fn hang(&mut self, entry: usize) {
        let slot = self.entries[entry].0 as usize & (self.last.len() - 1);
        self.entries[entry].1 = std::mem::replace(&mut self.last[slot], entry as u32);
    }

    /// The entries of a hash.
    fn of(&self, hash: u64) -> impl Iterator<Item = usize> {
        let hash = hash as u32;
        let slot = hash as usize & self.last.len().wrapping_sub(1);
        let mut next = self.last.get(slot).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            while next != NONE {
                let entry = next as usize;
                let (own, before) = self.entries[entry];
                next = before;
                if own == hash {
                    return Some(entry);
                }
            }
            None
        })
    }

    fn bytes(&self) -> usize {
        bytes_of_vec(&self.last) + bytes_of_vec(&self.entries)
    }
}

/// Of each place of a map its key, its value and a byte of control.
fn bytes_of<V>(map: &HashedMap<V>) -> usize {
    map.capacity() * 8 / 7 * (size_of::<(u64, V)>() + 1)
}

fn bytes_of_vec<V>(values: &Vec<V>) -> usize {
    values.capacity() * size_of::<V>()
}

impl ContaminationIndex {
    /// An index in which texts with a Jaccard similarity of `threshold` of their 5-word shingles are nearly the same.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        Self { threshold, ..Self::default() }
    }

    /// Adds a text; one of fewer than eight words is left out.
    pub fn add(&mut self, number: u64, text: &str) {
        self.add_words(number, &words(text));
    }

    fn add_words(&mut self, number: u64, words: &[u64]) {
        let Some(anchor) = anchors(words).next() else { return };
        self.anchors.push(anchor);
        bands(&shingles(words)).into_iter().for_each(|band| self.bands.push(band));
        self.words.extend(words.iter().map(|&word| word as u32));
        self.ends.push(self.words.len());
        self.numbers.push(number);
    }

    /// Adds a text that counts where it is shorter than eight words as well: no row may be the same, though it may hold it.
    pub fn add_whole(&mut self, number: u64, text: &str) {
        let words = words(text);
        match words.len() {
            0 => {}
            1..WORDS => {
                let least = self.whole.entry(fold(&words)).or_insert(number);
                *least = number.min(*least);
            }
            _ => self.add_words(number, &words),
        }
    }

    /// The hashes of the words of a text.
    fn words(&self, text: usize) -> impl ExactSizeIterator<Item = u64> {
        let start = text.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.words[start..self.ends[text]].iter().map(|&word| u64::from(word))
    }

    /// The first text that `row` holds word for word, of several at one word that of the smallest number; or the short one
    /// that it is as a whole.
    #[must_use]
    pub fn find(&self, row: &str) -> Option<Held> {
        if self.is_empty() {
            return None;
        }
        let words = words(row);
        if words.len() < WORDS {
            return self.whole.get(&fold(&words)).map(|&number| Held { start: 0, number });
        }
        anchors(&words).enumerate().find_map(|(start, anchor)| {
            let begins_here = |text: &usize| {
                let own = self.words(*text);
                words[start..].get(..own.len()).is_some_and(|words| own.eq(words.iter().copied()))
            };
            let number = self.anchors.of(anchor).filter(begins_here).map(|text| self.numbers[text]).min()?;
            Some(Held { start, number })
        })
    }

    /// The smallest number of a text that is nearly the same as `row`.
    #[must_use]
    pub fn find_similar(&self, row: &str) -> Option<u64> {
        if self.numbers.is_empty() {
            return None;
        }
        let words = words(row);
        if words.len() < WORDS {
            return None;
        }
        let own = shingles(&words);
        let mut candidates: Vec<usize> =
            bands(&own).into_iter().flat_map(|band| self.bands.of(band)).map(|entry| entry / BANDS).collect();
        candidates.sort_unstable_by_key(|&text| (self.numbers[text], text));
        candidates.dedup();
        let is_similar = |text: &usize| {
            let words: Vec<u64> = self.words(*text).collect();
            jaccard(&shingles(&words), &own) >= self.threshold
        };
        candidates.into_iter().find(is_similar).map(|text| self.numbers[text])
    }

    /// Texts in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len() + self.whole.len()
    }

    /// The memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let maps = self.anchors.bytes() + self.bands.bytes() + bytes_of(&self.whole);
        maps + bytes_of_vec(&self.numbers) + bytes_of_vec(&self.words) + bytes_of_vec(&self.ends)
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
    use proptest::prelude::*;

    #[test]
    fn texts_are_found_anywhere_and_whole() {
        let mut index = ContaminationIndex::new(0.7);
        index.add(3, "Write a function to find the sum of two numbers.");
        index.add(4, "find the sum");
        assert_eq!(index.len(), 1);
        let find = |index: &ContaminationIndex, row| index.find(row).map(|held| (held.start, held.number));
        assert_eq!(find(&index, "# Task: write a FUNCTION, to find the sum of two numbers!"), Some((1, 3)));
        assert_eq!(find(&index, "Write a function to find the sum of two"), None);
        assert_eq!(find(&index, "find the sum"), None);
        index.add_whole(5, "Python: read JSON file");
        index.add_whole(6, " -- ");
        index.add_whole(7, "python read json file");
        assert_eq!((index.len(), find(&index, "python read json file")), (2, Some((0, 5))));
        assert_eq!(find(&index, "read json file"), None);
        assert_eq!(find(&index, "python read json file fast"), None);
        assert_eq!(find(&index, ""), None);
        assert_eq!(find(&ContaminationIndex::default(), "anything at all, however long the text may be here"), None);
    }

    #[test]
    fn texts_nearly_the_same_are_found() {
        let mut index = ContaminationIndex::new(0.7);
        let text = |last: &str| format!("Reads a file line by line and yields each of them without its {last}");
        index.add(1, &text("trailing line feed character"));
        index.add(2, "Something else that has more than eight words in it, all of them different");
        // 13 of 16 shingles in common.
        assert_eq!(index.find_similar(&text("trailing line feed byte")), Some(1));
        assert_eq!(index.find_similar(&text("mind")), None);
        assert_eq!(index.find_similar("Reads a file"), None);
        // Of several the first.
        index.add(3, &text("trailing line feed byte"));
        assert_eq!(index.find_similar(&text("trailing line feed byte")), Some(1));
        assert_eq!(index.find(&text("trailing line feed byte")), Some(Held { start: 0, number: 3 }));
    }

    proptest! {
        /// The least of what parts of the texts say is what all of them say, in whatever order they come.
        #[test]
        fn parts_of_an_index_agree_with_the_whole(texts in prop::collection::vec("([ab] ){7,11}", 1..12), row in "([ab] ){0,30}", cut in 0usize..12) {
            let new = || ContaminationIndex::new(0.5);
            let (mut all, mut parts) = (new(), [new(), new()]);
            for (number, text) in texts.iter().enumerate() {
                all.add_whole(number as u64, text);
            }
            for (number, text) in texts.iter().enumerate().rev() {
                parts[usize::from(number >= cut)].add_whole(number as u64, text);
            }
            let held = |index: &ContaminationIndex| index.find(&row).map(|held| (held.start, held.number));
            prop_assert_eq!(held(&all), parts.iter().filter_map(held).min());
            prop_assert_eq!(all.find_similar(&row), parts.iter().filter_map(|part| part.find_similar(&row)).min());
        }
    }

    #[test]
    fn entries_are_found_by_their_hash() {
        let mut chains = Chains::default();
        assert_eq!(chains.of(3).count(), 0);
        // The same slot, the same hash, and hashes that share 32 bits.
        let hashes = [3, 19, 3, 1 << 32 | 19, 4].into_iter().chain(100..200);
        hashes.for_each(|hash| chains.push(hash));
        assert_eq!(chains.of(3).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(chains.of(19).collect::<Vec<_>>(), [3, 1]);
        assert_eq!((chains.of(35).count(), chains.of(150).collect::<Vec<_>>()), (0, vec![55]));
    }

    #[test]
    fn memory_is_told() {
        let mut index = ContaminationIndex::new(0.7);
        let text: Vec<String> = (0..1000).map(|n| format!("w{n}")).collect();
        (0..100).for_each(|n| index.add(n, &format!("{n} {}", text.join(" "))));
        // Four bytes a word, and 26 entries of twelve bytes for each text.
        let least = 100 * (1001 * 4 + 16 + 26 * 12);
        assert!((least..3 * least).contains(&index.bytes()), "{}", index.bytes());
    }
}
