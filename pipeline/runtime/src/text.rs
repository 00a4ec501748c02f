//! Bytes that are text, whatever their encoding says: one place for all readers of sources, prompts and examples.

use std::io::{Error, ErrorKind, Read, Result};

/// Bytes of UTF-16 that are decoded at once.
const CHUNK: usize = 64 << 10;

/// What a file begins with that says how it is text (Unicode 16, section 23.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    Utf8,
    LittleEndian,
    BigEndian,
}

impl Mark {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0xef, 0xbb, 0xbf, ..] => Self::Utf8,
            // UTF-32, which nobody writes.
            [0xff, 0xfe, 0, 0, ..] => Self::None,
            [0xff, 0xfe, ..] => Self::LittleEndian,
            [0xfe, 0xff, ..] => Self::BigEndian,
            _ => Self::None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Utf8 => 3,
            Self::LittleEndian | Self::BigEndian => 2,
        }
    }
}

/// The text of a whole file: UTF-8, with a byte order mark or without, or UTF-16 with one.
///
/// # Errors
/// It is something else: what it looks like, and what to do.
pub fn decode(bytes: Vec<u8>) -> std::result::Result<String, String> {
    match Mark::of(&bytes) {
        // Latin text in UTF-16 is valid UTF-8, every second byte of it a zero.
        Mark::None if looks_like_utf16(&bytes) => Err(what_it_is(&bytes)),
        Mark::None => String::from_utf8(bytes).map_err(|error| what_it_is(error.as_bytes())),
        Mark::Utf8 => String::from_utf8(bytes[3..].to_vec()).map_err(|error| what_it_is(error.as_bytes())),
        Mark::LittleEndian | Mark::BigEndian => {
            let mut text = String::new();
            TextReader::new(bytes.as_slice()).read_to_string(&mut text).map_err(|error| error.to_string())?;
            Ok(text)
        }
    }
}

/// What bytes are that are no UTF-8, and what to do about it.
#[must_use]
pub fn what_it_is(bytes: &[u8]) -> String {
    let formats: [(&[u8], &str); 11] = [
        (b"\xff\xfe\0\0", "it is UTF-32: convert it with iconv -f UTF-32 -t UTF-8"),
        (b"\0\0\xfe\xff", "it is UTF-32: convert it with iconv -f UTF-32 -t UTF-8"),
        (b"\x1f\x8b", "it is gzip: name it .gz"),
        (b"PK\x03\x04", "it is a zip archive: name it .zip"),
        (b"PAR1", "it is Parquet: read it with kind = \"parquet\""),
        (b"ARROW1", "it is Arrow IPC: read it with kind = \"parquet\""),
        (b"\x28\xb5\x2f\xfd", "it is zstd: name it .zst"),
        (b"\xfd7zXZ\0", "it is xz, which is not read: unpack it with unxz"),
        (b"BZh", "it is bzip2, which is not read: unpack it with bunzip2"),
        (b"\x89PNG", "it is a picture"),
        (b"%PDF", "it is a PDF"),
    ];
    if let Some((_, what)) = formats.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*what).to_owned();
    }
    if looks_like_utf16(bytes) {
        let end = if head(bytes).first() == Some(&0) { "BE" } else { "LE" };
        return format!(
            "it looks like UTF-16 without a byte order mark: convert it with iconv -f UTF-16{end} -t UTF-8"
        );
    }
    if head(bytes).contains(&0) {
        return "it is no text: it holds zero bytes".to_owned();
    }
    let Err(error) = std::str::from_utf8(bytes) else { return "it is UTF-8".to_owned() };
    let at = error.valid_up_to();
    let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let what =
        if error.error_len().is_some() { "it is no UTF-8" } else { "it ends in the middle of a character of UTF-8" };
    format!(
        "{what}: byte 0x{:02x} in line {line}; if it is Latin-1, convert it with iconv -f WINDOWS-1252 -t UTF-8",
        bytes[at]
    )
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(4096)]
}

fn looks_like_utf16(bytes: &[u8]) -> bool {
    let head = head(bytes);
    head.iter().filter(|byte| **byte == 0).count() * 3 > head.len()
}

/// Text of a stream, as UTF-8 without a byte order mark. What has no mark passes as it is.
pub struct TextReader<R> {
    inner: R,
    mark: Option<Mark>,
    /// What was read and not handed on yet.
    ready: Vec<u8>,
    at: usize,
    /// The bytes of half a unit of UTF-16, and half a pair of units.
    odd: Option<u8>,
    high: Option<u16>,
}

