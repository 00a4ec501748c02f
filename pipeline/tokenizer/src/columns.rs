//! Token columns: ids as little-endian bytes, several times faster to read than lists, and smaller.

use arrow::array::{BinaryArray, BinaryBuilder};

use crate::{Error, Tokenizer};

/// Token columns are little-endian ids of two bytes, or four where the vocabulary needs them.
#[must_use]
pub fn token_bytes(tokenizer: &Tokenizer) -> usize {
    if tokenizer.vocabulary() <= 1 << 16 { 2 } else { 4 }
}

/// The tokens of texts, in the form of token columns.
///
/// # Errors
/// The tokenizer's own.
pub fn encode<'a>(texts: impl Iterator<Item = Option<&'a str>>, tokenizer: &Tokenizer) -> Result<BinaryArray, Error> {
    let (mut tokens, mut bytes) = (BinaryBuilder::new(), Vec::new());
    let width = token_bytes(tokenizer);
    for text in texts {
        let Some(text) = text else {
            tokens.append_null();
            continue;
        };
        bytes.clear();
        bytes.extend(tokenizer.encode(text)?.iter().flat_map(|id| id.to_le_bytes().into_iter().take(width)));
        tokens.append_value(&bytes);
    }
    Ok(tokens.finish())
}

/// The ids in a column of little-endian numbers of `width` bytes, 2 or 4, as `tokens` holds them.
#[must_use]
pub fn token_ids(bytes: &[u8], width: usize) -> Vec<u32> {
    if width == 2 {
        bytes.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect()
    } else {
        bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }
}
