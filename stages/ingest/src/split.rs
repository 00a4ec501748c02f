//! Groups and splits: a group is never divided, so that no test row has a sibling in training.

use codepair_runtime::sha256;
use serde::{Deserialize, Serialize};

/// Shares of the groups that go to validation and test; the rest is for training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

/// The group of a row: its repository, else its top-level module, else its file.
#[must_use]
pub(crate) fn group(repo: &str, path: &str) -> String {
    let top = path.split('/').next().unwrap_or(path);
    if repo.is_empty() { top.to_owned() } else { repo.to_owned() }
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
    fn groups_fall_back() {
        assert_eq!(group("owner/name", "a/b.py"), "owner/name");
        assert_eq!(group("", "json/decoder.py"), "json");
        assert_eq!(group("", "ast.py"), "ast.py");
    }
}
