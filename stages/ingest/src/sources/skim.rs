//! Reads some texts out of a JSON object and skips the rest. Most of what a corpus holds are fields that nobody reads
//! (tokens, the code once more), and to find where a value ends takes a fifth of the time of parsing it: 64 bytes at a time
//! are compared at once, as Langdale and Lemire do ("Parsing Gigabytes of JSON per Second", 2019).

mod block;

use block::{BLOCK, Block, Portable, load};

/// The fields of these names, each with its text. What is between other fields' brackets and quotes is not looked at.
///
/// Nothing where `object` is not plainly one object, such a field is no text, or a name is written with an escape: a parser
/// is to say more.
pub(crate) fn texts<'a>(object: &'a [u8], names: &[&str], scratch: &mut Vec<u8>) -> Option<Vec<(&'a str, String)>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("popcnt") {
        #[allow(unsafe_code, reason = "the instructions are there: the lines above say so")]
        // SAFETY: they were detected.
        return unsafe { texts_avx2(object, names, scratch) };
    }
    texts_by::<Portable>(object, names, scratch)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,popcnt")]
fn texts_avx2<'a>(object: &'a [u8], names: &[&str], scratch: &mut Vec<u8>) -> Option<Vec<(&'a str, String)>> {
    texts_by::<block::Avx2>(object, names, scratch)
}

#[inline(always)]
fn texts_by<'a, B: Block>(object: &'a [u8], names: &[&str], scratch: &mut Vec<u8>) -> Option<Vec<(&'a str, String)>> {
    let mut found = Vec::with_capacity(names.len());
    let mut at = token(object, 0, b'{')?;
    loop {
        let start = token(object, at, b'"')?;
        let end = string_end::<B>(object, start)?;
        let name = &object[start..end];
        if name.contains(&b'\\') {
            return None;
        }
        at = space(object, token(object, end + 1, b':')?);
        if names.iter().any(|wanted| wanted.as_bytes() == name) {
            let text;
            (text, at) = read_string::<B>(object, token(object, at, b'"')?, scratch)?;
            found.push((std::str::from_utf8(name).ok()?, text));
        } else {
            at = value_end::<B>(object, at)?;
        }
        at = space(object, at);
        match object.get(at)? {
            b',' => at += 1,
            b'}' if space(object, at + 1) == object.len() => return Some(found),
            _ => return None,
        }
    }
}

/// The text of the string whose content begins at `at`, and the place behind its quote.
#[inline(always)]
fn read_string<B: Block>(bytes: &[u8], at: usize, scratch: &mut Vec<u8>) -> Option<(String, usize)> {
    scratch.clear();
    let (mut escapes, mut copied) = (Escapes::default(), at);
    for start in (at..bytes.len()).step_by(BLOCK) {
        let block = load::<B>(bytes, start);
        let mut escaped = escapes.escaped(block.equal(b'\\'));
        let quotes = block.equal(b'"') & !escaped;
        let content = if quotes == 0 { u64::MAX } else { (quotes - 1) & !quotes };
        // JSON has them as escapes only.
        if block.controls() & content != 0 {
            return None;
        }
        escaped &= content;
        while escaped != 0 {
            let place = start + escaped.trailing_zeros() as usize;
            scratch.extend_from_slice(&bytes[copied..place - 1]);
            scratch.push(match bytes[place] {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                same @ (b'"' | b'\\' | b'/') => same,
                // The others are rare.
                _ => {
                    let end = string_end::<B>(bytes, at)? + 1;
                    return Some((serde_json::from_slice(&bytes[at - 1..end]).ok()?, end));
                }
            });
            copied = place + 1;
            escaped &= escaped - 1;
        }
        if quotes != 0 {
            let end = start + quotes.trailing_zeros() as usize;
            scratch.extend_from_slice(&bytes[copied..end]);
            return Some((simdutf8::basic::from_utf8(scratch).ok()?.to_owned(), end + 1));
        }
    }
    None
}

