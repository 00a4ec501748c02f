//! Programs that differ in the names of their variables alone (type-2 clones: Roy & Cordy, 2007).

use std::num::NonZeroU32;

use crate::bound::bindings;
use crate::hasher::HashedMap;
use crate::minhash::{fold_both_ways, hash, trim_start, word_length};
use crate::token::{Language, Token, Tokens};

/// Shorter programs are the same too often: every getter is.
const TOKENS: usize = 20;
/// Names that most programs do not have more of.
const NAMES: usize = 48;

/// A hash of a program in which each variable is the number of its first occurrence; nothing for short programs.
///
/// Variables are the names that the program itself binds. Those of types, constants, globals and attributes, and of functions
/// that are elsewhere, stay, as do literals and keywords; comments and white space do not count. It reads words and quotes, not
/// grammar: the languages are Python, Java, JavaScript, Go, PHP and Ruby.
#[must_use]
pub fn structure(code: &str, language: &str) -> Option<u128> {
    let language = Language::of(language);
    let (tokens, names) = tokens(code, language);
    if tokens.len() < TOKENS {
        return None;
    }
    let bound = bindings(&tokens, names, language);
    let (mut numbers, mut next) = (vec![None; names + 1], 0u64);
    let mut number = |token: &Token| {
        let Some(name) = token.name.filter(|name| bound.has(*name)) else { return token.hash };
        *numbers[name.get() as usize].get_or_insert_with(|| {
            next += 1;
            next - 1
        })
    };
    let hashes: Vec<u64> = tokens.0.iter().map(&mut number).collect();
    let (forward, backward) = fold_both_ways(&hashes);
    Some(u128::from(forward) << 64 | u128::from(backward))
}

/// The tokens, and how many names there are.
fn tokens(code: &str, language: Language) -> (Tokens, usize) {
    let keywords = if language == Language::Python { &PYTHON } else { &KEYWORDS };
    let mut tokens: Vec<Token> = Vec::with_capacity(code.len() / 4);
    let mut names: HashedMap<NonZeroU32> = HashedMap::with_capacity_and_hasher(NAMES, Default::default());
    let (mut rest, mut before) = (code, 0);
    loop {
        let behind = skip(rest, language);
        let begins_line = tokens.is_empty() || rest[..rest.len() - behind.len()].bytes().any(|byte| byte == b'\n');
        let Some(first) = behind.chars().next() else { return (Tokens(tokens), names.len()) };
        let (text, after) = behind.split_at(length(behind, first));
        rest = after;
        let own = hash(text.as_bytes());
        let is_word = begins_name(first);
        // `@` marks a variable of an object in Ruby, and a decorator in Python.
        let is_name = is_word && !matches!(before, b'.' | b'@') && !keywords.contains(own);
        let count = names.len() as u32;
        let name = is_name.then(|| *names.entry(own).or_insert(NonZeroU32::MIN.saturating_add(count)));
        before = if text.len() == 1 && !is_word { text.as_bytes()[0] } else { 0 };
        tokens.push(Token { hash: own, name, mark: before, is_word, is_variable: first == '$', begins_line });
    }
}

fn begins_name(first: char) -> bool {
    first.is_alphabetic() || matches!(first, '_' | '$')
}

/// Bytes of the word, string or mark that `text` begins with.
fn length(text: &str, first: char) -> usize {
    match first {
        '"' | '\'' | '`' => string(text, first as u8),
        c if c.is_alphanumeric() || c == '_' || c == '$' => c.len_utf8() + word_length(&text[c.len_utf8()..]),
        c => c.len_utf8(),
    }
}

/// What stands behind white space and comments.
fn skip(mut text: &str, language: Language) -> &str {
    loop {
        text = trim_start(text);
        match comment(text, language) {
            Some(length) => text = &text[length..],
            None => return text,
        }
    }
}

/// Bytes of the comment that `text` begins with.
fn comment(text: &str, language: Language) -> Option<usize> {
    match text.as_bytes() {
        [b'#', ..] if language.has_hash() => {}
        [b'/', b'/', ..] if language.has_slashes() => {}
        [b'/', b'*', ..] if language.has_slashes() => {
            return Some(text[2..].find("*/").map_or(text.len(), |end| end + 4));
        }
        _ => return None,
    }
    Some(text.find('\n').unwrap_or(text.len()))
}

