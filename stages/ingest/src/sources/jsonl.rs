//! JSON lines, and files of one JSON array, of any shape, their fields mapped in the config.

use std::borrow::Cow;

use anyhow::Result;
use codepair_runtime::Config;
use serde_json::{Map, Value};

use super::SourceKind;
use super::array::{self, Values};
use super::lines::{self, Lines};
use super::mapped::{Cell, Origin, mapped};
use crate::files::{Files, Opened, file_name, has_end, unpacked};
use crate::found::Found;
use crate::split::{Shares, SplitBy};

/// What its files' names end with. In a folder of rows many a `.json` is something else.
pub(super) fn ends(path: &str) -> &'static [&'static str] {
    if is_array(file_name(path)) { &["json"] } else { &["jsonl", "ndjson"] }
}

mapped! {
    /// A file, folder or archive of `.jsonl` or `.ndjson`, or a `.json` that holds one array, packed or not.
    pub struct Jsonl {}
}

impl SourceKind for Jsonl {
    type Piece = Piece;

    fn files(&self, config: &Config) -> Result<Files> {
        self.find(config, ends(&self.path))
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

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        Piece::cut(file, emit)
    }

    fn rows(&self, piece: Piece) -> Result<Vec<Found>> {
        let (Piece::Lines(Lines { file, split, .. }) | Piece::Values(Values { file, split, .. })) = &piece;
        let origin = Origin { file, split: *split };
        let row = |place: String, object: Map<String, Value>| {
            self.mapping().row(origin, || place, |column| cell(&object, column))
        };
        let lines = match &piece {
            Piece::Values(values) => return array::parse(values, row),
            Piece::Lines(lines) => lines,
        };
        // Where a field within others is named, the whole outer one is wanted, and left to the parser.
        let mut names = self.columns.names();
        let outer: Vec<&str> = names.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        names.extend(outer);
        lines::parse_fields(lines, &names, row)
    }
}

/// Some rows of a file: `.json` is an array, all else lines.
pub(crate) enum Piece {
    Lines(Lines),
    Values(Values),
}

impl Piece {
    /// Cuts a file of either form.
    ///
    /// # Errors
    /// Exit 3: the file cannot be read to its end, or is no array.
    pub(crate) fn cut(file: &mut Opened, emit: &mut dyn FnMut(Self) -> Result<()>) -> Result<()> {
        if is_array(file.name()) {
            array::cut(file, &mut |values| emit(Self::Values(values)))
        } else {
            lines::cut(file, &mut |lines| emit(Self::Lines(lines)))
        }
    }
}

fn is_array(file: &str) -> bool {
    has_end(unpacked(file), ".json")
}

/// A field, or one within others: `meta.code`.
fn cell<'a>(object: &'a Map<String, Value>, column: &str) -> Cell<'a> {
    match object.get(column) {
        Some(Value::String(text)) => Cell::Text(Cow::Borrowed(text.as_str())),
        Some(Value::Null) => Cell::Null,
        Some(Value::Number(number)) => Cell::Number(number.to_string()),
        Some(Value::Array(_)) => Cell::Other("it is a list".to_owned()),
        Some(other) => Cell::Other(format!("it is {}", if other.is_object() { "an object" } else { "true or false" })),
        None => match column.split_once('.').map(|(first, rest)| (object.get(first), rest)) {
            Some((Some(Value::Object(inner)), rest)) => cell(inner, rest),
            _ => Cell::Missing,
        },
    }
}