impl<R: Read> TextReader<R> {
    /// Of a stream from its beginning.
    pub fn new(inner: R) -> Self {
        Self { inner, mark: None, ready: Vec::new(), at: 0, odd: None, high: None }
    }

    fn begin(&mut self) -> Result<Mark> {
        if let Some(mark) = self.mark {
            return Ok(mark);
        }
        let mut head = Vec::with_capacity(4);
        self.inner.by_ref().take(4).read_to_end(&mut head)?;
        let mark = Mark::of(&head);
        let rest = head.split_off(mark.bytes());
        match mark {
            Mark::None | Mark::Utf8 => self.ready = rest,
            Mark::LittleEndian | Mark::BigEndian => self.decode(&rest, mark)?,
        }
        self.mark = Some(mark);
        Ok(mark)
    }

    /// Appends the text of some bytes of UTF-16.
    fn decode(&mut self, bytes: &[u8], mark: Mark) -> Result<()> {
        let broken = || Error::new(ErrorKind::InvalidData, "it is UTF-16 with half a character in it");
        for &byte in bytes {
            let Some(first) = self.odd.take() else {
                self.odd = Some(byte);
                continue;
            };
            let pair = [first, byte];
            let unit = if mark == Mark::BigEndian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
            if self.high.is_none() && (0xd800..0xdc00).contains(&unit) {
                self.high = Some(unit);
                continue;
            }
            let units = self.high.take().into_iter().chain([unit]);
            for character in char::decode_utf16(units) {
                let character = character.map_err(|_| broken())?;
                self.ready.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Ok(())
    }

    fn refill(&mut self, mark: Mark) -> Result<()> {
        self.ready.clear();
        self.at = 0;
        let mut bytes = vec![0; CHUNK];
        while self.ready.is_empty() {
            let read = self.inner.read(&mut bytes)?;
            if read == 0 {
                let is_whole = self.odd.is_none() && self.high.is_none();
                return if is_whole {
                    Ok(())
                } else {
                    Err(Error::new(ErrorKind::UnexpectedEof, "it is UTF-16, and ends in the middle of a character"))
                };
            }
            self.decode(&bytes[..read], mark)?;
        }
        Ok(())
    }
}

impl<R: Read> Read for TextReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mark = self.begin()?;
        if self.at == self.ready.len() {
            match mark {
                Mark::None | Mark::Utf8 => return self.inner.read(buffer),
                Mark::LittleEndian | Mark::BigEndian => self.refill(mark)?,
            }
        }
        let count = buffer.len().min(self.ready.len() - self.at);
        buffer[..count].copy_from_slice(&self.ready[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect()
    }

    proptest! {
        /// However a text is encoded, and however many bytes come at once, it is the text.
        #[test]
        fn every_encoding_gives_the_text(text in "\\PC{0,40}", piece in 1usize..9) {
            let marked = [b"\xef\xbb\xbf", text.as_bytes()].concat();
            let plain = text.trim_start_matches('\u{feff}');
            for bytes in [plain.as_bytes().to_vec(), marked, utf16(&text, false), utf16(&text, true)] {
                let expected = if bytes == plain.as_bytes() { plain } else { &text };
                prop_assert_eq!(decode(bytes.clone()).unwrap(), expected);
                let mut reader = TextReader::new(bytes.as_slice());
                let (mut read, mut buffer) = (Vec::new(), vec![0; piece]);
                loop {
                    let count = reader.read(&mut buffer).unwrap();
                    if count == 0 { break }
                    read.extend_from_slice(&buffer[..count]);
                }
                prop_assert_eq!(String::from_utf8(read).unwrap(), expected);
            }
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        for (bytes, words) in [
            (b"caf\xe9\n".to_vec(), "byte 0xe9 in line 1"),
            (b"one\ntwo\n\x93x\x94".to_vec(), "line 3"),
            (utf16("some text", false)[2..].to_vec(), "UTF-16 without a byte order mark"),
            (b"\x1f\x8b\x08\x00\xff".to_vec(), "gzip: name it .gz"),
            (b"BZh91AY\xff".to_vec(), "bunzip2"),
            (b"abc\0def\xff and more of it".to_vec(), "zero bytes"),
            ("café".as_bytes()[..4].to_vec(), "middle of a character"),
            (utf16("ab", true)[..5].to_vec(), "UTF-16"),
        ] {
            let error = decode(bytes).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
