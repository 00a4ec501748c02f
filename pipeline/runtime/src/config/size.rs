//! Numbers of bytes.

use serde::Deserialize;
use toml::Value;

/// A number of bytes, as a whole number or with a unit: `512MiB`, `1.5GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ByteSize(pub u64);

impl schemars::JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["integer", "string"] })
    }
}

impl TryFrom<Value> for ByteSize {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Integer(bytes) => u64::try_from(bytes).map(Self).map_err(|_| format!("{bytes} is no size")),
            Value::String(text) => text.parse(),
            other => Err(format!("{other} is no size; write it as \"1GiB\"")),
        }
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = (text[..split].parse::<f64>(), text[split..].trim().to_ascii_lowercase());
        let units = ["", "b", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib"];
        let factor = [1e0, 1e0, 1e3, 1e6, 1e9, 1e12, 1024.0, 1_048_576.0, 1_073_741_824.0, 1_099_511_627_776.0];
        let factor = units.iter().position(|known| *known == unit).map(|at| factor[at]);
        match (number, factor) {
            (Ok(number), Some(factor)) => Ok(Self((number * factor) as u64)),
            _ => Err(format!("{text:?} is no size; write it as \"1GiB\"")),
        }
    }
}
