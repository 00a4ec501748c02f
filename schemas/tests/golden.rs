//! Golden files freeze every version of every dataset: a change is a new version with a new golden file.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use codepair_schemas::{DATASETS, STAGES};
use std::fmt::Write;

#[test]
fn schemas_are_frozen() {
    for dataset in DATASETS {
        let mut text = format!("sort key: {}\nvolatile: {}\n", dataset.sort_key.join(", "), dataset.volatile);
        for field in dataset.schema().fields() {
            let null = if field.is_nullable() { "?" } else { "" };
            writeln!(text, "{}{null}: {}", field.name(), field.data_type()).expect("a string takes writes");
        }
        insta::assert_snapshot!(format!("{}-v{}", dataset.name, dataset.version), text);
    }
}

#[test]
fn stages_are_frozen() {
    insta::assert_debug_snapshot!("stages", STAGES);
}

#[test]
fn sort_keys_and_outputs_name_what_exists() {
    for dataset in DATASETS {
        for key in dataset.sort_key {
            assert!(dataset.columns.iter().any(|c| c.name == *key), "{} has no {key}", dataset.name);
        }
        assert!(codepair_schemas::stage_of_dataset(dataset.name).count() > 0, "{}", dataset.name);
    }
}
