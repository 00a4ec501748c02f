//! Files of one JSON object a line.

use std::io::Read;
use std::sync::Mutex;

use anyhow::Result;
use codepair_runtime::input_error;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;

use super::skim;
use crate::files::Opened;
use crate::found::Found;

/// About so many bytes of lines are parsed at once.
const PIECE_BYTES: usize = 512 << 10;
/// A line beyond this is no row of anything, and would have to be held in memory.
const LINE_BYTES: usize = 64 << 20;

/// Buffers that were read and can be written over: to give half a megabyte back to the system for each piece, or to fill it
/// with zeros, takes longer than parsing a tenth of it.
static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
const SPARE_BUFFERS: usize = 64;

fn spare_buffer() -> Vec<u8> {
    BUFFERS.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default()
}

impl Lines {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() <= 4 * PIECE_BYTES
            && let Ok(mut spare) = BUFFERS.lock()
            && spare.len() < SPARE_BUFFERS
        {
            spare.push(buffer);
        }
    }
}

/// Some whole lines of a file.
pub(crate) struct Lines {
    pub(crate) file: String,
    /// What the file's name says of the split.
    pub(crate) split: Option<crate::split::Named>,
    /// Number of the first line, from 1.
    first: usize,
    /// The lines, and rubbish behind `length`.
    buffer: Vec<u8>,
    length: usize,
    /// The last line has no end: the file was cut off there, or only lacks a line feed.
    unended: bool,
    /// Bytes of the one line that this stands for, which is too long to be read.
    too_long: Option<usize>,
}

/// Cuts a file into runs of lines.
///
/// # Errors
/// Exit 3: the file cannot be read to its end.
pub(crate) fn cut(file: &mut Opened, emit: &mut dyn FnMut(Lines) -> Result<()>) -> Result<()> {
    file.as_text();
    let (mut first, mut buffer, mut length) = (1, spare_buffer(), 0);
    loop {
        if length == buffer.len() {
            buffer.resize(length + PIECE_BYTES, 0);
        }
        length += fill(file, &mut buffer[length..]).map_err(|error| file.damaged(&error))?;
        if length < buffer.len() {
            let unended = length > 0 && buffer[length - 1] != b'\n';
            return emit(Lines {
                file: file.name().to_owned(),
                split: file.split(),
                first,
                buffer,
                length,
                unended,
                too_long: None,
            });
        }
        let Some(end) = memchr::memrchr(b'\n', &buffer).map(|end| end + 1) else {
            if length > LINE_BYTES {
                let rest = skip_line(file, &mut buffer)?;
                let too_long = Some(length + rest.skipped);
                emit(Lines {
                    file: file.name().to_owned(),
                    split: file.split(),
                    first,
                    buffer: Vec::new(),
                    length: 0,
                    unended: false,
                    too_long,
                })?;
                if rest.ended {
                    return Ok(());
                }
                (first, length) = (first + 1, rest.behind);
            }
            continue;
        };
        let mut next = spare_buffer();
        next.resize(next.len().max(length - end), 0);
        next[..length - end].copy_from_slice(&buffer[end..]);
        length -= end;
        let lines = memchr::memchr_iter(b'\n', &buffer[..end]).count();
        emit(Lines {
            file: file.name().to_owned(),
            split: file.split(),
            first,
            buffer,
            length: end,
            unended: false,
            too_long: None,
        })?;
        first += lines;
        buffer = next;
    }
}

/// The rest of a line that is too long.
struct Rest {
    skipped: usize,
    /// The file ended with it.
    ended: bool,
    /// Bytes of the next lines, at the beginning of the buffer.
    behind: usize,
}

