//! Files of one JSON object a line.

use anyhow::Result;
use codepair_runtime::input_error;
use serde::de::DeserializeOwned;

use super::Found;

/// Reads each line as a `T` and hands it on; lines that are no `T` are rejected, empty ones skipped.
///
/// # Errors
/// Exit 3: the last line is cut off, so the file is not whole.
pub(crate) fn parse<T: DeserializeOwned>(
    file: &str,
    content: &[u8],
    mut use_row: impl FnMut(String, T) -> Found,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let whole = content.is_empty() || content.ends_with(b"\n");
    let lines: Vec<&[u8]> = content.split(|&byte| byte == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = format!("{file}:{}", index + 1);
        match serde_json::from_slice(line) {
            Ok(row) => found.push(use_row(place, row)),
            Err(error) if error.is_eof() && index + 1 == lines.len() && !whole => {
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
