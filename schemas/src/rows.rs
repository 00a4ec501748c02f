//! A struct for each dataset that stages write row by row; fields are the columns, in order.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Builder, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident in $dataset:literal { $($field:ident: $kind:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
            pub struct $name {
                $(#[doc = concat!("Column `", stringify!($field), "`.")] pub $field: $kind,)*
            }
            impl Row for $name {
                const DATASET: &'static str = $dataset;
                const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];
                fn text_bytes(&self) -> usize {
                    0 $(+ self.$field.bytes())*
                }
                fn batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
                    RecordBatch::try_from_iter([$((stringify!($field), Cell::array(rows.iter().map(|row| &row.$field)))),*])
                }
            }
        )*
        #[cfg(test)]
        const ALL: &[(&str, &[&str])] = &[$(($dataset, $name::COLUMNS)),*];
    };
}

/// A row of a dataset.
pub trait Row: Sized {
    /// The dataset's name.
    const DATASET: &'static str;
    /// The dataset's columns, in order.
    const COLUMNS: &'static [&'static str];
    /// Bytes of text and vectors.
    fn text_bytes(&self) -> usize;
    /// Rows as columns.
    ///
    /// # Errors
    /// None in practice: the columns are equally long.
    fn batch(rows: &[Self]) -> Result<RecordBatch, ArrowError>;
}

/// A value of a row.
trait Cell: Sized {
    fn array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;
    /// Of text, and of vectors.
    fn bytes(&self) -> usize;
}

macro_rules! cells {
    ($($kind:ty => |$cells:ident| $array:expr, |$cell:ident| $bytes:expr;)*) => {
        $(impl Cell for $kind {
            fn array<'a>($cells: impl Iterator<Item = &'a Self>) -> ArrayRef { Arc::new($array) }
            fn bytes(&self) -> usize { let $cell = self; $bytes }
        })*
    };
}

cells! {
    String => |cells| {
        let cells: Vec<&String> = cells.collect();
        // Growing step by step would copy long texts several times.
        let mut builder = StringBuilder::with_capacity(cells.len(), cells.iter().map(|cell| cell.len()).sum());
        cells.into_iter().for_each(|cell| builder.append_value(cell));
        builder.finish()
    }, |cell| cell.len();
    Option<String> => |cells| cells.map(Option::as_deref).collect::<StringArray>(), |cell| cell.as_ref().map_or(0, String::len);
    Vec<String> => |cells| {
        let mut builder = ListBuilder::new(StringBuilder::new()).with_field(Field::new("item", DataType::Utf8, false));
        cells.for_each(|texts| builder.append_value(texts.iter().map(Some)));
        builder.finish()
    }, |cell| cell.iter().map(String::len).sum();
    u32 => |cells| UInt32Array::from_iter_values(cells.copied()), |_cell| 0;
    u64 => |cells| UInt64Array::from_iter_values(cells.copied()), |_cell| 0;
    i64 => |cells| Int64Array::from_iter_values(cells.copied()), |_cell| 0;
    f64 => |cells| Float64Array::from_iter_values(cells.copied()), |_cell| 0;
    Option<i64> => |cells| cells.copied().collect::<Int64Array>(), |_cell| 0;
    Option<f64> => |cells| cells.copied().collect::<Float64Array>(), |_cell| 0;
    Vec<f32> => |cells| {
        let mut builder = ListBuilder::new(Float32Builder::new()).with_field(Field::new("item", DataType::Float32, false));
        for cell in cells {
            builder.values().append_slice(cell);
            builder.append(true);
        }
        builder.finish()
    }, |cell| cell.len() * 4;
    bool => |cells| cells.copied().map(Some).collect::<BooleanArray>(), |_cell| 0;
}

