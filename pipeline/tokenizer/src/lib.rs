//! Byte-pair encoding over bytes (Sennrich et al., 2016; GPT-2's byte alphabet), by Hugging Face's `tokenizers`.
//!
//! A tokenizer is one `tokenizer.json` that Hugging Face's own library loads. Cutting text into pieces and merging the
//! pairs of a piece are done here, several times faster than there and with the same result.

mod columns;
mod merges;
mod pieces;

use std::sync::Arc;

use ahash::AHashMap;
use compact_str::CompactString;
use rayon::prelude::*;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper, Tokenizer as Inner};

pub use crate::columns::{encode, token_bytes, token_ids};
use crate::merges::Merges;
use crate::pieces::{alphabet, byte_pieces, words};

/// Id of the padding token.
pub const PAD: u32 = 0;
/// Id of the token that begins a target.
pub const BEGIN: u32 = 1;
/// Id of the token that ends a target.
pub const END: u32 = 2;
const SPECIAL: [&str; 3] = ["<pad>", "<s>", "</s>"];
/// What begins and what ends a text in other people's tokenizers: BART's and ours, T5's, BERT's.
const FRAMES: [(&str, &str); 3] = [("<s>", "</s>"), ("<pad>", "</s>"), ("[CLS]", "[SEP]")];

/// The tokens that frame a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Special {
    /// Id of the token that begins a target.
    pub begin: u32,
    /// Id of the token that ends a target.
    pub end: u32,
}

impl Default for Special {
    /// Those of our own tokenizers.
    fn default() -> Self {
        Self { begin: BEGIN, end: END }
    }
}

/// SentencePiece's sign for a space.
const SPACE: char = '\u{2581}';

/// What went wrong in the tokenizer.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer: {0}")]
pub struct Error(tokenizers::Error);

/// How text is cut before byte pairs are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
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
pub struct Tokenizer {
    inner: Inner,
    /// Nothing where the tokenizer is not one of ours.
    fast: Option<(Cut, Arc<Merges>)>,
    /// What other people's tokenizers put before and behind every text.
    frame: [Vec<u32>; 2],
    /// One more than the largest id.
    vocabulary: usize,
}

/// Texts whose pieces are counted at once.
const TEXTS: usize = 256;

