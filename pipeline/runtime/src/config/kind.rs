//! Tables that say by their `kind` what else they hold.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

/// Before and after the path of a value within a table whose kind was read first.
pub(super) const WITHIN: char = '\u{1f}';

/// Takes the `kind` out of a table that says by it what else it holds; `known` are the kinds.
///
/// # Errors
/// It has none, or an unknown one.
pub fn take_kind<'de, D: Deserializer<'de>>(deserializer: D, known: &[&str]) -> Result<(String, Table), D::Error> {
    let mut table = Table::deserialize(deserializer)?;
    let kind = match table.remove("kind") {
        Some(Value::String(kind)) => kind,
        Some(other) => return Err(D::Error::custom(format!("kind is a name, and not {other}"))),
        None => return Err(D::Error::missing_field("kind")),
    };
    if known.contains(&kind.as_str()) {
        return Ok((kind, table));
    }
    let known: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
    Err(D::Error::custom(format!("unknown variant `{kind}`, expected one of {}", known.join(", "))))
}

/// Reads the rest of such a table; an error says where in it the fault lies, which serde's own tags do not.
///
/// # Errors
/// An unknown key, or a value of the wrong type.
pub fn of_kind<T: DeserializeOwned, E: serde::de::Error>(table: Table) -> Result<T, E> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let path = error.path().to_string();
        E::custom(format!("{WITHIN}{path}{WITHIN}{}", error.into_inner()))
    })
}

/// The schema of a table whose `kind` is one of several, each with its own.
#[must_use]
pub fn schema_of_kinds(kinds: Vec<(&str, schemars::Schema)>) -> schemars::Schema {
    let with_kind = |(kind, mut schema): (&str, schemars::Schema)| {
        let object = schema.ensure_object();
        let properties = object.entry("properties").or_insert_with(|| serde_json::json!({}));
        properties["kind"] = serde_json::json!({ "const": kind });
        schema.to_value()
    };
    let kinds: Vec<serde_json::Value> = kinds.into_iter().map(with_kind).collect();
    schemars::json_schema!({ "oneOf": kinds })
}
