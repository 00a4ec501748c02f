//! Two files whose lines belong together, such as Multi30k's French and English captions: the sanity task of
//! sequence-to-sequence models.

use anyhow::Result;
use codepair_runtime::{Config, config_error, input_error};
use codepair_schemas::rows::Pair;
use serde::{Deserialize, Serialize};

use super::SourceKind;
use crate::files::{self, Files, Look, Opened, Patterns};
use crate::found::Found;

const LINES: usize = 4096;

/// A folder of `NAME.SOURCE` and `NAME.TARGET`, packed (`.gz`) or not. `NAME` says the split: `train…`, `val…` or `dev…`,
/// `test…`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelText {
    /// The folder, or an archive of it.
    #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
    path: String,
    /// The ending of the files to translate from, such as `fr`; their lines become `text`.
    source: String,
    /// The ending of the files to translate to, such as `en`; their lines become `code`.
    target: String,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// What the licence column says.
    licence: String,
    /// What the origin column says.
    origin: String,
}

/// Lines of two files.
pub(crate) struct Aligned {
    stem: String,
    first: usize,
    lines: Vec<(String, String)>,
}

impl SourceKind for ParallelText {
    type Piece = Aligned;

    fn files(&self, config: &Config) -> Result<Files> {
        if self.path.is_empty() || self.source.is_empty() || self.target.is_empty() {
            return Err(config_error("path, source and target are needed: source = \"fr\", target = \"en\""));
        }
        let include = [format!("**/*.{}", self.source), format!("**/*.{}", self.target)];
        let look = Look { archives: true, ..Look::default() };
        let files = files::find(config, &self.path, Patterns::new(&include, &self.exclude)?, look)?;
        for file in files.list.iter().filter(|file| !file.is_archive()) {
            let (stem, language) = stem(&file.name);
            let other = if language == self.source { &self.target } else { &self.source };
            if !files.list.iter().any(|candidate| self::stem(&candidate.name) == (stem, other)) {
                return Err(alone(&file.name, stem, other));
            }
        }
        Ok(files)
    }

    fn provenance(&self) -> (&str, &str) {
        (&self.licence, &self.origin)
    }

    /// The target's file is read along with the source's, and skipped in its own turn.
    fn cut(&self, file: &mut Opened, emit: &mut dyn FnMut(Aligned) -> Result<()>) -> Result<()> {
        let (stem, language) = stem(file.name());
        let stem = stem.to_owned();
        let missing = |file: &Opened, other: &str| alone(file.name(), &stem, other);
        if language != self.source {
            // Nobody else notices that it stands alone in an archive.
            let found = file.other(|name| self::stem(name) == (&stem, &self.source), |_| Ok(()))?;
            return found.ok_or_else(|| missing(file, &self.source));
        }
        let one = text(file)?;
        let two = file.other(|name| self::stem(name) == (&stem, &self.target), text)?;
        let two = two.ok_or_else(|| missing(file, &self.target))?;
        let counts = (one.lines().count(), two.lines().count());
        if counts.0 != counts.1 {
            return Err(input_error(format!(
                "{stem}: {} lines of {} and {} of {}: they do not belong together",
                counts.0, self.source, counts.1, self.target
            )));
        }
        let lines: Vec<(&str, &str)> = one.lines().zip(two.lines()).collect();
        for (index, chunk) in lines.chunks(LINES).enumerate() {
            let lines = chunk.iter().map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned())).collect();
            emit(Aligned { stem: stem.clone(), first: index * LINES + 1, lines })?;
        }
        Ok(())
    }

    fn rows(&self, aligned: Aligned) -> Result<Vec<Found>> {
        let name = aligned.stem.rsplit('/').next().unwrap_or_default();
        let starts = |start: &str| name.starts_with(start);
        let split = match name {
            _ if starts("train") => "train",
            _ if starts("val") || starts("dev") => "validation",
            _ if starts("test") => "test",
            _ => return Err(input_error(format!("{name}: the name says no split; begin it with train, val or test"))),
        };
        let rows = aligned.lines.into_iter().enumerate().map(|(index, (text, code))| {
            let url = format!("{}:{}", aligned.stem, aligned.first + index);
            if text.is_empty() || code.is_empty() {
                let detail = "one of the two lines is empty".to_owned();
                return Found::Rejected { place: url, reason: "no_text", detail };
            }
            Found::Pair(Pair {
                text,
                code,
                language: self.target.clone(),
                group: url.clone(),
                url,
                split: split.to_owned(),
                ..Pair::default()
            })
        });
        Ok(rows.collect())
    }
}

/// `train`, `fr` of `train.fr.gz`.
fn stem(name: &str) -> (&str, &str) {
    let plain = files::unpacked(name);
    plain.rsplit_once('.').unwrap_or((plain, ""))
}

fn text(file: &mut Opened) -> Result<String> {
    file.read_text()
}

fn alone(file: &str, stem: &str, other: &str) -> anyhow::Error {
    input_error(format!("{file} has no counterpart {stem}.{other}"))
}
