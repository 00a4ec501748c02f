//! The two fields of a row that is learned from.

use serde::{Deserialize, Serialize};

/// A field that is tokenised, embedded, read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Natural language.
    Text,
    /// Program text.
    Code,
}

impl Field {
    /// The column's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Code => "code",
        }
    }
}
