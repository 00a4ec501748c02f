//! Rotary positions (Su et al., 2021).

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// The base of the wavelengths.
const BASE: f64 = 10_000.0;

/// Turns the two halves of each head's vectors [B, h, T, d] by the angles of their positions, the first of which is `first`.
pub(crate) fn rotate<B: Backend>(vectors: Tensor<B, 4>, first: usize) -> Tensor<B, 4> {
    let [_, _, length, width] = vectors.dims();
    let half = width / 2;
    let angle = |at: usize| (first + at / half) as f64 / BASE.powf((at % half) as f64 / half as f64);
    let table = |f: fn(f64) -> f64| -> Tensor<B, 4> {
        let values: Vec<f32> = (0..length * half).map(|at| f(angle(at)) as f32).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, length, half]), &vectors.device())
    };
    let (sin, cos) = (table(f64::sin), table(f64::cos));
    let (a, b) = (vectors.clone().narrow(3, 0, half), vectors.clone().narrow(3, half, half));
    let turned = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin];
    Tensor::cat(turned, 3)
}
