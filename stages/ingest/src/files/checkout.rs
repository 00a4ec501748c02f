//! A git checkout as a source: the files git knows of, under the address and commit they came from.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use codepair_runtime::input_error;

use super::source_file::{SourceFile, is_file, shown};

/// Where a checkout came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// `owner/name`, as far as the remote says it.
    pub(crate) repository: String,
    /// The remote's web address; empty where there is no remote.
    address: String,
    commit: String,
}

impl Checkout {
    /// The checkout whose top is `folder`; nothing where it is none.
    ///
    /// # Errors
    /// Exit 3: git cannot read it, so that other files would count, under other addresses.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>> {
        if !folder.join(".git").exists() {
            return Ok(None);
        }
        let commit = git(folder, &["rev-parse", "HEAD"]).map_err(|error| {
            input_error(format!("{} is a git checkout that git cannot read: {error:#}; commit once where it is new, or name a folder within it", folder.display()))
        })?;
        let remote = git(folder, &["config", "--get", "remote.origin.url"]).unwrap_or_default();
        Ok(Some(Self::new(&remote, commit.trim(), folder)))
    }

    fn new(remote: &str, commit: &str, folder: &Path) -> Self {
        let remote = remote.trim().trim_end_matches('/').trim_end_matches(".git");
        let place = match remote.split_once("://") {
            // Whoever is named before the @ is nobody's business.
            Some((_, rest)) => rest.rsplit_once('@').map_or(rest, |(_, place)| place).to_owned(),
            None => remote.rsplit_once('@').map_or(String::new(), |(_, place)| place.replacen(':', "/", 1)),
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let repository = place.split_once('/').map_or(name, |(_, path)| path.to_owned());
        let address = if place.contains('.') { format!("https://{place}") } else { String::new() };
        Self { repository, address, commit: commit.to_owned() }
    }

    /// Its address and commit.
    pub(crate) fn origin(&self) -> String {
        let place = if self.address.is_empty() { &self.repository } else { &self.address };
        format!("{place}@{}", self.commit)
    }

    /// The address of a file at the commit.
    pub(crate) fn url(&self, file: &str) -> String {
        if self.address.is_empty() { file.to_owned() } else { format!("{}/blob/{}/{file}", self.address, self.commit) }
    }
}

/// The files of a checkout that git tracks and that are wanted, as they lie there now.
///
/// # Errors
/// Exit 3: git or the disk cannot read them.
pub(super) fn tracked_files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<SourceFile>> {
    let names = git_bytes(folder, &["ls-files", "-z"])?;
    let mut files = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let (path, name) = (folder.join(OsStr::from_bytes(name)), shown(name));
        // Submodules and links to folders are left out, and so is what was deleted since.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if wanted(&name) && is_file(&path, metadata.file_type())? {
            files.push(SourceFile::new(&path, name)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8_lossy(&git_bytes(folder, arguments)?).into_owned())
}

fn git_bytes(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output()?;
    if !output.status.success() {
        bail!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_become_addresses() {
        for (remote, repository, url) in [
            ("https://github.com/owner/name.git\n", "owner/name", "https://github.com/owner/name/blob/c0/a.py"),
            ("git@github.com:owner/name.git", "owner/name", "https://github.com/owner/name/blob/c0/a.py"),
            ("https://user:secret@host.org/o/n/", "o/n", "https://host.org/o/n/blob/c0/a.py"),
            ("ssh://git@host.org/o/n", "o/n", "https://host.org/o/n/blob/c0/a.py"),
            ("/some/where/name", "here", "a.py"),
            ("", "here", "a.py"),
        ] {
            let checkout = Checkout::new(remote, "c0", Path::new("/x/here"));
            assert_eq!((checkout.repository.as_str(), checkout.url("a.py").as_str()), (repository, url), "{remote}");
        }
    }
}
