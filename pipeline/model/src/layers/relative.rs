//! Scores of an attention by how far apart two places are (Raffel et al., 2020, section 2.1).

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::layers::embedding;

/// A score a head and bucket of distances: near places have a bucket each, further ones share theirs, the more the further.
#[derive(Module, Debug)]
pub(crate) struct Relative<B: Backend> {
    scores: Embedding<B>,
    farthest: usize,
    both_ways: bool,
}

impl<B: Backend> Relative<B> {
    /// Distances of `farthest` and more share a bucket; `both_ways` where a place sees what is behind it too.
    pub(crate) fn new(
        buckets: usize,
        heads: usize,
        std: f64,
        (farthest, both_ways): (usize, bool),
        device: &B::Device,
    ) -> Self {
        Self { scores: embedding(buckets, heads, std, device), farthest, both_ways }
    }

    /// What is added to the scores of places from `first` on, over all places before `keys`; [1, h, T, S].
    pub(crate) fn forward(&self, (first, length): (usize, usize), keys: usize) -> Tensor<B, 4> {
        let device = self.scores.weight.device();
        let buckets = self.scores.weight.dims()[0];
        let pairs = (first..first + length).flat_map(|query| (0..keys).map(move |key| (query as i64, key as i64)));
        let ids: Vec<i32> = pairs.map(|(query, key)| self.bucket(key - query, buckets) as i32).collect();
        let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [length, keys]), &device);
        self.scores.forward(ids).permute([2, 0, 1]).unsqueeze()
    }

    /// The bucket of a distance, counted from the place that sees.
    fn bucket(&self, distance: i64, buckets: usize) -> usize {
        let (own, distance, base) = match self.both_ways {
            true => (buckets / 2, distance.unsigned_abs() as usize, if distance > 0 { buckets / 2 } else { 0 }),
            false => (buckets, distance.min(0).unsigned_abs() as usize, 0),
        };
        let exact = own / 2;
        if distance < exact {
            return base + distance;
        }
        // In f32, as those count who made the weights.
        let share = (distance as f32 / exact as f32).ln() / ((self.farthest as f64 / exact as f64).ln() as f32);
        base + (exact + (share * (own - exact) as f32) as usize).min(own - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuDevice};

    /// The buckets that `T5Attention._relative_position_bucket` of transformers 5.24 gives.
    #[test]
    fn buckets_are_those_of_the_published_weights() {
        let device = CpuDevice::default();
        let of = |both_ways, distances: &[i64]| -> Vec<usize> {
            let relative = Relative::<Cpu>::new(32, 2, 1.0, (128, both_ways), &device);
            distances.iter().map(|distance| relative.bucket(*distance, 32)).collect()
        };
        let distances = [-300, -128, -64, -20, -16, -9, -8, -1, 0, 1, 7, 8, 16, 23, 90, 127, 500];
        assert_eq!(of(true, &distances), [15, 15, 14, 10, 10, 8, 8, 1, 0, 17, 23, 24, 26, 27, 30, 31, 31]);
        assert_eq!(of(false, &distances), [31, 31, 26, 17, 16, 9, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
