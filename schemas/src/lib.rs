//! The contracts of the pipeline: every dataset's columns, sort key and version, and the table of stages.
//!
//! A dataset's schema is frozen by a golden file once something produces it (`schemas/tests/golden.rs`):
//! a changed column is a new version, never an edit.

mod datasets;
mod field;
pub mod rows;
mod stages;

pub use datasets::{Column, DATASETS, Dataset, Kind, dataset};
pub use field::{DocumentField, Field};
pub use stages::{STAGES, Stage, is_written_by, stage, stage_of_dataset, table_of};
