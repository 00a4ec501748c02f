//! What a source finds in its files: a row of a dataset, or one that cannot be used.

use std::hash::Hasher as _;

use codepair_code::holds_code;
use codepair_schemas::rows::{Function, Judgment, Pair, Problem, Query};
use twox_hash::XxHash3_64;

/// A row with more text than this is no function that anybody reads, and would not fit beside others in memory.
const ROW_BYTES: usize = 1 << 20;

/// What a source finds in a file.
#[derive(Debug)]
pub(crate) enum Found {
    Function(Function),
    Pair(Pair),
    Problem(Problem),
    Query(Query),
    Judgment(Judgment),
    /// A row that cannot be used.
    Rejected {
        place: String,
        reason: &'static str,
        detail: String,
    },
}

impl Found {
    /// Fills in licence and origin where the row does not say its own.
    pub(crate) fn with_provenance(mut self, (licence, origin): (&str, &str)) -> Self {
        let places = match &mut self {
            Self::Function(row) => Some((&mut row.licence, &mut row.origin)),
            Self::Pair(row) => Some((&mut row.licence, &mut row.origin)),
            Self::Problem(row) => Some((&mut row.licence, &mut row.origin)),
            Self::Query(row) => Some((&mut row.licence, &mut row.origin)),
            Self::Judgment(row) => Some((&mut row.licence, &mut row.origin)),
            Self::Rejected { .. } => None,
        };
        if let Some((own_licence, own_origin)) = places {
            for (own, given) in [(own_licence, licence), (own_origin, origin)] {
                if own.is_empty() {
                    given.clone_into(own);
                }
            }
        }
        self
    }

    /// Rejects a function or problem that holds no code: nothing could be learned from it, and nothing found. For sources that
    /// name no better place than the row does.
    pub(crate) fn with_code(self) -> Self {
        let (language, code) = match &self {
            Self::Function(row) => (row.language.as_str(), &row.code),
            Self::Problem(row) => ("python", &row.code),
            _ => return self,
        };
        if holds_code(language, code) { self } else { no_code(self.place()) }
    }

    /// Rejects a row that is too large to be used.
    pub(crate) fn bounded(self, place: impl FnOnce() -> String) -> Self {
        let bytes = self.text_bytes();
        if bytes <= ROW_BYTES {
            return self;
        }
        let detail = format!("{bytes} bytes of text; at most {ROW_BYTES}");
        Self::Rejected { place: place(), reason: "too_large", detail }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Function(row) => row.code.len() + row.docstring.len(),
            Self::Pair(row) => row.text.len() + row.code.len(),
            Self::Problem(row) => row.text.len() + row.code.len(),
            Self::Query(row) => row.text.len(),
            Self::Judgment(row) => row.query.len() + row.notes.len(),
            Self::Rejected { .. } => 0,
        }
    }

    /// Where the row says that it stands.
    fn place(&self) -> String {
        let said = |names: &[&String]| {
            names.iter().find(|name| !name.is_empty()).map_or(String::new(), |name| (*name).clone())
        };
        match self {
            Self::Function(row) => said(&[&row.url, &row.path, &row.name]),
            Self::Pair(row) => said(&[&row.url]),
            Self::Judgment(row) => said(&[&row.url]),
            Self::Problem(row) => format!("task {}", row.task_id),
            Self::Query(_) => String::new(),
            Self::Rejected { place, .. } => place.clone(),
        }
    }
}

/// A row that holds no code.
pub(crate) fn no_code(place: String) -> Found {
    let detail = "it holds nothing but white space, comments and what does nothing".to_owned();
    Found::Rejected { place, reason: "no_code", detail }
}

/// A row with the hash that its id is made of.
pub(crate) struct Identified {
    pub(crate) found: Found,
    pub(crate) hash: u64,
}

/// Hashes a row of a source; rows that are too large become rejected ones.
pub(crate) fn identified(source: &str, found: Found) -> Identified {
    let place = (found.text_bytes() > ROW_BYTES).then(|| found.place());
    let found = found.bounded(|| place.unwrap_or_default());
    let number;
    let fields: &[&str] = match &found {
        Found::Function(row) => &[&row.repo, &row.path, &row.name, &row.url, &row.code, &row.docstring],
        Found::Pair(row) => &[&row.url, &row.text, &row.code],
        Found::Problem(row) => {
            number = row.task_id.to_string();
            &[&number, &row.text, &row.code]
        }
        Found::Query(row) => &[&row.text],
        Found::Judgment(_) | Found::Rejected { .. } => &[],
    };
    let mut hash = XxHash3_64::new();
    for field in [&[source], fields].concat() {
        // With its length, so that neighbouring texts cannot run together.
        hash.write_u64(field.len() as u64);
        hash.write(field.as_bytes());
    }
    let hash = hash.finish();
    Identified { found, hash }
}
