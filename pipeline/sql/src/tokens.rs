//! `tokenize('NAME', text)` and `detokenize('NAME', tokens)`: between texts and token columns.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array, AsArray, BinaryArray, BinaryBuilder, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use codepair_tokenizer::{Tokenizer, encode, token_bytes, token_ids};
use datafusion::common::exec_err;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;

/// Registers the functions, over tokenizers by name.
///
/// # Errors
/// A tokenizer cannot be read.
pub fn register(context: &SessionContext, tokenizers: &HashMap<String, Bytes>) -> Result<()> {
    let read = |(name, bytes): (&String, &Bytes)| Ok((name.clone(), Tokenizer::from_json(bytes)?));
    let tokenizers: Arc<HashMap<String, Tokenizer>> = Arc::new(tokenizers.iter().map(read).collect::<Result<_>>()?);
    let (known, immutable) = (Arc::clone(&tokenizers), Volatility::Immutable);
    let decode = move |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let texts = detokenize(&tokenizers, arrays[0].as_string(), arrays[1].as_binary())?;
        Ok(ColumnarValue::Array(Arc::new(texts)))
    };
    let encode = move |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let tokens = tokenize(&known, arrays[0].as_string(), arrays[1].as_string())?;
        Ok(ColumnarValue::Array(Arc::new(tokens)))
    };
    let (text, binary) = (DataType::Utf8, DataType::Binary);
    let arguments = vec![text.clone(), binary.clone()];
    context.register_udf(create_udf("detokenize", arguments, text.clone(), immutable, Arc::new(decode)));
    context.register_udf(create_udf("tokenize", vec![text.clone(), text], binary, immutable, Arc::new(encode)));
    Ok(())
}

fn find<'a>(
    tokenizers: &'a HashMap<String, Tokenizer>,
    function: &str,
    name: &str,
) -> Result<&'a Tokenizer, DataFusionError> {
    let Some(tokenizer) = tokenizers.get(name) else {
        let known: Vec<&str> = tokenizers.keys().map(String::as_str).collect();
        return exec_err!("{function}: there is no tokenizer {name}; there are {}", known.join(", "));
    };
    Ok(tokenizer)
}

fn external(error: codepair_tokenizer::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn tokenize(
    tokenizers: &HashMap<String, Tokenizer>,
    names: &StringArray,
    texts: &StringArray,
) -> Result<BinaryArray, DataFusionError> {
    let mut tokens = BinaryBuilder::new();
    for (name, text) in names.iter().zip(texts) {
        match (name, text) {
            (Some(name), Some(text)) => {
                let one = encode([Some(text)].into_iter(), find(tokenizers, "tokenize", name)?).map_err(external)?;
                tokens.append_value(one.value(0));
            }
            _ => tokens.append_null(),
        }
    }
    Ok(tokens.finish())
}

fn detokenize(
    tokenizers: &HashMap<String, Tokenizer>,
    names: &StringArray,
    tokens: &BinaryArray,
) -> Result<StringArray, DataFusionError> {
    let mut texts: Vec<Option<String>> = Vec::with_capacity(tokens.len());
    for (name, tokens) in names.iter().zip(tokens) {
        let (Some(name), Some(tokens)) = (name, tokens) else {
            texts.push(None);
            continue;
        };
        let tokenizer = find(tokenizers, "detokenize", name)?;
        texts.push(Some(tokenizer.decode(&token_ids(tokens, token_bytes(tokenizer))).map_err(external)?));
    }
    Ok(StringArray::from(texts))
}
