//! Which of very many hashes came more than once, in little memory.

/// Which hashes came more than once, as far as a few bits a hash can say: those that did are always among them. Most bands
/// of a corpus are of one row alone, and need not be sorted.
#[derive(Debug)]
pub struct Repeats {
    once: Vec<u64>,
    again: Vec<u64>,
}

impl Repeats {
    /// For so many hashes; four bits for each, 64 MiB at most.
    #[must_use]
    pub fn new(hashes: u64) -> Self {
        let words = (hashes / 16).next_power_of_two().clamp(1 << 10, 1 << 22) as usize;
        Self { once: vec![0; words], again: vec![0; words] }
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        (hash as usize & (self.once.len() - 1), 1 << (hash >> 58))
    }

    /// Counts hashes.
    pub fn add(&mut self, hashes: &[u64]) {
        for &hash in hashes {
            let (word, bit) = self.place(hash);
            self.again[word] |= self.once[word] & bit;
            self.once[word] |= bit;
        }
    }

    /// Whether a hash may have come more than once.
    #[must_use]
    pub fn has(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        self.again[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_twice_is_known_and_most_of_the_rest() {
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut repeats = Repeats::new(30_000);
        repeats.add(&(0..30_000).map(hash).collect::<Vec<_>>());
        repeats.add(&(0..1_000).map(hash).collect::<Vec<_>>());
        assert!((0..1_000).all(|n| repeats.has(hash(n))));
        let wrong = (1_000..30_000).filter(|n| repeats.has(hash(*n))).count();
        assert!(wrong < 29_000 / 3, "{wrong}");
    }
}
