//! Intervals by the bootstrap (Efron, 1979; paired: Koehn, 2004) and tests by approximate randomisation (Noreen, 1989; Riezler &
//! Maxwell, 2005), over what each row adds to a metric.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use twox_hash::XxHash3_64;

/// How often, and how sure.
pub(crate) struct Resampling {
    pub(crate) times: usize,
    pub(crate) confidence: f64,
    pub(crate) seed: u64,
}

/// What sums come to.
pub(crate) type Value = fn(&[f64]) -> Option<f64>;

/// The sum of rows.
pub(crate) fn sum(rows: &[&[f64]]) -> Vec<f64> {
    let mut sums = vec![0.0; rows.first().map_or(0, |row| row.len())];
    rows.iter().for_each(|row| add(&mut sums, row));
    sums
}

fn add(sums: &mut [f64], row: &[f64]) {
    sums.iter_mut().zip(row).for_each(|(sum, one)| *sum += one);
}

impl Resampling {
    /// The random numbers of one resample: the same for every model and metric of a benchmark.
    fn random(&self, benchmark: &str, time: usize) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(XxHash3_64::oneshot_with_seed(self.seed, benchmark.as_bytes()));
        random.set_stream(time as u64);
        random
    }

    /// The score of each resample of the rows, drawn with replacement; one that does not tell is left out.
    pub(crate) fn values(&self, benchmark: &str, rows: &[&[f64]], value: Value) -> Vec<f64> {
        let one = |time: usize| {
            let mut random = self.random(benchmark, time);
            let mut sums = vec![0.0; rows.first().map_or(0, |row| row.len())];
            rows.iter().for_each(|_| add(&mut sums, rows[random.random_range(0..rows.len())]));
            value(&sums)
        };
        (0..self.times).into_par_iter().filter_map(one).collect()
    }

    /// The ends between which the middle of some values lies; no numbers where there are none.
    pub(crate) fn interval(&self, values: &[f64]) -> (f64, f64) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let outside = (1.0 - self.confidence) / 2.0;
        let last = sorted.len().saturating_sub(1);
        let at = |share: f64| sorted.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN);
        (at(outside), at(1.0 - outside))
    }

    /// How often the difference of two models is at least as large as `difference` when what they made of each row changes hands
    /// at random: the two-sided p-value.
    pub(crate) fn exchanged(&self, benchmark: &str, rows: [&[&[f64]]; 2], value: Value, difference: f64) -> f64 {
        let is_as_large = |time: &usize| {
            let mut random = self.random(benchmark, *time);
            let width = rows[0].first().map_or(0, |row| row.len());
            let mut sums = [vec![0.0; width], vec![0.0; width]];
            for (one, other) in rows[0].iter().zip(rows[1]) {
                let swapped = usize::from(random.random_bool(0.5));
                add(&mut sums[swapped], one);
                add(&mut sums[1 - swapped], other);
            }
            let [Some(one), Some(other)] = sums.map(|sums| value(&sums)) else { return true };
            // Equal sums come to values that differ in the last bits.
            (one - other).abs() >= difference.abs() * (1.0 - 1e-9) - 1e-12
        };
        let count = (0..self.times).into_par_iter().filter(is_as_large).count();
        (count + 1) as f64 / (self.times + 1) as f64
    }

    /// How intervals and tests are made.
    pub(crate) fn signature(&self) -> String {
        format!(
            "{} resamples, {}% interval, approximate randomisation, seed {}",
            self.times,
            self.confidence * 100.0,
            self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLING: Resampling = Resampling { times: 4000, confidence: 0.95, seed: 1 };

    fn mean(sums: &[f64]) -> Option<f64> {
        Some(sums[0] / sums[1])
    }

    fn rows(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|&value| vec![value, 1.0]).collect()
    }

    fn refs(rows: &[Vec<f64>]) -> Vec<&[f64]> {
        rows.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn intervals_are_those_of_the_mean() {
        // Of a share p of n rows the interval is p ± 1.96 √(p (1 − p) / n).
        let values: Vec<f64> = (0..400).map(|n| f64::from(u8::from(n % 5 == 0))).collect();
        let rows = rows(&values);
        let (low, high) = RESAMPLING.interval(&RESAMPLING.values("b", &refs(&rows), mean));
        let half = 1.96 * (0.2f64 * 0.8 / 400.0).sqrt();
        assert!((low - (0.2 - half)).abs() < 0.004 && (high - (0.2 + half)).abs() < 0.004, "{low} {high}");
        assert_eq!(RESAMPLING.values("b", &refs(&rows), mean), RESAMPLING.values("b", &refs(&rows), mean));
        assert!(RESAMPLING.interval(&[]).0.is_nan());
    }

    /// The exact test of signs: with nine of ten rows for one model, p is 22 / 1024.
    #[test]
    fn exchanges_are_the_test_of_signs() {
        let (one, other) = (rows(&[1.0; 10]), rows(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]));
        let difference = 0.8;
        let p = RESAMPLING.exchanged("b", [&refs(&one), &refs(&other)], mean, difference);
        assert!((p - 22.0 / 1024.0).abs() < 0.008, "{p}");
        // Who is the same as the other differs by chance in every case.
        assert_eq!(RESAMPLING.exchanged("b", [&refs(&one), &refs(&one)], mean, 0.0), 1.0);
    }
}
