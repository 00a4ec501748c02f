//! CSV files, some records at a time.

use anyhow::Result;
use csv::StringRecord;

use crate::files::Opened;

const RECORDS: usize = 1024;

/// Some records of a file, under its header.
pub(crate) struct Records {
    pub(crate) file: String,
    header: StringRecord,
    /// Each with its line; or why it is none.
    pub(crate) list: Vec<(u64, Result<StringRecord, String>)>,
}

/// Cuts a CSV file with a header into runs of records. A record that is malformed stands among them with the reason.
///
/// # Errors
/// Exit 3: the file cannot be read to its end.
pub(crate) fn cut(file: &mut Opened, delimiter: u8, emit: &mut dyn FnMut(Records) -> Result<()>) -> Result<()> {
    let name = file.name().to_owned();
    let damaged = |error: csv::Error| crate::files::damaged(&name, &error);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let header = reader.headers().map_err(damaged)?.clone();
    let mut list = Vec::new();
    let mut record = StringRecord::new();
    loop {
        let line = reader.position().line();
        let read = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => Ok(record.clone()),
            Err(error) if error.is_io_error() => return Err(damaged(error)),
            Err(error) => Err(error.to_string()),
        };
        list.push((line, read));
        if list.len() == RECORDS {
            emit(Records { file: name.clone(), header: header.clone(), list: std::mem::take(&mut list) })?;
        }
    }
    emit(Records { file: name.clone(), header, list })
}

impl Records {
    /// A field of a record by the header's name.
    pub(crate) fn text<'a>(&self, record: &'a StringRecord, column: &str) -> Option<&'a str> {
        record.get(self.header.iter().position(|name| name == column)?)
    }

    /// Where a record stands.
    pub(crate) fn place(&self, line: u64) -> String {
        format!("{}:{line}", self.file)
    }
}