/// Bytes of the string that `text` begins with; one without an end goes on to the end of its line.
fn string(text: &str, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let is_long = quote != b'`' && bytes.starts_with(&[quote; 3]);
    let mark = &[quote; 3][..if is_long { 3 } else { 1 }];
    let mut at = mark.len();
    while at < bytes.len() {
        match bytes[at] {
            byte if byte == quote && bytes[at..].starts_with(mark) => return at + mark.len(),
            b'\n' if !is_long && quote != b'`' => return at,
            // Of a longer character the first byte: none of the others looks like a mark.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
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

    /// What a function binds may be renamed, and nothing else: types, constants and globals keep their names.
    #[test]
    fn only_what_is_bound_is_numbered() {
        let python = "def check(value, *rest, limit: int = 10, **more):\n    total, count = 0, LIMIT\n    kind: str = 'a'\n    for key, item in rest:\n        with open(key) as source:\n            total += item if isinstance(value, int) else source\n    found = [one for one in rest if (two := one)]\n    return sorted(found, key=lambda pair: pair[0], reverse=True), total, count, kind, two, more, limit\n";
        let all = |text: &str, names: &[(&str, &str)]| names.iter().fold(text.to_owned(), |t, (a, b)| t.replace(a, b));
        let bound = [
            ("value", "vv"),
            ("rest", "rr"),
            ("limit", "ll"),
            ("more", "mm"),
            ("total", "tt"),
            ("count", "cc"),
            ("kind", "kk"),
            ("item", "ii"),
            ("source", "ss"),
            ("found", "ff"),
            ("one", "oo"),
            ("two", "ww"),
            ("pair", "pp"),
            ("check", "hh"),
        ];
        assert!(same(python, &all(python, &bound)));
        for (name, other) in [
            ("(value, int)", "(value, str)"),
            ("LIMIT", "MOST"),
            ("sorted", "list"),
            ("reverse=", "other="),
            ("limit: int", "limit: str"),
        ] {
            assert!(!same(python, &python.replace(name, other)), "{name}");
        }
        // A type that stands nowhere but beside its parameter.
        let typed = "def double(value: int) -> int:\n    total = value + value\n    return fn(total, int, LIMIT), func(LIMIT, 1, 2)\n";
        assert!(!same(typed, &typed.replace("int", "str")) && !same(typed, &typed.replace("LIMIT", "MOST")));
        // What stands before a name that is assigned within brackets is no part of it.
        let walrus =
            "def count(rows):\n    print(LIMIT, size := len(rows), rows)\n    return size, LIMIT, rows, 1, 2\n";
        assert!(!same(walrus, &walrus.replace("LIMIT", "MOST")) && same(walrus, &walrus.replace("size", "length")));
        let global = "def tick(step):\n    global clock\n    clock = clock + step\n    if clock > 10:\n        clock = 0\n    return clock\n";
        assert!(!same(global, &global.replace("clock", "watch")) && same(global, &global.replace("step", "size")));
    }

    /// A row may be a table of names, or unclosed brackets: it is read once, more or less.
    #[test]
    fn long_lists_take_no_longer_than_others() {
        let began = std::time::Instant::now();
        for text in ["a, ", "def f( ", "lambda ", "a := ", "(a, ", "global "] {
            for language in ["python", "go", "javascript", "php"] {
                assert!(structure(&text.repeat(100_000), language).is_some());
            }
        }
        // Minutes, where each name looks at all others.
        assert!(began.elapsed() < std::time::Duration::from_secs(60));
    }

    #[test]
    fn bindings_of_other_languages_are_known() {
        for (language, code, bound, kept) in [
            (
                "java",
                "public int total(List<Integer> rows, int most) { int sum = 0; for (Integer item : rows) { sum += item; } return Math.min(sum, most); }",
                &["rows", "most", "sum", "item"][..],
                &["Integer", "Math"][..],
            ),
            (
                "go",
                "func (c *Client) Get(key string, n int) (int, error) { v, bad := c.find(key); for i, x := range v { n += x + i }; return n, bad }",
                &["key", "bad", "x"],
                &["string", "error", "find"],
            ),
            (
                "javascript",
                "function load(path, done) { const { data, size } = read(path); let more = data.map(one => one + size); done(more, LIMIT, true, 1, 2); }",
                &["path", "done", "data", "size", "more", "one"],
                &["LIMIT", "read", "map"],
            ),
            (
                "php",
                "function total($rows, $most) { $sum = 0; foreach ($rows as $key => $row) { $sum += $row; } return [min($sum, $most, LIMIT, 1), NAME => $row]; }",
                &["$rows", "$sum", "$key"],
                &["LIMIT", "min", "NAME"],
            ),
            (
                "ruby",
                "def total(rows, most)\n  sum = 0\n  rows.each { |item| sum += item * FACTOR }\n  @last = sum\n  [sum, most, 1, 2].min\nend",
                &["rows", "most", "sum", "item"],
                &["FACTOR", "last", "each"],
            ),
        ] {
            let own = structure(code, language).unwrap();
            let renamed =
                |name: &str| code.replace(name, &format!("{}zz{}", name.trim_end(), &name[name.trim_end().len()..]));
            for name in bound {
                assert_eq!(structure(&renamed(name), language), Some(own), "{language}: {name}");
            }
            for name in kept {
                assert_ne!(structure(&renamed(name), language), Some(own), "{language}: {name}");
            }
        }
    }

    #[test]
    fn strings_and_comments_are_read_in_each_language() {
        let padding = "a(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)";
        let equal = |language, a: &str, b: &str| {
            structure(&format!("{padding}\n{a}"), language) == structure(&format!("{padding}\n{b}"), language)
        };
        assert!(equal("go", "x := 1 // one\ny := x", "p := 1 /* it's */\nq := p"));
        assert!(!equal("python", "x // y", "x"));
        assert!(!equal("javascript", "`a ${b}`", "`c ${d}`"));
        assert!(equal("python", "x = '''it's # no comment'''", "z = '''it's # no comment'''"));
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
