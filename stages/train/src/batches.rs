//! The order of training: a function of seed and epoch alone, so that a resumed run goes on where it stopped. Nothing is kept of
//! it but one window.

use anyhow::Result;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use twox_hash::XxHash3_64;

/// Batches of similar length are cut from windows of so many batches.
const WINDOW: usize = 32;

/// The batches of an epoch: examples in random order, window by window.
pub struct Epoch {
    order: Permutation,
    batch_size: usize,
    /// Where batches are measured by them and not by pairs.
    batch_tokens: Option<usize>,
    random: ChaCha8Rng,
}

impl Epoch {
    /// Of so many examples, in batches of so many, or of so many tokens.
    #[must_use]
    pub fn new(examples: u64, batch_size: usize, batch_tokens: Option<usize>, seed: u64, epoch: u32) -> Self {
        let seed = seed ^ (u64::from(epoch) << 32);
        let (order, random) = (Permutation::new(examples, seed), ChaCha8Rng::seed_from_u64(seed));
        Self { order, batch_size, batch_tokens, random }
    }

    /// How many batches there are; where they are measured by tokens all lengths are read.
    ///
    /// # Errors
    /// A length cannot be read.
    pub fn count(&self, length: impl Fn(u64) -> Result<usize>) -> Result<u64> {
        if self.batch_tokens.is_none() {
            return Ok(self.order.count.div_ceil(self.batch_size as u64));
        }
        (0..self.windows()).map(|window| Ok(self.window(window, &length)?.len() as u64)).sum()
    }

    fn windows(&self) -> u64 {
        self.order.count.div_ceil((WINDOW * self.batch_size) as u64)
    }

    /// The batches behind the first `done`; `length` says how many tokens an example has.
    pub fn batches_from<'a>(
        &'a self,
        done: usize,
        length: impl Fn(u64) -> Result<usize> + 'a,
    ) -> impl Iterator<Item = Result<Vec<u64>>> + 'a {
        // Of batches by pairs all windows but the last have as many.
        let passed = if self.batch_tokens.is_none() { done / WINDOW } else { 0 };
        let mut skipped = done - passed * WINDOW;
        (passed as u64..self.windows()).flat_map(move |window| match self.window(window, &length) {
            Ok(mut batches) => {
                let gone = skipped.min(batches.len());
                skipped -= gone;
                batches.drain(..gone);
                batches.into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(error)],
        })
    }

    /// The batches of a window, in random order, each of examples that are about as long.
    fn window(&self, window: u64, length: impl Fn(u64) -> Result<usize>) -> Result<Vec<Vec<u64>>> {
        let size = (WINDOW * self.batch_size) as u64;
        let places = window * size..((window + 1) * size).min(self.order.count);
        let mut examples = Vec::new();
        for place in places {
            let example = self.order.at(place);
            examples.push((length(example)?, example));
        }
        examples.sort_by_key(|(length, _)| *length);
        let mut batches: Vec<Vec<u64>> = Vec::new();
        for (length, example) in examples {
            // Sorted by length, so this is the longest so far.
            let fits = |rows: usize| match self.batch_tokens {
                None => rows < self.batch_size,
                Some(tokens) => (rows + 1) * length <= tokens,
            };
            match batches.last_mut() {
                Some(batch) if fits(batch.len()) => batch.push(example),
                _ => batches.push(vec![example]),
            }
        }
        let mut random = self.random.clone();
        random.set_stream(window);
        batches.shuffle(&mut random);
        Ok(batches)
    }
}

/// A permutation of the numbers below `count` that is computed number by number: a Feistel network (Luby & Rackoff, 1988) over
/// the next power of four, walked until it falls below `count` (Black & Rogaway, 2002).
pub(crate) struct Permutation {
    count: u64,
    /// Bits of each half.
    bits: u32,
    seed: u64,
}

const ROUNDS: u64 = 6;

impl Permutation {
    pub(crate) fn new(count: u64, seed: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self { count, bits: bits.div_ceil(2).max(1), seed }
    }

    pub(crate) fn at(&self, place: u64) -> u64 {
        let mut number = self.network(place);
        while number >= self.count {
            number = self.network(number);
        }
        number
    }

