//! CSV files (RFC 4180), some records at a time. Quotes are taken strictly: a stray one spoils its own record, and nothing else.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::Result;

use crate::files::Opened;

const RECORDS: usize = 1024;
/// A record beyond this is none: its quote was never closed.
const RECORD_BYTES: usize = 64 << 20;
/// Records that are handed on at once have about so many bytes.
const PIECE_BYTES: usize = 512 << 10;
/// The end of a malformed record is looked for so far.
const LOOSE_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 256 << 10;

/// How records are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    /// What stands before a quote that does not end its field, besides a second quote.
    pub(crate) escape: Option<u8>,
}

/// Some records of a file, under its header.
pub(crate) struct Records {
    pub(crate) file: String,
    /// What the file's name says of the split.
    pub(crate) split: Option<crate::split::Named>,
    header: Vec<String>,
    pub(crate) list: Vec<Record>,
}

/// The fields of a record, or why it is none, with its line.
pub(crate) type Record = (u64, Result<Vec<String>, String>);

/// Cuts a CSV file with a header into runs of records. A record that is malformed stands among them with the reason; reading
/// goes on at the line after the one that it begins in.
///
/// # Errors
/// Exit 3: the file cannot be read to its end.
pub(crate) fn cut(file: &mut Opened, dialect: Dialect, emit: &mut dyn FnMut(Records) -> Result<()>) -> Result<()> {
    file.as_text();
    let (name, split) = (file.name().to_owned(), file.split());
    let mut input = Input { bytes: Vec::new(), at: 0, line: 1, ended: false };
    let Some((_, header)) = input.next(file, dialect, None)? else { return Ok(()) };
    let header = header.map_err(|error| {
        codepair_runtime::input_error(format!(
            "{name}: its first line is no header of a CSV file: {error}; is kind right?"
        ))
    })?;
    let (mut list, mut bytes) = (Vec::new(), 0);
    while let Some(record) = input.next(file, dialect, Some(header.len()))? {
        bytes += record.1.as_ref().map_or(0, |texts: &Vec<String>| texts.iter().map(String::len).sum());
        list.push(record);
        if list.len() == RECORDS || bytes > PIECE_BYTES {
            bytes = 0;
            emit(Records { file: name.clone(), split, header: header.clone(), list: std::mem::take(&mut list) })?;
        }
    }
    if list.is_empty() && input.line <= 2 && header.iter().any(|name| name.trim_end().contains('\r')) {
        let why =
            "its lines end in carriage returns alone, so that all of it is the header: convert them to line feeds";
        list.push((1, Err(why.to_owned())));
    }
    emit(Records { file: name, split, header, list })
}

/// What was read of a file and not cut yet.
struct Input {
    bytes: Vec<u8>,
    at: usize,
    /// Of `at`, from 1.
    line: u64,
    ended: bool,
}

impl Input {
    /// The next record that is no empty line, with its line; nothing at the end.
    fn next(&mut self, file: &mut Opened, dialect: Dialect, fields: Option<usize>) -> Result<Option<Record>> {
        loop {
            let rest = &self.bytes[self.at..];
            let found = match record(rest, dialect, self.ended) {
                Scan::More if rest.len() > RECORD_BYTES => {
                    Err(format!("a record of more than {RECORD_BYTES} bytes: is a quote not closed?"))
                }
                Scan::More => {
                    self.fill(file)?;
                    continue;
                }
                Scan::End => return Ok(None),
                Scan::Record { texts, bytes, lines } => {
                    let (line, count) = (self.line, texts.len());
                    match fields {
                        // Several lines of another number of fields, which are records by themselves: the first one has a quote
                        // too many. Lines of code are not.
                        Some(fields)
                            if fields != count && lines > 1 && are_records(&rest[..bytes], dialect, fields) =>
                        {
                            Err(format!(
                                "{count} fields in {lines} lines, and the header has {fields}: is a quote not closed?"
                            ))
                        }
                        Some(fields) if fields != count => {
                            self.skip(bytes, lines);
                            let is_empty = texts.len() == 1 && texts[0].trim().is_empty();
                            if is_empty {
                                continue;
                            }
                            return Ok(Some((line, Err(format!("{count} fields, and the header has {fields}")))));
                        }
                        _ => {
                            self.skip(bytes, lines);
                            return Ok(Some((line, Ok(texts))));
                        }
                    }
                }
                Scan::Malformed(why) => Err(why),
            };
            let line = self.line;
            match self.end_of_malformed(file, dialect, fields)? {
                Some((bytes, lines)) => self.skip(bytes, lines),
                None => self.skip_line(file)?,
            }
            return Ok(Some((line, found)));
        }
    }

