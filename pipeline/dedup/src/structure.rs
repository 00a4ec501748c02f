//! Programs that differ in the names of their variables alone (type-2 clones: Roy & Cordy, 2007).

use crate::hasher::HashedMap;
use crate::minhash::{fold, hash, trim_start, word_length};

/// Shorter programs are the same too often: every getter is.
const TOKENS: usize = 20;

/// A hash of a program in which each variable is the number of its first occurrence; nothing for short programs.
///
/// The names of what is called, attributes, literals and keywords stay; comments and white space do not count. It reads
/// words and quotes, not grammar: the languages are Python, Java, JavaScript, Go, PHP and Ruby.
#[must_use]
pub fn structure(code: &str, language: &str) -> Option<u128> {
    let keywords = if language == "python" { &PYTHON } else { &KEYWORDS };
    let mut numbers: HashedMap<u64> = HashedMap::default();
    let mut hashes = Vec::with_capacity(code.len() / 4);
    let mut before = "";
    let mut rest = code;
    while let Some(token) = next(&mut rest, language) {
        let own = hash(token.as_bytes());
        let called = || trim_start(rest).starts_with('(') && !matches!(before, "def" | "func" | "function");
        let variable = starts_name(token) && before != "." && !keywords.contains(own) && !called();
        hashes.push(if variable {
            let next = numbers.len() as u64;
            *numbers.entry(own).or_insert(next)
        } else {
            own
        });
        before = token;
    }
    if hashes.len() < TOKENS {
        return None;
    }
    let forward = fold(&hashes);
    hashes.reverse();
    Some(u128::from(forward) << 64 | u128::from(fold(&hashes)))
}

fn starts_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$')
}

/// The next word, string or mark; comments are passed over.
fn next<'a>(rest: &mut &'a str, language: &str) -> Option<&'a str> {
    loop {
        *rest = trim_start(rest);
        match comment(rest, language) {
            Some(length) => *rest = &rest[length..],
            None => break,
        }
    }
    let first = rest.chars().next()?;
    let length = match first {
        '"' | '\'' | '`' => string(rest, first),
        c if c.is_alphanumeric() || c == '_' || c == '$' => {
            let start = c.len_utf8();
            start + word_length(&rest[start..])
        }
        c => c.len_utf8(),
    };
    let (token, after) = rest.split_at(length);
    *rest = after;
    Some(token)
}

/// Bytes of the comment that `text` begins with.
fn comment(text: &str, language: &str) -> Option<usize> {
    let hash = matches!(language, "python" | "ruby" | "php");
    let slashes = !matches!(language, "python" | "ruby");
    if hash && text.starts_with('#') || slashes && text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    (slashes && text.starts_with("/*")).then(|| text[2..].find("*/").map_or(text.len(), |end| end + 4))
}

/// Bytes of the string that `text` begins with; one without an end goes on to the end of its line.
fn string(text: &str, quote: char) -> usize {
    let triple = [quote; 3].iter().collect::<String>();
    let mark = if quote != '`' && text.starts_with(&triple) { triple.as_str() } else { &triple[..1] };
    let mut at = mark.len();
    while let Some(c) = text[at..].chars().next() {
        match c {
            _ if text[at..].starts_with(mark) => return at + mark.len(),
            '\n' if mark.len() == 1 && quote != '`' => return at,
            '\\' => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            c => at += c.len_utf8(),
        }
    }
    text.len()
}

/// Of the six languages.
const WORDS: [&str; 84] = [
    "False",
    "None",
    "True",
    "and",
    "as",
    "assert",
    "async",
    "await",
    "begin",
    "boolean",
    "break",
    "byte",
    "case",
    "catch",
    "chan",
    "char",
    "class",
    "const",
    "continue",
    "def",
    "default",
    "defer",
    "del",
    "do",
    "double",
    "elif",
    "else",
    "elsif",
    "end",
    "ensure",
    "except",
    "extends",
    "false",
    "final",
    "finally",
    "float",
    "for",
    "foreach",
    "from",
    "func",
    "function",
    "global",
    "go",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "int",
    "interface",
    "is",
    "lambda",
    "let",
    "long",
    "map",
    "module",
    "new",
    "next",
    "nil",
    "nonlocal",
    "not",
    "null",
    "or",
    "pass",
    "private",
    "protected",
    "public",
    "raise",
    "range",
    "rescue",
    "return",
    "select",
    "short",
    "static",
    "struct",
    "super",
    "switch",
    "throw",
    "true",
    "try",
    "var",
    "while",
    "with",
    "yield",
];

/// Python's own, for `end`, `map` or `next` are names there.
const PYTHON_WORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// The hashes of keywords, in a table of 512 places; each stands at its own place or soon after it.
struct Keywords([u64; 512]);

static KEYWORDS: Keywords = table(&WORDS);
static PYTHON: Keywords = table(&PYTHON_WORDS);

const fn table(words: &[&str]) -> Keywords {
    let mut places = [0; 512];
    let mut at = 0;
    while at < words.len() {
        let own = hash(words[at].as_bytes());
        let mut place = own as usize % 512;
        while places[place] != 0 {
            place = (place + 1) % 512;
        }
        places[place] = own;
        at += 1;
    }
    Keywords(places)
}

impl Keywords {
    fn contains(&self, own: u64) -> bool {
        let mut place = own as usize % 512;
        while self.0[place] != 0 {
            if self.0[place] == own {
                return true;
            }
            place = (place + 1) % 512;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "def total(rows, limit=10):\n    # note\n    result = 0\n    for row in rows:\n        result += len(row.items)\n    return min(result, limit)\n";

    fn same(a: &str, b: &str) -> bool {
        structure(a, "python").unwrap() == structure(b, "python").unwrap()
    }

    #[test]
    fn names_of_variables_do_not_count() {
        let renamed =
            CODE.replace("rows", "lines").replace("result", "sum_").replace("total", "count").replace("note", "x");
        assert!(same(CODE, &renamed));
        // Keywords of other languages are names here.
        assert!(same(CODE, &CODE.replace("result", "end").replace("limit", "next")));
    }

    #[test]
    fn calls_attributes_literals_and_order_count() {
        for (from, to) in
            [("len(", "max("), (".items", ".keys"), ("= 0", "= 1"), ("for", "while"), ("min(result", "min(limit")]
        {
            assert!(!same(CODE, &CODE.replace(from, to)), "{from} {to}");
        }
    }

    #[test]
    fn strings_and_comments_are_read_in_each_language() {
        let padding = "a(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)";
        let equal = |language, a: &str, b: &str| {
            structure(&format!("{padding}\n{a}"), language) == structure(&format!("{padding}\n{b}"), language)
        };
        assert!(equal("go", "x // one\ny", "p /* it's */ q"));
        assert!(!equal("python", "x // y", "x"));
        assert!(!equal("javascript", "`a ${b}`", "`c ${d}`"));
        assert!(equal("python", "'''it's # no comment''' x", "'''it's # no comment''' z"));
        assert!(!equal("python", "'a\\'b' x", "'a\\'c' x"));
        assert!(!equal("ruby", "'no end", "'no such end"));
        assert_eq!(structure("x = 1", "python"), None);
    }

    #[test]
    fn keywords_are_known() {
        assert!(WORDS.iter().all(|word| KEYWORDS.contains(hash(word.as_bytes()))));
        assert!(PYTHON_WORDS.iter().all(|word| PYTHON.contains(hash(word.as_bytes()))));
        assert!(!PYTHON.contains(hash(b"end")));
        assert!(!KEYWORDS.contains(hash(b"value")) && !KEYWORDS.contains(hash(b"")));
    }
}
