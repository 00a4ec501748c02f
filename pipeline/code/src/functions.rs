//! The functions and methods of a module.

use tree_sitter::Node;

use crate::docstring::{clean, cut, docstring_of};
use crate::syntax::{Replacement, SyntaxError, descendants_where, parse, replace};

/// A function or method. Functions within functions are part of the outer one's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `Class.method`, `function`.
    pub name: String,
    /// From `def` on, dedented, without docstring and decorators.
    pub code: String,
    /// The docstring's text; empty where there is none.
    pub docstring: String,
    /// First line, from 1.
    pub first_line: usize,
    /// Last line.
    pub last_line: usize,
}

/// Extracts the functions and methods of a module, in the order of the text.
///
/// # Errors
/// The module is no valid Python.
pub fn functions(source: &str) -> Result<Vec<Function>, SyntaxError> {
    let tree = parse(source)?;
    let outside = |node: Node<'_>| node.kind() != "function_definition" && node.kind() != "lambda";
    let found = descendants_where(tree.root_node(), outside).filter(|node| node.kind() == "function_definition");
    Ok(found.filter_map(|node| function(source, node)).collect())
}

fn function(source: &str, node: Node<'_>) -> Option<Function> {
    let docstring = docstring_of(node);
    let line_start = source[..node.start_byte()].rfind('\n').map_or(0, |i| i + 1);
    let indent: String = source[line_start..node.start_byte()].chars().take_while(|c| c.is_whitespace()).collect();
    let whole = &source[node.byte_range()];
    let code = match docstring {
        None => dedent(whole, &indent),
        Some((body, statement)) => {
            dedent(&replace_within(whole, node.start_byte(), cut(source, body, statement)), &indent)
        }
    };
    Some(Function {
        name: qualified_name(source, node)?,
        code: code.trim_end().to_owned(),
        docstring: docstring.map(|(_, statement)| clean(&source[statement.byte_range()])).unwrap_or_default(),
        first_line: node.start_position().row + 1,
        last_line: node.end_position().row + 1,
    })
}

/// Makes a replacement of the whole source in the part of it that begins at `start`; the part may end before it does.
fn replace_within(part: &str, start: usize, replacement: Replacement) -> String {
    let range = replacement.range.start - start..(replacement.range.end - start).min(part.len());
    replace(part, vec![Replacement { range, ..replacement }])
}

fn dedent(text: &str, indent: &str) -> String {
    let lines: Vec<&str> = text.split('\n').map(|line| line.strip_prefix(indent).unwrap_or(line)).collect();
    lines.join("\n")
}

fn qualified_name(source: &str, node: Node<'_>) -> Option<String> {
    let mut parts = Vec::new();
    let mut at = Some(node);
    while let Some(node) = at {
        if matches!(node.kind(), "function_definition" | "class_definition") {
            parts.push(&source[node.child_by_field_name("name")?.byte_range()]);
        }
        at = node.parent();
    }
    parts.reverse();
    Some(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_methods_are_found() {
        let source = "import os\n\ndef outer(a):\n    def inner(): return 1\n    return inner\n\nclass C:\n    @property\n    def m(self):\n        \"\"\"Doc.\"\"\"\n        if self:\n            return 2\n\n    async def n(self): pass\n";
        let found = functions(source).unwrap();
        let names: Vec<&str> = found.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["outer", "C.m", "C.n"]);
        assert_eq!(found[1].code, "def m(self):\n    if self:\n        return 2");
        assert_eq!((found[1].docstring.as_str(), found[1].first_line, found[1].last_line), ("Doc.", 9, 12));
        assert_eq!(found[2].code, "async def n(self): pass");
    }

    #[test]
    fn deeply_nested_source_does_not_overflow() {
        let deep = format!("x = {}1{}\n", "(".repeat(20_000), ")".repeat(20_000));
        let _ = functions(&deep);
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(functions("x = 1\ny = = 2\n").unwrap_err().line, 2);
    }
}
