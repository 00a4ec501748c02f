//! The languages of CodeSearchNet.

use serde::{Deserialize, Serialize};

use crate::syntax::{SyntaxError, parse_as};

/// A programming language whose functions can be extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Go.
    Go,
    /// Java.
    Java,
    /// JavaScript, JSX included.
    Javascript,
    /// PHP.
    Php,
    /// Python.
    Python,
    /// Ruby.
    Ruby,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Go, Self::Java, Self::Javascript, Self::Php, Self::Python, Self::Ruby];

    /// As CodeSearchNet writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Java => "java",
            Self::Javascript => "javascript",
            Self::Php => "php",
            Self::Python => "python",
            Self::Ruby => "ruby",
        }
    }

    /// The language of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name)
    }

    /// What its files' names end with.
    #[must_use]
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Go => &["go"],
            Self::Java => &["java"],
            Self::Javascript => &["js", "jsx", "mjs", "cjs"],
            Self::Php => &["php"],
            Self::Python => &["py"],
            Self::Ruby => &["rb"],
        }
    }

    /// The language of a file, by how its name ends.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let (_, extension) = path.rsplit_once('.')?;
        Self::ALL.into_iter().find(|language| language.extensions().contains(&extension))
    }

    /// Whether the source is valid.
    ///
    /// # Errors
    /// Where it is not.
    pub fn check(self, source: &str) -> Result<(), SyntaxError> {
        // A piece of PHP has no opening tag.
        let grammar = match self {
            Self::Php if !source.contains("<?") => tree_sitter_php::LANGUAGE_PHP_ONLY.into(),
            _ => self.grammar(),
        };
        parse_as(&grammar, source).and_then(|tree| crate::syntax::valid(&tree))
    }

    pub(crate) fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::Go => tree_sitter_go::LANGUAGE.into(),
            Self::Java => tree_sitter_java::LANGUAGE.into(),
            Self::Javascript => tree_sitter_javascript::LANGUAGE.into(),
            Self::Php => tree_sitter_php::LANGUAGE_PHP.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::Ruby => tree_sitter_ruby::LANGUAGE.into(),
        }
    }

    /// Whether a function of this name is a constructor, or one that every class has: nobody searches for these.
    #[must_use]
    pub fn is_boilerplate(self, name: &str) -> bool {
        let name = name.rsplit('.').next().unwrap_or(name);
        match self {
            Self::Go => false,
            Self::Java => {
                matches!(name, "toString" | "hashCode" | "equals" | "finalize" | "notify" | "notifyAll" | "clone")
            }
            Self::Javascript => matches!(name, "constructor" | "toString" | "toLocaleString" | "valueOf"),
            Self::Php => name.starts_with("__"),
            Self::Python => name.starts_with("__") && name.ends_with("__"),
            Self::Ruby => {
                let operator = !name.starts_with(|c: char| c.is_alphabetic() || c == '_');
                operator
                    || matches!(
                        name,
                        "initialize"
                            | "to_s"
                            | "to_text"
                            | "inspect"
                            | "display"
                            | "dup"
                            | "clone"
                            | "hash"
                            | "eql?"
                            | "equal?"
                    )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_their_language() {
        for (path, language) in [
            ("a/b.py", Some(Language::Python)),
            ("b.test.mjs", Some(Language::Javascript)),
            ("c.RB", None),
            ("Makefile", None),
        ] {
            assert_eq!(Language::of_path(path), language);
        }
        assert_eq!(Language::named("php"), Some(Language::Php));
    }

    #[test]
    fn sources_are_checked() {
        for (language, right) in [
            (Language::Go, "func f(a int) int { return a }"),
            (Language::Java, "int f(int a) { return a; }"),
            (Language::Javascript, "const f = (a) => a;"),
            (Language::Php, "function f($a) { return $a; }"),
            (Language::Php, "<?php function f($a) { return $a; }"),
            (Language::Python, "def f(a): return a"),
            (Language::Ruby, "def f(a) = a"),
        ] {
            assert_eq!(language.check(right), Ok(()), "{right}");
            assert_eq!(language.check(&format!("{right}\n{{ ) def (")).unwrap_err().line, 2, "{right}");
        }
    }

    #[test]
    fn boilerplate_is_known() {
        for (language, name, known) in [
            (Language::Python, "C.__init__", true),
            (Language::Python, "C.__private", false),
            (Language::Java, "C.hashCode", true),
            (Language::Ruby, "M.C.<=>", true),
            (Language::Ruby, "M.C.compare", false),
            (Language::Php, "C.__construct", true),
            (Language::Go, "Client.String", false),
        ] {
            assert_eq!(language.is_boilerplate(name), known, "{name}");
        }
    }
}
