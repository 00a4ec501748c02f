//! Groups and splits: a group is never divided, so that no test row has a sibling in training.

use anyhow::Result;
use codepair_runtime::{config_error, sha256};
use serde::{Deserialize, Serialize};

/// Shares of the groups that go to validation and test; the rest is for training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shares {
    /// For validation.
    pub validation: f64,
    /// For test.
    pub test: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self { validation: 0.1, test: 0.1 }
    }
}

impl Shares {
    /// # Errors
    /// Exit 2: they are no shares.
    pub(crate) fn check(&self) -> Result<()> {
        let shares = [self.validation, self.test];
        if shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares.iter().sum::<f64>() <= 1.0 {
            return Ok(());
        }
        Err(config_error(format!(
            "shares = {{ validation = {}, test = {} }}: each is from 0 to 1, and both together are at most 1; the rest is for \
             training",
            self.validation, self.test
        )))
    }

    /// The split of a group, by a hash of its name alone: it does not change when other groups come or go.
    #[must_use]
    pub fn split(&self, group: &str) -> &'static str {
        let hash = u64::from_str_radix(&sha256(group.as_bytes())[..13], 16).unwrap_or_default();
        let place = hash as f64 / (1u64 << 52) as f64;
        if place < self.test {
            "test"
        } else if place < self.test + self.validation {
            "validation"
        } else {
            "train"
        }
    }
}

/// Which rows stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SplitBy {
    /// Those with the same content.
    Row,
    /// Those of a file.
    File,
    /// Those of a top-level module: the first part of the path.
    Module,
    /// Those of a repository or package.
    Repo,
}

/// The split of all rows of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Constant {
    Train,
    Validation,
    Test,
}

impl Constant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// Where a row stands, and what it holds.
pub(crate) struct Standing<'a> {
    pub(crate) repo: &'a str,
    pub(crate) path: &'a str,
    pub(crate) content: &'a [&'a str],
}

impl Standing<'_> {
    /// The group of the row; what it does not say, such as its repository, the next smaller unit says.
    pub(crate) fn group(&self, by: SplitBy) -> String {
        let top = self.path.split('/').next().unwrap_or(self.path);
        let by_content = || sha256(self.content.join("\0").as_bytes())[..16].to_owned();
        match by {
            SplitBy::Repo if !self.repo.is_empty() => self.repo.to_owned(),
            SplitBy::Repo | SplitBy::Module if !top.is_empty() => top.to_owned(),
            SplitBy::File if !self.path.is_empty() => match self.repo {
                "" => self.path.to_owned(),
                repo => format!("{repo}/{}", self.path),
            },
            _ => by_content(),
        }
    }
}

/// The split that a file's name says, where it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) split: &'static str,
    /// Other files are named for tests and none for validation, which training needs: a share of the training rows is.
    pub(crate) lacks_validation: bool,
}

impl Named {
    /// The split of a row of a group.
    pub(crate) fn split(self, shares: Shares, group: &str) -> &'static str {
        match (self.split, self.lacks_validation) {
            ("train", true) => Shares { test: 0.0, ..shares }.split(group),
            (split, _) => split,
        }
    }
}

/// The split that a word names.
pub(crate) fn split_of_word(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some("train"),
        "valid" | "validation" | "val" | "dev" => Some("validation"),
        "test" | "testing" => Some("test"),
        _ => None,
    }
}

/// The split that a file's name says, such as `train-00000-of-00001.parquet`: one of its words does, and no other says another.
pub(crate) fn split_of_file(name: &str) -> Option<&'static str> {
    let mut parts = name.rsplit('/');
    let (file, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut said = file.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(split_of_word);
    match (said.next(), said.next()) {
        (Some(split), None) => Some(split),
        (None, _) => split_of_word(folder),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_groups_are_stable() {
        let shares = Shares { validation: 0.2, test: 0.3 };
        let count = |split| (0..2000).filter(|n| shares.split(&format!("g{n}")) == split).count();
        assert!((560..640).contains(&count("test")), "{}", count("test"));
        assert!((350..450).contains(&count("validation")), "{}", count("validation"));
        // A larger share only adds groups.
        let larger = Shares { test: 0.5, validation: 0.2 };
        assert!((0..500).map(|n| format!("g{n}")).all(|g| shares.split(&g) != "test" || larger.split(&g) == "test"));
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        for (validation, test, good) in [
            (0.0, 0.0, true),
            (0.5, 0.5, true),
            (0.6, 0.5, false),
            (-0.1, 0.1, false),
            (f64::NAN, 0.1, false),
            (0.1, 10.0, false),
        ] {
            assert_eq!(Shares { validation, test }.check().is_ok(), good, "{validation} {test}");
        }
    }

    #[test]
    fn groups_fall_back() {
        let group = |by, repo: &str, path: &str| Standing { repo, path, content: &["code"] }.group(by);
        assert_eq!(group(SplitBy::Repo, "owner/name", "a/b.py"), "owner/name");
        assert_eq!(group(SplitBy::Repo, "", "json/decoder.py"), "json");
        assert_eq!(group(SplitBy::Module, "owner/name", "ast.py"), "ast.py");
        assert_eq!(group(SplitBy::File, "owner/name", "a/b.py"), "owner/name/a/b.py");
        let row = group(SplitBy::Row, "owner/name", "a/b.py");
        assert_eq!((row.len(), group(SplitBy::File, "", "") == row), (16, true));
    }

    #[test]
    fn files_say_their_split() {
        for (name, split) in [
            ("data/train-00000-of-00001.parquet", Some("train")),
            ("python_valid_0.jsonl.gz", Some("validation")),
            ("dev.jsonl", Some("validation")),
            ("test/part-0.csv", Some("test")),
            ("rows.jsonl", None),
            ("train-test-split.csv", None),
            ("latest.csv", None),
        ] {
            assert_eq!(split_of_file(name), split, "{name}");
        }
    }
}
