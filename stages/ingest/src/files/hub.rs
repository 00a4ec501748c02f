//! Datasets at Hugging Face: `hf://datasets/OWNER/NAME[@REVISION][/PATH]`, as its own file system writes them. `HF_TOKEN` opens
//! those that are private or gated; `HF_ENDPOINT` names another hub.

use std::path::PathBuf;

use anyhow::Result;
use codepair_runtime::{block_on, config_error, input_error};
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::cache::{Meter, Remote, fetch_all};
use super::download::{self, Address, header};
use super::source_file::SourceFile;

pub(super) const SCHEME: &str = "hf://";

/// What to do about a refusal.
const ADVICE: &str = ": HF_TOKEN is to hold a token that may read it, and who owns the token is to have accepted the dataset's \
                      conditions, on its page";

/// A dataset, or a folder or file of it.
#[derive(Debug, PartialEq, Eq)]
struct HubPath {
    /// `datasets/OWNER/NAME`.
    repository: String,
    /// A branch, a tag or a commit, with `%2F` for `/`.
    revision: String,
    path: String,
}

impl HubPath {
    fn parse(location: &str) -> Result<Self> {
        let mut parts = location.trim_start_matches(SCHEME).trim_end_matches('/').split('/');
        let (Some("datasets"), Some(owner), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(config_error(format!("{location}: it is hf://datasets/OWNER/NAME[@REVISION][/PATH]")));
        };
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let mut path: Vec<&str> = parts.collect();
        let mut revision = revision.to_owned();
        // `refs/pr/1` and `refs/convert/parquet` may be written as they are.
        if revision == "refs" && path.len() >= 2 {
            revision = format!("refs%2F{}%2F{}", path[0], path[1]);
            path.drain(..2);
        }
        Ok(Self { repository: format!("datasets/{owner}/{name}"), revision, path: path.join("/") })
    }

