//! Attention of several heads over dot products (Vaswani et al., 2017).

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

use crate::layers::rotary::rotate;
use crate::layers::{NEVER, Rows};

/// Sizes and options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionSizes {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    /// Width of each head.
    pub(crate) head_width: usize,
    /// As in T5: maps without biases, and scores that are not scaled down, which their first weights make up for.
    pub(crate) is_bare: bool,
    /// Queries and keys are scaled to one length before they meet (Henry et al., 2020).
    pub(crate) qk_norm: bool,
    /// Queries and keys are turned by their positions.
    pub(crate) rotary: bool,
}

/// One attention.
#[derive(Module, Debug)]
pub(crate) struct Attention<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Linear<B>,
    query_norm: Option<RmsNorm<B>>,
    key_norm: Option<RmsNorm<B>>,
    heads: usize,
    rotary: bool,
    /// What scores are divided by.
    scale: f64,
}

/// Keys and values of all heads, [B, h, S, d].
#[derive(Clone, Debug)]
pub(crate) struct KeysValues<B: Backend> {
    keys: Tensor<B, 4>,
    values: Tensor<B, 4>,
}

impl<B: Backend> KeysValues<B> {
    /// Places that they stand for.
    pub(crate) fn length(&self) -> usize {
        self.keys.dims()[2]
    }

    /// These and then those.
    pub(crate) fn then(self, more: Self) -> Self {
        Self {
            keys: Tensor::cat(vec![self.keys, more.keys], 2),
            values: Tensor::cat(vec![self.values, more.values], 2),
        }
    }
}

impl<B: Backend> Rows<B> for KeysValues<B> {
    fn select(self, rows: &Tensor<B, 1, Int>) -> Self {
        Self { keys: Rows::select(self.keys, rows), values: Rows::select(self.values, rows) }
    }
}

impl<B: Backend> Attention<B> {
    pub(crate) fn new(sizes: AttentionSizes, device: &B::Device) -> Self {
        let AttentionSizes { width, heads, head_width, is_bare, qk_norm, rotary } = sizes;
        let inner = heads * head_width;
        let linear = |from, to, std| bare_or_whole(is_bare, from, to, std).init(device);
        let norm = || qk_norm.then(|| RmsNormConfig::new(head_width).init(device));
        Self {
            query: linear(width, inner, 1.0 / ((width * head_width) as f64).sqrt()),
            key: linear(width, inner, 1.0 / (width as f64).sqrt()),
            value: linear(width, inner, 1.0 / (width as f64).sqrt()),
            output: linear(inner, width, 1.0 / (inner as f64).sqrt()),
            query_norm: norm(),
            key_norm: norm(),
            heads,
            rotary,
            scale: if is_bare { 1.0 } else { (head_width as f64).sqrt() },
        }
    }

    /// [B, T, E] as [B, h, T, d].
    fn split(&self, states: Tensor<B, 3>) -> Tensor<B, 4> {
        let [rows, length, width] = states.dims();
        states.reshape([rows, length, self.heads, width / self.heads]).swap_dims(1, 2)
    }

    /// Keys and values of states [B, S, E], the first of which stands at the place `first`.
    pub(crate) fn keys_values(&self, states: Tensor<B, 3>, first: usize) -> KeysValues<B> {
        let keys = self.place(self.key.forward(states.clone()), self.key_norm.as_ref(), first);
        KeysValues { keys, values: self.split(self.value.forward(states)) }
    }

    /// Queries or keys [B, T, E] as they meet, [B, h, T, d].
    fn place(&self, states: Tensor<B, 3>, norm: Option<&RmsNorm<B>>, first: usize) -> Tensor<B, 4> {
        let [rows, length, width] = states.dims();
        let states = norm.map_or(states.clone(), |norm| {
            let heads = states.reshape([rows, length, self.heads, width / self.heads]);
            norm.forward(heads).reshape([rows, length, width])
        });
        self.split(if self.rotary { rotate(states, self.heads, first) } else { states })
    }

    /// What states [B, T, E] gather, [B, T, E], and the weights by which they do, [B, h, T, S]. The first stands at the
    /// place `first`; where `hidden` [B, 1, T or 1, S] is true nothing is seen, and `bias` [1, h, T, S] is added to the scores.
    pub(crate) fn forward(
        &self,
        states: Tensor<B, 3>,
        first: usize,
        over: KeysValues<B>,
        hidden: Option<Tensor<B, 4, Bool>>,
        bias: Option<&Tensor<B, 4>>,
    ) -> (Tensor<B, 3>, Tensor<B, 4>) {
        let [rows, length, _] = states.dims();
        let query = self.place(self.query.forward(states), self.query_norm.as_ref(), first);
        let width = self.heads * query.dims()[3];
        let scores = query.div_scalar(self.scale).matmul(over.keys.swap_dims(2, 3));
        let scores = bias.map_or(scores.clone(), |bias| scores + bias.clone());
        let shape = scores.dims();
        let scores = hidden.map_or(scores.clone(), |hidden| scores.mask_fill(hidden.expand(shape), NEVER));
        let weights = softmax(scores, 3);
        let gathered = weights.clone().matmul(over.values).swap_dims(1, 2).reshape([rows, length, width]);
        (self.output.forward(gathered), weights)
    }
}

/// A linear map as burn draws it, or one without a bias whose weights have this standard deviation.
pub(crate) fn bare_or_whole(is_bare: bool, from: usize, to: usize, std: f64) -> LinearConfig {
    match is_bare {
        true => LinearConfig::new(from, to).with_bias(false).with_initializer(Initializer::Normal { mean: 0.0, std }),
        false => LinearConfig::new(from, to),
    }
}

/// Where a place may not see one behind it, [1, 1, T, T].
pub(crate) fn future<B: Backend>(length: usize, device: &B::Device) -> Tensor<B, 4, Bool> {
    Tensor::<B, 2, Bool>::tril_mask([length, length], 0, device).unsqueeze()
}
