//! How a file's name says that it is packed, and its content unpacked.

use std::io::{BufReader, Read};

use super::gzip::GzipReader;

const BUFFER_BYTES: usize = 256 << 10;

/// How a file's name says that it holds other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Zip,
    Tar,
}

/// Whether a name has this end, in whatever case: `.GZ` is `.gz`.
pub(crate) fn has_end(name: &str, end: &str) -> bool {
    name.len().checked_sub(end.len()).is_some_and(|at| name.as_bytes()[at..].eq_ignore_ascii_case(end.as_bytes()))
}

pub(super) fn packing(name: &str) -> Packing {
    let ends = |ends: &[&str]| ends.iter().any(|end| has_end(name, end));
    match name {
        _ if ends(&[".zip", ".whl"]) => Packing::Zip,
        _ if ends(&[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"]) => Packing::Tar,
        _ => Packing::None,
    }
}

/// How a file's name says that it is packed in a way that nobody here reads.
pub(super) fn unknown_packing(name: &str) -> Option<&'static str> {
    let packers =
        [(".xz", "xz"), (".bz2", "bzip2"), (".lz4", "lz4"), (".lzma", "lzma"), (".br", "brotli"), (".7z", "7-Zip")];
    packers.into_iter().find(|(end, _)| has_end(name, end)).map(|(_, packer)| packer)
}

/// A file's name without the end that says how it is packed.
pub(crate) fn unpacked(name: &str) -> &str {
    let ends = [".gz", ".zst", ".xz", ".bz2", ".lz4", ".lzma", ".br", ".7z"];
    ends.iter().find(|end| has_end(name, end)).map_or(name, |end| &name[..name.len() - end.len()])
}

pub(super) fn decompressed<'a>(raw: impl Read + 'a, name: &str) -> Box<dyn Read + 'a> {
    let buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
    if has_end(name, ".gz") || has_end(name, ".tgz") {
        return Box::new(GzipReader::new(buffered));
    }
    if !has_end(name, ".zst") && !has_end(name, ".tzst") {
        return Box::new(buffered);
    }
    match zstd::Decoder::with_buffer(buffered) {
        Ok(decoder) => Box::new(decoder),
        Err(error) => Box::new(Failing(Some(error))),
    }
}

/// What could not even begin to be decompressed says so when it is read.
struct Failing(Option<std::io::Error>);

impl Read for Failing {
    fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
