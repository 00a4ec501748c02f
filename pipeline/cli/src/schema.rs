//! `codepair schema`.

use std::fmt::Write as _;

use anyhow::Result;
use codepair_runtime::{ExitStatus, config_error};
use codepair_schemas::{DATASETS, Dataset, dataset, stage_of_dataset};

use crate::table::{Table, print};

/// Prints one dataset's columns, or all.
pub(crate) fn schema(name: Option<&str>) -> Result<ExitStatus> {
    let chosen: Vec<&Dataset> = match name {
        None => DATASETS.iter().collect(),
        Some(name) => vec![dataset(name).ok_or_else(|| {
            let known: Vec<&str> = DATASETS.iter().map(|d| d.name).collect();
            config_error(format!("there is no dataset {name}; there are {}", known.join(", ")))
        })?],
    };
    let mut text = String::new();
    for dataset in chosen {
        let stages: Vec<&str> = stage_of_dataset(dataset.name).map(|stage| stage.name).collect();
        let volatile = if dataset.volatile { "; volatile" } else { "" };
        writeln!(text, "{} v{}, written by {}{volatile}", dataset.name, dataset.version, stages.join(", "))?;
        writeln!(text, "{} Sorted by {}.", dataset.doc, dataset.sort_key.join(", "))?;
        let mut table = Table::new(&["  column", "type", "what it holds"]);
        for column in dataset.columns {
            let kind = format!("{}{}", column.kind.arrow(), if column.nullable { " or null" } else { "" });
            table.row(&[&format!("  {}", column.name), &kind, column.doc]);
        }
        writeln!(text, "{table}")?;
    }
    print(&text);
    Ok(ExitStatus::Done)
}
