//! Files of one JSON array, some of its values at a time, so that one of tiny values is never in memory as a whole.

use std::io::Read as _;

use anyhow::Result;
use codepair_runtime::input_error;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::files::Opened;
use crate::found::Found;
use crate::split::Named;

/// About so many bytes of values are parsed at once.
const PIECE_BYTES: usize = 512 << 10;
/// A value beyond this is no row of anything, and would have to be held in memory.
const VALUE_BYTES: usize = 64 << 20;

/// Some values of an array, with white space between them.
pub(crate) struct Values {
    pub(crate) file: String,
    /// What the file's name says of the split.
    pub(crate) split: Option<Named>,
    /// Number of the first, from 0.
    first: usize,
    count: usize,
    bytes: Vec<u8>,
    /// Bytes of the one value that this stands for, which is too long to be read.
    too_long: Option<usize>,
}

/// Where in an array the reading is.
struct Cutter {
    /// Of brackets and braces; the array's own is the first.
    depth: usize,
    is_in_text: bool,
    is_escaped: bool,
    /// The value that is read has a character by now.
    has_begun: bool,
    /// The array has ended.
    has_ended: bool,
    /// Values before the one that is read.
    number: usize,
    /// Where it begins in the bytes of the piece, and how long it is, kept or not.
    start: usize,
    length: usize,
    first: usize,
    bytes: Vec<u8>,
}

/// Cuts an array into runs of its values.
///
/// # Errors
/// Exit 3: the file is no array, or cannot be read to its end.
pub(crate) fn cut(file: &mut Opened, emit: &mut dyn FnMut(Values) -> Result<()>) -> Result<()> {
    file.as_text();
    let (name, split) = (file.name().to_owned(), file.split());
    let mut cutter = Cutter {
        depth: 0,
        is_in_text: false,
        is_escaped: false,
        has_begun: false,
        has_ended: false,
        number: 0,
        start: 0,
        length: 0,
        first: 0,
        bytes: Vec::new(),
    };
    let (mut buffer, mut is_empty) = (vec![0; PIECE_BYTES / 2], true);
    let piece = |first, count, bytes, too_long| Values { file: name.clone(), split, first, count, bytes, too_long };
    loop {
        let read = file.read(&mut buffer).map_err(|error| file.damaged(&error))?;
        if read == 0 {
            break;
        }
        is_empty = false;
        for &byte in &buffer[..read] {
            let is_over = cutter.take(byte).map_err(|why| not_an_array(&name, &why))?;
            if !is_over {
                continue;
            }
            let count = cutter.number - cutter.first;
            if cutter.length > VALUE_BYTES {
                cutter.bytes.truncate(cutter.start);
                emit(piece(cutter.first, count - 1, std::mem::take(&mut cutter.bytes), None))?;
                emit(piece(cutter.number - 1, 0, Vec::new(), Some(cutter.length)))?;
                cutter.first = cutter.number;
            } else if cutter.bytes.len() >= PIECE_BYTES || cutter.has_ended {
                emit(piece(cutter.first, count, std::mem::take(&mut cutter.bytes), None))?;
                cutter.first = cutter.number;
            }
            cutter.begin();
        }
    }
    if cutter.has_ended {
        return Ok(());
    }
    let why = match (cutter.depth, is_empty) {
        (0, true) => "it is empty",
        (0, false) => "it does not begin with [",
        _ => "it has no end; it was cut off, fetch it again",
    };
    Err(not_an_array(&name, why))
}

fn not_an_array(name: &str, why: &str) -> anyhow::Error {
    input_error(format!("{name} is no JSON array: {why}"))
}

impl Cutter {
    /// Takes a byte; whether a value is over with it.
    fn take(&mut self, byte: u8) -> Result<bool, String> {
        if self.is_in_text {
            self.keep(byte);
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_text = false,
                _ => {}
            }
            return Ok(false);
        }
        if byte.is_ascii_whitespace() {
            if self.has_begun {
                self.keep(byte);
            }
            return Ok(false);
        }
        if self.has_ended {
            return Err("something follows it".to_owned());
        }
        match (self.depth, byte) {
            (0, b'[') => {
                self.depth = 1;
                return Ok(false);
            }
            (0, _) => return Err("it does not begin with [".to_owned()),
            (1, b']' | b'}') => {
                self.has_ended = true;
                if byte == b'}' || !self.has_begun && self.number > 0 {
                    return Err(format!("value {} is missing", self.number));
                }
                // An empty array has no value.
                return self.end_value();
            }
            (1, b',') if !self.has_begun => return Err(format!("value {} is missing", self.number)),
            (1, b',') => return self.end_value(),
            (_, b'[' | b'{') => self.depth += 1,
            (_, b']' | b'}') => self.depth -= 1,
            (_, b'"') => self.is_in_text = true,
            _ => {}
        }
        self.has_begun = true;
        self.keep(byte);
        Ok(false)
    }

    fn end_value(&mut self) -> Result<bool, String> {
        if self.has_begun {
            self.number += 1;
            self.bytes.push(b'\n');
        }
        Ok(true)
    }

    fn keep(&mut self, byte: u8) {
        self.length += 1;
        if self.length <= VALUE_BYTES {
            self.bytes.push(byte);
        }
    }

    /// Begins a value.
    fn begin(&mut self) {
        (self.has_begun, self.start, self.length) = (false, self.bytes.len(), 0);
    }
}