rows! {
    /// A row of `functions`.
    Function in "functions" {
        id: String, source: String, ordinal: u64, repo: String, path: String, name: String, language: String,
        url: String, code: String, docstring: String, group: String, split: String, licence: String, origin: String,
    }
    /// A row of `pairs`.
    Pair in "pairs" {
        id: String, source: String, ordinal: u64, text: String, code: String, language: String, label: Option<f64>,
        url: String, group: String, split: String, licence: String, origin: String,
    }
    /// A row of `problems`.
    Problem in "problems" {
        id: String, source: String, ordinal: u64, task_id: i64, text: String, code: String, test_setup_code: String,
        test_list: Vec<String>, challenge_test_list: Vec<String>, group: String, split: String, licence: String,
        origin: String,
    }
    /// A row of `queries`.
    Query in "queries" {
        id: String, source: String, ordinal: u64, text: String, context: String, split: String, licence: String,
        origin: String,
    }
    /// A row of `judgments`.
    Judgment in "judgments" {
        source: String, ordinal: u64, query: String, language: String, url: String, relevance: f64, notes: String,
        licence: String, origin: String,
    }
    /// A row of `sources`.
    Source in "sources" {
        source: String, kind: String, digest: String, files: u64, rows_read: u64, functions: u64, pairs: u64,
        problems: u64, queries: u64, judgments: u64, rejected: u64,
    }
    /// A row of `rejected`.
    Rejected in "rejected" {
        stage: String, source: String, ordinal: u64, id: String, reason: String, detail: String,
    }
    /// A row of `synthetic_pairs`.
    SyntheticPair in "synthetic_pairs" {
        id: String, generator: String, ordinal: u64, kind: String, edit: String, parent_id: String,
        parent_dataset: String, source: String, text: String, code: String, language: String, group: String, split: String,
        request: Option<String>, model: Option<String>, prompt: Option<String>, parameters: Option<String>,
        seed: Option<i64>,
    }
    /// A row of `embeddings`.
    Embedding in "embeddings" {
        id: String, generator: String, ordinal: u64, dataset: String, field: String, model: String, vector: Vec<f32>,
        request: Option<String>,
    }
    /// A row of `requests`.
    Request in "requests" {
        request: String, attempt: u32, generator: String, endpoint: String, payload: String, status: u32,
        response: String, sending: String,
    }
    /// A row of `examples`.
    Example in "examples" {
        id: String, ordinal: u64, source: String, dataset: String, kind: String, parent_id: Option<String>,
        name: String, url: String, repo: String, path: String, language: String, text: String, code: String, group: String,
        split: String, licence: String, origin: String,
    }
    /// A row of `duplicates`.
    Duplicate in "duplicates" {
        id: String, ordinal: u64, kind: String, neighbour_id: String, jaccard: f64, kept_id: String,
    }
    /// A row of `training_steps`.
    TrainingStep in "training_steps" {
        model: String, step: u64, epoch: u32, split: String, loss: f64, learning_rate: f64,
        gradient_norm: Option<f64>, tokens_per_second: Option<f64>, bits_per_byte: Option<f64>, score: Option<f64>, skipped: u64,
        memory_bytes: u64, elapsed_seconds: f64, seconds_left: f64, parameters: u64,
    }
    /// A row of `scores`.
    Score in "scores" {
        benchmark: String, model: String, protocol: String, task: String, decoding: String, metric: String,
        bucket: String, value: f64,
        low: f64, high: f64, count: u64, signature: String,
    }
    /// A row of `comparisons`.
    Comparison in "comparisons" {
        benchmark: String, model: String, other: String, task: String, decoding: String, metric: String,
        difference: f64, low: f64, high: f64, p_value: f64, count: u64, signature: String,
    }
    /// A row of `predictions`.
    Prediction in "predictions" {
        benchmark: String, model: String, protocol: String, decoding: String, ordinal: u64, id: String, source: String,
        reference: String, prediction: String, log_probability: f64, source_length: u32, tokens_right: u64,
        tokens: u64, attention_entropy: Option<f64>, tokens_written: u64, signature: String,
    }
    /// A row of `rankings`.
    Ranking in "rankings" {
        benchmark: String, model: String, protocol: String, ordinal: u64, query_id: String, rank: u32,
        candidate_id: String, score: f64,
        relevant: bool, candidates: u64,
    }
    /// A row of `attention`.
    Attention in "attention" {
        benchmark: String, model: String, ordinal: u64, id: String, target_position: u32, target_token: String, source_position: u32,
        source_token: String, weight: f64,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_have_the_columns_of_their_datasets() {
        for (name, columns) in super::ALL {
            let dataset = crate::dataset(name).expect("a row names a dataset");
            let expected: Vec<_> = dataset.columns.iter().map(|c| c.name).collect();
            assert_eq!(&expected, columns, "{name}");
        }
    }
}
