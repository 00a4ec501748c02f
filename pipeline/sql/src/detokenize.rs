//! `detokenize('NAME', column)`: token columns for people to read.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use codepair_tokenizer::Tokenizer;
use datafusion::common::exec_err;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;

/// Registers the function, over tokenizers by name.
///
/// # Errors
/// A tokenizer cannot be read.
pub fn register(context: &SessionContext, tokenizers: &HashMap<String, Bytes>) -> Result<()> {
    let read = |(name, bytes): (&String, &Bytes)| Ok((name.clone(), Tokenizer::from_json(bytes)?));
    let tokenizers: HashMap<String, Tokenizer> = tokenizers.iter().map(read).collect::<Result<_>>()?;
    let function = move |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        Ok(ColumnarValue::Array(detokenize(&tokenizers, arrays[0].as_string(), arrays[1].as_binary())?))
    };
    context.register_udf(create_udf(
        "detokenize",
        vec![DataType::Utf8, DataType::Binary],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(function),
    ));
    Ok(())
}

fn detokenize(
    tokenizers: &HashMap<String, Tokenizer>,
    names: &StringArray,
    tokens: &arrow::array::BinaryArray,
) -> Result<ArrayRef, DataFusionError> {
    let mut texts: Vec<Option<String>> = Vec::with_capacity(tokens.len());
    for (name, tokens) in names.iter().zip(tokens) {
        let (Some(name), Some(tokens)) = (name, tokens) else {
            texts.push(None);
            continue;
        };
        let Some(tokenizer) = tokenizers.get(name) else {
            let known: Vec<&str> = tokenizers.keys().map(String::as_str).collect();
            return exec_err!("detokenize: there is no tokenizer {name}; there are {}", known.join(", "));
        };
        let ids = token_ids(tokens, tokenizer.vocabulary());
        texts.push(Some(tokenizer.decode(&ids).map_err(|e| DataFusionError::External(Box::new(e)))?));
    }
    Ok(Arc::new(StringArray::from(texts)))
}

/// Little-endian ids of two bytes, or four where the vocabulary needs them.
fn token_ids(bytes: &[u8], vocabulary: usize) -> Vec<u32> {
    if vocabulary <= 1 << 16 {
        bytes.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect()
    } else {
        bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }
}