/// Reads each value as a `T`; values that are no `T` are rejected.
///
/// # Errors
/// Exit 3: the values are no JSON.
pub(crate) fn parse<T: DeserializeOwned>(values: &Values, use_row: impl Fn(String, T) -> Found) -> Result<Vec<Found>> {
    let place = |index: usize| format!("{}[{}]", values.file, values.first + index);
    if let Some(bytes) = values.too_long {
        return Ok(vec![Found::Rejected {
            place: place(0),
            reason: "too_large",
            detail: format!("a value of {bytes} bytes"),
        }]);
    }
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_slice(&values.bytes).into_iter::<Value>() {
        let place = place(found.len());
        let value = value.map_err(|error| not_an_array(&values.file, &format!("{place}: {error}")))?;
        found.push(match T::deserialize(value) {
            Ok(row) => use_row(place, row),
            Err(error) => Found::Rejected { place, reason: "wrong_fields", detail: error.to_string() },
        });
    }
    if found.len() != values.count {
        return Err(not_an_array(&values.file, &format!("a comma is missing behind {}", place(0))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use proptest::prelude::*;

    /// The values of a file, or why there are none; and into how many pieces it was cut.
    fn read(text: &[u8]) -> (Result<Vec<Value>, String>, usize) {
        let files = Files::none();
        let mut file = Opened::of_bytes(&files, "a.json", text);
        let (all, pieces) = (std::cell::RefCell::new(Vec::new()), std::cell::Cell::new(0));
        let read = cut(&mut file, &mut |values| {
            pieces.set(pieces.get() + 1);
            parse(&values, |place, value: Value| {
                assert_eq!(place, format!("a.json[{}]", all.borrow().len()));
                all.borrow_mut().push(value);
                Found::Rejected { place, reason: "", detail: String::new() }
            })
            .map(drop)
        });
        (read.map(|()| all.take()).map_err(|error| error.to_string()), pieces.get())
    }

    #[test]
    fn arrays_are_read_and_what_is_none_is_told() {
        let good = r#" [1, "a,]\"[", {"b": [2, {}]}, [], null ] "#;
        assert_eq!(read(good.as_bytes()).0.unwrap(), *serde_json::from_str::<Vec<Value>>(good).unwrap());
        assert_eq!(read(b"[]").0.unwrap(), Vec::<Value>::new());
        for (wrong, why) in [
            ("", "it is empty"),
            ("{}", "does not begin with ["),
            ("[1,,2]", "value 1 is missing"),
            ("[1,]", "value 1 is missing"),
            ("[1 2]", "a comma is missing"),
            ("[1, x]", "a.json[1]: expected value"),
            ("[1, 2", "was cut off"),
            ("[1] 2", "something follows"),
            ("[1}", "value 0 is missing"),
        ] {
            let error = read(wrong.as_bytes()).0.unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn many_values_are_never_together_in_memory() {
        let text = format!("[{}]", vec!["{}"; 1 << 20].join(","));
        let (values, pieces) = read(text.as_bytes());
        assert_eq!((values.unwrap().len(), pieces), (1 << 20, 6));
    }

    #[test]
    fn a_value_that_is_too_long_costs_no_other() {
        let text = format!("[1, \"{}\", 3]", "x".repeat(VALUE_BYTES));
        let files = Files::none();
        let (mut good, mut bad) = (0, Vec::new());
        cut(&mut Opened::of_bytes(&files, "a.json", text.as_bytes()), &mut |values| {
            for found in
                parse::<Value>(&values, |place, _| Found::Rejected { place, reason: "good", detail: String::new() })?
            {
                match found {
                    Found::Rejected { reason: "good", .. } => good += 1,
                    Found::Rejected { place, reason, detail } => bad.push((place, reason, detail)),
                    _ => {}
                }
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(
            (good, bad),
            (2, vec![("a.json[1]".to_owned(), "too_large", format!("a value of {} bytes", VALUE_BYTES + 2))])
        );
    }

    proptest! {
        /// Any bytes at all are an array as serde_json says, or none.
        #[test]
        fn fuzz_array(text in r#"[\[\]{},:"\\ a1]{0,24}"#) {
            let expected = serde_json::from_str::<Vec<Value>>(&text);
            prop_assert_eq!(read(text.as_bytes()).0.ok(), expected.ok());
        }
    }
}
