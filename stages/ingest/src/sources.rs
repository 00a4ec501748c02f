//! The kinds of sources: one file a kind, one line in the list.

pub(crate) mod array;
pub(crate) mod lines;
mod mapped;
mod pickle;
pub(crate) mod records;
mod skim;
pub(crate) mod table;

use anyhow::Result;
use codepair_runtime::{Config, Progress, Shard, of_kind, ordered, overrides, schema_of_kinds, take_kind};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::files::{Files, Item, Opened};
use crate::found::{Found, identified};
use crate::look::{Trial, columns_are_there, try_out};
use crate::sink::Sink;
use crate::split::{Shares, SplitBy};

/// Text with line feeds only, whatever ended its lines.
pub(crate) fn line_feeds(text: String) -> String {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

/// A kind of source: where its files are, how a file is cut into pieces, and what is in a piece. Pieces are cut one after
/// another and read side by side.
pub(crate) trait SourceKind: Serialize + Default + Sync {
    /// What one thread reads at a time: a run of lines, a small file.
    type Piece: Send;
    /// Its files.
    fn files(&self, config: &Config) -> Result<Files>;
    /// Licence and origin of rows that do not say their own.
    fn provenance(&self) -> (&str, &str);
    /// The path, and the columns that its rows must have, where the config names them.
    fn needed_columns(&self) -> (&str, Vec<&str>) {
        ("", Vec::new())
    }
    /// By which shares its rows come into splits; nothing where these are official, or constant.
    fn shares(&self) -> Option<Shares> {
        None
    }
    /// Which rows stay together, where the config says so.
    fn split_by(&self) -> Option<SplitBy> {
        None
    }
    /// Cuts a file into pieces.
    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Self::Piece) -> Result<()>) -> Result<()>;
    /// The rows of a piece, in order.
    ///
    /// An error means that the whole file is damaged; a bad row is [`Found::Rejected`].
    fn rows(&self, piece: Self::Piece) -> Result<Vec<Found>>;
}

macro_rules! kinds {
    ($($kind:ident($module:ident),)*) => {
        $(mod $module;)*

        /// `[ingest.NAME]`; `kind` says which.
        #[derive(Clone, Debug, Serialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Source {
            $(#[doc = concat!("`kind = \"", stringify!($module), "\"`.")] $kind($module::$kind),)*
        }

        impl<'de> Deserialize<'de> for Source {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let (kind, table) = take_kind(deserializer, &[$(stringify!($module)),*])?;
                match kind.as_str() {
                    $(stringify!($module) => of_kind(table).map(Self::$kind),)*
                    other => Err(serde::de::Error::custom(format!("unknown kind {other}"))),
                }
            }
        }

        impl schemars::JsonSchema for Source {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!(Source).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schema_of_kinds(vec![$((stringify!($module), <$module::$kind>::json_schema(generator))),*])
            }
        }

        impl Source {
            /// The name of its kind.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$kind(_) => stringify!($module)),* }
            }
            fn default_of_kind(&self) -> Self {
                match self { $(Self::$kind(_) => Self::$kind($module::$kind::default())),* }
            }
            fn files(&self, config: &Config) -> Result<Files> {
                match self { $(Self::$kind(kind) => kind.files(config)),* }
            }
            /// By which shares its rows come into splits, where they do.
            #[must_use]
            pub fn shares(&self) -> Option<Shares> {
                match self { $(Self::$kind(kind) => kind.shares()),* }
            }
            pub(crate) fn split_by(&self) -> Option<SplitBy> {
                match self { $(Self::$kind(kind) => kind.split_by()),* }
            }
            fn needed_columns(&self) -> (&str, Vec<&str>) {
                match self { $(Self::$kind(kind) => kind.needed_columns()),* }
            }
            /// Reads some files, spread over all, to see what comes of them.
            ///
            /// # Errors
            /// Exit 3: a file is damaged.
            pub(crate) fn try_out(&self, config: &Config, bytes: u64) -> Result<Trial> {
                match self { $(Self::$kind(kind) => try_out(kind, config, bytes)),* }
            }
            /// Reads all files and puts their rows into the sink, in order.
            ///
            /// # Errors
            /// Exit 3: a file is damaged.
            pub(crate) fn read(&self, name: &str, reading: &Reading, sink: &mut Sink) -> Result<Read> {
                match self { $(Self::$kind(kind) => read(kind, name, reading, sink)),* }
            }
        }
    };
}

