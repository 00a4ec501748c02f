//! Token sequences as padded tensors.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use codepair_tokenizer::Special;

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
    pub fn framed(mut self, special: Special) -> Self {
        self.target.insert(0, special.begin);
        self.target.push(special.end);
        self
    }
}

/// Rows of tokens, padded to the longest; never narrower than one column.
#[derive(Clone, Debug)]
pub struct Tokens<B: Backend> {
    /// Ids, [B, T]; what stands in the padding means nothing.
    pub ids: Tensor<B, 2, Int>,
    /// Where padding stands, [B, T].
    pub padding: Tensor<B, 2, Bool>,
    /// Tokens of each row, known without asking the device.
    pub lengths: Vec<usize>,
}

impl<B: Backend> Tokens<B> {
    /// Pads rows of ids.
    pub fn new<R: AsRef<[u32]>>(rows: &[R], device: &B::Device) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|row| row.as_ref().len()).collect();
        let width = lengths.iter().copied().max().unwrap_or(0).max(1);
        let padded = |row: &R| {
            let row = row.as_ref().iter().map(|&id| id as i32);
            row.chain(std::iter::repeat(0)).take(width).collect::<Vec<_>>()
        };
        let ids: Vec<i32> = rows.iter().flat_map(padded).collect();
        let padding: Vec<bool> = lengths.iter().flat_map(|length| (0..width).map(move |at| at >= *length)).collect();
        let shape = [rows.len(), width];
        Self {
            ids: Tensor::from_data(TensorData::new(ids, shape), device),
            padding: Tensor::from_data(TensorData::new(padding, shape), device),
            lengths,
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Columns, padding counted.
    #[must_use]
    pub fn width(&self) -> usize {
        self.ids.dims()[1]
    }

    /// Tokens, padding left out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// 1 where a token stands and 0 in the padding, [B, T].
    #[must_use]
    pub fn mask(&self) -> Tensor<B, 2> {
        self.padding.clone().bool_not().float()
    }
}

/// A batch of pairs.
#[derive(Clone, Debug)]
pub struct Batch<B: Backend> {
    /// What is read, B rows.
    pub source: Tokens<B>,
    /// What is written or searched, B rows or more: for search those past B are further negatives.
    pub target: Tokens<B>,
    /// What a decoder sees where that is not the right tokens, [B, T − 1].
    pub seen: Option<Tensor<B, 2, Int>>,
}

impl<B: Backend> Batch<B> {
    /// Pads pairs, and targets that belong to no source, into tensors.
    pub fn new(pairs: &[Pair], further_targets: &[Vec<u32>], device: &B::Device) -> Self {
        let sources: Vec<&[u32]> = pairs.iter().map(|pair| pair.source.as_slice()).collect();
        let targets = pairs.iter().map(|pair| pair.target.as_slice());
        let targets: Vec<&[u32]> = targets.chain(further_targets.iter().map(Vec::as_slice)).collect();
        Self { source: Tokens::new(&sources, device), target: Tokens::new(&targets, device), seen: None }
    }

    /// What a decoder sees: framed targets without their last column, or what stands in their place; [B, T − 1].
    #[must_use]
    pub fn inputs(&self) -> Tensor<B, 2, Int> {
        let right = || self.target.ids.clone().narrow(1, 0, self.target.width() - 1);
        self.seen.clone().unwrap_or_else(right)
    }

    /// Tokens of sources and targets, padding left out.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.source.count() + self.target.count()
    }
}