    fn network(&self, number: u64) -> u64 {
        let mask = (1 << self.bits) - 1;
        let (mut left, mut right) = (number >> self.bits, number & mask);
        for round in 0..ROUNDS {
            let mixed = XxHash3_64::oneshot_with_seed(self.seed ^ (round << 48), &right.to_le_bytes());
            (left, right) = (right, left ^ (mixed & mask));
        }
        left << self.bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(examples: u64, seed: u64, epoch: u32, length: impl Fn(u64) -> usize) -> Vec<Vec<u64>> {
        all_of(&Epoch::new(examples, 8, None, seed, epoch), length)
    }

    fn all_of(epoch: &Epoch, length: impl Fn(u64) -> usize) -> Vec<Vec<u64>> {
        let from =
            |done| epoch.batches_from(done, |example| Ok(length(example))).map(Result::unwrap).collect::<Vec<_>>();
        let batches = from(0);
        assert_eq!(batches.len() as u64, epoch.count(|example| Ok(length(example))).unwrap());
        // Who goes on somewhere goes on as if nothing had been.
        for done in [0, 1, 31, 32, 33, 63, 64, batches.len()] {
            assert_eq!(from(done), batches[done.min(batches.len())..]);
        }
        batches
    }

    #[test]
    fn every_example_comes_once_and_again_in_the_same_order() {
        for examples in [1, 2, 7, 8, 255, 256, 257, 1000] {
            let mut seen: Vec<u64> = all(examples, 1, 2, |_| 1).into_iter().flatten().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..examples).collect::<Vec<_>>());
        }
        let length = |example: u64| (example * 7 % 50) as usize;
        let batches = all(1000, 1, 2, length);
        assert_eq!(batches, all(1000, 1, 2, length));
        assert_ne!(batches, all(1000, 1, 3, length));
        assert_ne!(batches, all(1000, 2, 2, length));
        // What cannot be read is an error wherever training goes on.
        let epoch = Epoch::new(1000, 8, None, 1, 2);
        assert!(epoch.batches_from(31, |_| anyhow::bail!("the disk fails")).next().unwrap().is_err());
        let spread = |batch: &Vec<u64>| {
            let lengths = || batch.iter().map(|example| length(*example));
            lengths().max().unwrap() - lengths().min().unwrap()
        };
        assert!(batches.iter().map(spread).sum::<usize>() / batches.len() < 10);
    }

    #[test]
    fn batches_by_tokens_hold_so_many() {
        let length = |example: u64| (example * 7 % 50) as usize + 1;
        let batches = all_of(&Epoch::new(1000, 8, Some(120), 1, 2), length);
        let mut seen: Vec<u64> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        let padded = |batch: &Vec<u64>| batch.len() * batch.iter().map(|one| length(*one)).max().unwrap();
        assert!(batches.iter().all(|batch| padded(batch) <= 120));
        // They are full where there is something to fill them with.
        assert!(batches.iter().map(padded).sum::<usize>() > 80 * batches.len());
        // What is longer than a batch is one of its own.
        assert_eq!(all_of(&Epoch::new(9, 8, Some(1), 1, 2), length).len(), 9);
    }

    /// Neighbours are torn apart: what comes first in a sorted table comes anywhere, and beside anything.
    #[test]
    fn the_order_has_nothing_of_the_table_s() {
        let order = Permutation::new(10_000, 3);
        let numbers: Vec<u64> = (0..10_000).map(|place| order.at(place)).collect();
        let moved = numbers.iter().enumerate().map(|(place, number)| number.abs_diff(place as u64) as f64);
        // A third of the length for a random order, within 5%.
        assert!((moved.sum::<f64>() / 1e8 - 1.0 / 3.0).abs() < 0.017);
        let apart = numbers.windows(2).map(|two| two[0].abs_diff(two[1]) as f64);
        assert!((apart.sum::<f64>() / 1e8 - 1.0 / 3.0).abs() < 0.017);
        let first = numbers[..1000].iter().filter(|number| **number < 5000).count();
        assert!((440..560).contains(&first), "{first}");
    }
}
