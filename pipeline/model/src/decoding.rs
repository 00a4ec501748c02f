//! What a generator writes: greedily, by beam search, and under teacher forcing.

mod beam;
mod greedy;

use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use codepair_tokenizer::Special;

use crate::Generator;
use crate::batch::{Batch, Pair, Tokens};

/// What a generator wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Tokens, the end token left out.
    pub tokens: Vec<u32>,
    /// How many were written, the end token counted where there is one.
    pub written: usize,
    /// Sum of the tokens' log-probabilities, the end token's included, nats.
    pub log_probability: f64,
    /// Attention over the source for each token written, the end token included; greedy search only, and where the model has one.
    pub attention: Vec<Vec<f32>>,
}

/// How a generator writes.
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    /// The tokens that begin and end a target.
    pub special: Special,
    /// Tokens at most.
    pub length: usize,
}

impl<B: Backend> Generator<B> {
    /// Writes the most probable token each time, for all sources at once.
    pub fn greedy(&self, sources: &[Vec<u32>], decoding: Decoding, device: &B::Device) -> Vec<Decoded> {
        let tokens = Tokens::<B>::new(sources, device);
        each_generator!(self, model => greedy::greedy(model, &tokens, decoding))
    }

    /// Beam search with `width` hypotheses a source, for all sources at once; of those that ended the best by mean log-probability
    /// a token is taken, and where none ended of those that were cut.
    pub fn beam(&self, sources: &[Vec<u32>], width: usize, decoding: Decoding, device: &B::Device) -> Vec<Decoded> {
        let tokens = Tokens::<B>::new(sources, device);
        each_generator!(self, model => beam::beam(model, &tokens, width, decoding))
    }

    /// For each pair, how many target tokens (the end token included) the model puts first when fed the right ones before
    /// them, and how many there are. Targets are framed.
    pub fn teacher_forced(&self, pairs: &[Pair], device: &B::Device) -> Vec<(u64, u64)> {
        let batch = Batch::<B>::new(pairs, &[], device);
        let logits = self.logits(&batch);
        let width = logits.dims()[1];
        let best: Vec<i64> = logits.argmax(2).into_data().iter::<i64>().collect();
        let count = |(row, pair): (usize, &Pair)| {
            let labels = &pair.target[1..];
            let is_right = |(at, label): (usize, &u32)| best[row * width + at] == i64::from(*label);
            let right = labels.iter().enumerate().filter(|one| is_right(*one)).count();
            (right as u64, labels.len() as u64)
        };
        pairs.iter().enumerate().map(count).collect()
    }
}

fn ids<B: Backend>(tokens: &[u32], device: &B::Device) -> Tensor<B, 1, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let count = tokens.len();
    Tensor::from_data(TensorData::new(tokens, [count]), device)
}

fn floats(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().map(|value| value.elem()).collect()
}
