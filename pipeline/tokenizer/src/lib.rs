//! Byte-pair encoding over bytes (Sennrich et al., 2016; GPT-2's byte alphabet), by Hugging Face's `tokenizers`.
//!
//! A tokenizer is one `tokenizer.json` that Hugging Face's own library loads.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer as Inner};

/// Id of the padding token.
pub const PAD: u32 = 0;
/// Id of the token that begins a target.
pub const BEGIN: u32 = 1;
/// Id of the token that ends a target.
pub const END: u32 = 2;
const SPECIAL: [&str; 3] = ["<pad>", "<s>", "</s>"];

/// What went wrong in the tokenizer.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer: {0}")]
pub struct Error(tokenizers::Error);

/// How text is cut before byte pairs are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Every byte is kept; decoding gives the text back.
    #[default]
    Bytes,
    /// Lower-case words, identifiers split at underscores and humps; for search.
    Words,
}

/// A trained tokenizer.
#[derive(Clone)]
pub struct Tokenizer(Inner);

impl Tokenizer {
    /// Trains on texts, up to `vocabulary` tokens (the three special ones and 256 bytes included). The same texts in
    /// the same order give the same tokenizer.
    ///
    /// # Errors
    /// The library's own.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocabulary: usize, cut: Cut) -> Result<Self, Error> {
        let mut inner = Inner::new(BPE::default());
        match cut {
            Cut::Bytes => {
                inner.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
            }
            Cut::Words => words(&mut inner)?,
        }
        inner.with_decoder(Some(ByteLevel::default()));
        let special = SPECIAL.map(|token| AddedToken::from(token, true)).to_vec();
        let trainer = BpeTrainer::builder()
            .vocab_size(vocabulary)
            .show_progress(false)
            .special_tokens(special)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        inner.train(&mut TrainerWrapper::from(trainer), texts).map_err(Error)?;
        Ok(Self(inner))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// It is none.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        Inner::from_bytes(bytes).map(Self).map_err(Error)
    }

    /// Writes `tokenizer.json`.
    ///
    /// # Errors
    /// The library's own.
    pub fn to_json(&self) -> Result<String, Error> {
        self.0.to_string(true).map_err(Error)
    }

    /// Number of tokens.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.0.get_vocab_size(true)
    }

    /// Encodes a text, without special tokens.
    ///
    /// # Errors
    /// The library's own.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.0.encode_fast(text, false).map_err(Error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Decodes tokens, leaving special ones out.
    ///
    /// # Errors
    /// The library's own.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.0.decode(tokens, true).map_err(Error)
    }

    /// A single token for people to read.
    #[must_use]
    pub fn token(&self, id: u32) -> String {
        match id {
            PAD | BEGIN | END => SPECIAL[id as usize].to_owned(),
            id => self.0.decode(&[id], false).unwrap_or_default(),
        }
    }
}

fn words(inner: &mut Inner) -> Result<(), Error> {
    let hump = ReplacePattern::Regex(r"(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})".to_owned());
    let hump = Replace::new(hump, " ").map_err(Error)?;
    inner.with_normalizer(Some(Normalizers::new(vec![hump.into(), Lowercase.into()]))).map_err(Error)?;
    let gap = SplitPattern::Regex(r"[^\p{L}\p{N}]+".to_owned());
    let gap = Split::new(gap, SplitDelimiterBehavior::Removed, false).map_err(Error)?;
    inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![gap.into(), ByteLevel::new(false, false, false).into()])));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    const TEXTS: [&str; 3] = ["def get_file(name):\n    return name", "return the file name", "getHTTPResponse name"];
    static BYTES: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::train(TEXTS.into_iter(), 300, Cut::Bytes).unwrap());

    #[test]
    fn words_are_split_and_lowered() {
        let tokenizer = Tokenizer::train(TEXTS.into_iter(), 400, Cut::Words).unwrap();
        let read = |text: &str| -> Vec<String> {
            tokenizer.encode(text).unwrap().into_iter().map(|id| tokenizer.token(id)).collect()
        };
        assert_eq!(read("getHTTPResponse(file_name)"), ["get", "http", "response", "file", "name"]);
        assert_eq!(read("Return NAME"), ["return", "name"]);
    }

    #[test]
    fn training_is_repeatable_and_json_is_whole() {
        let again = Tokenizer::train(TEXTS.into_iter(), 300, Cut::Bytes).unwrap();
        assert_eq!(BYTES.to_json().unwrap(), again.to_json().unwrap());
        let read = Tokenizer::from_json(again.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(read.encode(TEXTS[0]).unwrap(), BYTES.encode(TEXTS[0]).unwrap());
        assert_eq!((read.token(PAD), read.token(END)), ("<pad>".to_owned(), "</s>".to_owned()));
        assert!(read.vocabulary() <= 300 && read.vocabulary() > 259);
        assert!(Tokenizer::from_json(b"{").is_err());
    }

    proptest! {
        #[test]
        fn bytes_come_back(text in "\\PC*|[ \\n\\ta-z(){}=:]*") {
            prop_assume!(!SPECIAL.iter().any(|special| text.contains(special)));
            let tokens = BYTES.encode(&text).unwrap();
            prop_assert_eq!(BYTES.decode(&tokens).unwrap(), text);
        }
    }
}