impl Tokenizer {
    /// Trains on texts, up to `vocabulary` tokens (the three special ones and 256 bytes included). The same texts in
    /// the same order give the same tokenizer.
    ///
    /// # Errors
    /// The library's own.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str>, vocabulary: usize, cut: Cut) -> Result<Self, Error> {
        let texts: Vec<&str> = texts.collect();
        let counts = texts.par_chunks(TEXTS).map(|texts| count(texts, cut)).reduce(AHashMap::new, add);
        let special = SPECIAL.map(|token| AddedToken::from(token, true)).to_vec();
        let trainer = BpeTrainer::builder()
            .vocab_size(vocabulary)
            .show_progress(false)
            .special_tokens(special)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut model = BPE::default();
        let special = trainer.do_train(&counts, &mut model).map_err(Error)?;
        let mut inner = Inner::new(model);
        match cut {
            Cut::Bytes => {
                inner.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
            }
            Cut::Words => cut_words(&mut inner)?,
        }
        inner.with_decoder(Some(ByteLevel::default()));
        inner.add_special_tokens(special).map_err(Error)?;
        Self::of(inner)
    }

    fn of(mut inner: Inner) -> Result<Self, Error> {
        // A text that spells a special token is text: a model would take it for the end.
        inner.set_encode_special_tokens(true);
        // How much is read is said elsewhere; so is what stands where nothing is.
        inner.with_truncation(None).map_err(Error)?.with_padding(None);
        let cut = match (inner.get_normalizer(), inner.get_pre_tokenizer()) {
            (None, Some(PreTokenizerWrapper::ByteLevel(level))) if !level.add_prefix_space && level.use_regex => {
                Some(Cut::Bytes)
            }
            (Some(_), Some(PreTokenizerWrapper::Sequence(_))) if is_ours(&inner)? => Some(Cut::Words),
            _ => None,
        };
        let json = inner.to_string(false).map_err(Error)?;
        let fast = cut.and_then(|cut| Some((cut, Arc::new(Merges::read(&json)?))));
        let frame = frame(&inner)?;
        let ids = inner.get_vocab(true).into_values().chain(frame.iter().flatten().copied());
        let vocabulary = ids.max().map_or(0, |id| id as usize + 1);
        Ok(Self { inner, fast, frame, vocabulary })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// It is none.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        Inner::from_bytes(bytes).map_err(Error).and_then(Self::of)
    }

    /// Writes `tokenizer.json`.
    ///
    /// # Errors
    /// The library's own.
    pub fn to_json(&self) -> Result<String, Error> {
        self.inner.to_string(true).map_err(Error)
    }

    /// Number of tokens, counting ids that no token has.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Tokens that are put around every text.
    #[must_use]
    pub fn framing(&self) -> usize {
        self.frame.iter().map(Vec::len).sum()
    }

    /// The tokens that frame a text; nothing where the tokenizer has none that is known.
    #[must_use]
    pub fn special(&self) -> Option<Special> {
        let id = |token| self.inner.token_to_id(token);
        FRAMES.iter().find_map(|(begin, end)| Some(Special { begin: id(begin)?, end: id(end)? }))
    }

    /// Encodes a text, without special tokens.
    ///
    /// # Errors
    /// The library's own.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if let Some((cut, merges)) = &self.fast
            && let Some(tokens) = encode_pieces(text, *cut, merges)
        {
            return Ok(tokens);
        }
        let encoding = self.inner.encode_fast(text, false).map_err(Error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Cuts the tokens of a text so that, with what the tokenizer puts before and behind every text, they are at most so many, and
    /// puts it there. Ours put nothing; T5's puts `</s>` behind, BERT's `[CLS]` before and `[SEP]` behind.
    pub fn fit(&self, tokens: &mut Vec<u32>, most: usize) {
        let [before, behind] = &self.frame;
        tokens.truncate(most.saturating_sub(before.len() + behind.len()));
        tokens.splice(..0, before.iter().copied());
        tokens.extend(behind);
    }

    /// Decodes tokens, leaving special ones out.
    ///
    /// # Errors
    /// The library's own.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.inner.decode(tokens, true).map_err(Error)
    }

    /// Bytes of text that a token stands for; none for those that frame a text.
    #[must_use]
    pub fn bytes(&self, id: u32) -> usize {
        let is_special = |token: &String| self.inner.get_added_vocabulary().is_special_token(token);
        let token = self.inner.id_to_token(id).filter(|token| !is_special(token));
        match self.inner.get_decoder() {
            // A byte is one character of its alphabet.
            Some(DecoderWrapper::ByteLevel(_)) => token.map_or(0, |token| token.chars().count()),
            // A word piece; SentencePiece has a sign for the space before a word.
            _ => token.map_or(0, |token| token.replace(SPACE, " ").len()),
        }
    }

    /// A single token for people to read.
    #[must_use]
    pub fn token(&self, id: u32) -> String {
        let is_special = |token: &String| self.inner.get_added_vocabulary().is_special_token(token);
        let special = self.inner.id_to_token(id).filter(is_special);
        special.unwrap_or_else(|| self.inner.decode(&[id], false).unwrap_or_default())
    }
}

/// What is put before and behind a text, found by a text that has some tokens.
fn frame(inner: &Inner) -> Result<[Vec<u32>; 2], Error> {
    let Some(processor) = inner.get_post_processor() else { return Ok([Vec::new(), Vec::new()]) };
    // The library would fall over it.
    if let Some(missing) = undefined(&serde_json::to_value(processor).unwrap_or_default()) {
        return Err(Error(format!("its post-processor puts {missing} around a text and does not say its id").into()));
    }
    for text in ["a", "the", "0", "x = 1", "文"] {
        let ids = |framed| inner.encode_fast(text, framed).map(|encoding| encoding.get_ids().to_vec()).map_err(Error);
        let (bare, framed) = (ids(false)?, ids(true)?);
        if bare.is_empty() {
            continue;
        }
        if let Some(at) = framed.windows(bare.len()).position(|window| window == bare) {
            return Ok([framed[..at].to_vec(), framed[at + bare.len()..].to_vec()]);
        }
    }
    Err(Error("what its post-processor puts around a text cannot be told: it has no tokens for plain words".into()))
}

