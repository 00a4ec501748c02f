//! A pickled list of dictionaries, read one dictionary after another (protocols 0 to 5, as Python's `pickletools` describes
//! them). Nothing is executed: an opcode that would make anything but lists, dictionaries, texts and numbers is an error.
//!
//! CodeSearchNet's definitions are such a list, of over a million dictionaries with a hundred tokens each. Here
//! memory holds a thousand at a time.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use codepair_runtime::{Paged, Piece, Spool};

/// Values that wait to become part of a list or dictionary; Python's pickler lets a thousand wait.
const WAITING: usize = 1 << 16;
/// Bytes of a text at most.
const TEXT_BYTES: u64 = (16 << 20) - 1;

/// The texts of some keys of a dictionary; nothing where there is no such key, or no text behind it.
pub(crate) type Dict = Vec<Option<Arc<str>>>;

/// The dictionaries of a list.
pub(crate) struct Dicts<R> {
    reader: R,
    wanted: &'static [&'static str],
    stack: Vec<Value>,
    memo: Memo,
    ready: VecDeque<Dict>,
    ended: bool,
}

#[derive(Clone)]
enum Value {
    /// Where a list's or dictionary's next values begin.
    Mark,
    Text(Arc<str>),
    /// A list whose values are of no interest, or the outermost.
    List,
    Dict(Dict),
    /// A number or another value of no interest.
    Other,
}

