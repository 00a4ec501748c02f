//! Which files of a folder or an archive count.

use anyhow::Result;
use codepair_runtime::config_error;
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::packing::{Packing, packing, unpacked};

/// Which files of a folder count, by patterns over the relative path.
pub(crate) struct Patterns {
    include: GlobSet,
    exclude: GlobSet,
    /// What is included, as it was written.
    written: Vec<String>,
}

impl Patterns {
    /// # Errors
    /// Exit 2: a pattern is malformed.
    pub(crate) fn new<S: AsRef<str>, T: AsRef<str>>(include: &[S], exclude: &[T]) -> Result<Self> {
        let written = include.iter().map(|pattern| pattern.as_ref().to_owned()).collect();
        Ok(Self { include: globs(include)?, exclude: globs(exclude)?, written })
    }

    /// What is looked for, in words.
    pub(super) fn said(&self) -> String {
        format!("it is to be named like {}", self.written.join(", "))
    }

    /// What is packed counts by the name it has unpacked.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let is_included = self.include.is_match(name) || self.include.is_match(unpacked(name));
        is_included && !self.exclude.is_match(name) && !is_of_system(name)
    }

    /// Whether a file of a folder counts: by its name, or as an archive of such files.
    pub(super) fn wants(&self, name: &str, archives: bool) -> bool {
        // An archive that nobody here can unpack is named when it is read.
        let is_archive = packing(unpacked(name)) != Packing::None || packing(name) != Packing::None;
        let packed = archives && is_archive && !self.exclude.is_match(name) && !is_of_system(name);
        packed || self.fits(name)
    }
}

/// What macOS puts beside the files of an archive: it has their names, and is none of them.
fn is_of_system(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with("._") || part == "__MACOSX")
}

fn globs<S: AsRef<str>>(patterns: &[S]) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns.iter().map(AsRef::as_ref) {
        builder.add(Glob::new(pattern).map_err(|e| config_error(format!("{pattern}: {e}")))?);
    }
    Ok(builder.build()?)
}
