//! Rotary positions (Su et al., 2021).

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// The base of the wavelengths.
const BASE: f64 = 10_000.0;

/// Turns the two halves of each head's vectors by the angles of their positions, the first of which is `first`; [B, T, E].
///
/// The other half of each vector comes by a product with a small matrix: cutting and joining halves would cost many times as much.
pub(crate) fn rotate<B: Backend>(vectors: Tensor<B, 3>, heads: usize, first: usize) -> Tensor<B, 3> {
    let device = vectors.device();
    let [rows, length, width] = vectors.dims();
    let each = width / heads;
    let half = each / 2;
    let table = |f: fn(f64) -> f64| -> Tensor<B, 3> {
        let angle = |at: usize| (first + at / width) as f64 / BASE.powf((at % half) as f64 / half as f64);
        let values: Vec<f32> = (0..length * width).map(|at| f(angle(at)) as f32).collect();
        Tensor::from_data(TensorData::new(values, [1, length, width]), &device)
    };
    // (a, b) becomes (−b, a).
    let mut swap = vec![0f32; each * each];
    for at in 0..half {
        swap[(at + half) * each + at] = -1.0;
        swap[at * each + at + half] = 1.0;
    }
    let swap = Tensor::<B, 2>::from_data(TensorData::new(swap, [each, each]), &device);
    let swapped = vectors.clone().reshape([rows * length * heads, each]).matmul(swap).reshape([rows, length, width]);
    vectors * table(f64::cos) + swapped * table(f64::sin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuDevice};

    #[test]
    fn pairs_are_turned_by_their_angles() {
        let device = CpuDevice::default();
        // Two heads of four values, at the places 3 and 4.
        let values: Vec<f32> = (0..16).map(|n| n as f32 * 0.3 - 2.0).collect();
        let vectors = Tensor::<Cpu, 3>::from_data(TensorData::new(values.clone(), [1, 2, 8]), &device);
        let turned: Vec<f32> = rotate(vectors, 2, 3).into_data().iter().collect();
        for (place, head, pair) in (0..2).flat_map(|p| (0..2).flat_map(move |h| (0..2).map(move |i| (p, h, i)))) {
            let angle = (3 + place) as f64 / 10_000f64.powf(pair as f64 / 2.0);
            let at = place * 8 + head * 4 + pair;
            let (a, b) = (f64::from(values[at]), f64::from(values[at + 2]));
            let expected = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
            assert!((f64::from(turned[at]) - expected[0]).abs() < 1e-6);
            assert!((f64::from(turned[at + 2]) - expected[1]).abs() < 1e-6);
        }
    }
}
