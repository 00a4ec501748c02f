//! Clipping by the global norm (Pascanu et al., 2013): burn's own clips each tensor by itself.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::optimizers::Gradients;

/// The gradients with what scales their common norm down to `limit` at most, and that norm, [1].
pub(crate) fn clip<B: AutodiffBackend, M: Module<B>>(
    module: &M,
    gradients: GradientsParams,
    limit: f64,
    device: &B::Device,
) -> (Gradients<B>, Tensor<B::InnerBackend, 1>) {
    let mut squares = Squares::<B::InnerBackend> { gradients: &gradients, sum: Tensor::zeros([1], device) };
    module.visit(&mut squares);
    let norm = squares.sum.sqrt();
    let scale = norm.clone().recip().mul_scalar(limit).clamp_max(1.0);
    let finite = norm.clone().is_finite();
    (Gradients { all: gradients, scale, finite }, norm)
}

struct Squares<'a, I: Backend> {
    gradients: &'a GradientsParams,
    sum: Tensor<I, 1>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_, B::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) {
            self.sum = self.sum.clone() + gradient.powi_scalar(2).sum();
        }
    }
}
