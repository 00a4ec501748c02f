//! Reading some of a source with its own reader.

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::Config;

use crate::files::{Item, has_end, unpacked};
use crate::found::Found;
use crate::sources::SourceKind;
use crate::split::Shares;

/// What came of some files.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    /// Of the source.
    pub(crate) files: usize,
    /// Rows with a text by split.
    pub(crate) splits: BTreeMap<String, usize>,
    pub(crate) reasons: BTreeMap<&'static str, usize>,
    without_text: usize,
    languages: BTreeMap<String, usize>,
    /// Tokens of texts and codes.
    texts: Vec<usize>,
    codes: Vec<usize>,
    shares: Option<Shares>,
    /// The names of files say splits.
    pub(crate) is_named: bool,
    bytes_read: u64,
    bytes: u64,
}

/// Reads files, spread over all, until so many bytes are read.
pub(crate) fn try_out<K: SourceKind>(kind: &K, config: &Config, most: u64) -> Result<Trial> {
    let files = kind.files(config)?;
    let bytes: u64 = files.list.iter().map(|file| file.bytes).sum();
    let mut trial = Trial {
        files: files.list.len(),
        shares: kind.shares(),
        is_named: files.says_splits(),
        bytes,
        ..Trial::default()
    };
    // Every so many files, as the bytes allow; the last one as far.
    let step = usize::try_from(bytes / most.max(1))?.clamp(1, files.list.len().max(1));
    let numbers: Vec<usize> = (0..files.list.len()).step_by(step).collect();
    let read = Cell::new(0);
    let each = |_, item: Item| match item {
        Item::File(file) => kind.cut(file, &mut |piece| {
            kind.rows(piece)?.into_iter().for_each(|found| trial.add(found));
            if trial.bytes_of_rows() < most { Ok(()) } else { Err(Enough.into()) }
        }),
        Item::Unreadable { .. } => {
            *trial.reasons.entry("unreadable").or_default() += 1;
            Ok(())
        }
    };
    match files.read(&numbers, each, |bytes| read.set(read.get() + bytes)) {
        Err(error) if !error.is::<Enough>() => return Err(error),
        // Of what is packed, or a table of columns, a quarter lies on the disk.
        Err(_) => {
            let is_packed = files
                .list
                .first()
                .is_some_and(|file| unpacked(&file.name) != file.name || has_end(&file.name, ".parquet"));
            trial.bytes_read = read.get().max(trial.bytes_of_rows() / if is_packed { 4 } else { 1 });
        }
        Ok(_) => trial.bytes_read = read.get(),
    }
    Ok(trial)
}

/// What ends a reading that has seen enough.
#[derive(Debug, thiserror::Error)]
#[error("enough is read")]
pub(super) struct Enough;

impl Trial {
    fn add(&mut self, found: Found) {
        let (split, language, text, code) = match &found {
            Found::Function(row) => (&row.split, row.language.as_str(), row.docstring.as_str(), row.code.as_str()),
            Found::Pair(row) => (&row.split, row.language.as_str(), row.text.as_str(), row.code.as_str()),
            Found::Problem(row) => (&row.split, "python", row.text.as_str(), row.code.as_str()),
            Found::Query(row) => (&row.split, "", row.text.as_str(), ""),
            Found::Judgment(_) => return,
            Found::Rejected { reason, .. } => {
                *self.reasons.entry(reason).or_default() += 1;
                return;
            }
        };
        self.codes.push(tokens(code));
        *self.languages.entry(language.to_owned()).or_default() += 1;
        if text.trim().is_empty() {
            self.without_text += 1;
            return;
        }
        self.texts.push(tokens(codepair_code::first_paragraph(text)));
        *self.splits.entry(split.clone()).or_default() += 1;
    }

    /// Rows that can be learned from.
    pub(crate) fn rows(&self) -> usize {
        self.texts.len()
    }

    /// The same of all files, about.
    pub(crate) fn rows_in_all(&self) -> u64 {
        let share = self.bytes as f64 / self.bytes_read.max(1) as f64;
        (self.rows() as f64 * share.max(1.0)).round() as u64
    }

    pub(crate) fn undocumented(&self) -> f64 {
        self.without_text as f64 / (self.without_text + self.rows()).max(1) as f64
    }

    pub(crate) fn rejected(&self) -> f64 {
        let rejected: usize = self.reasons.values().sum();
        rejected as f64 / (rejected + self.without_text + self.rows()).max(1) as f64
    }

    /// Rows of a split.
    pub(crate) fn rows_of(&self, split: &str) -> usize {
        self.splits.get(split).copied().unwrap_or(0)
    }

    /// Rows of the smaller one of validation and test.
    pub(crate) fn least_split(&self) -> usize {
        self.rows_of("validation").min(self.rows_of("test"))
    }

    /// Whether validation and test have so many rows, where shares can give them some; and training the most.
    pub(crate) fn fills_splits(&self, rows: usize) -> bool {
        let train = self.splits.get("train").copied().unwrap_or(0);
        self.least_split() >= rows && train > self.rows() / 2
    }

    pub(crate) fn has_shares(&self) -> bool {
        self.shares.is_some()
    }

    pub(crate) fn language(&self) -> String {
        let most = self.languages.iter().max_by_key(|(_, rows)| **rows);
        most.map(|(language, _)| language.clone()).unwrap_or_default()
    }

    pub(crate) fn text_tokens(&self) -> usize {
        nine_in_ten(&self.texts)
    }

    pub(crate) fn code_tokens(&self) -> usize {
        nine_in_ten(&self.codes)
    }

    /// Of what was read, about: a token is four bytes, and what stands between rows one more.
    fn bytes_of_rows(&self) -> u64 {
        4 * (self.texts.iter().sum::<usize>() + self.codes.iter().sum::<usize>() + self.codes.len()) as u64
    }
}

/// Words and marks, of which a byte-pair tokenizer makes a third more.
fn tokens(text: &str) -> usize {
    let mut count = 0;
    let mut is_in_word = false;
    for c in text.chars() {
        let is_word = c.is_alphanumeric() || c == '_';
        count += usize::from(!c.is_whitespace() && (!is_word || !is_in_word));
        is_in_word = is_word;
    }
    count * 4 / 3
}

/// The length that nine in ten do not exceed.
fn nine_in_ten(lengths: &[usize]) -> usize {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * 9 / 10).or(sorted.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_about_those_of_tokens() {
        assert_eq!(tokens("def f(x): return x"), 8 * 4 / 3);
        assert_eq!(nine_in_ten(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 100]), 100);
        assert_eq!((nine_in_ten(&[7]), nine_in_ten(&[])), (7, 0));
    }
}