/// A special token of a template that has no id.
fn undefined(processor: &Value) -> Option<String> {
    if let Some(several) = processor["processors"].as_array() {
        return several.iter().find_map(undefined);
    }
    let pieces = processor["single"].as_array().into_iter().flatten();
    let mut named = pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str());
    named.find(|id| processor["special_tokens"].get(id).is_none()).map(str::to_owned)
}

/// Nothing where a piece is too long.
fn encode_pieces(text: &str, cut: Cut, merges: &Merges) -> Option<Vec<u32>> {
    let mut tokens = Vec::with_capacity(text.len() / 3);
    let all = match cut {
        Cut::Bytes => byte_pieces(text).all(|piece| merges.encode(piece.as_bytes(), &mut tokens)),
        Cut::Words => words(text).iter().all(|word| merges.encode(word.as_bytes(), &mut tokens)),
    };
    all.then_some(tokens)
}

/// How often each piece stands in texts, written in the alphabet of bytes.
fn count(texts: &[&str], cut: Cut) -> AHashMap<CompactString, u64> {
    let mut counts: AHashMap<&str, u64> = AHashMap::new();
    let own: Vec<String>;
    match cut {
        Cut::Bytes => texts.iter().flat_map(|text| byte_pieces(text)).for_each(|p| *counts.entry(p).or_default() += 1),
        Cut::Words => {
            own = texts.iter().flat_map(|text| words(text)).collect();
            own.iter().for_each(|word| *counts.entry(word).or_default() += 1);
        }
    }
    let alphabet = alphabet();
    let written = |piece: &str| piece.bytes().map(|byte| alphabet[usize::from(byte)]).collect();
    counts.into_iter().map(|(piece, count)| (written(piece), count)).collect()
}

fn add(mut one: AHashMap<CompactString, u64>, mut two: AHashMap<CompactString, u64>) -> AHashMap<CompactString, u64> {
    if one.len() < two.len() {
        std::mem::swap(&mut one, &mut two);
    }
    two.into_iter().for_each(|(piece, count)| *one.entry(piece).or_default() += count);
    one
}

/// Whether normalizer and pre-tokenizer are those of [`cut_words`].
fn is_ours(inner: &Inner) -> Result<bool, Error> {
    let mut ours = Inner::new(BPE::default());
    cut_words(&mut ours)?;
    let written = |inner: &Inner| {
        (serde_json::to_value(inner.get_normalizer()).ok(), serde_json::to_value(inner.get_pre_tokenizer()).ok())
    };
    Ok(written(inner) == written(&ours))
}

