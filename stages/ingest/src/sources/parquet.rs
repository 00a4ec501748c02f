//! Parquet and Arrow files of any shape, their columns mapped in the config.

use anyhow::Result;
use codepair_runtime::Config;

use super::SourceKind;
use super::mapped::{Origin, mapped};
use super::table::{self, Table, Wanted};
use crate::files::{Files, Opened};
use crate::found::Found;
use crate::split::{Shares, SplitBy};

/// What its files' names end with.
pub(super) const ENDS: &[&str] = &["parquet", "arrow"];

mapped! {
    /// A file, folder or archive of `.parquet` or `.arrow`, such as a Hugging Face dataset. A field within others is named
    /// `meta.code`.
    pub struct Parquet {}
}

impl SourceKind for Parquet {
    type Piece = Table;

    fn files(&self, config: &Config) -> Result<Files> {
        self.find(config, ENDS)
    }

    fn needed_columns(&self) -> (&str, Vec<&str>) {
        (&self.path, self.columns.needed())
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn shares(&self) -> Option<Shares> {
        self.split.is_none().then_some(self.shares)
    }

    fn split_by(&self) -> Option<SplitBy> {
        self.split_by
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Table) -> Result<()>) -> Result<()> {
        table::cut(file, Wanted::Named(&self.columns.names()), emit)
    }

    fn rows(&self, table: Table) -> Result<Vec<Found>> {
        let origin = Origin { file: &table.file, split: table.split };
        let row = |row| self.mapping().row(origin, || table.place(row), |column| table.cell(column, row));
        Ok((0..table.rows).map(row).collect())
    }
}