    /// An address of the hub: its parts before the revision and after it.
    fn address(&self, before: &str, path: &str) -> Result<Address> {
        let hub = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned());
        let hub = hub.trim_end_matches('/');
        let wrong = |error: &dyn std::fmt::Display| config_error(format!("HF_ENDPOINT {hub}: {error}"));
        let mut url = Url::parse(&format!("{hub}/{before}/{}", self.revision)).map_err(|error| wrong(&error))?;
        let mut parts = url.path_segments_mut().map_err(|()| wrong(&"it is no address of a hub"))?;
        parts.extend(path.split('/').filter(|part| !part.is_empty()));
        drop(parts);
        Ok(Address { url: url.into(), token: token()?, advice: ADVICE })
    }

    /// The address of a file of the dataset.
    fn file(&self, path: &str) -> Result<Address> {
        self.address(&format!("{}/resolve", self.repository), path)
    }

    /// The files below the place.
    fn list(&self) -> Result<Vec<Entry>> {
        let first = self.address(&format!("api/{}/tree", self.repository), &self.path)?;
        let first = Address { url: format!("{}?recursive=true", first.url), ..first };
        let list = || async {
            let (mut entries, mut next) = (Vec::new(), Some(first.clone()));
            while let Some(page) = next {
                let response = page.get().await?;
                next = next_page(header(&response, "link")).map(|url| {
                    // The token is the hub's alone.
                    let token = is_same_origin(&url, &first.url).then(|| first.token.clone()).flatten();
                    Address { url, token, advice: ADVICE }
                });
                entries.extend(response.json::<Vec<Entry>>().await?);
            }
            anyhow::Ok(entries)
        };
        let entries = block_on(list()).map_err(|error| input_error(format!("{}: {error:#}", first.url)))?;
        Ok(entries.into_iter().filter(|entry| entry.r#type == "file").collect())
    }
}

fn token() -> Result<Option<HeaderValue>> {
    let token = std::env::var("HF_TOKEN").unwrap_or_default();
    if token.trim().is_empty() {
        return Ok(None);
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| config_error("HF_TOKEN holds what is in no token, such as a line feed"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn is_same_origin(one: &str, other: &str) -> bool {
    matches!((Url::parse(one), Url::parse(other)), (Ok(one), Ok(other)) if one.origin() == other.origin())
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    r#type: String,
    #[serde(default)]
    size: u64,
}

/// A file of a dataset, of which the list says the size.
struct HubFile {
    address: Address,
    size: u64,
}

impl Remote for HubFile {
    fn bytes(&self) -> u64 {
        self.size
    }
    fn fetch(&self, meter: &mut Meter) -> Result<PathBuf> {
        let found = self.address.find()?;
        found.ok_or_else(|| input_error(format!("{} is gone", self.address.url)))?.fetch(meter)
    }
}

/// One file of a dataset.
///
/// # Errors
/// Exit 2: the location is malformed. Exit 3: it is not there, or cannot be read.
pub(super) fn fetch(location: &str, name: &str) -> Result<SourceFile> {
    let place = HubPath::parse(super::cache::pinned(location).0)?;
    download::fetch(location, place.file(&place.path)?, name)
}

/// The files of a dataset, or of a folder of it, that are wanted by their paths in it.
///
/// # Errors
/// As [`fetch`].
pub(super) fn fetch_folder(location: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<SourceFile>> {
    let place = HubPath::parse(location)?;
    let mut files = Vec::new();
    for entry in place.list()? {
        if let Some(name) = within(&entry.path, &place.path).filter(|name| wanted(name)) {
            files.push((name.to_owned(), HubFile { address: place.file(&entry.path)?, size: entry.size }));
        }
    }
    fetch_all(location, files)
}

/// The address of the next page in a `Link` header (RFC 8288).
fn next_page(header: &str) -> Option<String> {
    let next = header.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// A path below a folder; the folder may be empty.
fn within<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    if folder.is_empty() { Some(path) } else { path.strip_prefix(folder)?.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (location, revision, path) in [
            ("hf://datasets/o/n/python/train.parquet", "main", "python/train.parquet"),
            ("hf://datasets/o/n/", "main", ""),
            ("hf://datasets/o/n@v1.0/a.jsonl", "v1.0", "a.jsonl"),
            ("hf://datasets/o/n@refs%2Fpr%2F1/a", "refs%2Fpr%2F1", "a"),
            ("hf://datasets/o/n@refs/convert/parquet/default/train", "refs%2Fconvert%2Fparquet", "default/train"),
        ] {
            let place = HubPath::parse(location).unwrap();
            let wanted = HubPath { repository: "datasets/o/n".into(), revision: revision.into(), path: path.into() };
            assert_eq!(place, wanted, "{location}");
        }
        for wrong in ["hf://o/n/a.jsonl", "hf://datasets/o", "hf://"] {
            assert!(HubPath::parse(wrong).is_err(), "{wrong}");
        }
        let url = |place: &str, path: &str| HubPath::parse(place).unwrap().file(path).unwrap().url;
        assert!(
            url("hf://datasets/o/n", "a b/50%#?.jsonl").ends_with("/datasets/o/n/resolve/main/a%20b/50%25%23%3F.jsonl")
        );
        assert!(url("hf://datasets/o/n@refs/pr/1", "a").ends_with("/datasets/o/n/resolve/refs%2Fpr%2F1/a"));
    }

    #[test]
    fn lists_have_pages_and_folders() {
        let link = r#"<https://h/api?cursor=a>; rel="prev", <https://h/api?cursor=b>; rel="next""#;
        assert_eq!((next_page(link).as_deref(), next_page("")), (Some("https://h/api?cursor=b"), None));
        assert_eq!((within("a/b", "a"), within("ab", "a"), within("a/b", "")), (Some("b"), None, Some("a/b")));
        assert!(is_same_origin("https://h/a?x", "https://h/b") && !is_same_origin("https://h.evil/a", "https://h/b"));
    }
}
