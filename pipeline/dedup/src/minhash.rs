//! MinHash over shingles of five tokens (Broder, 1997), in 25 bands of 5 rows: pairs with a Jaccard similarity of 0.7
//! meet in a band with a probability of 1 − (1 − 0.7⁵)²⁵ = 99.1%, and the higher the similarity, the surer.

/// Tokens a shingle.
const SHINGLE: usize = 5;
/// Bands of a signature.
pub const BANDS: usize = 25;
const ROWS: usize = 5;
/// Permutations worked on at once.
const BLOCK: usize = 32;
/// Permutations, filled up to whole blocks.
const LANES: usize = (BANDS * ROWS).next_multiple_of(BLOCK);

/// The distinct shingles of a program, hashed, in ascending order. A program of fewer than five tokens is one shingle.
#[must_use]
pub fn shingles(code: &str) -> Vec<u64> {
    let tokens: Vec<u64> = tokens(code).map(|token| hash(token.as_bytes())).collect();
    distinct_runs::<SHINGLE>(&tokens)
}

/// The distinct runs of so many hashes, hashed, in ascending order; of fewer hashes all are one run.
pub(crate) fn distinct_runs<const SIZE: usize>(hashes: &[u64]) -> Vec<u64> {
    let mut all: Vec<u64> =
        if hashes.len() < SIZE { vec![fold(hashes)] } else { runs::<SIZE>(hashes).map(mix).collect() };
    all.sort_unstable();
    all.dedup();
    all
}

/// A hash of every run of so many hashes, each made out of the one before it (Karp & Rabin, 1987).
pub(crate) fn runs<const SIZE: usize>(hashes: &[u64]) -> impl Iterator<Item = u64> {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    let leaving = BASE.wrapping_pow(SIZE as u32);
    let mut sum = 0u64;
    hashes.iter().enumerate().filter_map(move |(at, hash)| {
        let left = if at >= SIZE { hashes[at - SIZE].wrapping_mul(leaving) } else { 0 };
        sum = sum.wrapping_mul(BASE).wrapping_add(*hash).wrapping_sub(left);
        (at + 1 >= SIZE).then_some(sum)
    })
}

/// Words, and every other character that is no white space by itself.
fn tokens(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = trim_start(rest);
        let first = rest.chars().next()?;
        let length = if is_word(first) { word_length(rest) } else { first.len_utf8() };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// As `str::trim_start`, which is slow where most texts begin with none or one space.
pub(crate) fn trim_start(text: &str) -> &str {
    let spaces = text.bytes().take_while(|byte| matches!(byte, b' ' | b'\n')).count();
    let rest = &text[spaces..];
    match rest.as_bytes().first() {
        Some(byte) if byte.is_ascii_graphic() => rest,
        _ => rest.trim_start(),
    }
}

/// Bytes of the letters, digits and underscores that `text` begins with.
pub(crate) fn word_length(text: &str) -> usize {
    let ascii = text.bytes().take_while(|&byte| IN_WORDS[usize::from(byte)]).count();
    match text.as_bytes().get(ascii) {
        Some(byte) if !byte.is_ascii() => text.find(|c| !is_word(c)).unwrap_or(text.len()),
        _ => ascii,
    }
}

/// Whether a byte is an ASCII letter, a digit or an underscore.
static IN_WORDS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
        byte += 1;
    }
    table
};

/// A hash of each band of the signature of a set of shingles; programs that share one are candidates.
#[must_use]
pub fn bands(shingles: &[u64]) -> Vec<u64> {
    let mut signature = [u32::MAX; LANES];
    minima(shingles, &mut signature);
    let band = |(index, rows): (usize, &[u32])| {
        let rows: [u64; ROWS] = std::array::from_fn(|row| u64::from(rows[row]));
        mix(fold(&rows) ^ index as u64)
    };
    signature[..BANDS * ROWS].chunks(ROWS).enumerate().map(band).collect()
}

/// The least value of each permutation over the shingles.
fn minima(shingles: &[u64], signature: &mut [u32; LANES]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code, reason = "the instructions are there: the line above says so")]
        // SAFETY: AVX2 was detected.
        return unsafe { minima_avx2(shingles, signature) };
    }
    minima_of_blocks(shingles, signature);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn minima_avx2(shingles: &[u64], signature: &mut [u32; LANES]) {
    minima_of_blocks(shingles, signature);
}

/// A block of permutations stays in registers while all shingles go by; the compiler makes vectors of it.
#[inline(always)]
fn minima_of_blocks(shingles: &[u64], signature: &mut [u32; LANES]) {
    for (block, minima) in signature.chunks_exact_mut(BLOCK).enumerate() {
        let factors: [u32; BLOCK] = std::array::from_fn(|lane| PERMUTATIONS[block * BLOCK + lane].0);
        let offsets: [u32; BLOCK] = std::array::from_fn(|lane| PERMUTATIONS[block * BLOCK + lane].1);
        let mut least = [u32::MAX; BLOCK];
        for &shingle in shingles {
            let shingle = (shingle >> 32) as u32;
            for lane in 0..BLOCK {
                least[lane] = least[lane].min(shingle.wrapping_mul(factors[lane]).wrapping_add(offsets[lane]));
            }
        }
        minima.copy_from_slice(&least);
    }
}

/// The Jaccard similarity of two sets in ascending order.
#[must_use]
pub fn jaccard(one: &[u64], two: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0);
    while i < one.len() && j < two.len() {
        match one[i].cmp(&two[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                common += 1;
                i += 1;
                j += 1;
            }
        }
    }
    let all = one.len() + two.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

