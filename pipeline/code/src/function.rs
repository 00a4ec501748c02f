//! A function, however it was read.

/// A function or method. Functions within functions are part of the outer one's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `Class.method`, `function`.
    pub name: String,
    /// Dedented. Of Python from `def` on, without docstring and decorators.
    pub code: String,
    /// The docstring's text, or that of the comment above; empty where there is none.
    pub docstring: String,
    /// First line, from 1.
    pub first_line: usize,
    /// Last line.
    pub last_line: usize,
    /// The parser could not read all of it.
    pub has_error: bool,
}

pub(crate) fn dedent(text: &str, indent: &str) -> String {
    let lines: Vec<&str> = text.split('\n').map(|line| line.strip_prefix(indent).unwrap_or(line)).collect();
    lines.join("\n")
}
