//! The tensors of a safetensors file; whatever is wrong with it is said of the tensor that it is wrong with.

use std::fs::File;
use std::io::{BufReader, Read as _};

use super::{BTreeMap, Path, Result, TensorData, config_error, input_error};
use burn::tensor::DType;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

/// A longer list of tensors is none.
const LONGEST_LIST: u64 = 100 << 20;

/// A file behind its list of tensors, and the list.
fn open(path: &Path) -> Result<(BufReader<File>, Metadata)> {
    let wrong = |why: &dyn std::fmt::Display| config_error(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| input_error(format!("{}: {error}", path.display())))?;
    let mut file = BufReader::new(file);
    let damaged = |error: &dyn std::fmt::Display| wrong(&format!("the list of its tensors is damaged: {error}"));
    // Eight bytes say how long the list is.
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|error| damaged(&error))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_LIST {
        return Err(damaged(&format!("it would have {length} bytes")));
    }
    let mut list = vec![0; length as usize];
    file.read_exact(&mut list).map_err(|error| damaged(&error))?;
    let list = serde_json::from_slice(&list).map_err(|error| damaged(&error))?;
    Ok((file, list))
}

/// Shapes alone, by name.
pub(super) fn shapes(path: &Path) -> Result<BTreeMap<String, Vec<usize>>> {
    let (_, list) = open(path)?;
    let shape = |name: String| Some((name.clone(), list.info(&name)?.shape.clone()));
    Ok(list.offset_keys().into_iter().filter_map(shape).collect())
}

/// All tensors, in f32.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, TensorData>> {
    let (mut file, list) = open(path)?;
    let mut body = Vec::new();
    file.read_to_end(&mut body).map_err(|error| input_error(format!("{}: {error}", path.display())))?;
    let mut found = BTreeMap::new();
    for name in list.offset_keys() {
        let Some(info) = list.info(&name) else { continue };
        let tensor =
            tensor(info, &body).map_err(|why| config_error(format!("{}: the tensor {name} {why}", path.display())))?;
        found.insert(name, tensor);
    }
    Ok(found)
}

fn tensor(info: &TensorInfo, body: &[u8]) -> Result<TensorData, String> {
    let (dtype, bytes) = match info.dtype {
        Dtype::F64 => (DType::F64, 8),
        Dtype::F32 => (DType::F32, 4),
        Dtype::F16 => (DType::F16, 2),
        Dtype::BF16 => (DType::BF16, 2),
        other => return Err(format!("is of the type {other:?}; f32, f16, bf16 and f64 can be read")),
    };
    let (start, end) = info.data_offsets;
    let Some(own) = body.get(start..end) else {
        return Err(format!("ends at byte {end}, and there are {}: the file is cut off", body.len()));
    };
    let wanted = info.shape.iter().try_fold(bytes, |all: usize, size| all.checked_mul(*size));
    if wanted != Some(own.len()) {
        return Err(format!("has {} bytes, which are not those of its shape {:?}", own.len(), info.shape));
    }
    let data = TensorData::from_bytes_vec(own.to_vec(), info.shape.clone(), dtype).convert::<f32>();
    let is_finite = data.iter::<f32>().all(f32::is_finite);
    if is_finite { Ok(data) } else { Err("holds values that are no numbers".to_owned()) }
}
