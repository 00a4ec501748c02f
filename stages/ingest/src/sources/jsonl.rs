//! JSON lines, and files of one JSON array, of any shape, their fields mapped in the config.

use std::borrow::Cow;

use anyhow::Result;
use codepair_runtime::Config;
use serde_json::{Map, Value};

use super::Kind;
use super::lines::{self, Lines};
use super::mapped::{Cell, Origin, mapped};
use crate::files::{Files, Opened, file_name, unpacked};
use crate::found::Found;
use crate::split::Shares;

mapped! {
    /// A file, folder or archive of `.jsonl`, or a `.json` that holds one array, packed or not.
    pub struct Jsonl {}
}

impl Kind for Jsonl {
    type Piece = Lines;

    fn files(&self, config: &Config) -> Result<Files> {
        // In a folder of rows many a `.json` is something else.
        let include = if is_array(file_name(&self.path)) { "**/*.json" } else { "**/*.jsonl" };
        self.find(config, &[include])
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    fn shares(&self) -> Option<Shares> {
        self.split.is_none().then_some(self.shares)
    }

    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Lines) -> Result<()>) -> Result<()> {
        if is_array(file.name()) { lines::whole(file, emit) } else { lines::cut(file, emit) }
    }

    fn rows(&self, lines: Lines) -> Result<Vec<Found>> {
        let origin = Origin { file: &lines.file, split: lines.split };
        let row = |place: String, object: Map<String, Value>| {
            self.mapping().row(origin, || place, |column| cell(&object, column))
        };
        if is_array(&lines.file) {
            return lines::parse_array(&lines, row);
        }
        // Where a field within others is named, the whole outer one is wanted, and left to the parser.
        let mut names = self.columns.names();
        let outer: Vec<&str> = names.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        names.extend(outer);
        lines::parse_fields(&lines, &names, row)
    }
}

fn is_array(file: &str) -> bool {
    unpacked(file).ends_with(".json")
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
