//! The functions of languages that document them by the comment above.

use tree_sitter::Node;

use crate::function::{Function, dedent};
use crate::language::Language;
use crate::syntax::{SyntaxError, descendants_where, parse_as};

/// How a language's syntax tree names what matters here.
struct Kinds {
    /// Functions and methods.
    functions: &'static [&'static str],
    /// What gives its name to the functions within.
    containers: &'static [&'static str],
    /// What may stand between a comment and the function that is a value in it.
    wrappers: &'static [&'static str],
}

fn kinds(language: Language) -> Kinds {
    match language {
        Language::Go => {
            Kinds { functions: &["function_declaration", "method_declaration"], containers: &[], wrappers: &[] }
        }
        Language::Java => Kinds {
            functions: &["method_declaration"],
            containers: &["class_declaration", "interface_declaration", "enum_declaration", "record_declaration"],
            wrappers: &[],
        },
        Language::Javascript => Kinds {
            functions: &[
                "function_declaration",
                "generator_function_declaration",
                "method_definition",
                "function_expression",
                "generator_function",
                "arrow_function",
            ],
            containers: &["class_declaration"],
            wrappers: &[
                "variable_declarator",
                "lexical_declaration",
                "variable_declaration",
                "assignment_expression",
                "expression_statement",
                "export_statement",
                "pair",
                "field_definition",
            ],
        },
        Language::Php => Kinds {
            functions: &["function_definition", "method_declaration"],
            containers: &["class_declaration", "trait_declaration", "interface_declaration", "enum_declaration"],
            wrappers: &[],
        },
        // Python's docstrings are in the function; nothing here would find them.
        Language::Python => {
            Kinds { functions: &["function_definition"], containers: &["class_definition"], wrappers: &[] }
        }
        Language::Ruby => Kinds {
            functions: &["method", "singleton_method"],
            containers: &["module", "class"],
            wrappers: &["argument_list", "call"],
        },
    }
}

/// A source being walked through.
struct Walk<'a> {
    source: &'a str,
    language: Language,
    kinds: Kinds,
}

/// Extracts the functions and methods that have a name and a body, in the order of the text.
///
/// # Errors
/// The parser gave up. Sources with errors in them are read as far as they go.
pub(crate) fn functions(language: Language, source: &str) -> Result<Vec<Function>, SyntaxError> {
    let tree = parse_as(&language.grammar(), source)?;
    let walk = Walk { source, language, kinds: kinds(language) };
    // A function without a name, such as one that a whole module stands in, is no unit that anybody looks for.
    let outside = |node: Node<'_>| !walk.is_function(node) || walk.name(node).is_none();
    let found = descendants_where(tree.root_node(), outside).filter(|node| walk.is_function(*node));
    Ok(found.filter_map(|node| walk.function(node)).collect())
}

impl<'a> Walk<'a> {
    fn is_function(&self, node: Node<'_>) -> bool {
        self.kinds.functions.contains(&node.kind())
    }

