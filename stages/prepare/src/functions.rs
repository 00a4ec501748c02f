//! Functions that DataFusion calls, one value at a time.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListBuilder, StringArray, UInt64Builder};
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

/// A function from texts to a text or nothing.
pub(crate) fn text(
    name: &str,
    arguments: usize,
    function: impl Fn(&[&str]) -> Option<String> + Send + Sync + 'static,
) -> ScalarUDF {
    udf(name, arguments, DataType::Utf8, move |rows| Arc::new(rows.map(|row| function(&row)).collect::<StringArray>()))
}

/// A function from a text to a list of hashes.
pub(crate) fn hashes(name: &str, function: impl Fn(&str) -> Vec<u64> + Send + Sync + 'static) -> ScalarUDF {
    let item = Arc::new(Field::new("item", DataType::UInt64, true));
    udf(name, 1, DataType::List(item), move |rows| {
        let mut builder = ListBuilder::new(UInt64Builder::new());
        for row in rows {
            builder.append_value(function(row[0]).into_iter().map(Some));
        }
        Arc::new(builder.finish())
    })
}

/// Nulls are read as empty texts.
fn udf(
    name: &str,
    arguments: usize,
    result: DataType,
    function: impl Fn(&mut dyn Iterator<Item = Vec<&str>>) -> ArrayRef + Send + Sync + 'static,
) -> ScalarUDF {
    let call = move |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let columns: Vec<&StringArray> = arrays.iter().map(|array| array.as_string()).collect();
        let rows = columns.first().map_or(0, |column| arrow::array::Array::len(*column));
        let mut rows = (0..rows).map(|row| columns.iter().map(|c| text_at(c, row)).collect::<Vec<&str>>());
        Ok(ColumnarValue::Array(function(&mut rows)))
    };
    create_udf(name, vec![DataType::Utf8; arguments], result, Volatility::Immutable, Arc::new(call))
}

fn text_at(column: &StringArray, row: usize) -> &str {
    if arrow::array::Array::is_null(column, row) { "" } else { column.value(row) }
}
