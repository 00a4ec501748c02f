//! Parquet files of any shape, their columns mapped in the config.

use std::borrow::Cow;

use anyhow::Result;
use codepair_runtime::Config;
use serde::{Deserialize, Serialize};

use super::mapped::{Columns, Defaults};
use super::table::{self, Table};
use super::{Found, Kind};
use crate::files::{self, Files, Look, Opened, Patterns};
use crate::split::Shares;

/// A file or folder of `.parquet`, such as a Hugging Face dataset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parquet {
    /// The file or folder, or a URL.
    #[serde(skip_serializing)]
    path: String,
    /// Which column becomes which.
    columns: Columns,
    /// Shares of validation and test, where no column holds the split.
    shares: Shares,
    /// The language of rows where no column says it; Python without this.
    language: String,
    /// What the licence column says where no column does.
    licence: String,
    /// What the origin column says where no column does.
    origin: String,
}

impl Kind for Parquet {
    type Piece = Table;

    fn files(&self, config: &Config) -> Result<Files> {
        self.columns.check()?;
        files::find(config, &self.path, Patterns::new(&["**/*.parquet"], &[""; 0])?, Look::default())
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Table) -> Result<()>) -> Result<()> {
        table::cut(file, &self.columns.names(), emit)
    }

    fn rows(&self, table: Table) -> Result<Vec<Found>> {
        let cell = |column: &str, row| Ok(table.cell(column, row).map(Cow::Borrowed));
        let row = |row| {
            self.columns.row(
                &table.file,
                || table.place(row),
                Defaults { shares: self.shares, language: &self.language },
                |column| cell(column, row),
            )
        };
        Ok((0..table.rows).map(row).collect())
    }
}
