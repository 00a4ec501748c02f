//! MinHash over shingles of five tokens (Broder, 1997), in 25 bands of 5 rows: pairs with a Jaccard similarity of 0.7
//! meet in a band with a probability of 1 − (1 − 0.7⁵)²⁵ = 99.1%, and the higher the similarity, the surer.

/// Tokens a shingle.
const SHINGLE: usize = 5;
const BANDS: usize = 25;
const ROWS: usize = 5;

/// The distinct shingles of a program, hashed, in ascending order. A program of fewer than five tokens is one shingle.
#[must_use]
pub fn shingles(code: &str) -> Vec<u64> {
    let tokens: Vec<u64> = tokens(code).map(|token| hash(token.as_bytes())).collect();
    let mut shingles: Vec<u64> =
        if tokens.len() < SHINGLE { vec![fold(&tokens)] } else { tokens.windows(SHINGLE).map(fold).collect() };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// Words, and every other character that is no white space by itself.
fn tokens(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// A hash of each band of the signature; programs that share one are candidates.
#[must_use]
pub fn bands(code: &str) -> Vec<u64> {
    let mut signature = [u64::MAX; BANDS * ROWS];
    for shingle in shingles(code) {
        for (minimum, (a, b)) in signature.iter_mut().zip(&PERMUTATIONS) {
            *minimum = (*minimum).min(shingle.wrapping_mul(*a).wrapping_add(*b));
        }
    }
    let band = |(index, rows): (usize, &[u64])| mix(fold(rows) ^ index as u64);
    signature.chunks(ROWS).enumerate().map(band).collect()
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

/// Multipliers (odd) and offsets of the permutations, by SplitMix64.
static PERMUTATIONS: [(u64, u64); BANDS * ROWS] = {
    let mut permutations = [(0, 0); BANDS * ROWS];
    let mut i = 0;
    while i < BANDS * ROWS {
        permutations[i] = (mix(2 * i as u64 + 1) | 1, mix(2 * i as u64 + 2));
        i += 1;
    }
    permutations
};

/// FNV-1a, then SplitMix64's finaliser.
fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)))
}

fn fold(values: &[u64]) -> u64 {
    values.iter().fold(values.len() as u64, |h, v| mix(h.rotate_left(5) ^ v))
}

const fn mix(value: u64) -> u64 {
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
            let meet = bands(&one).into_iter().zip(bands(&two)).filter(|(a, b)| a == b).count();
            prop_assert!(meet > 0);
        }
    }
}