fn cut_words(inner: &mut Inner) -> Result<(), Error> {
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

    /// Tokenizers of T5's and BERT's sort frame what is read; what is cut keeps its frame.
    #[test]
    fn texts_are_framed_as_the_tokenizer_has_it() {
        let of = |template: serde_json::Value| {
            let vocab = serde_json::json!({ "<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "<s>": 5 });
            let json = serde_json::json!({
                "version": "1.0",
                "added_tokens": [{ "id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }],
                "pre_tokenizer": { "type": "Whitespace" },
                "post_processor": template,
                "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
            });
            Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
        };
        let part = |id: &str| serde_json::json!({ "SpecialToken": { "id": id, "type_id": 0 } });
        let text = serde_json::json!({ "Sequence": { "id": "A", "type_id": 0 } });
        let template = |single: serde_json::Value| {
            let special = |id: &str, number: u32| serde_json::json!({ "id": id, "ids": [number], "tokens": [id] });
            serde_json::json!({
                "type": "TemplateProcessing", "single": single, "pair": [text],
                "special_tokens": { "</s>": special("</s>", 1), "<s>": special("<s>", 5) },
            })
        };
        let fitted = |tokenizer: &Tokenizer, most| {
            let mut tokens = tokenizer.encode("a b a </s>").unwrap();
            tokenizer.fit(&mut tokens, most);
            tokens
        };
        let t5 = of(template(serde_json::json!([text, part("</s>")])));
        assert_eq!((fitted(&t5, 9), fitted(&t5, 3)), (vec![3, 4, 3, 2, 2, 2, 1], vec![3, 4, 1]));
        let roberta = of(template(serde_json::json!([part("<s>"), text, part("</s>")])));
        assert_eq!((fitted(&roberta, 4), fitted(&roberta, 1)), (vec![5, 3, 4, 1], vec![5, 1]));
        let mut own = vec![7, 8, 9];
        BYTES.fit(&mut own, 2);
        assert_eq!((own.as_slice(), BYTES.framing(), t5.framing()), (&[7, 8][..], 0, 1));
        // What a file says of cutting and filling up is not heeded, and an id far out counts.
        let mut other: Value = serde_json::from_str(&t5.to_json().unwrap()).unwrap();
        other["truncation"] =
            serde_json::json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
        other["padding"] = serde_json::json!({
            "strategy": { "Fixed": 9 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
        });
        other["model"]["vocab"]["far"] = 70_000.into();
        let read = |json: &Value| Tokenizer::from_json(json.to_string().as_bytes());
        let far = read(&other).unwrap();
        assert_eq!(fitted(&far, 9), fitted(&t5, 9));
        assert_eq!((far.vocabulary(), crate::token_bytes(&far), t5.vocabulary()), (70_001, 4, 6));
        other["post_processor"]["special_tokens"] = serde_json::json!({});
        assert!(read(&other).err().unwrap().to_string().contains("</s>"));
    }

    /// Text of every sort: words, humps, contractions, white space, signs of many scripts, special tokens, long runs.
    fn any_text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-z]{1,8}",
            "[A-Za-z]{1,12}",
            "[ \\n\\t]{1,6}",
            "'(s|t|re|ve|m|ll|d|x)",
            "[0-9_.:()=\"']{1,5}",
            "\\PC{1,4}",
            "[ΣσςÉéİıßǅ五²Ⅷ\u{301}\u{a0}\u{2028}]{1,4}",
            "<s>|</s>|<pad>|<",
            "x{130,140}",
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    fn hugging_face(texts: &[String], cut: Cut) -> Inner {
        let mut inner = Inner::new(BPE::default());
        match cut {
            Cut::Bytes => drop(inner.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))),
            Cut::Words => cut_words(&mut inner).unwrap(),
        }
        inner.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainer::builder()
            .vocab_size(400)
            .show_progress(false)
            .special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)).to_vec())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        inner.train(&mut tokenizers::models::TrainerWrapper::from(trainer), texts.iter()).unwrap();
        inner
    }

    proptest! {
        /// The same vocabulary and the same tokens as the library's own way.
        #[test]
        fn equals_hugging_face(texts in prop::collection::vec(any_text(), 1..8), other in any_text()) {
            for cut in [Cut::Bytes, Cut::Words] {
                // The library counts a special token in a text as text; so do we.
                let mut theirs = hugging_face(&texts, cut);
                theirs.set_encode_special_tokens(true);
                let ours = Tokenizer::train(texts.iter().map(String::as_str), 400, cut).unwrap();
                prop_assert!(ours.to_json().unwrap() == theirs.to_string(true).unwrap());
                prop_assert!(ours.fast.is_some());
                for text in texts.iter().chain([&other]) {
                    let expected = theirs.encode_fast(text.as_str(), false).unwrap();
                    prop_assert_eq!(ours.encode(text).unwrap(), expected.get_ids(), "{:?}", text);
                }
            }
        }

        #[test]
        fn bytes_come_back(text in "\\PC*|[ \\n\\ta-z(){}=:]*") {
            let tokens = BYTES.encode(&text).unwrap();
            prop_assert_eq!(BYTES.decode(&tokens).unwrap(), text);
        }
    }
}