/// The place of the first byte from `at` on that is no white space.
#[inline(always)]
fn space(bytes: &[u8], at: usize) -> usize {
    at + bytes[at.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The place behind `wanted`, which may stand behind white space.
#[inline(always)]
fn token(bytes: &[u8], at: usize, wanted: u8) -> Option<usize> {
    let at = space(bytes, at);
    (*bytes.get(at)? == wanted).then_some(at + 1)
}

/// The place behind the value that begins at `at`.
#[inline(always)]
fn value_end<B: Block>(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => Some(string_end::<B>(bytes, at + 1)? + 1),
        b'[' | b'{' => Some(container_end::<B>(bytes, at + 1)? + 1),
        _ => {
            let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            let length = bytes[at..].iter().position(is_end)?;
            (length > 0).then_some(at + length)
        }
    }
}

/// The place of the quote that ends a string whose content begins at `at`.
#[inline(always)]
fn string_end<B: Block>(bytes: &[u8], at: usize) -> Option<usize> {
    let mut escapes = Escapes::default();
    for start in (at..bytes.len()).step_by(BLOCK) {
        let block = load::<B>(bytes, start);
        let quotes = block.equal(b'"') & !escapes.escaped(block.equal(b'\\'));
        if quotes != 0 {
            return Some(start + quotes.trailing_zeros() as usize);
        }
    }
    None
}

/// The place of the bracket that ends an array or object whose content begins at `at`. Brackets of both kinds count alike.
#[inline(always)]
fn container_end<B: Block>(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut escapes, mut depth, mut in_string) = (Escapes::default(), 1, 0);
    for start in (at..bytes.len()).step_by(BLOCK) {
        let block = load::<B>(bytes, start);
        let quotes = block.equal(b'"') & !escapes.escaped(block.equal(b'\\'));
        let quoted = parity(quotes) ^ in_string;
        in_string = if quoted >> (BLOCK - 1) == 1 { u64::MAX } else { 0 };
        // Either bit-or 32 makes a brace of a bracket, or it was one.
        let (opening, closing) = (block.equal_but_for_bit_5(b'{') & !quoted, block.equal_but_for_bit_5(b'}') & !quoted);
        if opening | closing == 0 {
            continue;
        }
        if closing.count_ones() < depth {
            depth = depth + opening.count_ones() - closing.count_ones();
            continue;
        }
        let mut brackets = opening | closing;
        while brackets != 0 {
            let bit = brackets & brackets.wrapping_neg();
            depth = if opening & bit == 0 { depth - 1 } else { depth + 1 };
            if depth == 0 {
                return Some(start + bit.trailing_zeros() as usize);
            }
            brackets ^= bit;
        }
    }
    None
}

