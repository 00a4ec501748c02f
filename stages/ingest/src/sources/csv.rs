//! CSV files with a header, their columns mapped in the config.

use std::borrow::Cow;

use anyhow::Result;
use codepair_runtime::{Config, config_error};

use super::SourceKind;
use super::mapped::{Cell, Origin, mapped};
use super::records::{self, Dialect, Records};
use crate::files::{Files, Opened, has_end, unpacked};
use crate::found::Found;
use crate::split::{Shares, SplitBy};

/// What its files' names end with.
pub(super) const ENDS: &[&str] = &["csv", "tsv"];

mapped! {
    /// A file, folder or archive of `.csv` and `.tsv`, packed or not.
    pub struct Csv {
        /// One ASCII character between fields; without it a tab in `.tsv`, and a comma elsewhere.
        delimiter: Option<char> = None,
        /// One ASCII character that may stand before a quote within quotes, such as a backslash; a second quote always may.
        escape: Option<char> = None,
    }
}

impl SourceKind for Csv {
    type Piece = Records;

    fn files(&self, config: &Config) -> Result<Files> {
        for (name, character) in [("delimiter", self.delimiter), ("escape", self.escape)] {
            if character.is_some_and(|c| !c.is_ascii() || matches!(c, '"' | '\n' | '\r')) {
                return Err(config_error(format!("{name} must be one ASCII character, and no quote or line end")));
            }
        }
        self.find(config, ENDS)
    }

    fn needed_columns(&self) -> (&str, Vec<&str>) {
        // Of other marks the first rows are not looked at.
        let is_usual = self.delimiter.is_none() && self.escape.is_none();
        (&self.path, if is_usual { self.columns.needed() } else { Vec::new() })
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

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Records) -> Result<()>) -> Result<()> {
        let usual = if has_end(unpacked(file.name()), ".tsv") { '\t' } else { ',' };
        let delimiter = self.delimiter.unwrap_or(usual) as u8;
        records::cut(file, Dialect { delimiter, escape: self.escape.map(|c| c as u8) }, emit)
    }

    fn rows(&self, records: Records) -> Result<Vec<Found>> {
        let origin = Origin { file: &records.file, split: records.split };
        let row = |(line, record): &(u64, Result<Vec<String>, String>)| match record {
            Err(detail) => {
                Found::Rejected { place: records.place(*line), reason: "malformed_csv", detail: detail.clone() }
            }
            Ok(record) => {
                let cell = |column: &str| match records.text(record, column) {
                    Some(text) => Cell::Text(Cow::Borrowed(text)),
                    None => Cell::Other(records.why_not(column)),
                };
                self.mapping().row(origin, || records.place(*line), cell)
            }
        };
        Ok(records.list.iter().map(row).collect())
    }
}
