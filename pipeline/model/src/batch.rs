//! Pairs of token sequences as padded tensors.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use codepair_tokenizer::{BEGIN, END};

/// A source and a target, as token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// What the model reads.
    pub source: Vec<u32>,
    /// What it writes, or the candidate it scores.
    pub target: Vec<u32>,
}

impl Pair {
    /// The pair with its target framed by the tokens that begin and end it, as generators need it.
    #[must_use]
    pub fn framed(mut self) -> Self {
        self.target.insert(0, BEGIN);
        self.target.push(END);
        self
    }
}

/// A batch of pairs, padded to the longest.
#[derive(Clone, Debug)]
pub struct Batch<B: Backend> {
    /// Source ids, [B, S]; padding is 0.
    pub source: Tensor<B, 2, Int>,
    /// 1 for a source token, 0 for padding, [B, S].
    pub source_mask: Tensor<B, 2>,
    /// Target ids, [B or more, T]; for search, rows past B are further negatives.
    pub target: Tensor<B, 2, Int>,
    /// 1 for a target token, 0 for padding.
    pub target_mask: Tensor<B, 2>,
    /// Tokens of sources and targets, padding left out.
    pub tokens: usize,
}

impl<B: Backend> Batch<B> {
    /// Pads pairs, and targets that belong to no source, into tensors.
    pub fn new(pairs: &[Pair], further_targets: &[Vec<u32>], device: &B::Device) -> Self {
        let sources: Vec<&[u32]> = pairs.iter().map(|pair| pair.source.as_slice()).collect();
        let targets = pairs.iter().map(|pair| pair.target.as_slice());
        let targets: Vec<&[u32]> = targets.chain(further_targets.iter().map(Vec::as_slice)).collect();
        let (source, source_mask) = pad(&sources, device);
        let (target, target_mask) = pad(&targets, device);
        let tokens = sources.iter().chain(&targets).map(|ids| ids.len()).sum();
        Self { source, source_mask, target, target_mask, tokens }
    }
}

/// Ids and mask, [rows, longest]; never narrower than one column.
fn pad<B: Backend>(rows: &[&[u32]], device: &B::Device) -> (Tensor<B, 2, Int>, Tensor<B, 2>) {
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
    let mut ids = vec![0i32; rows.len() * width];
    let mut mask = vec![0f32; rows.len() * width];
    for (row, tokens) in rows.iter().enumerate() {
        for (column, &token) in tokens.iter().enumerate() {
            ids[row * width + column] = token as i32;
            mask[row * width + column] = 1.0;
        }
    }
    let shape = [rows.len(), width];
    (Tensor::from_data(TensorData::new(ids, shape), device), Tensor::from_data(TensorData::new(mask, shape), device))
}
