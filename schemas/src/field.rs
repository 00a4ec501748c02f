//! The fields of a row that is learned from or searched.

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

/// A field of what is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DocumentField {
    /// The qualified name.
    Name,
    /// Natural language.
    Text,
    /// Program text.
    Code,
}

impl DocumentField {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Name, Self::Text, Self::Code];

    /// As a config names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Text => "text",
            Self::Code => "code",
        }
    }

    /// The columns of a token table that hold its tokens and their number.
    #[must_use]
    pub fn token_columns(self) -> [&'static str; 2] {
        match self {
            Self::Name => ["name_tokens", "name_length"],
            Self::Text => ["text", "text_length"],
            Self::Code => ["code", "code_length"],
        }
    }
}

impl From<Field> for DocumentField {
    fn from(field: Field) -> Self {
        match field {
            Field::Text => Self::Text,
            Field::Code => Self::Code,
        }
    }
}
