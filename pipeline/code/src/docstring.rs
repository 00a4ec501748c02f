//! Cutting the docstring out of a function: a model that is to write code must not read its answer's description there.

use std::borrow::Cow;
use std::ops::Range;

use ruff_python_ast::{Expr, Stmt};
use ruff_python_parser::{parse_expression, parse_module};
use tree_sitter::Node;

use crate::first_string::{Head, head};
use crate::syntax::{Replacement, SyntaxError, is_shallow, parse};

/// The docstring in the source of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docstring {
    literal: Range<usize>,
    cut: Replacement,
}

/// Finds the docstring of the function that `source` holds. Where the function's head is as usual the rest is not looked
/// at, and may be no valid Python.
///
/// # Errors
/// The head is unusual and the source no valid Python.
pub fn find_docstring(source: &str) -> Result<Option<Docstring>, SyntaxError> {
    match head(source) {
        Head::NoDocstring => Ok(None),
        Head::Docstring { literal, lines, alone } => {
            let (range, text) = if alone { (literal.clone(), "pass") } else { (lines, "") };
            Ok(Some(Docstring { literal, cut: Replacement { range, text: text.to_owned() } }))
        }
        Head::Unusual => parse_and_find(source),
    }
}

impl Docstring {
    /// Its text as `ast.get_docstring` of Python gives it. `source` is what it was found in.
    #[must_use]
    pub fn text(&self, source: &str) -> String {
        clean(&source[self.literal.clone()])
    }

    /// Cuts it out of `source`; a function whose body is only its docstring gets `pass` in its place.
    pub fn cut_from(&self, source: &mut String) {
        source.replace_range(self.cut.range.clone(), &self.cut.text);
    }
}