/// Multipliers (odd) and offsets of the permutations of 32-bit hashes, by SplitMix64.
static PERMUTATIONS: [(u32, u32); LANES] = {
    let mut permutations = [(0, 0); LANES];
    let mut i = 0;
    while i < LANES {
        permutations[i] = ((mix(2 * i as u64 + 1) >> 32) as u32 | 1, (mix(2 * i as u64 + 2) >> 32) as u32);
        i += 1;
    }
    permutations
};

/// Eight bytes at a time are multiplied in. What is left fills one more word, from its front and from its end, which goes
/// through SplitMix64's finaliser.
pub(crate) const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut rest = bytes;
    while let Some((eight, after)) = rest.split_first_chunk() {
        hash = (hash ^ u64::from_le_bytes(*eight)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
        rest = after;
    }
    let last = match (rest.first_chunk(), rest.last_chunk()) {
        (Some(first), Some(last)) => (u32::from_le_bytes(*last) as u64) << 32 | u32::from_le_bytes(*first) as u64,
        _ if rest.is_empty() => 0,
        _ => (rest[0] as u64) << 16 | (rest[rest.len() / 2] as u64) << 8 | rest[rest.len() - 1] as u64,
    };
    mix(hash ^ last)
}

pub(crate) fn fold(values: &[u64]) -> u64 {
    values.iter().fold(values.len() as u64, |h, v| add(h, *v))
}

/// [`fold`] of values and of their reverse: two chains at once, for each waits for its last multiplication.
pub(crate) fn fold_both_ways(values: &[u64]) -> (u64, u64) {
    let start = values.len() as u64;
    values.iter().zip(values.iter().rev()).fold((start, start), |(one, two), (a, b)| (add(one, *a), add(two, *b)))
}

fn add(hash: u64, value: u64) -> u64 {
    mix(hash.rotate_left(5) ^ value)
}

pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn tokens_are_words_and_marks() {
        assert_eq!(
            tokens("def f_1(é): a+=2\n").collect::<Vec<_>>(),
            ["def", "f_1", "(", "é", ")", ":", "a", "+", "=", "2"]
        );
        assert_eq!(shingles("a b").len(), 1);
        assert_eq!(shingles("").len(), 1);
        assert_eq!(shingles("a b c d e f").len(), 2);
    }

    /// With and without vector instructions.
    #[test]
    fn minima_are_those_of_the_permutations() {
        let set: Vec<u64> = (0..37).map(mix).collect();
        let mut signature = [0; LANES];
        minima(&set, &mut signature);
        for (minimum, (factor, offset)) in signature.iter().zip(&PERMUTATIONS) {
            let values = set.iter().map(|s| ((s >> 32) as u32).wrapping_mul(*factor).wrapping_add(*offset));
            assert_eq!(Some(*minimum), values.min());
        }
        let mut plain = [0; LANES];
        minima_of_blocks(&set, &mut plain);
        assert_eq!(plain, signature);
    }

    #[test]
    fn equal_runs_have_equal_hashes_wherever_they_stand() {
        let text = "a b c d e x a b c d e b a c d e";
        let hashes: Vec<u64> = tokens(text).map(|token| hash(token.as_bytes())).collect();
        let all: Vec<u64> = runs::<5>(&hashes).collect();
        assert_eq!((all.len(), all[0]), (12, all[6]));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 11, "the same tokens in another order are another run");
    }

    proptest! {
        #[test]
        fn jaccard_is_that_of_the_sets(one in prop::collection::btree_set(0u64..40, 0..30), two in prop::collection::btree_set(0u64..40, 0..30)) {
            let (a, b): (Vec<u64>, Vec<u64>) = (one.iter().copied().collect(), two.iter().copied().collect());
            let union: BTreeSet<_> = one.union(&two).collect();
            let expected = if union.is_empty() { 1.0 } else { one.intersection(&two).count() as f64 / union.len() as f64 };
            prop_assert!((jaccard(&a, &b) - expected).abs() < 1e-12);
        }

        /// The share of permutations on which two programs agree estimates their Jaccard similarity.
        #[test]
        fn near_programs_meet(cut in 0usize..120) {
            let words: Vec<String> = (0..120).map(|n| format!("w{n}")).collect();
            let mut changed = words.clone();
            changed[cut] = "changed".to_owned();
            let (one, two) = (words.join(" "), changed.join(" "));
            prop_assert!(jaccard(&shingles(&one), &shingles(&two)) > 0.9);
            let meet = bands(&shingles(&one)).into_iter().zip(bands(&shingles(&two))).filter(|(a, b)| a == b).count();
            prop_assert!(meet > 0);
        }
    }

    /// Beside the library's hash, over the tokens of code.
    #[test]
    #[ignore = "a measurement: just bench parts"]
    fn part_hash() {
        let code =
            "def resolve(self, name, default=None):\n    value = self.values.get(name, default)\n    return value\n";
        let once: Vec<&str> = tokens(code).collect();
        let tokens: Vec<&str> = once.into_iter().cycle().take(20_000_000).collect();
        let timed = |hash: &dyn Fn(&[u8]) -> u64| {
            let began = std::time::Instant::now();
            let sum = tokens.iter().fold(0u64, |sum, token| sum.wrapping_add(hash(token.as_bytes())));
            assert_ne!(std::hint::black_box(sum), 0);
            began.elapsed().as_secs_f64()
        };
        let own = || timed(&|bytes| hash(bytes));
        let library = || timed(&|bytes| twox_hash::XxHash3_64::oneshot(bytes));
        codepair_runtime::testing::compare("hash of a token", own, "XXH3", library);
    }
}
