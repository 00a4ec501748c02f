//! All functions and problems of the training split, to look for negatives in: the codes on disk, a few numbers a row in memory.

use std::collections::HashMap;

use anyhow::Result;
use codepair_code::{first_paragraph, words};
use codepair_dedup::{jaccard, normal_code, normal_text, shingles, structure};
use codepair_runtime::{Context, Piece, Progress, Spool};
use codepair_search::{Bm25, top_k_where};

use crate::mining::{Chosen, Rules};
use crate::rows::{Parent, Splits, chunked, count, key, parents};

/// From this Jaccard similarity of their 5-token shingles on, two codes are nearly the same, as for `prepare`.
const NEAR: f64 = 0.7;

/// Rows that are cut into words at once.
const CHUNK: usize = 8192;

/// The corpus, by position.
pub(crate) struct Corpus {
    codes: Spool,
    places: Vec<Piece>,
    /// By the key of the id.
    positions: HashMap<u64, u32>,
    /// The first row with the same code; only such rows are found.
    first: Vec<u32>,
    /// First rows of the codes that belong to a text, ascending.
    of_text: HashMap<u64, Vec<u32>>,
}

impl Corpus {
    /// Reads all rows; `also` sees them a chunk at a time.
    pub(crate) fn read(context: &Context, mut also: impl FnMut(&[Parent]) -> Result<()>) -> Result<Self> {
        let progress = Progress::new("reading the corpus", "rows", count(context, &["functions", "problems"]));
        let mut corpus = Self {
            codes: Spool::new()?,
            places: Vec::new(),
            positions: HashMap::new(),
            first: Vec::new(),
            of_text: HashMap::new(),
        };
        let mut seen: HashMap<u64, u32> = HashMap::new();
        chunked(parents(context, Splits::Train), CHUNK, |chunk| {
            for parent in &chunk {
                let position = corpus.places.len() as u32;
                let first = *seen.entry(key(&normal_code(&parent.code))).or_insert(position);
                corpus.first.push(first);
                corpus.positions.entry(key(&parent.id)).or_insert(position);
                // A code that was there before is read from where it was.
                let place = if first == position {
                    corpus.codes.put(format!("{}\n{}\n{}", parent.id, parent.language, parent.code).as_bytes())?
                } else {
                    Piece::default()
                };
                corpus.places.push(place);
                if parent.has_text() {
                    corpus.of_text.entry(text_key(&parent.text)).or_default().push(first);
                }
            }
            progress.add(chunk.len() as u64);
            also(&chunk)
        })?;
        for own in corpus.of_text.values_mut() {
            own.sort_unstable();
            own.dedup();
        }
        Ok(corpus)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether a row can be found: the first of those with its code.
    pub(crate) fn is_first(&self, position: usize) -> bool {
        self.first[position] as usize == position
    }

    /// The rows that belong to a text, ascending; none of them is a negative for it.
    pub(crate) fn positives(&self, text: &str) -> &[u32] {
        self.of_text.get(&text_key(text)).map_or(&[], Vec::as_slice)
    }

    /// What tells copies of these rows from other codes.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn copies_of(&self, rows: &[u32]) -> Result<Copies<'_>> {
        let prints = rows.iter().map(|row| self.print(*row as usize)).collect::<Result<_>>()?;
        Ok(Copies { corpus: self, prints })
    }

    fn print(&self, position: usize) -> Result<Print> {
        let (_, language, code) = self.whole(position)?;
        let code = normal_code(&code);
        Ok(Print { shingles: shingles(&code), structure: structure(&code, &language) })
    }

    /// Where the row with an id is, if it is of the corpus.
    pub(crate) fn position(&self, id: &str) -> Option<usize> {
        self.positions.get(&key(id)).map(|position| *position as usize)
    }

    /// Id and code of a row that can be found.
    pub(crate) fn row(&self, position: usize) -> Result<(String, String)> {
        self.whole(position).map(|(id, _, code)| (id, code))
    }

    /// Id, language and code of the first row with the same code.
    fn whole(&self, position: usize) -> Result<(String, String, String)> {
        let row = self.codes.text(self.places[self.first[position] as usize])?;
        let mut parts = row.splitn(3, '\n').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Ok((next(), next(), next()))
    }
}

/// The key of a text as `prepare` sees it: docstrings that have one summary are one text.
fn text_key(text: &str) -> u64 {
    key(&normal_text(first_paragraph(text)))
}

/// What two codes are compared by.
struct Print {
    shingles: Vec<u64>,
    structure: Option<u128>,
}

/// Codes, and whether others are nearly one of them: such a one is no wrong answer.
pub(crate) struct Copies<'a> {
    corpus: &'a Corpus,
    prints: Vec<Print>,
}

impl Copies<'_> {
    /// Whether a row's code is nearly the same as one of these, or the same but for the names of its variables.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn has(&self, position: usize) -> Result<bool> {
        let other = self.corpus.print(position)?;
        Ok(self.prints.iter().any(|print| {
            (print.structure.is_some() && print.structure == other.structure)
                || jaccard(&print.shingles, &other.shingles) >= NEAR
        }))
    }
}

/// Looks for negatives by BM25, between the words of texts and those of codes.
pub(crate) struct Bm25Miner {
    pub(crate) corpus: Corpus,
    index: Bm25,
}

impl Bm25Miner {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let mut index = Bm25::default();
        let corpus = Corpus::read(context, |chunk| {
            index.extend(chunk, |parent| words(&parent.code));
            Ok(())
        })?;
        Ok(Self { corpus, index })
    }

    /// Negatives for a text; `id` decides, with the seed, what is drawn.
    pub(crate) fn mine(&self, rules: &Rules, text: &str, id: &str) -> Result<Vec<Chosen>> {
        let scores = self.index.scores(words(text));
        let positives = self.corpus.positives(text);
        let positive = positives.iter().map(|position| scores[*position as usize]).reduce(f32::min);
        let depth = rules.range_max + positives.len();
        let hits = top_k_where(scores, depth, |position| self.corpus.is_first(position));
        let copies = self.corpus.copies_of(positives)?;
        rules.choose(&hits, positives, positive, id, |at| copies.has(at))
    }

    /// The score that a code, of the corpus or not, has for a query.
    pub(crate) fn score(&self, query: &str, code: &str) -> f32 {
        self.index.score_of(words(query), words(code))
    }

    /// Codes of the corpus, other than those that belong to `text`, that score better than `score` for `query`.
    pub(crate) fn better(&self, query: &str, score: f32, text: &str) -> usize {
        let positives = self.corpus.positives(text);
        let scores = self.index.scores(words(query)).into_iter().enumerate();
        let better = scores.filter(|(_, other)| *other > score);
        better.filter(|(at, _)| self.corpus.is_first(*at) && positives.binary_search(&(*at as u32)).is_err()).count()
    }
}
