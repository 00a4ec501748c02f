//! The rows that a tokenizer is trained on.

/// A share of rows by their hashes, so small that it holds about so many rows and bytes at most. It falls as rows come: what is
/// out of it once stays out.
pub(crate) struct Sample {
    most: (u32, usize),
    rows: u32,
    bytes: usize,
    /// Hashes from which rows are left out.
    limit: u64,
    taken: Vec<(u64, Vec<String>)>,
}

impl Sample {
    pub(crate) fn new(rows: u32, bytes: usize) -> Self {
        Self { most: (rows, bytes), rows: 0, bytes: 0, limit: u64::MAX, taken: Vec::new() }
    }

    pub(crate) fn add<'a, T: Iterator<Item = &'a str>>(&mut self, hash: u64, texts: impl Fn() -> T) {
        self.rows += 1;
        self.bytes += texts().map(str::len).sum::<usize>();
        if hash <= self.limit {
            self.taken.push((hash, texts().map(str::to_owned).collect()));
        }
    }

    /// Leaves out what is too much after the rows so far.
    pub(crate) fn shrink(&mut self) {
        let of_rows = f64::from(self.most.0) / f64::from(self.rows).max(1.0);
        let share = of_rows.min(self.most.1 as f64 / self.bytes.max(1) as f64);
        if share < 1.0 {
            self.limit = (share * u64::MAX as f64) as u64;
            self.taken.retain(|(hash, _)| *hash <= self.limit);
        }
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.taken.iter().flat_map(|(_, texts)| texts).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use twox_hash::XxHash3_64;

    use super::*;

    const ENOUGH: usize = 1 << 20;

    /// Of the smallest hashes, whenever they come; and all of what fits.
    #[test]
    fn a_sample_is_the_same_in_whatever_pieces_rows_come() {
        let hash = |row: u64| XxHash3_64::oneshot(&row.to_le_bytes());
        let sample = |rows: u32, bytes: usize, often: u64| {
            let mut sample = Sample::new(rows, bytes);
            for row in 0..1000 {
                sample.add(hash(row), || ["text", "code"].into_iter());
                if row % often == often - 1 {
                    sample.shrink();
                }
            }
            sample.shrink();
            sample
        };
        let few = sample(100, ENOUGH, 7);
        assert!((70..130).contains(&few.taken.len()), "{}", few.taken.len());
        assert!((0..1000).all(|row| few.taken.iter().any(|(own, _)| *own == hash(row)) == (hash(row) <= few.limit)));
        assert_eq!(few.taken, sample(100, ENOUGH, 1000).taken);
        // Eight bytes a row.
        assert_eq!(sample(1000, 800, 10).taken, few.taken);
        assert_eq!(sample(1000, 8000, 10).texts().count(), 2000);
    }
}
