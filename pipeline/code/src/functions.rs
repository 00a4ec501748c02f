//! The functions and methods of a module.

use ruff_python_ast::{ExceptHandler, Stmt, StmtFunctionDef};
use ruff_python_parser::parse_module;
use tree_sitter::Node;

use crate::commented;
use crate::docstring::{clean, cut, cut_statement, docstring_of, in_body};
use crate::function::{Function, dedent};
use crate::language::Language;
use crate::syntax::{Replacement, SyntaxError, descendants_where, is_shallow, parse, replace};

/// Extracts the functions and methods of a module, in the order of the text.
///
/// Python is read by Ruff's parser, several times faster than tree-sitter; it recurses, and wants a stack of 16 MiB. What
/// it refuses, such as Python 2, and all other languages are read by tree-sitter.
///
/// # Errors
/// The module is no valid Python. Of other languages the functions that can be read are found.
pub fn functions(language: Language, source: &str) -> Result<Vec<Function>, SyntaxError> {
    match language {
        Language::Python => functions_of_python(source),
        _ => commented::functions(language, source),
    }
}

fn functions_of_python(source: &str) -> Result<Vec<Function>, SyntaxError> {
    if is_shallow(source)
        && let Ok(module) = parse_module(source)
    {
        return Ok(Module::new(source).functions(&module.into_suite()));
    }
    functions_by_tree_sitter(source)
}

fn functions_by_tree_sitter(source: &str) -> Result<Vec<Function>, SyntaxError> {
    let tree = parse(source)?;
    let outside = |node: Node<'_>| node.kind() != "function_definition" && node.kind() != "lambda";
    let found = descendants_where(tree.root_node(), outside).filter(|node| node.kind() == "function_definition");
    Ok(found.filter_map(|node| function(source, node)).collect())
}

/// A module being walked through.
struct Module<'a> {
    source: &'a str,
    /// Where the lines begin.
    lines: Vec<usize>,
    found: Vec<Function>,
}

impl<'a> Module<'a> {
    fn new(source: &'a str) -> Self {
        let ends = memchr::memchr_iter(b'\n', source.as_bytes()).map(|end| end + 1);
        Self { source, lines: std::iter::once(0).chain(ends).collect(), found: Vec::new() }
    }

    fn functions(mut self, suite: &[Stmt]) -> Vec<Function> {
        self.walk(suite, "");
        self.found
    }

    /// Statements of a module, a class, or a branch in either; what is in functions belongs to them.
    fn walk(&mut self, suite: &[Stmt], prefix: &str) {
        for statement in suite {
            match statement {
                Stmt::FunctionDef(function) => self.function(function, prefix),
                Stmt::ClassDef(class) => self.walk(&class.body, &format!("{prefix}{}.", class.name)),
                Stmt::If(branch) => {
                    self.walk(&branch.body, prefix);
                    branch.elif_else_clauses.iter().for_each(|clause| self.walk(&clause.body, prefix));
                }
                Stmt::For(repeated) => [&repeated.body, &repeated.orelse].iter().for_each(|s| self.walk(s, prefix)),
                Stmt::While(repeated) => [&repeated.body, &repeated.orelse].iter().for_each(|s| self.walk(s, prefix)),
                Stmt::With(with) => self.walk(&with.body, prefix),
                Stmt::Match(matched) => matched.cases.iter().for_each(|case| self.walk(&case.body, prefix)),
                Stmt::Try(tried) => {
                    self.walk(&tried.body, prefix);
                    for ExceptHandler::ExceptHandler(handler) in &tried.handlers {
                        self.walk(&handler.body, prefix);
                    }
                    self.walk(&tried.orelse, prefix);
                    self.walk(&tried.finalbody, prefix);
                }
                _ => {}
            }
        }
    }

    fn function(&mut self, function: &StmtFunctionDef, prefix: &str) {
        // Decorators are no part of the code.
        let start = match function.decorator_list.last() {
            None => function.range.start().to_usize(),
            Some(decorator) => self.keyword_after(decorator.range.end().to_usize()),
        };
        let end = function.range.end().to_usize();
        let first_line = self.line_of(start);
        let indent: String =
            self.source[self.lines[first_line]..start].chars().take_while(|c| c.is_whitespace()).collect();
        let whole = &self.source[start..end];
        let docstring = self.docstring(&function.body);
        let code = match &docstring {
            None => dedent(whole, &indent),
            Some((_, cut)) => dedent(&replace_within(whole, start, cut.clone()), &indent),
        };
        self.found.push(Function {
            name: format!("{prefix}{}", function.name),
            code: code.trim_end().to_owned(),
            docstring: docstring.map(|(text, _)| text).unwrap_or_default(),
            first_line: first_line + 1,
            last_line: self.line_of(end) + 1,
            has_error: false,
        });
    }

