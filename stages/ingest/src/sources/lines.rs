//! Files of one JSON object a line.

use std::io::Read;
use std::sync::Mutex;

use anyhow::Result;
use codepair_runtime::input_error;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Found;
use crate::files::Opened;

/// About so many bytes of lines are parsed at once.
const PIECE_BYTES: usize = 512 << 10;
/// A line beyond this is no row of anything, and would have to be held in memory.
const LINE_BYTES: usize = 64 << 20;

/// Buffers that were read and can be filled again: giving half a megabyte back to the system for each piece takes longer
/// than parsing a tenth of it.
static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
const SPARE_BUFFERS: usize = 64;

fn buffer() -> Vec<u8> {
    BUFFERS.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default()
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        if bytes.capacity() <= 4 * PIECE_BYTES
            && let Ok(mut spare) = BUFFERS.lock()
            && spare.len() < SPARE_BUFFERS
        {
            spare.push(bytes);
        }
    }
}

/// Some whole lines of a file.
pub(crate) struct Lines {
    pub(crate) file: String,
    /// Number of the first line, from 1.
    first: usize,
    bytes: Vec<u8>,
    /// The last line has no end: the file was cut off there, or only lacks a line feed.
    unended: bool,
}

/// Cuts a file into runs of lines.
///
/// # Errors
/// Exit 3: the file cannot be read to its end, or a line is too long to be one.
pub(crate) fn cut(file: &mut Opened, emit: &mut dyn FnMut(Lines) -> Result<()>) -> Result<()> {
    let mut first = 1;
    let mut bytes = buffer();
    loop {
        let wanted = bytes.len() + PIECE_BYTES;
        bytes.reserve_exact(PIECE_BYTES + 32);
        file.take(PIECE_BYTES as u64).read_to_end(&mut bytes).map_err(|error| file.damaged(&error))?;
        let at_end = bytes.len() < wanted;
        let rest = match memchr::memrchr(b'\n', &bytes) {
            _ if at_end => Vec::new(),
            Some(end) => {
                let mut rest = buffer();
                rest.extend_from_slice(&bytes[end + 1..]);
                bytes.truncate(end + 1);
                rest
            }
            None if bytes.len() > LINE_BYTES => {
                return Err(input_error(format!("{}:{first}: the line has no end; is it text?", file.name())));
            }
            None => continue,
        };
        let lines = memchr::memchr_iter(b'\n', &bytes).count();
        let unended = at_end && !bytes.is_empty() && bytes.last() != Some(&b'\n');
        emit(Lines { file: file.name().to_owned(), first, bytes, unended })?;
        if at_end {
            return Ok(());
        }
        first += lines;
        bytes = rest;
    }
}

/// A small file in one piece.
///
/// # Errors
/// Exit 3: the file cannot be read to its end.
pub(crate) fn whole(file: &mut Opened, emit: &mut dyn FnMut(Lines) -> Result<()>) -> Result<()> {
    let bytes = file.read_all()?;
    emit(Lines { file: file.name().to_owned(), first: 1, bytes, unended: false })
}

/// Reads a JSON array, each of its values as a `T`; values that are no `T` are rejected.
///
/// # Errors
/// Exit 3: it is no JSON array.
pub(crate) fn parse_array<T: DeserializeOwned>(
    lines: &Lines,
    use_row: impl Fn(String, T) -> Found,
) -> Result<Vec<Found>> {
    let values: Vec<serde_json::Value> = serde_json::from_slice(&lines.bytes)
        .map_err(|error| input_error(format!("{} is no JSON array: {error}", lines.file)))?;
    let rows = values.into_iter().enumerate().map(|(index, value)| {
        let place = format!("{}[{index}]", lines.file);
        match T::deserialize(value) {
            Ok(row) => use_row(place, row),
            Err(error) => Found::Rejected { place, reason: "wrong_fields", detail: error.to_string() },
        }
    });
    Ok(rows.collect())
}

/// Reads each line as a `T` and hands it on; lines that are no `T` are rejected, empty ones skipped.
///
/// # Errors
/// Exit 3: the last line is cut off, so the file is not whole.
pub(crate) fn parse<'a, T: Deserialize<'a>>(
    lines: &'a Lines,
    mut use_row: impl FnMut(String, T) -> Found,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut start = 0;
    for (index, end) in memchr::memchr_iter(b'\n', &lines.bytes).chain([lines.bytes.len()]).enumerate() {
        let line = &lines.bytes[start..end];
        start = (end + 1).min(lines.bytes.len());
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = format!("{}:{}", lines.file, lines.first + index);
        match serde_json::from_slice(line) {
            Ok(row) => found.push(use_row(place, row)),
            Err(error) if error.is_eof() && end == lines.bytes.len() && lines.unended => {
                return Err(input_error(format!(
                    "{place}: the file ends in the middle of a line; it was cut off, fetch it again"
                )));
            }
            Err(error) => {
                let reason = if error.is_data() { "wrong_fields" } else { "malformed_json" };
                found.push(Found::Rejected { place, reason, detail: error.to_string() });
            }
        }
    }
    Ok(found)
}