    fn text(&self, node: Node<'_>) -> &'a str {
        &self.source[node.byte_range()]
    }

    fn function(&self, node: Node<'_>) -> Option<Function> {
        let body = node.child_by_field_name("body");
        // Ruby's older grammar has no field for it, and its methods always have one.
        if body.is_none() && self.language != Language::Ruby {
            return None;
        }
        let name = self.qualified(node, self.name(node)?);
        let line_start = self.source[..node.start_byte()].rfind('\n').map_or(0, |i| i + 1);
        let before = &self.source[line_start..node.start_byte()];
        let indent = &before[..before.len() - before.trim_start().len()];
        Some(Function {
            name,
            code: dedent(self.text(node), indent).trim_end().to_owned(),
            docstring: self.docstring(node),
            first_line: node.start_position().row + 1,
            last_line: node.end_position().row + 1,
            has_error: node.has_error(),
        })
    }

    /// Its own name, or the name of what it is assigned to.
    fn name(&self, node: Node<'_>) -> Option<String> {
        if let Some(name) = node.child_by_field_name("name") {
            return Some(self.text(name).to_owned());
        }
        let parent = node.parent()?;
        let field = match parent.kind() {
            "variable_declarator" => "name",
            "pair" => "key",
            "assignment_expression" => "left",
            "field_definition" => "property",
            _ => return None,
        };
        let name = self.text(parent.child_by_field_name(field)?).trim_matches(['\'', '"']);
        (!name.is_empty() && !name.contains(['\n', '(', '['])).then(|| name.to_owned())
    }

    /// With the names of what it is in, or of a Go method's receiver.
    fn qualified(&self, node: Node<'_>, name: String) -> String {
        let mut parts = vec![name];
        if let Some(receiver) = node.child_by_field_name("receiver") {
            let words = self.text(receiver).split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let named: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            // `(c *Client)`, `(Client)`, `(l *List[T])`.
            parts.extend(named.get(usize::from(named.len() > 1)).map(|word| (*word).to_owned()));
        }
        let mut at = node.parent();
        while let Some(outer) = at {
            if self.kinds.containers.contains(&outer.kind())
                && let Some(name) = outer.child_by_field_name("name")
            {
                parts.push(self.text(name).to_owned());
            }
            at = outer.parent();
        }
        parts.reverse();
        parts.join(".")
    }

    /// The comment above, as far as no empty line parts it: one block, or lines.
    fn docstring(&self, node: Node<'_>) -> String {
        let mut statement = node;
        while let Some(parent) = statement.parent().filter(|parent| self.kinds.wrappers.contains(&parent.kind())) {
            statement = parent;
        }
        let mut comments: Vec<&str> = Vec::new();
        let mut below = statement;
        while let Some(comment) = previous(below).filter(|node| node.kind().contains("comment")) {
            let text = self.text(comment).trim_end();
            let is_block = text.starts_with("/*") || text.starts_with("=begin");
            let is_apart = comment.start_position().row + text.matches('\n').count() + 1 < below.start_position().row;
            let is_behind_code = previous(comment).is_some_and(|code| {
                !code.kind().contains("comment") && code.end_position().row == comment.start_position().row
            });
            if is_apart || is_behind_code || (is_block && !comments.is_empty()) {
                break;
            }
            comments.push(text);
            if is_block {
                break;
            }
            below = comment;
        }
        comments.reverse();
        clean(self.language, &comments.join("\n"))
    }
}

/// The node before it; the first node of a Ruby class's body has what is before the body.
fn previous(node: Node<'_>) -> Option<Node<'_>> {
    node.prev_sibling().or_else(|| node.parent().filter(|parent| parent.kind() == "body_statement")?.prev_sibling())
}

/// The text of comments without their marks, and without what is said to compilers and linters.
fn clean(language: Language, comment: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in comment.lines().map(str::trim) {
        if matches!(line, "=begin" | "=end") || line.starts_with("#!") {
            continue;
        }
        let line = line.strip_suffix("*/").unwrap_or(line);
        let marks = ["/**", "/*", "*", "///", "//", "##", "#"];
        let text = marks.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
        if !is_directive(language, line, text.trim()) {
            lines.push(text.trim());
        }
    }
    lines.join("\n").trim().to_owned()
}

/// Whether a line of a comment is for a compiler, a linter or another tool; `text` is what stands behind the comment's mark.
fn is_directive(language: Language, line: &str, text: &str) -> bool {
    let begins = |with: &[&str]| with.iter().any(|directive| text.starts_with(directive));
    let begins_in_any_case = |with: &[&str]| {
        with.iter().any(|directive| text.get(..directive.len()).is_some_and(|t| t.eq_ignore_ascii_case(directive)))
    };
    // Of editors and of checks that know several languages.
    if begins(&[
        "vim:",
        "vi:",
        "-*-",
        "NOSONAR",
        "nosemgrep",
        "noinspection ",
        "spell-checker:",
        "cspell:",
        "codespell:",
    ]) || begins_in_any_case(&["spdx-license-identifier:"])
        || matches!(text, "region" | "endregion")
    {
        return true;
    }
    match language {
        Language::Go => {
            // The form that gofmt keeps: a word, a colon and more, without a space behind the slashes (go.dev/doc/comment).
            let directive = line.strip_prefix("//").filter(|rest| !rest.starts_with([' ', '\t']));
            let (tool, rest) = directive.and_then(|directive| directive.split_once(':')).unwrap_or_default();
            let is_tool = !tool.is_empty() && tool.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            (is_tool && rest.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()))
                || directive.is_some_and(|d| ["nolint", "line ", "extern ", "export "].iter().any(|t| d.starts_with(t)))
                || begins(&["+build ", "#nosec", "nosec", "nolint:", "revive:", "lint:"])
        }
        Language::Java => begins(&[
            "CHECKSTYLE",
            "NOPMD",
            "@formatter:",
            "formatter:",
            "spotless:",
            "NOCHECKSTYLE",
            "FindBugs",
            "$NON-NLS",
            "@spotless",
            "sonar:",
            "PMD ",
        ]),
        Language::Javascript => {
            begins(&[
                "eslint-", "istanbul ", "c8 ", "v8 ignore", "jshint", "jslint",
                "jscs:", "tslint:", "prettier-ignore", "@ts-", "@flow", "@noflow", "$Flow", "flowlint", "biome-ignore", "deno-",
                "dprint-ignore", "standard-", "oxlint-", "@vite-ignore", "#__PURE__", "@__PURE__", "#__NO_SIDE_EFFECTS__",
                "# sourceMappingURL", "@jsx", "@prettier", "@format", "stylelint-", "rome-ignore", "node:coverage",
            ])
                // Words of English too, but in a block of one line of their own.
                || (line.starts_with("/*") && begins(&["global ", "globals ", "exported ", "eslint ", "webpackChunkName", "webpackIgnore", "webpackMode", "webpackPr"]))
        }
        Language::Php => begins(&[
            "phpcs:",
            "@phpcs",
            "@codingStandardsIgnore",
            "@phpstan-",
            "@psalm-",
            "@codeCoverageIgnore",
            "@noinspection",
            "@phan-",
            "phan-",
            "@infection-",
            "@SuppressWarnings",
            "@phpcsSuppress",
        ]),
        Language::Ruby => {
            begins(&[
                "rubocop:",
                ":nodoc:",
                ":nocov:",
                ":stopdoc:",
                ":startdoc:",
                "typed:",
                "steep:",
                "reek:",
                "standard:",
                "sorbet:",
                "brakeman:",
                "simplecov:",
            ]) || begins_in_any_case(&[
                "frozen_string_literal:",
                "encoding:",
                "coding:",
                "warn_indent:",
                "shareable_constant_value:",
            ])
        }
        Language::Python => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, docstring and the code's first line of each function.
    fn found(language: Language, source: &str) -> Vec<(String, String, String)> {
        let found = functions(language, source).unwrap().into_iter();
        found.map(|f| (f.name, f.docstring, f.code.lines().next().unwrap_or_default().to_owned())).collect()
    }

    fn rows(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        rows.iter().map(|(name, docstring, code)| (name.to_string(), docstring.to_string(), code.to_string())).collect()
    }

    #[test]
    fn go_is_read() {
        let source = "package p\n\n// Get gets.\n//\n// It waits.\nfunc (c *Client) Get(a int) int {\n\treturn a\n}\n\n// apart\n\nfunc free() {}\n\nvar x = 1 // behind\nfunc last(l []int) {\n}\n";
        let expected = [
            ("Client.Get", "Get gets.\n\nIt waits.", "func (c *Client) Get(a int) int {"),
            ("free", "", "func free() {}"),
            ("last", "", "func last(l []int) {"),
        ];
        assert_eq!(found(Language::Go, source), rows(&expected));
    }

    #[test]
    fn java_is_read() {
        let source = "/** Class. */\nclass A {\n  /** Makes. */\n  A() {}\n  // no\n  /**\n   * Adds <b>two</b>.\n   * @param a one\n   */\n  @Override\n  public int add(int a) {\n    return a;\n  }\n  abstract void none();\n  class B { void in() { new Runnable() { public void run() {} }; } }\n}\n";
        let expected = [
            ("A.add", "Adds <b>two</b>.\n@param a one", "@Override"),
            ("A.B.in", "", "void in() { new Runnable() { public void run() {} }; }"),
        ];
        assert_eq!(found(Language::Java, source), rows(&expected));
        assert_eq!(
            functions(Language::Java, source).unwrap()[0].code,
            "@Override\npublic int add(int a) {\n  return a;\n}"
        );
    }

    #[test]
    fn javascript_is_read() {
        let source = "(function () {\n  // One.\n  // Two.\n  function a() {}\n  /* Arrow. */\n  export_ = 1;\n  const b = (x) => x;\n  // Assigned.\n  C.prototype.d = function () {};\n  var o = {\n    /** Key. */\n    'e': function () {},\n    // Method.\n    f() {},\n  };\n  class G {\n    // In a class.\n    *h() {}\n  }\n  run(function () {});\n})();\n/** Exported. */\nexport default function i() {}\n";
        let expected = [
            ("a", "One.\nTwo.", "function a() {}"),
            ("b", "", "(x) => x"),
            ("C.prototype.d", "Assigned.", "function () {}"),
            ("e", "Key.", "function () {}"),
            ("f", "Method.", "f() {}"),
            ("G.h", "In a class.", "*h() {}"),
            ("i", "Exported.", "function i() {}"),
        ];
        assert_eq!(found(Language::Javascript, source), rows(&expected));
    }

    #[test]
    fn php_is_read() {
        let source = "<?php\n/**\n * Free.\n */\nfunction free() {}\nclass A {\n  /** Gets. */\n  public function get($a) { return function () {}; }\n  abstract function none();\n}\n";
        let expected = [
            ("free", "Free.", "function free() {}"),
            ("A.get", "Gets.", "public function get($a) { return function () {}; }"),
        ];
        assert_eq!(found(Language::Php, source), rows(&expected));
    }

    #[test]
    fn ruby_is_read() {
        let source = "module M\n  class C\n    # First\n    # of two.\n    def a(x)\n      x\n    end\n\n    # Self.\n    def self.b; end\n\n    private\n\n    # Last.\n    def c?\n      1\n    end\n  end\nend\n";
        let expected = [
            ("M.C.a", "First\nof two.", "def a(x)"),
            ("M.C.b", "Self.", "def self.b; end"),
            ("M.C.c?", "Last.", "def c?"),
        ];
        assert_eq!(found(Language::Ruby, source), rows(&expected));
    }

    #[test]
    fn directives_are_no_documentation() {
        let go = "package p\n\n//go:noinline\nfunc one() {}\n\n// Two does.\n//\n//go:nosplit\n//nolint:errcheck // why\nfunc two() {}\n\n//nolint\nfunc three() {}\n\n// four: it is no directive.\nfunc four() {}\n";
        let docs = |language, source| found(language, source).into_iter().map(|(_, doc, _)| doc).collect::<Vec<_>>();
        assert_eq!(docs(Language::Go, go), ["", "Two does.", "", "four: it is no directive."]);
        let javascript = "// eslint-disable-next-line no-unused-vars, max-len\nfunction a() {}\n\n/* istanbul ignore next: never */\nfunction b() {}\n\n/**\n * Does c.\n * @ts-ignore\n */\nfunction c() {}\n\n// global state is read here.\n// @ts-expect-error\nconst d = () => 1;\n";
        assert_eq!(docs(Language::Javascript, javascript)[..3], ["", "", "Does c."]);
        let ruby = "# frozen_string_literal: true\ndef a; end\n\n# Does b.\n# rubocop:disable Metrics/MethodLength\ndef b; end\n";
        assert_eq!(docs(Language::Ruby, ruby), ["", "Does b."]);
        let php =
            "<?php\n// phpcs:ignore\nfunction a() {}\n/**\n * Does b.\n * @codeCoverageIgnore\n */\nfunction b() {}\n";
        assert_eq!(docs(Language::Php, php), ["", "Does b."]);
        let java =
            "class A {\n  // CHECKSTYLE:OFF\n  void a() {}\n  /** Does b. NOSONAR is in it. */\n  void b() {}\n}\n";
        assert_eq!(docs(Language::Java, java), ["", "Does b. NOSONAR is in it."]);
    }

    #[test]
    fn what_is_broken_says_so() {
        let source = "function a() { return 1; }\nfunction b() { return ) + ; }\n";
        let found = functions(Language::Javascript, source).unwrap();
        assert_eq!(found.iter().map(|f| f.has_error).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn deeply_nested_source_does_not_overflow() {
        for language in Language::ALL {
            for part in ["(", "{", "[", "a.b(", "function () {", "class A {", "def a\n", "if (a) {"] {
                let _ = functions(language, &part.repeat(20_000));
            }
        }
    }
}