impl<R: BufRead> Dicts<R> {
    pub(crate) fn new(reader: R, wanted: &'static [&'static str]) -> Result<Self> {
        let (stack, ready) = (Vec::new(), VecDeque::new());
        Ok(Self { reader, wanted, stack, memo: Memo::new()?, ready, ended: false })
    }

    /// Does what the next opcode says.
    fn step(&mut self) -> Result<()> {
        match self.number::<1>()? as u8 {
            // Protocol and frames.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            b'.' => {
                ensure!(matches!(self.stack.as_slice(), [Value::List]), "it is no list");
                self.ended = true;
            }
            b'(' => self.push(Value::Mark)?,
            b']' => self.push(Value::List)?,
            b'}' => self.push(Value::Dict(vec![None; self.wanted.len()]))?,
            b')' | b'N' | 0x88 | 0x89 | 0x8f => self.push(Value::Other)?,
            b'K' => self.other(1)?,
            b'M' => self.other(2)?,
            b'J' => self.other(4)?,
            b'G' => self.other(8)?,
            b'I' | b'L' | b'F' => {
                self.line()?;
                self.push(Value::Other)?;
            }
            b'X' | b'T' => {
                let length = self.number::<4>()?;
                self.text(length)?;
            }
            0x8c | b'U' => {
                let length = self.number::<1>()?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.number::<8>()?;
                self.text(length)?;
            }
            b'V' => {
                let text = unescaped(&self.line()?)?;
                self.push(Value::Text(text.into()))?;
            }
            // Long integers and bytes.
            b'B' | 0x8b => {
                let length = self.number::<4>()?;
                self.other(length)?;
            }
            b'C' | 0x8a => {
                let length = self.number::<1>()?;
                self.other(length)?;
            }
            0x8e | 0x96 => {
                let length = self.number::<8>()?;
                self.other(length)?;
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' => {
                let values = self.pop_to_mark()?;
                self.append(values)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])?;
            }
            b'u' => {
                let values = self.pop_to_mark()?;
                self.set(values)?;
            }
            b'l' => {
                let values = self.pop_to_mark()?;
                self.push(Value::List)?;
                self.append(values)?;
            }
            b'd' => {
                let values = self.pop_to_mark()?;
                self.push(Value::Dict(vec![None; self.wanted.len()]))?;
                self.set(values)?;
            }
            b't' | 0x91 => {
                self.pop_to_mark()?;
                self.push(Value::Other)?;
            }
            opcode @ 0x85..=0x87 => {
                for _ in 0x84..opcode {
                    self.pop()?;
                }
                self.push(Value::Other)?;
            }
            0x90 | b'1' => drop(self.pop_to_mark()?),
            b'0' => drop(self.pop()?),
            b'2' => {
                let top = self.top()?.clone();
                self.push(top)?;
            }
            0x94 => self.memoize(self.memo.next)?,
            b'q' => {
                let id = self.number::<1>()?;
                self.memoize(id)?;
            }
            b'r' => {
                let id = self.number::<4>()?;
                self.memoize(id)?;
            }
            b'p' => {
                let id = self.line()?.parse()?;
                self.memoize(id)?;
            }
            b'h' => {
                let id = self.number::<1>()?;
                self.recall(id)?;
            }
            b'j' => {
                let id = self.number::<4>()?;
                self.recall(id)?;
            }
            b'g' => {
                let id = self.line()?.parse()?;
                self.recall(id)?;
            }
            other => bail!("it holds more than lists, dictionaries, texts and numbers (opcode 0x{other:02x})"),
        }
        Ok(())
    }

    /// The next bytes as a number, the least one first.
    fn number<const BYTES: usize>(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes[..BYTES])?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped = std::io::copy(&mut self.reader.by_ref().take(count), &mut std::io::sink())?;
        ensure!(skipped == count, "it ends in the middle of a value");
        Ok(())
    }

    fn other(&mut self, bytes: u64) -> Result<()> {
        self.skip(bytes)?;
        self.push(Value::Other)
    }

    fn text(&mut self, bytes: u64) -> Result<()> {
        ensure!(bytes <= TEXT_BYTES, "a text of {bytes} bytes");
        let mut text = Vec::new();
        self.reader.by_ref().take(bytes).read_to_end(&mut text)?;
        ensure!(text.len() as u64 == bytes, "it ends in the middle of a text");
        // Python writes half a surrogate pair as if it were a character; that is no text that anybody could use.
        let text =
            String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        self.push(Value::Text(text.into()))
    }

    /// In Latin-1, as protocol 0 has it.
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.reader.by_ref().take(TEXT_BYTES).read_until(b'\n', &mut line)?;
        ensure!(line.pop() == Some(b'\n'), "it ends in the middle of a line");
        Ok(line.into_iter().map(char::from).collect())
    }

    fn push(&mut self, value: Value) -> Result<()> {
        ensure!(self.stack.len() < WAITING, "it nests too deeply");
        self.stack.push(value);
        Ok(())
    }

    fn top(&self) -> Result<&Value> {
        self.stack.last().context("a value is missing")
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().context("a value is missing")
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark)).context("a mark is missing")?;
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(values)
    }

    /// Adds values to the list on top; those of the outermost list are ready.
    fn append(&mut self, values: Vec<Value>) -> Result<()> {
        ensure!(matches!(self.top()?, Value::List | Value::Other), "values for what is no list");
        if self.stack.len() == 1 {
            self.ready.extend(values.into_iter().map(|value| match value {
                Value::Dict(dict) => dict,
                // What is no dictionary lacks everything.
                _ => vec![None; self.wanted.len()],
            }));
        }
        Ok(())
    }

    /// Puts keys and values into the dictionary on top.
    fn set(&mut self, values: Vec<Value>) -> Result<()> {
        let wanted = self.wanted;
        let dict = match self.stack.last_mut() {
            Some(Value::Dict(dict)) => dict,
            Some(Value::Other) => return Ok(()),
            _ => bail!("keys for what is no dictionary"),
        };
        let (pairs, rest) = values.as_chunks();
        ensure!(rest.is_empty(), "a key without a value");
        for [key, value] in pairs {
            if let Value::Text(key) = key
                && let Some(place) = wanted.iter().position(|wanted| **wanted == **key)
            {
                dict[place] = if let Value::Text(text) = value { Some(Arc::clone(text)) } else { None };
            }
        }
        Ok(())
    }

    fn memoize(&mut self, id: u64) -> Result<()> {
        let text = match self.top()? {
            Value::Text(text) => Some(Arc::clone(text)),
            _ => None,
        };
        self.memo.put(id, text)
    }

    /// What is no text is of no interest a second time.
    fn recall(&mut self, id: u64) -> Result<()> {
        let text = self.memo.get(id)?;
        self.push(text.map_or(Value::Other, Value::Text))
    }
}

impl<R: BufRead> Iterator for Dicts<R> {
    type Item = Result<Dict>;

