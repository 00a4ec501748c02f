//! Damaged inputs for the tests of parsers: good ones, with bytes changed, cut out, doubled and put in. From rubbish alone no
//! parser gets past its first bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, usize),
    /// Some bytes once more, elsewhere.
    Copy(Index, usize, Index),
    /// The end is missing.
    End(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let range = |bytes: &[u8], at: &Index, length: usize| {
            let start = at.index(bytes.len());
            start..bytes.len().min(start + length)
        };
        match self {
            Self::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Cut(at, length) => drop(bytes.drain(range(bytes, at, *length))),
            Self::Copy(from, length, to) => {
                let copied = bytes[range(bytes, from, *length)].to_vec();
                let to = to.index(bytes.len());
                bytes.splice(to..to, copied);
            }
            Self::End(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

fn change(words: &'static [&'static str]) -> impl Strategy<Value = Change> {
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), prop_oneof![word, vec(any::<u8>(), 1..5)]).prop_map(|(at, more)| Change::Insert(at, more)),
        (any::<Index>(), 1..24usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (any::<Index>(), 1..24usize, any::<Index>()).prop_map(|(from, length, to)| Change::Copy(from, length, to)),
        any::<Index>().prop_map(Change::End),
    ]
}

/// One of `good` with up to eight changes; `words` are what means something to the parser.
pub fn mutated(good: Vec<Vec<u8>>, words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(good), vec(change(words), 0..9)).prop_map(|(mut bytes, changes)| {
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    })
}

/// [`mutated`], as text; what is no UTF-8 is replaced.
pub fn mutated_text(good: &[&str], words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let good = good.iter().map(|text| text.as_bytes().to_vec()).collect();
    mutated(good, words).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