/// The first paragraph of a docstring: as far as the first empty line, or the first that begins with a tag, such as
/// Javadoc's `@param`.
#[must_use]
pub fn first_paragraph(text: &str) -> &str {
    let text = text.trim();
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('@') {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

fn parse_and_find(source: &str) -> Result<Option<Docstring>, SyntaxError> {
    if let Some((suite, shift)) = suite_of(source) {
        let body = suite.iter().find_map(|statement| match statement {
            Stmt::FunctionDef(function) => Some(&function.body),
            _ => None,
        });
        let found = body.and_then(|body| Some((body.len(), in_body(body)?)));
        return Ok(found.map(|(statements, (literal, _))| {
            let literal = literal.start - shift..literal.end - shift;
            Docstring { cut: cut_statement(source, &literal, statements == 1), literal }
        }));
    }
    let tree = parse(source)?;
    let mut cursor = tree.walk();
    let first = tree.root_node().named_children(&mut cursor).find_map(definition);
    let found = first.and_then(|function| docstring_of(source, function));
    Ok(found.map(|(body, statement)| Docstring { literal: statement.byte_range(), cut: cut(source, body, statement) }))
}

/// The statements of a piece of Python, which may be indented as a whole, and by how much the places in them lie behind those in
/// `source`; nothing where Ruff cannot read it.
pub(crate) fn suite_of(source: &str) -> Option<(Vec<Stmt>, usize)> {
    const NEST: &str = "if 1:\n";
    if !is_shallow(source) {
        return None;
    }
    let first = source.lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let is_indented = first.is_some_and(|line| line.starts_with([' ', '\t']));
    let (text, shift) = match is_indented {
        true => (Cow::Owned(format!("{NEST}{source}")), NEST.len()),
        false => (Cow::Borrowed(source), 0),
    };
    let mut suite: Vec<Stmt> = parse_module(&text).ok()?.into_suite().into_iter().collect();
    if is_indented {
        let Stmt::If(nest) = suite.swap_remove(0) else { return None };
        suite = nest.body.into_iter().collect();
    }
    Some((suite, shift))
}

/// The docstring of a body: its place, and its text. Strings side by side are one; formatted ones and bytes are none.
pub(crate) fn in_body(body: &[Stmt]) -> Option<(Range<usize>, String)> {
    let Some(Stmt::Expr(statement)) = body.first() else { return None };
    let Expr::StringLiteral(string) = &*statement.value else { return None };
    let range = statement.range.start().to_usize()..statement.range.end().to_usize();
    Some((range, clean_text(string.value.to_str())))
}

/// The function that a statement defines, decorated or not.
fn definition(node: Node<'_>) -> Option<Node<'_>> {
    match node.kind() {
        "function_definition" => Some(node),
        "decorated_definition" => node.child_by_field_name("definition").filter(|n| n.kind() == "function_definition"),
        _ => None,
    }
}

/// The body of a function and the statement in it that is its docstring.
pub(crate) fn docstring_of<'t>(source: &str, function: Node<'t>) -> Option<(Node<'t>, Node<'t>)> {
    let body = function.child_by_field_name("body")?;
    let mut cursor = body.walk();
    let statement = body.named_children(&mut cursor).find(|node| node.kind() != "comment")?;
    let mut inner = statement.named_child(0)?;
    while inner.kind() == "parenthesized_expression" {
        inner = inner.named_child(0)?;
    }
    let prefix = source[inner.byte_range()].split(['"', '\'']).next().unwrap_or_default();
    let is_text = statement.kind() == "expression_statement"
        && statement.named_child_count() == 1
        && matches!(inner.kind(), "string" | "concatenated_string")
        && !prefix.contains(['b', 'B', 'f', 'F']);
    is_text.then_some((body, statement))
}

pub(crate) fn cut(source: &str, body: Node<'_>, statement: Node<'_>) -> Replacement {
    let mut cursor = body.walk();
    let statements = body.named_children(&mut cursor).filter(|node| node.kind() != "comment").count();
    cut_statement(source, &statement.byte_range(), statements == 1)
}

/// How to cut a docstring out: with its lines, or where something else stands on them or it stands `alone` in its body, by
/// `pass` in its place.
pub(crate) fn cut_statement(source: &str, literal: &Range<usize>, alone: bool) -> Replacement {
    let line_start = source[..literal.start].rfind('\n').map_or(0, |i| i + 1);
    let line_end = source[literal.end..].find('\n').map_or(source.len(), |i| literal.end + i + 1);
    let before = &source[line_start..literal.start];
    let after = source[literal.end..line_end].trim();
    if alone || !before.trim().is_empty() || !(after.is_empty() || after.starts_with('#')) {
        return Replacement { range: literal.clone(), text: "pass".to_owned() };
    }
    Replacement { range: line_start..line_end, text: String::new() }
}

/// The text of a string literal, or of several side by side, in brackets or not, its indentation removed.
pub(crate) fn clean(literal: &str) -> String {
    // In brackets it may go on in the next line.
    let parsed = parse_expression(&format!("({literal})")).ok().map(|parsed| parsed.into_expr());
    match parsed {
        Some(Expr::StringLiteral(string)) => clean_text(string.value.to_str()),
        // Python 2's own forms, such as `ur""`.
        _ => clean_text(&unquoted(literal)),
    }
}

/// Removes indentation as `inspect.cleandoc` does, which `ast.get_docstring` calls (PEP 257): tabs are eight columns wide, the
/// margin is the least of all lines but the first, and empty lines at both ends go.
fn clean_text(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(expand_tabs).collect();
    let (first, rest) = lines.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let margin = rest.iter().filter(|line| !line.trim_start().is_empty()).map(|line| indent(line)).min();
    let without = |line: &str| -> String { line.chars().skip(margin.unwrap_or(0)).collect() };
    let mut cleaned: Vec<String> =
        std::iter::once(first.trim_start().to_owned()).chain(rest.iter().map(|l| without(l))).collect();
    while cleaned.last().is_some_and(String::is_empty) {
        cleaned.pop();
    }
    let empty = cleaned.iter().take_while(|line| line.is_empty()).count();
    cleaned[empty..].join("\n")
}

/// Characters of white space that a line begins with.
fn indent(line: &str) -> usize {
    line.chars().take_while(|c| c.is_whitespace()).count()
}

/// `str.expandtabs`: a tab goes on to the next column that eight divides.
fn expand_tabs(line: &str) -> String {
    if !line.contains('\t') {
        return line.to_owned();
    }
    let (mut out, mut column) = (String::with_capacity(line.len() + 16), 0);
    for c in line.chars() {
        match c {
            '\t' => {
                let width = 8 - column % 8;
                out.extend(std::iter::repeat_n(' ', width));
                column += width;
            }
            '\r' => {
                out.push(c);
                column = 0;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

/// The content of a literal that no parser takes: without its quotes, the commonest escapes read.
fn unquoted(literal: &str) -> String {
    let quote = literal.find(['"', '\'']).unwrap_or(0);
    let (prefix, rest) = literal.split_at(quote);
    let marks = ["\"\"\"", "'''", "\"", "'"];
    let mark = marks.into_iter().find(|mark| rest.starts_with(mark)).unwrap_or("");
    let inner = rest.strip_prefix(mark).unwrap_or(rest);
    let inner = inner.strip_suffix(mark).unwrap_or(inner);
    if prefix.to_ascii_lowercase().contains('r') { inner.to_owned() } else { unescape(inner) }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('\n') => {}
            Some(c @ ('\\' | '\'' | '"')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_end_at_empty_lines_and_tags() {
        assert_eq!(first_paragraph("\n First  line\n of it.\n\n Args: x\n"), "First  line\n of it.\n");
        assert_eq!(first_paragraph("Adds.\n @param a one"), "Adds.\n");
        assert_eq!((first_paragraph("  "), first_paragraph("@return one")), ("", ""));
    }

    fn cut_text(source: &str) -> (String, Option<String>) {
        let mut code = source.to_owned();
        let docstring = find_docstring(source).unwrap();
        docstring.iter().for_each(|docstring| docstring.cut_from(&mut code));
        (code, docstring.map(|docstring| docstring.text(source)))
    }

    #[test]
    fn docstrings_are_cut() {
        let source = "def f(a):\n    '''First line.\n\n    More,\n      indented.\n    '''\n    return a\n";
        let (code, docstring) = cut_text(source);
        assert_eq!(code, "def f(a):\n    return a\n");
        assert_eq!(docstring.unwrap(), "First line.\n\nMore,\n  indented.");
    }

    #[test]
    fn a_body_is_never_left_empty() {
        assert_eq!(cut_text("def f():\n    \"doc\"\n").0, "def f():\n    pass\n");
        assert_eq!(cut_text("def f(): \"doc\"").0, "def f(): pass");
        assert_eq!(cut_text("def f():\n    \"doc\"; return 1\n").0, "def f():\n    pass; return 1\n");
    }

    #[test]
    fn what_is_no_docstring_stays() {
        for source in ["def f():\n    return 'x'\n", "def f():\n    x = 'doc'\n", "x = 1\n"] {
            assert_eq!(cut_text(source), (source.to_owned(), None));
        }
        assert_eq!(find_docstring("def f(:\n  'a\n").unwrap_err().line, 1);
    }

    /// Reading the head alone gives what parsing all of it gives.
    #[test]
    fn heads_say_what_the_parser_says() {
        let signatures = [
            "def f(a, b: dict[str, int] = {'a': 1}) -> 'x:y':",
            "async def f(self): # note: \"here\"",
            "@wrap(lambda x: \"a:b\")\n@property\ndef f(\n    a,  # (\n    b=\"\\\"):\",\n):",
            "def f(a):",
        ];
        let firsts = [
            "",
            "    \"\"\"One.\n\n    Two 'x' \\\"\"\" y.\n    \"\"\"\n",
            "    # note\n\n    'one'  # trailing\n",
            "    r'\\d'\n",
            "    'one' 'two'\n",
            "    'one' % a\n",
            "    'one'; a = 1\n",
            "    b'one'\n",
            "    x['key'] = 1\n",
            "    f'one'\n",
            "    \"\"\"\"quoted\" text\"\"\"\n",
        ];
        let rests = ["", "    return a\n", "\n    # only a note\n", "    if a:\n        return 'x'\n"];
        let mut usual = 0;
        for signature in signatures {
            for (first, rest) in firsts.iter().flat_map(|first| rests.iter().map(move |rest| (first, rest))) {
                let source = format!("{signature}\n{first}{rest}");
                let Ok(parsed) = parse_and_find(&source) else { continue };
                assert_eq!(find_docstring(&source).unwrap(), parsed, "{source}");
                usual += usize::from(head(&source) != Head::Unusual);
            }
        }
        assert!(usual > 70, "{usual}");
    }

    /// What Python's own `ast.get_docstring` (3.11) gives.
    #[test]
    fn docstrings_are_pythons_own() {
        for (source, text) in [
            ("def f():\n    \"One \" \"and two.\"\n    return 1\n", Some("One and two.")),
            ("def f():\n    (\"One \"\n     \"and two.\")\n    return 1\n", Some("One and two.")),
            ("def f():\n    \"One \" \\\n    \"and two.\"\n    return 1\n", Some("One and two.")),
            ("    def f(self):\n        (\"One.\")\n        return 1\n", Some("One.")),
            ("def f():\n    f\"One {f}.\"\n", None),
            ("def f():\n    b\"One.\"\n", None),
            ("def f():\n    \"\"\"One. \n\n\ta\tb\n    \"\"\"\n", Some("One. \n\na       b")),
            (
                "def f():\n    \"\"\"One.\n\u{3000}\u{3000}Wide.\n    More.\n    \"\"\"\n",
                Some("One.\nWide.\n  More.\n  "),
            ),
            ("def f():\n    \"\"\"\n\n    One.\n\n    \"\"\"\n", Some("One.")),
        ] {
            let found = find_docstring(source).unwrap();
            assert_eq!(found.map(|found| found.text(source)).as_deref(), text, "{source}");
        }
        let code = cut_text("def f():\n    (\"One \"\n     \"and two.\")\n    return 1\n").0;
        assert_eq!(code, "def f():\n    return 1\n");
        assert_eq!(
            cut_text("    def f(self):\n        \"a\" \"b\"\n        return 1\n").0,
            "    def f(self):\n        return 1\n"
        );
    }

    #[test]
    fn prefixes_and_escapes_are_read() {
        assert_eq!(clean(r#"r"a\n""#), r"a\n");
        assert_eq!(clean(r#""a\tb\"""#), "a       b\"");
        assert_eq!(clean("u'''x'''"), "x");
        assert_eq!(clean(r#""caf\u00e9 \x41 \N{BULLET}""#), "café A \u{2022}");
        assert_eq!(clean("ur'x\\d'"), "x\\d");
    }

    const PYTHON: &[&str] = &[
        "def f(a):\n    \"\"\"Say it.\n\n    At length.\n    \"\"\"\n    return a\n",
        "def g():\n\tr'''x\\n''' 'y'\n\tpass\n",
        "async def h(): (\"one\"\n  \"two\"); return 1\n",
        "class C:\n    def m(self):\n        f'no {1}'\n        b'no'\n",
    ];
    const WORDS: &[&str] =
        &["\"\"\"", "'''", "'", "\"", "\\", "\n", "\t", "    ", "def ", "é", "(", ")", ";", ":", "#", "\r\n", "\u{c}"];

    proptest::proptest! {
        /// However a function is damaged: nothing panics, and what is cut out leaves no more than it found.
        #[test]
        fn fuzz_docstring(source in codepair_mutations::mutated_text(PYTHON, WORDS)) {
            if let Ok(Some(docstring)) = find_docstring(&source) {
                let mut code = source.clone();
                let _ = docstring.text(&source);
                docstring.cut_from(&mut code);
                proptest::prop_assert!(code.len() <= source.len() + "pass".len());
            }
        }

        /// However a module is damaged, its functions are found or it is refused, in any language.
        #[test]
        fn fuzz_functions(source in codepair_mutations::mutated_text(PYTHON, WORDS)) {
            for language in crate::Language::ALL {
                if let Ok(functions) = crate::functions(language, &source) {
                    let lines = source.lines().count() + 1;
                    let within =
                        |f: &crate::Function| f.first_line >= 1 && f.first_line <= f.last_line && f.last_line <= lines;
                    proptest::prop_assert!(functions.iter().all(within));
                }
            }
        }
    }
}