    /// Where a malformed record ends, bytes and lines from here, if it is one of several lines; nothing where it is to be one line.
    fn end_of_malformed(
        &mut self,
        file: &mut Opened,
        dialect: Dialect,
        fields: Option<usize>,
    ) -> Result<Option<(usize, u64)>> {
        let Some(fields) = fields else { return Ok(None) };
        loop {
            let rest = &self.bytes[self.at..];
            match loose_end(rest, dialect, self.ended) {
                Some((bytes, lines)) => {
                    let is_one = lines > 1 && !are_records(&rest[..bytes], dialect, fields);
                    return Ok(is_one.then_some((bytes, lines)));
                }
                None if self.ended || rest.len() > LOOSE_BYTES => return Ok(None),
                None => self.fill(file)?,
            }
        }
    }

    fn skip(&mut self, bytes: usize, lines: u64) {
        self.at += bytes;
        self.line += lines;
    }

    /// Goes on behind the end of the line.
    fn skip_line(&mut self, file: &mut Opened) -> Result<()> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.bytes[self.at..]) {
                self.skip(end + 1, 1);
                return Ok(());
            }
            self.at = self.bytes.len();
            if self.ended {
                return Ok(());
            }
            self.fill(file)?;
        }
    }

    fn fill(&mut self, file: &mut Opened) -> Result<()> {
        self.bytes.drain(..self.at);
        self.at = 0;
        let before = self.bytes.len();
        // The longer a record is, the more is read at once: it is looked through again from its beginning.
        let read = file.take(READ_BYTES.max(before) as u64).read_to_end(&mut self.bytes);
        read.map_err(|error| file.damaged(&error))?;
        self.ended = self.bytes.len() == before;
        Ok(())
    }
}

/// Where a record ends if quotes that are out of place are text: only those count that open a field, or stand before the end of
/// one. Bytes and lines; nothing where the end is not there.
fn loose_end(bytes: &[u8], dialect: Dialect, ended: bool) -> Option<(usize, u64)> {
    let (mut at, mut lines, mut is_quoted, mut begins) = (0, 0, false, true);
    let ends_field = |at: usize| match bytes.get(at) {
        None => ended,
        Some(b'\r') => bytes.get(at + 1) == Some(&b'\n'),
        Some(byte) => *byte == b'\n' || *byte == dialect.delimiter,
    };
    while let Some(&byte) = bytes.get(at) {
        let began = std::mem::replace(&mut begins, false);
        match byte {
            b'"' if began => is_quoted = true,
            byte if is_quoted && Some(byte) == dialect.escape => at += 1,
            b'"' if is_quoted && bytes.get(at + 1) == Some(&b'"') && dialect.escape.is_none() => at += 1,
            b'"' if is_quoted && ends_field(at + 1) => is_quoted = false,
            b'\n' => {
                lines += 1;
                if !is_quoted {
                    return Some((at + 1, lines));
                }
            }
            byte if !is_quoted && byte == dialect.delimiter => begins = true,
            _ => {}
        }
        at += 1;
    }
    (ended && !is_quoted).then_some((bytes.len(), lines + 1))
}

/// Whether most lines after the first are a record of so many fields each.
fn are_records(bytes: &[u8], dialect: Dialect, fields: usize) -> bool {
    let (mut lines, mut fitting) = (0usize, 0usize);
    for line in bytes.split_inclusive(|byte| *byte == b'\n').skip(1) {
        lines += 1;
        let is_whole = |found: usize| found == line.len();
        let fits = matches!(record(line, dialect, true), Scan::Record { texts, bytes, .. } if texts.len() == fields && is_whole(bytes));
        fitting += usize::from(fits);
    }
    2 * fitting > lines
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq)]
enum Scan {
    Record {
        texts: Vec<String>,
        bytes: usize,
        lines: u64,
    },
    Malformed(String),
    /// It may go on in what is not read yet.
    More,
    End,
}

/// Reads one record; `ended` says that nothing follows `bytes`.
fn record(bytes: &[u8], dialect: Dialect, ended: bool) -> Scan {
    if bytes.is_empty() {
        return if ended { Scan::End } else { Scan::More };
    }
    let (mut texts, mut at, mut lines) = (Vec::new(), 0, 1);
    loop {
        let field = match bytes.get(at) {
            Some(b'"') => quoted(bytes, at + 1, dialect, &mut lines),
            _ => plain(bytes, at, dialect),
        };
        let (text, end) = match field {
            Field::Text(text, end) => (text, end),
            Field::Malformed(why) => return Scan::Malformed(why),
            Field::Open if ended => return Scan::Malformed("a quote that is not closed".to_owned()),
            Field::Open => return Scan::More,
        };
        match String::from_utf8(text) {
            Ok(text) => texts.push(text),
            Err(error) => return Scan::Malformed(codepair_runtime::what_it_is(error.as_bytes())),
        }
        let rest = &bytes[end..];
        let done = |length: usize, texts| Scan::Record { texts, bytes: end + length, lines };
        match rest {
            [byte, ..] if *byte == dialect.delimiter => at = end + 1,
            [b'\n', ..] => return done(1, texts),
            [b'\r', b'\n', ..] => return done(2, texts),
            [] | [b'\r'] if !ended => return Scan::More,
            [] | [b'\r'] => return done(rest.len(), texts),
            _ => return Scan::Malformed("text behind a quote that closes its field".to_owned()),
        }
    }
}

