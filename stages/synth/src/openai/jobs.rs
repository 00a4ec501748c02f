//! The requests that a generator wants answered: their bodies on disk, their keys in memory.

use std::collections::HashSet;

use anyhow::Result;
use codepair_runtime::{Piece, Spool, sha256};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The hash that keys a request.
pub(crate) fn request_hash(endpoint: &str, payload: &str) -> String {
    sha256(format!("{endpoint}\n{payload}").as_bytes())
}

/// Texts that a request has embedded; one where it asks for something else.
pub(crate) fn texts_of(payload: &str) -> usize {
    #[derive(Deserialize)]
    struct Texts {
        input: Vec<IgnoredAny>,
    }
    serde_json::from_str::<Texts>(payload).map_or(1, |texts| texts.input.len())
}

/// Requests to one endpoint, in order.
pub(crate) struct Jobs {
    endpoint: String,
    payloads: Spool,
    list: Vec<Job>,
}

/// A request: its key, and where its body is.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) key: String,
    place: Piece,
}

impl Jobs {
    pub(crate) fn new(endpoint: String) -> Result<Self> {
        Ok(Self { endpoint, payloads: Spool::new()?, list: Vec::new() })
    }

    pub(crate) fn add(&mut self, payload: &str) -> Result<()> {
        let place = self.payloads.put(payload.as_bytes())?;
        self.list.push(Job { key: request_hash(&self.endpoint, payload), place });
        Ok(())
    }

    pub(crate) fn list(&self) -> &[Job] {
        &self.list
    }

    pub(crate) fn keys(&self) -> HashSet<String> {
        self.list.iter().map(|job| job.key.clone()).collect()
    }

    pub(crate) fn payload(&self, job: &Job) -> Result<String> {
        self.payloads.text(job.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_to_embed_are_counted() {
        assert_eq!(texts_of(r#"{"model": "m", "input": ["a", "b", "c"]}"#), 3);
        assert_eq!(texts_of(r#"{"model": "m", "messages": []}"#), 1);
    }
}