    fn next(&mut self) -> Option<Result<Dict>> {
        while self.ready.is_empty() && !self.ended {
            if let Err(error) = self.step() {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// `\u` and `\U` stand for characters in the texts of protocol 0.
fn unescaped(line: &str) -> Result<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let digits = match rest.as_bytes().get(at + 1) {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => {
                text.push('\\');
                rest = &rest[at + 1..];
                continue;
            }
        };
        let code = rest.get(at + 2..at + 2 + digits).context("an escape without its digits")?;
        text.push(char::from_u32(u32::from_str_radix(code, 16)?).unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = &rest[at + 2 + digits..];
    }
    Ok(text + rest)
}

/// Values that may come again, by number. Python's pickler numbers every one, so all but the first few lie on disk: where their
/// texts are in one file, the texts in another.
struct Memo {
    first: Vec<Option<Arc<str>>>,
    /// The piece of each value's text; that of nothing of what is no text.
    pieces: Paged<Piece>,
    texts: Spool,
    next: u64,
}

/// Keys and what else comes in each dictionary are among the first; long texts are on disk all the same.
const FIRST: u64 = 1 << 12;
const FIRST_BYTES: usize = 1 << 10;
/// Bytes of the pieces that may be in memory.
const PIECES_BYTES: u64 = 4 << 20;
/// Numbers that are passed over at most.
const GAP: u64 = 1 << 16;

impl Memo {
    fn new() -> Result<Self> {
        let mut texts = Spool::new()?;
        // Nobody's, so that no text, not even an empty one, has the piece of nothing.
        texts.put(b"-")?;
        Ok(Self { first: Vec::new(), pieces: Paged::new(PIECES_BYTES)?, texts, next: 0 })
    }

    fn put(&mut self, id: u64, text: Option<Arc<str>>) -> Result<()> {
        ensure!((self.next..self.next + GAP).contains(&id), "value {id} is numbered after value {}", self.next);
        while self.next < id {
            self.add(None)?;
        }
        self.add(text)
    }

    fn add(&mut self, text: Option<Arc<str>>) -> Result<()> {
        let short = text.as_ref().is_none_or(|text| text.len() <= FIRST_BYTES);
        let piece = match &text {
            None => Piece::default(),
            Some(_) if short && self.next < FIRST => Piece::default(),
            Some(text) => self.texts.put(text.as_bytes())?,
        };
        if self.next < FIRST {
            self.first.push(text.filter(|_| short));
        }
        self.pieces.set(self.next, piece)?;
        self.next += 1;
        Ok(())
    }

    fn get(&self, id: u64) -> Result<Option<Arc<str>>> {
        ensure!(id < self.next, "value {id} of {} that have a number", self.next);
        if let Some(Some(text)) = self.first.get(id as usize) {
            return Ok(Some(Arc::clone(text)));
        }
        let piece = self.pieces.get(id)?;
        if piece == Piece::default() { Ok(None) } else { self.texts.text(piece).map(|text| Some(text.into())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const WANTED: &[&str] = &["nwo", "function"];

    const GOLDEN: [(&str, &[u8]); 6] = [
        ("protocol 0", b"(lp0\x0a(dp1\x0aVnwo\x0ap2\x0aVa/b\x0ap3\x0asVfunction\x0ap4\x0aV\xe9\x5cu000a\x0ap5\x0asVn\x0ap6\x0aNsa(dp7\x0ag2\x0ag3\x0asVtokens\x0ap8\x0a(lp9\x0aVx\x0ap10\x0aaI1\x0aaF2.5\x0aasg4\x0aVa/ba/b\x0ap11\x0asa."),
        ("protocol 1", b"]q\x00(}q\x01(X\x03\x00\x00\x00nwoq\x02X\x03\x00\x00\x00a/bq\x03X\x08\x00\x00\x00functionq\x04X\x03\x00\x00\x00\xc3\xa9\x0aq\x05X\x01\x00\x00\x00nq\x06Nu}q\x07(h\x02h\x03X\x06\x00\x00\x00tokensq\x08]q\x09(X\x01\x00\x00\x00xq\x0aK\x01G@\x04\x00\x00\x00\x00\x00\x00eh\x04X\x06\x00\x00\x00a/ba/bq\x0bue."),
        ("protocol 2", b"\x80\x02]q\x00(}q\x01(X\x03\x00\x00\x00nwoq\x02X\x03\x00\x00\x00a/bq\x03X\x08\x00\x00\x00functionq\x04X\x03\x00\x00\x00\xc3\xa9\x0aq\x05X\x01\x00\x00\x00nq\x06Nu}q\x07(h\x02h\x03X\x06\x00\x00\x00tokensq\x08]q\x09(X\x01\x00\x00\x00xq\x0aK\x01G@\x04\x00\x00\x00\x00\x00\x00eh\x04X\x06\x00\x00\x00a/ba/bq\x0bue."),
        ("protocol 3", b"\x80\x03]q\x00(}q\x01(X\x03\x00\x00\x00nwoq\x02X\x03\x00\x00\x00a/bq\x03X\x08\x00\x00\x00functionq\x04X\x03\x00\x00\x00\xc3\xa9\x0aq\x05X\x01\x00\x00\x00nq\x06Nu}q\x07(h\x02h\x03X\x06\x00\x00\x00tokensq\x08]q\x09(X\x01\x00\x00\x00xq\x0aK\x01G@\x04\x00\x00\x00\x00\x00\x00eh\x04X\x06\x00\x00\x00a/ba/bq\x0bue."),
        ("protocol 4", b"\x80\x04\x95Z\x00\x00\x00\x00\x00\x00\x00]\x94(}\x94(\x8c\x03nwo\x94\x8c\x03a/b\x94\x8c\x08function\x94\x8c\x03\xc3\xa9\x0a\x94\x8c\x01n\x94Nu}\x94(h\x02h\x03\x8c\x06tokens\x94]\x94(\x8c\x01x\x94K\x01G@\x04\x00\x00\x00\x00\x00\x00eh\x04\x8c\x06a/ba/b\x94ue."),
        ("protocol 5", b"\x80\x05\x95Z\x00\x00\x00\x00\x00\x00\x00]\x94(}\x94(\x8c\x03nwo\x94\x8c\x03a/b\x94\x8c\x08function\x94\x8c\x03\xc3\xa9\x0a\x94\x8c\x01n\x94Nu}\x94(h\x02h\x03\x8c\x06tokens\x94]\x94(\x8c\x01x\x94K\x01G@\x04\x00\x00\x00\x00\x00\x00eh\x04\x8c\x06a/ba/b\x94ue."),
    ];

    fn read(bytes: &[u8]) -> Result<Vec<Vec<Option<String>>>> {
        let owned = |dict: Dict| dict.into_iter().map(|text| text.map(|text| text.to_string())).collect();
        Dicts::new(bytes, WANTED)?.map(|dict| dict.map(owned)).collect()
    }

    fn some(texts: [&str; 2]) -> Vec<Option<String>> {
        texts.map(|text| Some(text.to_owned())).into()
    }

    /// What Python 3.11 wrote: `pickle.dumps([{"nwo": "a/b", "function": "é\\n", "n": None}, {"nwo": same, "tokens": ["x", 1, 2.5],
    /// "function": same + same}], protocol)`.
    #[test]
    fn what_python_writes_is_read() {
        for (name, bytes) in GOLDEN {
            assert_eq!(read(bytes).unwrap(), [some(["a/b", "é\n"]), some(["a/b", "a/ba/b"])], "{name}");
            for cut in 0..bytes.len() {
                assert!(read(&bytes[..cut]).is_err(), "{name} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_list_of_dictionaries_is_told() {
        for (bytes, word) in [
            (&b"N."[..], "no list"),
            (b"}.", "no list"),
            (b"cos\nsystem\n(S'true'\ntR.", "opcode 0x63"),
            (b"]h\x07a.", "value 7 of 0"),
            (b"]e.", "a mark is missing"),
            (b"](X\xff\xff\xff\xff", "a text of 4294967295 bytes"),
            (b"]}(K\x01ua.", "a key without a value"),
            (b"X\x01\x00\x00\x00ya.", "a value is missing"),
            (b"(V\\u00\n", "an escape without its digits"),
        ] {
            let error = format!("{:#}", read(bytes).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(read(b"](K\x01]e.").unwrap(), [vec![None, None], vec![None, None]]);
    }

    proptest! {
        /// As the library reads it, which holds all of it.
        #[test]
        fn rows_are_those_of_the_library(rows in prop::collection::vec((".{0,9}", ".{0,2000}", prop::collection::vec(".{0,3}", 0..9)), 0..20)) {
            let value = rows.iter().map(|(nwo, function, tokens)| json!({ "nwo": nwo, "function": function, "tokens": tokens })).collect::<Vec<_>>();
            let expected: Vec<_> = rows.iter().map(|(nwo, function, _)| some([nwo, function])).collect();
            for options in [serde_pickle::SerOptions::new(), serde_pickle::SerOptions::new().proto_v2()] {
                prop_assert_eq!(read(&serde_pickle::to_vec(&value, options).unwrap()).unwrap(), expected.clone());
            }
        }

        /// However what Python writes is damaged, it is read or refused, and takes no memory that is not there.
        #[test]
        fn fuzz_pickle(bytes in codepair_mutations::mutated(GOLDEN.map(|(_, bytes)| bytes.to_vec()).into(), &["(", "u", "X", "\u{94}", "q", "h", "e", "."])) {
            let _ = read(&bytes);
        }

        #[test]
        fn rubbish_is_no_crash(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[b"](".as_slice(), &bytes].concat());
        }
    }
}
