//! What a program is made of.

/// A word, string or mark of a program.
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) hash: u64,
    /// It is written in letters: a name or a keyword.
    pub(crate) is_word: bool,
    /// A name that no object is asked for.
    pub(crate) is_name: bool,
    pub(crate) begins_line: bool,
}
