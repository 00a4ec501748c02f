//! TensorBoard's event files: records of `tensorboard.Event` messages, each with checksums of its length and its bytes.

use codepair_schemas::rows::TrainingStep;

/// The rows of a training, which began at `began` (seconds since 1970), as an event file.
pub(crate) fn file(rows: &[TrainingStep], began: f64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut version = message(began, 0);
    field(&mut version, 3, b"brain.Event:2");
    record(&mut out, &version);
    for row in rows {
        let mut event = message(began + row.elapsed_seconds, row.step);
        field(&mut event, 5, &summary(row));
        record(&mut out, &event);
    }
    out
}

/// The scalars of a row.
fn summary(row: &TrainingStep) -> Vec<u8> {
    let scalars = [
        (format!("loss/{}", row.split), Some(row.loss)),
        (format!("bits_per_byte/{}", row.split), row.bits_per_byte),
        (format!("score/{}", row.split), row.score),
        ("learning_rate".to_owned(), Some(row.learning_rate)),
        ("gradient_norm".to_owned(), row.gradient_norm),
        ("tokens_per_second".to_owned(), row.tokens_per_second),
        ("memory_bytes".to_owned(), Some(row.memory_bytes as f64)),
        ("steps_skipped".to_owned(), Some(row.skipped as f64)),
    ];
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let Some(value) = value else { continue };
        let mut one = Vec::new();
        field(&mut one, 1, tag.as_bytes());
        // Field 2, four bytes.
        one.push(2 << 3 | 5);
        one.extend((value as f32).to_le_bytes());
        field(&mut summary, 1, &one);
    }
    summary
}

/// An event's time and step: field 1, eight bytes, and field 2, a whole number.
fn message(seconds: f64, step: u64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(seconds.to_le_bytes());
    // A step of 0 is what is taken where there is none.
    if step > 0 {
        event.push(2 << 3);
        varint(&mut event, step);
    }
    event
}

/// A field of bytes.
fn field(into: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    into.push(number << 3 | 2);
    varint(into, bytes.len() as u64);
    into.extend(bytes);
}

/// Seven bits a byte, the lowest first.
fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn record(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = (bytes.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length));
    out.extend(bytes);
    out.extend(masked(bytes));
}

/// A checksum that is no checksum of what holds it.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Castagnoli's cyclic redundancy check; a training writes a few kilobytes, so bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_castagnoli() {
        assert_eq!((crc32c(b"123456789"), crc32c(&[0; 32])), (0xe306_9283, 0x8a91_36aa));
    }

    /// The bytes that TensorBoard's own writer makes of the same events.
    #[test]
    fn files_are_those_of_tensorboard() {
        let row = TrainingStep {
            step: 300,
            split: "train".into(),
            loss: 1.5,
            learning_rate: 0.25,
            elapsed_seconds: 2.0,
            ..TrainingStep::default()
        };
        insta::assert_snapshot!(file(&[row], 1000.5).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
}
