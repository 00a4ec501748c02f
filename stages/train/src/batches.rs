//! The order of training: a function of seed and epoch alone, so that a resumed run goes on where it stopped.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Batches of similar length are cut from windows of so many batches.
const WINDOW: usize = 32;

/// The examples of each batch of an epoch, as positions into `lengths`.
pub(crate) fn epoch(lengths: &[usize], batch_size: usize, seed: u64, epoch: u32) -> Vec<Vec<usize>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(epoch) << 32));
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(&mut random);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for window in order.chunks_mut(WINDOW * batch_size) {
        window.sort_by_key(|&example| lengths[example]);
        batches.extend(window.chunks(batch_size).map(<[usize]>::to_vec));
    }
    batches.shuffle(&mut random);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_comes_once_and_again_in_the_same_order() {
        let lengths: Vec<usize> = (0..1000).map(|n| n * 7 % 50).collect();
        let batches = epoch(&lengths, 8, 1, 2);
        let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert_eq!(batches, epoch(&lengths, 8, 1, 2));
        assert_ne!(batches, epoch(&lengths, 8, 1, 3));
        assert_ne!(batches, epoch(&lengths, 8, 2, 2));
        let spread = batches
            .iter()
            .map(|b| b.iter().map(|&i| lengths[i]).max().unwrap() - b.iter().map(|&i| lengths[i]).min().unwrap());
        assert!(spread.sum::<usize>() / batches.len() < 10);
    }
}
