//! Cutting text into the pieces within which byte pairs are merged, without regular expressions; the same pieces that
//! Hugging Face's `tokenizers` cuts by theirs.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// A class of Unicode characters beyond ASCII, as the `regex` crate knows it.
struct Characters(Vec<(char, char)>);

impl Characters {
    #[allow(clippy::expect_used, reason = "the patterns are in this file, and a test reads them")]
    fn of(pattern: &str) -> Self {
        let class = regex_syntax::parse(pattern).expect("the pattern is a class");
        let HirKind::Class(Class::Unicode(class)) = class.kind() else { return Self(Vec::new()) };
        Self(class.ranges().iter().map(|range| (range.start(), range.end())).collect())
    }

    fn contains(&self, c: char) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= c);
        after > 0 && c <= self.0[after - 1].1
    }
}

static LETTERS: LazyLock<Characters> = LazyLock::new(|| Characters::of(r"\p{L}"));
static LOWER: LazyLock<Characters> = LazyLock::new(|| Characters::of(r"\p{Ll}"));
static UPPER: LazyLock<Characters> = LazyLock::new(|| Characters::of(r"\p{Lu}"));

/// What a character counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Letter,
    Number,
    Space,
    Other,
}

fn sort(c: char) -> Sort {
    if c.is_ascii() {
        return match c as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Sort::Letter,
            b'0'..=b'9' => Sort::Number,
            b' ' | b'\t'..=b'\r' => Sort::Space,
            _ => Sort::Other,
        };
    }
    match c {
        c if LETTERS.contains(c) => Sort::Letter,
        c if c.is_numeric() => Sort::Number,
        c if c.is_whitespace() => Sort::Space,
        _ => Sort::Other,
    }
}

/// Bytes of the characters of one sort that `text` begins with.
fn run(text: &str, wanted: Sort) -> usize {
    text.char_indices().find(|(_, c)| sort(*c) != wanted).map_or(text.len(), |(at, _)| at)
}

/// The pieces of GPT-2 (Radford et al., 2019): `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
pub(crate) fn byte_pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let length = byte_piece(rest)?;
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(piece)
    })
}

fn byte_piece(text: &str) -> Option<usize> {
    const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    let first = text.chars().next()?;
    if first == '\''
        && let Some(end) = CONTRACTIONS.iter().find(|end| text.starts_with(*end))
    {
        return Some(end.len());
    }
    let spaced = if first == ' ' { &text[1..] } else { text };
    if let Some(next) = spaced.chars().next()
        && sort(next) != Sort::Space
    {
        return Some(text.len() - spaced.len() + run(spaced, sort(next)));
    }
    // Only white space begins here. The last of it goes with what follows, unless it is all there is.
    let spaces = run(text, Sort::Space);
    if spaces == text.len() {
        return Some(spaces);
    }
    let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
    Some(if spaces > last { spaces - last } else { spaces })
}

/// Lower-case words, cut at underscores and humps: what lies between characters that are no letters or digits, after a space
/// was put at each `(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})`.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut spaced = String::with_capacity(text.len() + text.len() / 8);
    let mut characters = text.chars().peekable();
    let mut before = None;
    while let Some(c) = characters.next() {
        if is_upper(c)
            && let Some(before) = before
        {
            let after_low = is_lower(before) || sort(before) == Sort::Number;
            let begins_word = is_upper(before) && characters.peek().is_some_and(|next| is_lower(*next));
            if after_low || begins_word {
                spaced.push(' ');
            }
        }
        spaced.extend(c.to_lowercase());
        before = Some(c);
    }
    let is_gap = |c: char| !matches!(sort(c), Sort::Letter | Sort::Number);
    spaced.split(is_gap).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn is_lower(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_lowercase() } else { LOWER.contains(c) }
}

fn is_upper(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_uppercase() } else { UPPER.contains(c) }
}

/// The characters that stand for bytes in GPT-2's vocabulary: printable ones for themselves, the others from 256 on.
pub(crate) fn alphabet() -> [char; 256] {
    let mut next = 256;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte as u8 as char,
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_as_gpt_2_does() {
        let pieces = |text| byte_pieces(text).collect::<Vec<_>>();
        assert_eq!(
            pieces("don't  stop\n\n    x1=2 "),
            ["don", "'t", " ", " stop", "\n\n   ", " x", "1", "=", "2", " "]
        );
        assert_eq!(pieces(" 'lla\u{a0}é²_"), [" '", "lla", "\u{a0}", "é", "²", "_"]);
        assert!(pieces("").is_empty());
    }

    #[test]
    fn words_are_lowered_and_cut_at_humps() {
        assert_eq!(words("getHTTPResponse_2Go ÉtéΣ"), ["get", "http", "response", "2", "go", "été", "σ"]);
    }

    #[test]
    fn the_alphabet_is_gpt_2s() {
        let alphabet = alphabet();
        assert_eq!((alphabet[b' ' as usize], alphabet[b'\n' as usize], alphabet[0xad]), ('Ġ', 'Ċ', 'Ń'));
        let distinct: std::collections::HashSet<char> = alphabet.into_iter().collect();
        assert_eq!(distinct.len(), 256);
    }
}
