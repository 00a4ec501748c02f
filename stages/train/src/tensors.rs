//! Named tensors as a safetensors file: what optimizers remember, and averages of weights.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use codepair_model::{Model, Named, named};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

/// Tensors, each flat, by their names.
pub(crate) type Tensors<B> = BTreeMap<String, Tensor<B, 1>>;

/// As a file; equal tensors give equal bytes.
pub(crate) fn save<B: Backend>(tensors: &Tensors<B>) -> Result<Vec<u8>> {
    let values = |tensor: &Tensor<B, 1>| tensor.to_data().convert::<f32>().bytes.to_vec();
    let all: BTreeMap<&String, Vec<u8>> = tensors.iter().map(|(name, tensor)| (name, values(tensor))).collect();
    let views = all.iter().map(|(name, bytes)| {
        TensorView::new(Dtype::F32, vec![bytes.len() / size_of::<f32>()], bytes).map(|view| (name.as_str(), view))
    });
    Ok(serialize(views.collect::<Result<Vec<_>, _>>()?, None)?)
}

/// What [`save`] wrote.
///
/// # Errors
/// It did not.
pub(crate) fn load<B: Backend>(bytes: &[u8], device: &B::Device) -> Result<Tensors<B>> {
    let file = SafeTensors::deserialize(bytes)?;
    let read = |(name, view): (String, TensorView)| {
        ensure!(view.dtype() == Dtype::F32, "{name} is no tensor of f32");
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let values: Vec<f32> = view.data().chunks_exact(4).map(number).collect();
        let count = values.len();
        Ok((name, Tensor::from_data(TensorData::new(values, [count]), device)))
    };
    file.iter().map(|(name, view)| read((name.to_owned(), view))).collect()
}

/// A tensor without its shape.
pub(crate) fn flat<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, 1> {
    let count = tensor.shape().num_elements();
    tensor.reshape([count])
}

/// The weights of a model.
pub(crate) fn of<B: Backend>(model: &Model<B>) -> Tensors<B> {
    let mut read = Reading { names: named(model), found: Tensors::new() };
    model.visit(&mut read);
    read.found
}

/// A model with these weights in place of its own.
pub(crate) fn put<B: Backend>(model: Model<B>, tensors: Tensors<B>) -> Model<B> {
    let names = named(&model);
    model.map(&mut Putting { names, tensors })
}

struct Reading<B: Backend> {
    names: BTreeMap<u64, Named>,
    found: Tensors<B>,
}

impl<B: Backend> ModuleVisitor<B> for Reading<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(named) = self.names.get(&param.id.val()) {
            self.found.insert(named.name.clone(), flat(param.val()));
        }
    }
}

struct Putting<B: Backend> {
    names: BTreeMap<u64, Named>,
    tensors: Tensors<B>,
}

impl<B: Backend> ModuleMapper<B> for Putting<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let own = self.names.get(&id.val()).and_then(|named| self.tensors.remove(&named.name));
        let tensor = own.map_or(tensor.clone(), |flat| flat.reshape(tensor.shape()));
        Param::from_mapped_value(id, tensor, mapper)
    }
}
