//! The kinds of sources: one file a kind, one line in the list.

pub(crate) mod download;
mod lines;

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Config, Progress, overrides};
use codepair_schemas::rows::{Function, Problem};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Sink;
use crate::files::{self, SourceFile};

/// Files are read and parsed side by side, about so many stored bytes at once.
const CHUNK_BYTES: u64 = 32 << 20;

/// What a source finds in a file.
#[derive(Debug)]
pub(crate) enum Found {
    Function(Function),
    Problem(Problem),
    /// A row that cannot be used.
    Rejected {
        place: String,
        reason: &'static str,
        detail: String,
    },
}

/// A kind of source: where its files are, and what is in one.
pub(crate) trait Kind: Serialize + Default {
    /// Its files, in order of their names.
    fn files(&self, config: &Config) -> Result<Vec<SourceFile>>;
    /// The rows of a file, in order.
    ///
    /// An error means that the whole file is damaged; a bad row is [`Found::Rejected`].
    fn rows(&self, file: &str, content: &[u8]) -> Result<Vec<Found>>;
}

macro_rules! kinds {
    ($($kind:ident($module:ident),)*) => {
        $(mod $module;)*

        /// `[ingest.NAME]`; `kind` says which.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Source {
            $(#[doc = concat!("`kind = \"", stringify!($module), "\"`.")] $kind($module::$kind),)*
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
            fn files(&self, config: &Config) -> Result<Vec<SourceFile>> {
                match self { $(Self::$kind(kind) => kind.files(config)),* }
            }
            fn rows(&self, file: &str, content: &[u8]) -> Result<Vec<Found>> {
                match self { $(Self::$kind(kind) => kind.rows(file, content)),* }
            }
        }
    };
}

kinds! {
    SourceTree(source_tree),
    Codesearchnet(codesearchnet),
    Mbpp(mbpp),
    Jsonl(jsonl),
}

/// What was read of a source.
#[derive(Debug)]
pub struct Read {
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

    /// Digest of the content of the source's files.
    ///
    /// # Errors
    /// Exit 3: there are none, or they cannot be read.
    pub fn digest(&self, config: &Config) -> Result<String> {
        files::digest(&self.files(config)?, BTreeMap::new())
    }

    /// Reads all files and puts their rows into the sink, in order.
    ///
    /// # Errors
    /// Exit 3: a file is damaged.
    pub fn read(&self, config: &Config, sink: &mut Sink) -> Result<Read> {
        let files = self.files(config)?;
        let progress = Progress::new("reading", "bytes", files.iter().map(|f| f.bytes).sum());
        let mut digests = BTreeMap::new();
        let mut rest = files.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunk_length(rest));
            rest = after;
            let found: Vec<(Vec<Found>, Option<String>)> = chunk
                .par_iter()
                .map(|file| {
                    let content = file.read()?;
                    let rows = self.rows(&file.name, &content.bytes)?;
                    progress.add(file.bytes);
                    Ok((rows, content.sha256))
                })
                .collect::<Result<_>>()?;
            let hashed =
                chunk.iter().zip(&found).filter_map(|(file, (_, sha256))| Some((file.name.clone(), sha256.clone()?)));
            digests.extend(hashed);
            for row in found.into_iter().flat_map(|(rows, _)| rows) {
                match row {
                    Found::Function(row) => sink.function(row)?,
                    Found::Problem(row) => sink.problem(row)?,
                    Found::Rejected { place, reason, detail } => sink.reject(&place, reason, detail)?,
                }
            }
        }
        Ok(Read { digest: files::digest(&files, digests)?, files: files.len() as u64 })
    }
}

fn chunk_length(files: &[SourceFile]) -> usize {
    let mut bytes = 0;
    let fits = files.iter().take_while(|file| {
        bytes += file.bytes;
        bytes <= CHUNK_BYTES
    });
    fits.count().max(1)
}
