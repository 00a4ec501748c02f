//! Whether a piece of source does anything.

use ruff_python_ast::{Expr, Stmt};

use crate::docstring::suite_of;
use crate::first_string::body_start;

/// Whether `code` holds code: something besides white space and comments, and of Python a statement besides `pass`, `...` and
/// strings.
#[must_use]
pub fn holds_code(language: &str, code: &str) -> bool {
    if !code.contains(|c: char| c.is_alphanumeric() || c.is_ascii_punctuation()) {
        return false;
    }
    if language != "python" {
        let marks: &[&str] = if language == "ruby" { &["#"] } else { &["//"] };
        return !(is_comment(&without_blocks(code), marks) || language == "php" && is_comment(code, &["//", "#"]));
    }
    // The first statement of a body nearly always says it, and is found without a parser.
    if body_start(code).is_some_and(|body| is_plainly_code(&code[body..])) {
        return true;
    }
    match suite_of(code) {
        Some((suite, _)) => suite.iter().any(does_something),
        // Python 2, or no Python.
        None => !is_comment(code, &["#"]),
    }
}

/// Code without what stands between `/*` and `*/`.
fn without_blocks(code: &str) -> String {
    let (mut left, mut rest) = (String::new(), code);
    while let Some((before, after)) = rest.split_once("/*") {
        left.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    left + rest
}

fn is_comment(code: &str, marks: &[&str]) -> bool {
    code.lines().map(str::trim).all(|line| line.is_empty() || marks.iter().any(|mark| line.starts_with(mark)))
}

/// Whether a statement begins as none does that does nothing.
fn is_plainly_code(statement: &str) -> bool {
    let word = statement.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    let is_string = statement[word.len()..].starts_with(['"', '\'']);
    // A function or class within has a body of its own.
    !word.is_empty() && !is_string && !matches!(word, "pass" | "def" | "async" | "class")
}

/// Whether a statement, or one within the function or class that it defines, does something.
fn does_something(statement: &Stmt) -> bool {
    match statement {
        Stmt::Pass(_) => false,
        Stmt::Expr(expression) => !matches!(
            *expression.value,
            Expr::StringLiteral(_) | Expr::BytesLiteral(_) | Expr::FString(_) | Expr::EllipsisLiteral(_)
        ),
        Stmt::FunctionDef(function) => function.body.iter().any(does_something),
        Stmt::ClassDef(class) => class.body.iter().any(does_something),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_hold_no_code() {
        for code in [
            "",
            "  \n",
            "\u{200b}",
            "# only a comment",
            "pass",
            "def f(self, size: int) -> bytes:\n    ...",
            "def f(\n    self,\n    force: bool = False,\n) -> None: pass",
            "def f(a): ...",
            "    def f(self):\n        \"\"\"Doc.\"\"\"\n        pass  # later\n",
            "@overload\nasync def f(\n    name: str,\n) -> str:\n    ...\n",
            "def f(): f'{a}'",
            "class A:\n    def f(self): ...",
        ] {
            assert!(!holds_code("python", code), "{code}");
        }
        for code in ["", "// a\n/* b\n * c */\n", "/* a\n b */ // c"] {
            assert!(!holds_code("go", code), "{code}");
        }
        assert!(!holds_code("ruby", "# a\n\n# b") && !holds_code("php", "# a\n// b"));
    }

    #[test]
    fn what_does_something_holds_code() {
        for code in [
            "x",
            "return",
            "def f(a):\n    return a",
            "def f(a):\n    passed = a",
            "def f(a):\n    'doc'\n    a()",
            "def f(a): raise NotImplementedError",
            "def f(a):\n    def g():\n        return a",
            "def f(a):\n    ...\n    a()",
            "print 'python 2'",
            "def f(self):\n    r['a'] = 1",
            "lambda: 0",
        ] {
            assert!(holds_code("python", code), "{code}");
        }
        assert!(holds_code("go", "func f() {}") && holds_code("ruby", "# c\ndef a; end"));
        // What begins as a comment of another language does.
        assert!(
            holds_code("javascript", "#count() { return 1; }") && holds_code("javascript", "*items() { yield 1; }")
        );
    }
}
