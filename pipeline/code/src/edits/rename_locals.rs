//! Renaming local variables: the same meaning under other names.

use std::collections::{BTreeMap, BTreeSet};

use tree_sitter::{Node, Tree};

use crate::syntax::{Replacement, descendants, descendants_where};

/// New names, taken in order; then `local_1`, `local_2`, …
const NAMES: &[&str] = &[
    "value", "item", "result", "data", "current", "entry", "element", "count", "total", "output", "temp", "index",
    "left", "right", "part", "found", "answer", "number", "buffer", "state",
];

/// Calls that see variables by name.
const REFLECTION: &[&str] = &["locals", "globals", "vars", "eval", "exec", "dir", "compile"];

/// One site a function: all its locals renamed at once.
pub(super) fn sites(source: &str, tree: &Tree) -> Vec<Vec<Replacement>> {
    let root = tree.root_node();
    let outermost = |node: Node<'_>| node.kind() != "function_definition";
    descendants_where(root, outermost)
        .filter(|node| node.kind() == "function_definition")
        .map(|function| rename(source, root, function))
        .filter(|site| !site.is_empty())
        .collect()
}

fn rename(source: &str, root: Node<'_>, function: Node<'_>) -> Vec<Replacement> {
    let text = |node: Node<'_>| &source[node.byte_range()];
    if descendants(function).any(|node| defies_renaming(node, text(node))) {
        return Vec::new();
    }
    let taken: BTreeSet<&str> = descendants(root).filter(|n| n.kind() == "identifier").map(text).collect();
    let mut names = NAMES.iter().map(|n| (*n).to_owned()).chain((1..).map(|n| format!("local_{n}")));
    let fixed = names_that_others_see(source, function);
    let mut new: BTreeMap<&str, String> = BTreeMap::new();
    for name in bound(source, function) {
        if !fixed.contains(name)
            && !new.contains_key(name)
            && let Some(fresh) = names.find(|n| !taken.contains(n.as_str()))
        {
            new.insert(name, fresh);
        }
    }
    descendants(function)
        .filter(|node| node.kind() == "identifier" && !is_label(*node))
        .filter_map(|node| Some(Replacement::of(node, new.get(text(node))?.clone())))
        .collect()
}

/// Reflection, `match`, and `f"{x=}"`, which prints the name.
fn defies_renaming(node: Node<'_>, text: &str) -> bool {
    match node.kind() {
        "identifier" => REFLECTION.contains(&text),
        "match_statement" | "exec_statement" => true,
        "interpolation" => text.trim_end_matches(['}', ' ']).ends_with('='),
        _ => false,
    }
}

/// Variables that the function itself binds, in order: not those of functions and classes within it.
fn bound<'s>(source: &'s str, function: Node<'_>) -> Vec<&'s str> {
    let Some(body) = function.child_by_field_name("body") else { return Vec::new() };
    let own = |node: Node<'_>| {
        !matches!(
            node.kind(),
            "function_definition"
                | "class_definition"
                | "lambda"
                | "list_comprehension"
                | "set_comprehension"
                | "dictionary_comprehension"
                | "generator_expression"
        )
    };
    let targets = descendants_where(body, own).filter_map(|node| match node.kind() {
        "assignment" | "for_statement" => node.child_by_field_name("left"),
        "named_expression" => node.child_by_field_name("name"),
        "as_pattern" => node.child_by_field_name("alias"),
        _ => None,
    });
    let in_target = |node: Node<'_>| !matches!(node.kind(), "attribute" | "subscript" | "call");
    let names = targets.flat_map(|target| {
        descendants_where(target, in_target).filter(|n| n.kind() == "identifier").collect::<Vec<_>>()
    });
    names.map(|node| &source[node.byte_range()]).filter(|name| !name.starts_with("__")).collect()
}

/// Names that must stay: parameters, globals, imports, functions, classes, and what classes bind.
fn names_that_others_see<'s>(source: &'s str, function: Node<'_>) -> BTreeSet<&'s str> {
    let seen = |node: &Node<'_>| {
        matches!(
            node.kind(),
            "parameters"
                | "lambda_parameters"
                | "global_statement"
                | "nonlocal_statement"
                | "import_statement"
                | "import_from_statement"
                | "future_import_statement"
                | "class_definition"
        )
    };
    let definitions = descendants(function)
        .filter(|n| n.kind() == "function_definition")
        .filter_map(|n| n.child_by_field_name("name"));
    let inside = descendants(function).filter(seen).flat_map(|n| descendants(n).collect::<Vec<_>>());
    inside.chain(definitions).filter(|n| n.kind() == "identifier").map(|n| &source[n.byte_range()]).collect()
}

/// An identifier that names an attribute or a keyword argument, not a variable.
fn is_label(node: Node<'_>) -> bool {
    let Some(parent) = node.parent() else { return false };
    let field = match parent.kind() {
        "attribute" => "attribute",
        "keyword_argument" => "name",
        _ => return false,
    };
    parent.child_by_field_name(field) == Some(node)
}