/// Reads on to the end of the line, keeping none of it; what was read behind it is put at the beginning of `buffer`.
fn skip_line(file: &mut Opened, buffer: &mut Vec<u8>) -> Result<Rest> {
    *buffer = vec![0; PIECE_BYTES];
    let mut skipped = 0;
    loop {
        let read = fill(file, buffer).map_err(|error| file.damaged(&error))?;
        if let Some(end) = memchr::memchr(b'\n', &buffer[..read]) {
            buffer.copy_within(end + 1..read, 0);
            return Ok(Rest { skipped: skipped + end, ended: false, behind: read - end - 1 });
        }
        skipped += read;
        if read < buffer.len() {
            return Ok(Rest { skipped, ended: true, behind: 0 });
        }
    }
}

/// Fills `place`, or as much of it as there is left to read; returns how much.
fn fill(reader: &mut impl Read, place: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < place.len() {
        match reader.read(&mut place[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads each line as a `T` and hands it on; lines that are no `T` are rejected, empty ones skipped.
///
/// # Errors
/// Exit 3: the last line is cut off, so the file is not whole.
pub(crate) fn parse<T: DeserializeOwned>(lines: &Lines, use_row: impl FnMut(String, T) -> Found) -> Result<Vec<Found>> {
    each(lines, |line| serde_json::from_slice(line), use_row)
}

/// [`parse`] for a `T` that needs these fields alone; what is wrong within others is not found.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_fields<T: DeserializeOwned>(
    lines: &Lines,
    names: &[&str],
    use_row: impl FnMut(String, T) -> Found,
) -> Result<Vec<Found>> {
    let mut scratch = Vec::new();
    let mut read = |line: &[u8]| {
        let texts = skim::texts(line, names, &mut scratch)?;
        T::deserialize(MapDeserializer::<_, serde_json::Error>::new(texts.into_iter())).ok()
    };
    // Where that does not do, the parser does, or says what is wrong.
    each(lines, |line| read(line).map_or_else(|| serde_json::from_slice(line), Ok), use_row)
}

fn each<T>(
    lines: &Lines,
    mut read: impl FnMut(&[u8]) -> serde_json::Result<T>,
    mut use_row: impl FnMut(String, T) -> Found,
) -> Result<Vec<Found>> {
    if let Some(bytes) = lines.too_long {
        let (place, detail) = (format!("{}:{}", lines.file, lines.first), format!("a line of {bytes} bytes"));
        return Ok(vec![Found::Rejected { place, reason: "too_large", detail }]);
    }
    let mut found = Vec::new();
    let (bytes, mut start) = (lines.bytes(), 0);
    for (index, end) in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]).enumerate() {
        let line = &bytes[start..end];
        start = (end + 1).min(bytes.len());
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = format!("{}:{}", lines.file, lines.first + index);
        match read(line) {
            Ok(row) => found.push(use_row(place, row)),
            Err(error) if error.is_eof() && end == bytes.len() && lines.unended => {
                return Err(input_error(format!(
                    "{place}: the file ends in the middle of a line; it was cut off, fetch it again"
                )));
            }
            Err(_) if std::str::from_utf8(line).is_err() => {
                found.push(Found::Rejected { place, reason: "not_utf8", detail: codepair_runtime::what_it_is(line) });
            }
            Err(error) => {
                let reason = if error.is_data() { "wrong_fields" } else { "malformed_json" };
                found.push(Found::Rejected { place, reason, detail: error.to_string() });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;

    /// With the buffers that were read before, and with new ones.
    #[test]
    #[ignore = "a measurement: just bench parts"]
    fn part_buffers() {
        let text = "{\"code\": \"def f(value):\\n    return value\", \"doc\": \"Say it.\"}\n".repeat(3_000_000);
        let files = Files::none();
        let timed = |keep: bool| {
            let began = std::time::Instant::now();
            let mut file = Opened::of_bytes(&files, "a.jsonl", text.as_bytes());
            cut(&mut file, &mut |mut lines| {
                if !keep {
                    drop(std::mem::take(&mut lines.buffer));
                }
                Ok(())
            })
            .unwrap();
            began.elapsed().as_secs_f64()
        };
        codepair_runtime::testing::compare("buffers used again", || timed(true), "new ones", || timed(false));
    }
}