kinds! {
    SourceTree(source_tree),
    Codesearchnet(codesearchnet),
    Mbpp(mbpp),
    Cosqa(cosqa),
    ParallelText(parallel_text),
    Jsonl(jsonl),
    Parquet(parquet),
    Csv(csv),
}

/// The files of rows at a path, of one of the kinds whose columns are mapped.
///
/// # Errors
/// Exit 3: there are none.
pub(crate) fn row_files(kind: &str, path: &str, config: &Config) -> Result<Files> {
    let ends = match kind {
        "csv" => csv::ENDS,
        "parquet" => parquet::ENDS,
        _ => jsonl::ends(path),
    };
    mapped::find(config, path, ends, &[])
}

pub(crate) use jsonl::Piece as JsonPiece;

/// What was read of a source.
#[derive(Debug)]
pub(crate) struct Read {
    /// Digest of the content.
    pub digest: String,
    /// Files.
    pub files: u64,
}

impl Source {
    /// The resolved values that decide about the output, and those of them that differ from the defaults.
    ///
    /// # Errors
    /// None in practice: a config that was read can be written.
    pub fn values(&self) -> Result<(Value, Value)> {
        let value = serde_json::to_value(self)?;
        let changed = overrides(&value, &serde_json::to_value(self.default_of_kind())?);
        Ok((value, changed))
    }

    /// That the first rows have the columns that the config names.
    ///
    /// # Errors
    /// Exit 2: none of them has one of these; the columns that there are.
    pub(crate) fn check_columns(&self, config: &Config) -> Result<()> {
        let (path, needed) = self.needed_columns();
        if needed.is_empty() { Ok(()) } else { columns_are_there(self.kind(), path, &needed, config) }
    }

    /// Digest of the content of the source's files.
    ///
    /// # Errors
    /// Exit 3: there are none, or they cannot be read.
    pub fn digest(&self, config: &Config) -> Result<String> {
        self.files(config)?.digest()
    }
}

/// How sources are read.
pub(crate) struct Reading<'a> {
    pub(crate) config: &'a Config,
    pub(crate) threads: usize,
    /// Which of their files are read.
    pub(crate) shard: Shard,
}

/// What a thread is given: a piece of a file, or why there is none.
enum Work<P> {
    Piece(P),
    Rejected(Box<Found>),
}

fn read<K: SourceKind>(kind: &K, name: &str, reading: &Reading, sink: &mut Sink) -> Result<Read> {
    let files = kind.files(reading.config)?;
    let (licence, origin) = kind.provenance();
    let origin = match (origin, files.list.as_slice()) {
        ("", [file]) => file.name.as_str(),
        ("", _) => name,
        (origin, _) => origin,
    };
    let own = files.of_shard(reading.shard);
    let progress = Progress::new("reading", "bytes", own.iter().map(|number| files.list[*number].bytes).sum());
    let mut digest = String::new();
    ordered(
        reading.threads,
        |emit| {
            let each = |number: u64, item: Item| match item {
                Item::File(file) => kind.cut(file, &mut |piece| emit((number, Work::Piece(piece)))),
                Item::Unreadable { place, why } => {
                    let rejected = Found::Rejected { place, reason: "unreadable", detail: why };
                    emit((number, Work::Rejected(Box::new(rejected))))
                }
            };
            digest = files.read(&own, each, |bytes| progress.add(bytes))?;
            Ok(())
        },
        |(number, work)| {
            let found = match work {
                Work::Piece(piece) => kind.rows(piece)?,
                Work::Rejected(found) => vec![*found],
            };
            let found = found.into_iter().map(|found| found.with_provenance((licence, origin)));
            Ok((number, found.map(|found| identified(name, found)).collect::<Vec<_>>()))
        },
        |(number, found)| {
            sink.begin_file(number);
            found.into_iter().try_for_each(|found| sink.add(found))
        },
    )?;
    Ok(Read { digest, files: own.len() as u64 })
}

impl Source {
    /// Forgets what the cache says of the files' digests.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn forget_digests(&self, config: &Config) -> Result<()> {
        self.files(config)?.forget_digests()
    }
}
