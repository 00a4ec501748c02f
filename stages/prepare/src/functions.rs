//! Functions that DataFusion calls, one row at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, Float64Array, Int64Array};
use arrow::array::{ListBuilder, PrimitiveBuilder, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, UInt64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

/// The texts of a row; nulls are read as empty ones.
type Row<'a> = &'a [&'a str];

/// A function from texts to a text or nothing.
pub(crate) fn text(
    name: &str,
    arguments: usize,
    function: impl Fn(Row) -> Option<String> + Send + Sync + 'static,
) -> ScalarUDF {
    of_texts(name, arguments, DataType::Utf8, move |rows| {
        let mut texts = Vec::new();
        rows(&mut |row| texts.push(function(row)));
        Arc::new(StringArray::from(texts))
    })
}

/// A function from a text to a whole number.
pub(crate) fn integer(name: &str, function: impl Fn(&str) -> i64 + Send + Sync + 'static) -> ScalarUDF {
    of_texts(name, 1, DataType::Int64, move |rows| {
        let mut values = Vec::new();
        rows(&mut |row| values.push(function(row[0])));
        Arc::new(Int64Array::from(values))
    })
}

/// A function from a text to a number of 64 bits or nothing.
pub(crate) fn number(name: &str, function: impl Fn(&str) -> Option<u64> + Send + Sync + 'static) -> ScalarUDF {
    of_texts(name, 1, DataType::UInt64, move |rows| {
        let mut values = Vec::new();
        rows(&mut |row| values.push(function(row[0])));
        Arc::new(UInt64Array::from(values))
    })
}

/// A function from texts to true or false.
pub(crate) fn predicate_of(
    name: &str,
    arguments: usize,
    function: impl Fn(Row) -> bool + Send + Sync + 'static,
) -> ScalarUDF {
    of_texts(name, arguments, DataType::Boolean, move |rows| {
        let mut values = Vec::new();
        rows(&mut |row| values.push(function(row)));
        Arc::new(BooleanArray::from(values))
    })
}

/// A function from a text to a share.
pub(crate) fn share(name: &str, function: impl Fn(&str) -> f64 + Send + Sync + 'static) -> ScalarUDF {
    of_texts(name, 1, DataType::Float64, move |rows| {
        let mut values = Vec::new();
        rows(&mut |row| values.push(function(row[0])));
        Arc::new(Float64Array::from(values))
    })
}

/// A function from a text to true or false.
pub(crate) fn predicate(name: &str, function: impl Fn(&str) -> bool + Send + Sync + 'static) -> ScalarUDF {
    predicate_of(name, 1, move |row| function(row[0]))
}

/// A function from texts to 128 bits or nothing.
pub(crate) fn key(
    name: &str,
    arguments: usize,
    function: impl Fn(Row) -> Option<u128> + Send + Sync + 'static,
) -> ScalarUDF {
    of_texts(name, arguments, DataType::FixedSizeBinary(16), move |rows| {
        let mut builder = FixedSizeBinaryBuilder::new(16);
        rows(&mut |row| match function(row) {
            // Sixteen bytes always fit sixteen.
            Some(key) => drop(builder.append_value(key.to_be_bytes())),
            None => builder.append_null(),
        });
        Arc::new(builder.finish())
    })
}

/// The values of a column that a function of [`key`] made.
pub(crate) fn keys_of(column: &ArrayRef) -> impl Iterator<Item = Option<u128>> {
    column.as_fixed_size_binary().iter().map(|bytes| bytes?.try_into().ok().map(u128::from_be_bytes))
}

/// A function from 128 bits to a number of 64 bits or nothing; nulls stay nulls.
pub(crate) fn number_of_key(name: &str, function: impl Fn(u128) -> Option<u64> + Send + Sync + 'static) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let numbers = keys_of(&arrays[0]).map(|key| key.and_then(&function));
        Ok(ColumnarValue::Array(Arc::new(numbers.collect::<UInt64Array>())))
    };
    create_udf(name, vec![DataType::FixedSizeBinary(16)], DataType::UInt64, Volatility::Immutable, Arc::new(call))
}

/// A function from a text to a list of hashes.
pub(crate) fn hashes(name: &str, function: impl Fn(&str) -> Vec<u64> + Send + Sync + 'static) -> ScalarUDF {
    of_texts(name, 1, list(), move |rows| {
        let mut builder = ListBuilder::new(PrimitiveBuilder::<UInt64Type>::new());
        rows(&mut |row| {
            builder.values().append_slice(&function(row[0]));
            builder.append(true);
        });
        Arc::new(builder.finish())
    })
}

/// A function from a list of hashes to another; nulls stay nulls.
pub(crate) fn hashes_of_hashes(name: &str, function: impl Fn(&[u64]) -> Vec<u64> + Send + Sync + 'static) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let lists = arrays[0].as_list::<i32>();
        let hashes = lists.values().as_primitive::<UInt64Type>().values();
        let mut builder = ListBuilder::new(PrimitiveBuilder::<UInt64Type>::new());
        for (row, bounds) in lists.value_offsets().windows(2).enumerate() {
            if lists.is_valid(row) {
                builder.values().append_slice(&function(&hashes[bounds[0] as usize..bounds[1] as usize]));
            }
            builder.append(lists.is_valid(row));
        }
        Ok(ColumnarValue::Array(Arc::new(builder.finish())))
    };
    create_udf(name, vec![list()], list(), Volatility::Immutable, Arc::new(call))
}

/// A function from a number to true or false.
pub(crate) fn number_predicate(name: &str, function: impl Fn(u64) -> bool + Send + Sync + 'static) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let numbers = arrays[0].as_primitive::<UInt64Type>().values().iter();
        let found: BooleanArray = numbers.map(|number| Some(function(*number))).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    };
    create_udf(name, vec![DataType::UInt64], DataType::Boolean, Volatility::Immutable, Arc::new(call))
}

fn list() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::UInt64, true)))
}

/// `build` is given a function that calls it back for each row.
fn of_texts(
    name: &str,
    arguments: usize,
    result: DataType,
    build: impl Fn(&dyn Fn(&mut dyn FnMut(Row))) -> ArrayRef + Send + Sync + 'static,
) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let columns: Vec<&StringArray> = arrays.iter().map(|array| array.as_string()).collect();
        let rows = columns.first().map_or(0, |column| column.len());
        let each = |use_row: &mut dyn FnMut(Row)| {
            let mut texts = Vec::with_capacity(columns.len());
            for row in 0..rows {
                texts.clear();
                texts.extend(columns.iter().map(|c| if c.is_null(row) { "" } else { c.value(row) }));
                use_row(&texts);
            }
        };
        Ok(ColumnarValue::Array(build(&each)))
    };
    create_udf(name, vec![DataType::Utf8; arguments], result, Volatility::Immutable, Arc::new(call))
}
