//! CSV files with a header, their columns mapped in the config.

use std::borrow::Cow;

use anyhow::Result;
use codepair_runtime::{Config, config_error};
use serde::{Deserialize, Serialize};

use super::mapped::{Columns, Defaults};
use super::records::{self, Records};
use super::{Found, Kind};
use crate::files::{self, Files, Look, Opened, Patterns};
use crate::split::Shares;

/// A file or folder of `.csv`, `.tsv`, packed or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Csv {
    /// The file or folder, or a URL.
    #[serde(skip_serializing)]
    path: String,
    /// One ASCII character between fields.
    delimiter: char,
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

impl Default for Csv {
    fn default() -> Self {
        Self {
            path: String::new(),
            delimiter: ',',
            columns: Columns::default(),
            shares: Shares::default(),
            language: String::new(),
            licence: String::new(),
            origin: String::new(),
        }
    }
}

impl Kind for Csv {
    type Piece = Records;

    fn files(&self, config: &Config) -> Result<Files> {
        self.columns.check()?;
        if !self.delimiter.is_ascii() {
            return Err(config_error(format!("delimiter {:?} is no ASCII character", self.delimiter)));
        }
        let include = ["**/*.csv", "**/*.csv.gz", "**/*.tsv", "**/*.tsv.gz"];
        files::find(config, &self.path, Patterns::new(&include, &[""; 0])?, Look::default())
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Records) -> Result<()>) -> Result<()> {
        records::cut(file, self.delimiter as u8, emit)
    }

    fn rows(&self, records: Records) -> Result<Vec<Found>> {
        let row = |(line, record): &(u64, Result<csv::StringRecord, String>)| match record {
            Err(detail) => {
                Found::Rejected { place: records.place(*line), reason: "malformed_csv", detail: detail.clone() }
            }
            Ok(record) => self.columns.row(
                &records.file,
                || records.place(*line),
                Defaults { shares: self.shares, language: &self.language },
                |column| Ok(records.text(record, column).map(Cow::Borrowed)),
            ),
        };
        Ok(records.list.iter().map(row).collect())
    }
}
