//! What a program is made of.

use std::num::NonZeroU32;

use crate::minhash::hash;

/// A word, string or mark of a program.
pub(crate) struct Token {
    pub(crate) hash: u64,
    /// The number of its name in the program, from 1, of a name that no object is asked for.
    pub(crate) name: Option<NonZeroU32>,
    /// The character that it is; 0 of a word, a string, and of what is not ASCII.
    pub(crate) mark: u8,
    /// It is written in letters: a name or a keyword.
    pub(crate) is_word: bool,
    /// It begins with `$`.
    pub(crate) is_variable: bool,
    pub(crate) begins_line: bool,
}

/// The tokens of a program; behind its end there is a token of nothing.
pub(crate) struct Tokens(pub(crate) Vec<Token>);

const NOTHING: Token = Token { hash: 0, name: None, mark: 0, is_word: false, is_variable: false, begins_line: false };

impl Tokens {
    pub(crate) fn at(&self, at: usize) -> &Token {
        self.0.get(at).unwrap_or(&NOTHING)
    }

    pub(crate) fn mark(&self, at: usize) -> u8 {
        self.at(at).mark
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Token {
    pub(crate) fn is_name(&self) -> bool {
        self.name.is_some()
    }
}

/// A language whose words and marks are known; of others nothing is taken for a binding that could be something else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Java,
    JavaScript,
    Go,
    Php,
    Ruby,
    Other,
}

impl Language {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "python" => Self::Python,
            "java" => Self::Java,
            "javascript" => Self::JavaScript,
            "go" => Self::Go,
            "php" => Self::Php,
            "ruby" => Self::Ruby,
            _ => Self::Other,
        }
    }

    /// Whether `#` begins a comment.
    pub(crate) fn has_hash(self) -> bool {
        matches!(self, Self::Python | Self::Ruby | Self::Php)
    }

    /// Whether `//` and `/*` begin comments.
    pub(crate) fn has_slashes(self) -> bool {
        !matches!(self, Self::Python | Self::Ruby)
    }
}

/// The words that bind names, by their hashes.
pub(crate) mod word {
    use super::hash;

    pub(crate) const AS: u64 = hash(b"as");
    pub(crate) const CATCH: u64 = hash(b"catch");
    pub(crate) const CONST: u64 = hash(b"const");
    pub(crate) const DEF: u64 = hash(b"def");
    pub(crate) const DO: u64 = hash(b"do");
    pub(crate) const FN: u64 = hash(b"fn");
    pub(crate) const FOR: u64 = hash(b"for");
    pub(crate) const FOREACH: u64 = hash(b"foreach");
    pub(crate) const FUNC: u64 = hash(b"func");
    pub(crate) const FUNCTION: u64 = hash(b"function");
    pub(crate) const GLOBAL: u64 = hash(b"global");
    pub(crate) const IN: u64 = hash(b"in");
    pub(crate) const LAMBDA: u64 = hash(b"lambda");
    pub(crate) const LET: u64 = hash(b"let");
    pub(crate) const NONLOCAL: u64 = hash(b"nonlocal");
    pub(crate) const OF: u64 = hash(b"of");
    pub(crate) const THIS: u64 = hash(b"$this");
    pub(crate) const VAR: u64 = hash(b"var");
}