enum Field {
    /// The text, and where it ends.
    Text(Vec<u8>, usize),
    Malformed(String),
    Open,
}

/// A field without quotes: as far as the delimiter or the end of the line.
fn plain(bytes: &[u8], start: usize, dialect: Dialect) -> Field {
    let rest = &bytes[start..];
    let end = memchr::memchr2(dialect.delimiter, b'\n', rest).unwrap_or(rest.len());
    let text = &rest[..end];
    let text = match (rest.get(end), text) {
        (Some(b'\n') | None, [text @ .., b'\r']) => text,
        _ => text,
    };
    if memchr::memchr(b'"', text).is_some() {
        return Field::Malformed("a quote within a field that does not begin with one".to_owned());
    }
    Field::Text(text.to_vec(), start + text.len())
}

/// A field behind its first quote.
fn quoted(bytes: &[u8], mut at: usize, dialect: Dialect, lines: &mut u64) -> Field {
    let mut text = Vec::new();
    let escape = dialect.escape.unwrap_or(b'"');
    loop {
        let rest = &bytes[at..];
        let Some(mark) = memchr::memchr2(b'"', escape, rest) else { return Field::Open };
        *lines += memchr::memchr_iter(b'\n', &rest[..mark]).count() as u64;
        text.extend_from_slice(&rest[..mark]);
        at += mark;
        match (bytes[at], bytes.get(at + 1)) {
            (b'"', Some(b'"')) => {
                text.push(b'"');
                at += 2;
            }
            (b'"', _) => return Field::Text(text, at + 1),
            (_, Some(&escaped)) => {
                // Only what means something is escaped; elsewhere the mark is text.
                if escaped != b'"' && escaped != escape {
                    text.push(escape);
                }
                *lines += u64::from(escaped == b'\n');
                text.push(escaped);
                at += 2;
            }
            (_, None) => return Field::Open,
        }
    }
}