    /// Where `def` or `async` stands after a decorator: line feeds, white space and comments lie between.
    fn keyword_after(&self, mut at: usize) -> usize {
        loop {
            let rest = &self.source[at..];
            let trimmed = rest.trim_start();
            at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return at;
            }
            at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// The text of the docstring, and how to cut it out.
    fn docstring(&self, body: &[Stmt]) -> Option<(String, Replacement)> {
        let (literal, text) = in_body(body)?;
        Some((text, cut_statement(self.source, &literal, body.len() == 1)))
    }

    /// From 0.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at) - 1
    }
}

fn function(source: &str, node: Node<'_>) -> Option<Function> {
    let docstring = docstring_of(source, node);
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
        has_error: false,
    })
}

/// Makes a replacement of the whole source in the part of it that begins at `start`; the part may end before it does.
fn replace_within(part: &str, start: usize, replacement: Replacement) -> String {
    let range = replacement.range.start - start..(replacement.range.end - start).min(part.len());
    replace(part, vec![Replacement { range, ..replacement }])
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
        let found = functions_of_python(source).unwrap();
        let names: Vec<&str> = found.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["outer", "C.m", "C.n"]);
        assert_eq!(found[1].code, "def m(self):\n    if self:\n        return 2");
        assert_eq!((found[1].docstring.as_str(), found[1].first_line, found[1].last_line), ("Doc.", 9, 12));
        assert_eq!(found[2].code, "async def n(self): pass");
    }

    /// Both parsers find the same.
    #[test]
    fn parsers_agree() {
        let source = concat!(
            "try:\n    import a\nexcept ImportError:\n    def one(x):\n        '''Doc é.'''\n        return x\nelse:\n    pass\n",
            "class C(B):\n    'Class.'\n    @wrap(1)\n    # note\n    async def two(self): # comment\n        # first\n",
            "        \"\"\"Doc.\n\n        More.\n        \"\"\"  # after\n        return 1\n\n    class D:\n        if True:\n            def three(self): \"doc\"\n",
            "        elif x:\n            def four(self): return lambda: 1\n\n    def five(self): 'doc'; return 1\n",
            "for i in x:\n    def six():\n        b'bytes'\n        x = '''a\nb'''\n        def inner(): pass\nwith a as b:\n    def seven():\n        f'f {x}'\n",
            "while 1:\n    def eight():\n        'a' 'b'\n        return 1  \n\n\n# end\n",
        );
        let found = functions_of_python(source).unwrap();
        assert_eq!(found, functions_by_tree_sitter(source).unwrap());
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn python_2_is_read() {
        let found = functions_of_python("def f(a):\n    print a\n").unwrap();
        assert_eq!(found[0].code, "def f(a):\n    print a");
    }

    #[test]
    fn hostile_source_does_not_overflow() {
        std::thread::Builder::new().stack_size(16 << 20).spawn(hostile_sources).unwrap().join().unwrap();
    }

    fn hostile_sources() {
        for part in ["-", "not ", "(", "[", "lambda: ", "1 + ", "a.", "x if y else ", "2 ** ", "await ", "f(", "{1: "] {
            for count in [190, 4_900, 9_900, 100_000] {
                let _ = functions_of_python(&format!("x = {}1\n", part.repeat(count)));
            }
        }
        let nested: String = (0..3000).map(|depth| format!("{}if 1:\n", " ".repeat(depth))).collect();
        let _ = functions_of_python(&format!("{nested}{}pass\n", " ".repeat(3000)));
    }

    #[test]
    fn deeply_nested_source_does_not_overflow() {
        let deep = format!("x = {}1{}\n", "(".repeat(20_000), ")".repeat(20_000));
        let _ = functions_of_python(&deep);
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(functions_of_python("x = 1\ny = = 2\n").unwrap_err().line, 2);
    }
}