/// Bit `i` is the parity of the bits up to `i`.
#[inline(always)]
fn parity(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Which bytes stand behind a backslash that is not itself escaped.
#[derive(Default)]
struct Escapes {
    /// The last byte of the block before was such a backslash.
    first: u64,
}

impl Escapes {
    #[inline(always)]
    fn escaped(&mut self, mut backslashes: u64) -> u64 {
        let mut escaped = self.first;
        backslashes &= !escaped;
        self.first = 0;
        while backslashes != 0 {
            let bit = backslashes & backslashes.wrapping_neg();
            escaped |= bit << 1;
            self.first = bit >> (BLOCK - 1);
            backslashes &= !(bit | bit << 1);
        }
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    const WANTED: [&str; 3] = ["code", "docstring", "absent"];

    fn skimmed(object: &[u8]) -> Option<Vec<(String, String)>> {
        let texts = texts(object, &WANTED, &mut Vec::new())?;
        Some(texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect())
    }

    /// Texts full of what decides where a value ends, long enough to cross blocks.
    fn text() -> impl Strategy<Value = String> {
        const PIECES: &[&str] =
            &["\"", "\\", "\\\\", "[", "]", "{", "}", ",", ":", "\n", "\t", "\u{1}", "é", "\u{1f600}", "word", " "];
        prop::collection::vec(prop::sample::select(PIECES), 0..120).prop_map(|pieces| pieces.concat())
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![text().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((text(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn texts_are_those_of_the_parser(code in text(), docstring in text(), before in value(), after in value()) {
            let object = Map::from_iter([
                ("a".to_owned(), before), ("code".to_owned(), code.clone().into()),
                ("docstring".to_owned(), docstring.clone().into()), ("z".to_owned(), after),
            ]);
            let expected = vec![("code".to_owned(), code), ("docstring".to_owned(), docstring)];
            for line in [serde_json::to_vec(&object).unwrap(), serde_json::to_vec_pretty(&object).unwrap()] {
                prop_assert_eq!(skimmed(&line), Some(expected.clone()));
                // What is cut off is never taken for whole.
                for cut in 0..line.len() {
                    prop_assert_eq!(skimmed(&line[..cut]), None);
                }
            }
        }

        /// However a line is damaged: where the parser reads it, so do we, or leave it to the parser.
        #[test]
        fn fuzz_skim(line in codepair_mutations::mutated(
            vec![br#"{"a": [1, {"b": "\\"}], "code": "x\n\u00e9", "docstring": "\"y\"", "z": {"code": 1}}"#.to_vec()],
            &["\"", "\\", "{", "}", "[", "]", ",", ":", "\"code\"", "\\u00e9", "\\ud83d\\ude00"],
        )) {
            if let (Some(texts), Ok(parsed)) = (skimmed(&line), serde_json::from_slice::<Map<String, Value>>(&line)) {
                for (name, _) in &texts {
                    // Of a name that comes twice the last one counts, as for the parser.
                    let last = texts.iter().rfind(|(other, _)| other == name).map(|(_, text)| text.as_str());
                    prop_assert_eq!(parsed.get(name).and_then(Value::as_str), last);
                }
            }
        }

        /// Damage anywhere: where the parser reads it, so do we, or leave it to the parser.
        #[test]
        fn damage_is_left_to_the_parser(code in text(), other in value(), at in any::<prop::sample::Index>(), byte: u8) {
            let object = Map::from_iter([("code".to_owned(), code.into()), ("other".to_owned(), other)]);
            let mut line = serde_json::to_vec(&object).unwrap();
            let at = at.index(line.len());
            line[at] = byte;
            if let (Some(texts), Ok(parsed)) = (skimmed(&line), serde_json::from_slice::<Map<String, Value>>(&line)) {
                let expected = parsed.get("code").and_then(Value::as_str);
                prop_assert_eq!(texts.last().map(|(_, text)| text.as_str()), expected);
            }
        }
    }

    #[test]
    fn what_is_no_plain_object_is_left_to_the_parser() {
        for line in [
            "",
            " ",
            "{",
            "}",
            "{}",
            "[]",
            "{\"code\"}",
            "{\"code\":}",
            "{\"code\":1}",
            "{\"code\":null}",
            "{\"code\":\"a\",}",
            "{\"code\":\"a\"} x",
            "{\"code\":\"a\nb\"}",
            "{\"code\":\"\\x\"}",
            "{\"code\":\"\\ud800\"}",
            "{\"a\":[1}",
            "{\"a\":\"b",
            "{\"cod\\u0065\":\"a\"}",
            "{\"a\":,\"code\":\"c\"}",
            "\"code\"",
            "{1:2}",
        ] {
            assert_eq!(skimmed(line.as_bytes()), None, "{line}");
        }
        assert_eq!(skimmed(b"{\"code\":\"\xff\"}"), None);
        assert_eq!(skimmed(b" { \"a\" : [ { } , [ ] ] , \"b\":true , \"n\":-1e5 } ").unwrap(), []);
        let escapes = br#"{"code":"\b\f\u00e9\ud83d\ude00\/","docstring":""}"#;
        assert_eq!(skimmed(escapes).unwrap()[0].1, "\u{8}\u{c}é\u{1f600}/");
    }
}