impl Records {
    /// A field of a record by the header's name; nothing where no column has it, or several have.
    pub(crate) fn text<'a>(&self, record: &'a [String], column: &str) -> Option<&'a str> {
        let mut named = self.header.iter().enumerate().filter(|(_, name)| *name == column);
        match (named.next(), named.next()) {
            (Some((at, _)), None) => record.get(at).map(String::as_str),
            _ => None,
        }
    }

    /// The texts of each record, by column.
    pub(crate) fn texts(&self) -> impl Iterator<Item = BTreeMap<String, String>> {
        let whole = self.list.iter().filter_map(|(_, record)| record.as_ref().ok());
        whole.map(|record| self.header.iter().cloned().zip(record.iter().cloned()).collect())
    }

    /// Why a column has no text, in words.
    pub(crate) fn why_not(&self, column: &str) -> String {
        let named = self.header.iter().filter(|name| *name == column).count();
        if named > 1 {
            return format!("the header has {named} columns of that name");
        }
        let delimiters = [(";", "\";\""), ("\t", "\"\\t\""), ("|", "\"|\""), (",", "\",\"")];
        let other =
            delimiters.iter().find(|(delimiter, _)| self.header.len() == 1 && self.header[0].contains(delimiter));
        let hint = other.map_or(String::new(), |(_, written)| {
            format!("; is it divided by another character? delimiter = {written}")
        });
        format!("the header has no such column, but {}{hint}", self.header.join(", "))
    }

    /// Where a record stands.
    pub(crate) fn place(&self, line: u64) -> String {
        format!("{}:{line}", self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMA: Dialect = Dialect { delimiter: b',', escape: None };

    /// Records with their lines, and the lines of what is none.
    fn read(bytes: &[u8], dialect: Dialect, fields: usize) -> (Vec<(u64, Vec<String>)>, Vec<u64>) {
        let mut input = Input { bytes: bytes.to_vec(), at: 0, line: 1, ended: true };
        let files = crate::files::Files::none();
        let mut file = Opened::of_bytes(&files, "a.csv", b"");
        let (mut records, mut malformed) = (Vec::new(), Vec::new());
        while let Some((line, record)) = input.next(&mut file, dialect, Some(fields)).unwrap() {
            match record {
                Ok(texts) => records.push((line, texts)),
                Err(_) => malformed.push(line),
            }
        }
        (records, malformed)
    }

    fn rows(rows: &[(u64, &[&str])]) -> Vec<(u64, Vec<String>)> {
        rows.iter().map(|(line, texts)| (*line, texts.iter().map(|t| (*t).to_owned()).collect())).collect()
    }

    #[test]
    fn records_are_read_by_the_rules() {
        let text = b"a,b\r\n\"x\ny\",\"say \"\"hi\"\"\"\n\n,\"\"\nlast,one";
        let (records, malformed) = read(text, COMMA, 2);
        let expected = rows(&[(1, &["a", "b"]), (2, &["x\ny", "say \"hi\""]), (5, &["", ""]), (6, &["last", "one"])]);
        assert_eq!((records, malformed), (expected, vec![]));
        let tabs = Dialect { delimiter: b'\t', escape: Some(b'\\') };
        let (records, malformed) = read(b"a,b\t\"say \\\"hi\\\" \\\\ \\n\"\n", tabs, 2);
        assert_eq!((records, malformed), (rows(&[(1, &["a,b", "say \"hi\" \\ \\n"])]), vec![]));
    }

    #[test]
    fn a_stray_quote_spoils_its_own_record() {
        for (text, good, bad) in [
            ("a,\"b\nc,d\ne,f\n", vec![2, 3], vec![1]),
            ("a,\"b\nc,\"d\"\ne,f\n", vec![2, 3], vec![1]),
            ("a,\"b\nc,\"\"\ne,\",f\"\ng,h\n", vec![2, 3, 4], vec![1]),
            ("a,b\"c\nd,e\n", vec![2], vec![1]),
            ("a,\"b\"c\nd,e\n", vec![2], vec![1]),
            ("a\nb,c\nd,e,f\n", vec![2], vec![1, 3]),
        ] {
            let (records, malformed) = read(text.as_bytes(), COMMA, 2);
            assert_eq!((records.iter().map(|r| r.0).collect::<Vec<_>>(), malformed), (good, bad), "{text:?}");
        }
    }

    #[test]
    fn a_record_has_a_bound() {
        let rows = format!("c,{}\n", "d".repeat(1000));
        let text = format!("a,\"b\n{}", rows.repeat(70_000));
        let (records, malformed) = read(text.as_bytes(), COMMA, 2);
        assert_eq!((records.len(), malformed), (70_000, vec![1]));
        let long = format!("a,\"{}\"\nc,d\n", "x\n".repeat(5 << 20));
        let (records, malformed) = read(long.as_bytes(), COMMA, 2);
        assert_eq!((records.len(), malformed), (2, vec![]));
    }

    proptest! {
        /// Whatever fields hold, written by another hand they are read as they were.
        #[test]
        fn what_the_csv_crate_writes_is_read(table in prop::collection::vec(prop::collection::vec("[a\",\n\r é]{0,6}", 3), 1..8)) {
            let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
            table.iter().for_each(|row| writer.write_record(row).unwrap());
            let (records, malformed) = read(&writer.into_inner().unwrap(), COMMA, 3);
            prop_assert!(malformed.is_empty());
            prop_assert_eq!(records.into_iter().map(|(_, texts)| texts).collect::<Vec<_>>(), table);
        }

        /// However a file is damaged, no two records begin in one line, and each has its fields.
        #[test]
        fn fuzz_csv(bytes in codepair_mutations::mutated(
            vec![b"a,b,c\n\"x\ny\",\"say \"\"hi\"\"\",z\r\n,\"\",1\nlast,one,2".to_vec()],
            &["\"", ",", "\n", "\r\n", "\"\"", "\\\"", "\\"],
        )) {
            for escape in [None, Some(b'\\')] {
                let (records, malformed) = read(&bytes, Dialect { delimiter: b',', escape }, 3);
                let mut lines: Vec<u64> = records.iter().map(|(line, _)| *line).chain(malformed).collect();
                let count = lines.len();
                lines.sort_unstable();
                lines.dedup();
                prop_assert_eq!(lines.len(), count, "two records begin in one line");
                prop_assert!(records.iter().all(|(_, texts)| texts.len() == 3));
            }
        }

        /// Any bytes at all are read to their end.
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(prop::sample::select(vec![b'a', b'"', b',', b'\n', b'\r', 0xff, b'\\']), 0..60)) {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            for escape in [None, Some(b'\\')] {
                let (records, malformed) = read(&bytes, Dialect { delimiter: b',', escape }, 2);
                prop_assert!(records.iter().map(|r| r.0).chain(malformed).all(|line| (1..=lines).contains(&line)));
            }
        }
    }
}
