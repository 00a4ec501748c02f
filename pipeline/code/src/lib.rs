//! Source code: functions and docstrings of six languages; identifiers; edits of Python that keep or change its meaning.

mod commented;
mod docstring;
mod edits;
mod emptiness;
mod first_string;
mod function;
mod functions;
mod identifiers;
mod language;
mod syntax;

pub use docstring::{Docstring, find_docstring, first_paragraph};
pub use edits::{EDITS, Edit, Edited, Meaning, edit};
pub use emptiness::holds_code;
pub use function::Function;
pub use functions::functions;
pub use identifiers::words;
pub use language::Language;
pub use syntax::SyntaxError;
