//! Python source by tree-sitter: functions, docstrings, identifiers, edits that keep or change the meaning.

mod docstring;
mod edits;
mod first_string;
mod functions;
mod identifiers;
mod syntax;

pub use docstring::{Docstring, find_docstring};
pub use edits::{EDITS, Edit, Edited, Meaning, edit};
pub use functions::{Function, functions};
pub use identifiers::words;
pub use syntax::{SyntaxError, parses};
