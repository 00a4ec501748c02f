//! Edits of conditions and branches.

use tree_sitter::{Node, Tree};

use crate::syntax::{Replacement, descendants};

/// `if c: A else: B` as `if not (c): B else: A`: the same meaning.
pub(super) fn inverted(source: &str, tree: &Tree) -> Vec<Vec<Replacement>> {
    two_way(tree)
        .into_iter()
        .map(|(condition, one, two)| {
            let mut site = swap(source, one, two);
            site.push(negate(source, condition));
            site
        })
        .collect()
}

/// `if c: A else: B` as `if c: B else: A`.
pub(super) fn swapped(source: &str, tree: &Tree) -> Vec<Vec<Replacement>> {
    two_way(tree).into_iter().map(|(_, one, two)| swap(source, one, two)).collect()
}

/// `if c:` as `if not (c):`, where there is no `else` to swap.
pub(super) fn negated(source: &str, tree: &Tree) -> Vec<Vec<Replacement>> {
    descendants(tree.root_node())
        .filter(|node| matches!(node.kind(), "if_statement" | "elif_clause"))
        .filter_map(|node| Some(vec![negate(source, node.child_by_field_name("condition")?)]))
        .collect()
}

/// `return True` as `return False`, and `return x` as `return not (x)` where `x` is a truth value.
pub(super) fn negated_returns(source: &str, tree: &Tree) -> Vec<Vec<Replacement>> {
    descendants(tree.root_node())
        .filter(|node| node.kind() == "return_statement")
        .filter_map(|node| {
            let value = node.named_child(0)?;
            match value.kind() {
                "true" => Some(vec![Replacement::of(value, "False")]),
                "false" => Some(vec![Replacement::of(value, "True")]),
                "comparison_operator" | "not_operator" | "boolean_operator" => Some(vec![negate(source, value)]),
                _ => None,
            }
        })
        .collect()
}

/// The condition and the two blocks of every `if` with an `else` and no `elif`.
fn two_way<'t>(tree: &'t Tree) -> Vec<(Node<'t>, Node<'t>, Node<'t>)> {
    descendants(tree.root_node())
        .filter(|node| node.kind() == "if_statement")
        .filter_map(|node| {
            let mut cursor = node.walk();
            let alternatives: Vec<Node<'t>> = node.children_by_field_name("alternative", &mut cursor).collect();
            let [alternative] = alternatives[..] else { return None };
            let two = (alternative.kind() == "else_clause").then(|| alternative.child_by_field_name("body"))??;
            let one = node.child_by_field_name("consequence")?;
            let same_indent = one.start_position().column == two.start_position().column;
            same_indent.then_some((node.child_by_field_name("condition")?, one, two))
        })
        .collect()
}

fn swap(source: &str, one: Node<'_>, two: Node<'_>) -> Vec<Replacement> {
    vec![Replacement::of(one, &source[two.byte_range()]), Replacement::of(two, &source[one.byte_range()])]
}

fn negate(source: &str, condition: Node<'_>) -> Replacement {
    Replacement::of(condition, format!("not ({})", &source[condition.byte_range()]))
}
