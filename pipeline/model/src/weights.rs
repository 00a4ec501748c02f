//! Weights in and out, as safetensors.

use anyhow::{Result, anyhow};
use burn::module::Module;
use burn::tensor::backend::Backend;
use burn_store::{ModuleSnapshot, SafetensorsStore};

use crate::Model;

/// The weights as a safetensors file; names are the modules' fields, joined by dots.
///
/// # Errors
/// The library's own.
pub fn save<B: Backend>(model: &Model<B>) -> Result<Vec<u8>> {
    // Metadata would be written in the order of a hash map, and equal weights would differ in bytes.
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata();
    model.save_into(&mut store).map_err(|error| anyhow!("the weights cannot be written: {error}"))?;
    store.get_bytes().map_err(|error| anyhow!("the weights cannot be written: {error}"))
}

/// Puts weights into a model of the same shape.
///
/// # Errors
/// A tensor is missing or of another shape.
pub fn load<B: Backend>(model: &mut Model<B>, bytes: Vec<u8>) -> Result<()> {
    let mut store = SafetensorsStore::from_bytes(Some(bytes));
    let result = model.load_from(&mut store).map_err(|error| anyhow!("the weights cannot be read: {error}"))?;
    if result.errors.is_empty() && result.missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!("the weights do not fit the model: {} missing, {} wrong", result.missing.len(), result.errors.len()))
}

/// Trainable parameters.
pub fn parameters<B: Backend>(model: &Model<B>) -> usize {
    model.num_params()
}
