//! Merging byte pairs (Sennrich et al., 2016), each piece once: what a piece became is remembered.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use serde::Deserialize;

use crate::pieces::alphabet;

/// Longer pieces are rare, and searching them for the next pair again and again takes too long.
const PIECE_BYTES: usize = 128;
/// Pieces remembered a thread; then it begins anew.
const REMEMBERED: usize = 1 << 16;

/// The merges of a vocabulary, by the tokens they join.
pub(crate) struct Merges {
    /// Tells the caches of different tokenizers apart.
    id: u64,
    bytes: [u32; 256],
    /// Rank and result of joining two tokens.
    joined: AHashMap<(u32, u32), (u32, u32)>,
}

#[derive(Deserialize)]
struct Json {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
}

/// The tokens of pieces, and whose they are.
#[derive(Default)]
struct Cache {
    of: u64,
    tokens: AHashMap<Box<[u8]>, Box<[u32]>>,
}

impl Merges {
    /// Reads them out of a `tokenizer.json`; nothing where its vocabulary has no token for each byte.
    pub(crate) fn read(json: &str) -> Option<Self> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let Model { vocab, merges } = serde_json::from_str::<Json>(json).ok()?.model;
        let mut bytes = [0; 256];
        for (byte, character) in alphabet().into_iter().enumerate() {
            bytes[byte] = *vocab.get(character.encode_utf8(&mut [0; 4]) as &str)?;
        }
        let mut joined = AHashMap::with_capacity(merges.len());
        for (rank, (one, two)) in merges.iter().enumerate() {
            let token = |text: &str| vocab.get(text).copied();
            joined.insert((token(one)?, token(two)?), (rank as u32, token(&format!("{one}{two}"))?));
        }
        Some(Self { id: IDS.fetch_add(1, Ordering::Relaxed), bytes, joined })
    }

    /// Appends the tokens of a piece; false where it is too long.
    pub(crate) fn encode(&self, piece: &[u8], tokens: &mut Vec<u32>) -> bool {
        thread_local! {
            static CACHE: RefCell<Cache> = RefCell::default();
        }
        if piece.len() > PIECE_BYTES {
            return false;
        }
        CACHE.with_borrow_mut(|cache| {
            if cache.of != self.id || cache.tokens.len() >= REMEMBERED {
                *cache = Cache { of: self.id, tokens: AHashMap::new() };
            }
            if let Some(known) = cache.tokens.get(piece) {
                tokens.extend_from_slice(known);
                return;
            }
            let merged = self.merge(piece);
            tokens.extend_from_slice(&merged);
            cache.tokens.insert(piece.into(), merged.into());
        });
        true
    }

    /// Joins the pair of the lowest rank, the first of equal ones, until there is none.
    fn merge(&self, piece: &[u8]) -> Vec<u32> {
        let mut tokens: Vec<u32> = piece.iter().map(|&byte| self.bytes[usize::from(byte)]).collect();
        loop {
            let pairs = tokens.windows(2).enumerate();
            let known = pairs.filter_map(|(at, pair)| Some((self.joined.get(&(pair[0], pair[1]))?, at)));
            let Some((&(_, joined), at)) = known.min_by_key(|((rank, _), at)| (*rank, *at)) else { return tokens };
            tokens[at] = joined;
            tokens.remove(at + 1);
        }
    }
}
