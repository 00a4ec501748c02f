//! Weights in and out, as safetensors.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn_store::{KeyRemapper, ModuleSnapshot, SafetensorsStore};

use crate::Model;

/// Names of older stores, and what they are now.
const RENAMED: [(&str, &str); 2] =
    [(r"^(?:AttentionLstm|Nbow)\.", ""), (r"^(forward|backward|bridge)\.", "encoder.$1.")];

/// The weights as a safetensors file; names are the modules' fields, joined by dots.
///
/// # Errors
/// The library's own.
pub fn save<B: Backend>(model: &Model<B>) -> Result<Vec<u8>> {
    // Metadata would be written in the order of a hash map, and equal weights would differ in bytes.
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata().skip_enum_variants(true);
    model.save_into(&mut store).map_err(|error| anyhow!("the weights cannot be written: {error}"))?;
    store.get_bytes().map_err(|error| anyhow!("the weights cannot be written: {error}"))
}

/// Puts weights into a model of the same shape.
///
/// # Errors
/// The file is damaged, or a tensor is missing, of another shape, or none of the model's; the text names it.
pub fn load<B: Backend>(model: &mut Model<B>, bytes: Vec<u8>) -> Result<()> {
    let renamed = KeyRemapper::from_patterns(RENAMED.to_vec()).map_err(|error| anyhow!("{error}"))?;
    let store = SafetensorsStore::from_bytes(Some(bytes)).skip_enum_variants(true).remap(renamed);
    let mut store = store.allow_partial(true).validate(false);
    let result = model.load_from(&mut store).map_err(|error| anyhow!("the weights cannot be read: {error}"))?;
    if let Some(error) = result.errors.first() {
        bail!("the weights do not fit the model: {error}");
    }
    if let Some((name, _)) = result.missing.first() {
        bail!("the weights do not fit the model: {name} is missing");
    }
    if let Some(name) = result.unused.first() {
        bail!("the weights do not fit the model: it has no {name}");
    }
    Ok(())
}

/// Trainable parameters.
pub fn parameters<B: Backend>(model: &Model<B>) -> usize {
    model.num_params()
}

/// What a parameter is to an optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// The matrix of a linear map.
    Matrix,
    /// A table of embeddings.
    Embedding,
    /// A bias, or the scale of a norm.
    Vector,
}

/// Where a parameter stands in its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The fields that lead to it, joined by dots: its name in a safetensors file.
    pub name: String,
    /// What it is.
    pub kind: ParameterKind,
}

/// The parameters of a model by their ids.
pub fn named<B: Backend>(model: &Model<B>) -> BTreeMap<u64, Named> {
    let mut names = Names { path: Vec::new(), found: BTreeMap::new() };
    model.visit(&mut names);
    names.found
}

struct Names {
    /// Field and the type that has it; the variants of enums are no part of a name.
    path: Vec<(String, String)>,
    found: BTreeMap<u64, Named>,
}

impl<B: Backend> ModuleVisitor<B> for Names {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let fields = self.path.iter().filter(|(_, container)| !container.starts_with("Enum:"));
        let name = fields.map(|(field, _)| field.as_str()).collect::<Vec<_>>().join(".");
        let holder = self.path.last().map(|(_, container)| container.as_str());
        let kind = match holder {
            Some("Struct:Embedding") => ParameterKind::Embedding,
            _ if D == 2 => ParameterKind::Matrix,
            _ => ParameterKind::Vector,
        };
        self.found.insert(param.id.val(), Named { name, kind });
    }
}
