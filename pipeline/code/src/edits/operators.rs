//! Edits of operators.

use tree_sitter::{Node, Tree};

use crate::syntax::{Replacement, descendants};

/// A comparison turned into its opposite: `<` as `>=`, `==` as `!=`, `in` as `not in`.
pub(super) fn comparisons(_source: &str, tree: &Tree) -> Vec<Vec<Replacement>> {
    sites(tree, "comparison_operator", |operator| {
        Some(match operator {
            "<" => ">=",
            ">=" => "<",
            ">" => "<=",
            "<=" => ">",
            "==" => "!=",
            "!=" => "==",
            "in" => "not in",
            "not in" => "in",
            "is" => "is not",
            "is not" => "is",
            _ => return None,
        })
    })
}

/// An arithmetic operator turned into its inverse: `+` as `-`, `*` as `//`.
pub(super) fn arithmetic(_source: &str, tree: &Tree) -> Vec<Vec<Replacement>> {
    sites(tree, "binary_operator", |operator| {
        Some(match operator {
            "+" => "-",
            "-" => "+",
            "*" => "+",
            "/" | "//" | "**" => "*",
            "%" => "//",
            _ => return None,
        })
    })
}

fn sites(tree: &Tree, kind: &str, flip: fn(&str) -> Option<&'static str>) -> Vec<Vec<Replacement>> {
    descendants(tree.root_node())
        .filter(|node| node.kind() == kind)
        .flat_map(|node| {
            let mut cursor = node.walk();
            let operators: Vec<Node<'_>> = node.children(&mut cursor).filter(|child| !child.is_named()).collect();
            operators.into_iter().filter_map(|o| Some(vec![Replacement::of(o, flip(o.kind())?)])).collect::<Vec<_>>()
        })
        .collect()
}
