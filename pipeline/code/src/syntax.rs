//! The syntax tree, and changes to its text.

use std::cell::RefCell;
use std::ops::Range;

use tree_sitter::{Language, Node, Parser, Tree};

use crate::first_string::string_end;

/// Source that is not valid; lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in line {line}")]
pub struct SyntaxError {
    /// The first line that cannot be parsed.
    pub line: usize,
}

/// Whether a module nests no deeper than people write. Ruff's parser and its tree recurse, and the stack has an end; what
/// is counted here is more than the depth, so that some flat but long statements go the slow way too.
pub(crate) fn is_shallow(source: &str) -> bool {
    const BRACKETS: usize = 200;
    const INDENT: usize = 200;
    const OPERATORS: usize = 10_000;
    let bytes = source.as_bytes();
    let (mut brackets, mut operators, mut indent, mut is_start, mut at) = (0usize, 0usize, 0usize, true, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        is_start = is_start && matches!(byte, b' ' | b'\t');
        match byte {
            b'\n' => {
                (indent, is_start) = (0, true);
                if brackets == 0 {
                    operators = 0;
                }
            }
            b'#' => at += memchr::memchr(b'\n', &bytes[at..]).unwrap_or(bytes.len() - at),
            b'"' | b'\'' => match string_end(bytes, at - 1) {
                Some(end) => at = end,
                None => return false,
            },
            b' ' | b'\t' if is_start => indent += 1,
            b'(' | b'[' | b'{' => brackets += 1,
            b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
            // A list of numbers is long and flat.
            b',' => operators = operators.saturating_sub(8),
            b' ' | b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'&' | b'|' | b'^' | b'<' | b'>' | b'=' | b'@' => {
                operators += 1;
            }
            _ => {}
        }
        if brackets > BRACKETS || operators > OPERATORS || (!is_start && indent > INDENT) {
            return false;
        }
    }
    true
}

/// Parses Python.
pub(crate) fn parse(source: &str) -> Result<Tree, SyntaxError> {
    let tree = parse_as(&tree_sitter_python::LANGUAGE.into(), source)?;
    valid(&tree)?;
    Ok(tree)
}

/// Parses any language; what cannot be parsed are nodes of errors in the tree.
pub(crate) fn parse_as(grammar: &Language, source: &str) -> Result<Tree, SyntaxError> {
    thread_local! {
        static PARSER: RefCell<Parser> = RefCell::new(Parser::new());
    }
    PARSER.with_borrow_mut(|parser| {
        // Setting the language again costs nothing, and the grammar is linked in, so it always fits.
        let fits = parser.set_language(grammar).is_ok();
        let tree = if fits { parser.parse(source, None) } else { None };
        tree.ok_or(SyntaxError { line: 1 })
    })
}

/// That a tree has no errors.
pub(crate) fn valid(tree: &Tree) -> Result<(), SyntaxError> {
    if !tree.root_node().has_error() {
        return Ok(());
    }
    let error = descendants(tree.root_node()).find(|node| node.is_error() || node.is_missing());
    Err(SyntaxError { line: error.map_or(1, |node| node.start_position().row + 1) })
}

/// All nodes below and with `root`, in the order of the text. No recursion: hostile input nests deeply.
pub(crate) fn descendants(root: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    descendants_where(root, |_| true)
}

/// As [`descendants`], without going into nodes for which `enter` is false (these are still yielded).
pub(crate) fn descendants_where<'t>(
    root: Node<'t>,
    enter: impl Fn(Node<'t>) -> bool,
) -> impl Iterator<Item = Node<'t>> {
    let mut stack = vec![root];
    std::iter::from_fn(move || {
        let node = stack.pop()?;
        if enter(node) {
            let mut cursor = node.walk();
            let children: Vec<Node<'t>> = node.children(&mut cursor).collect();
            stack.extend(children.into_iter().rev());
        }
        Some(node)
    })
}

/// A piece of text to put in place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replacement {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
}

impl Replacement {
    pub(crate) fn of(node: Node<'_>, text: impl Into<String>) -> Self {
        Self { range: node.byte_range(), text: text.into() }
    }
}

/// Applies replacements that do not overlap.
pub(crate) fn replace(source: &str, mut replacements: Vec<Replacement>) -> String {
    replacements.sort_by_key(|r| r.range.start);
    let mut out = String::with_capacity(source.len());
    let mut end = 0;
    for replacement in replacements {
        out.push_str(&source[end..replacement.range.start]);
        out.push_str(&replacement.text);
        end = replacement.range.end;
    }
    out.push_str(&source[end..]);
    out
}
