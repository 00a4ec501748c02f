//! Who pays for requests.

/// Whose rows are counted as spent, and how long answers to them are at most.
#[derive(Clone, Debug)]
pub(crate) struct Payer {
    /// `PIPELINE/GENERATOR`.
    pub(crate) name: String,
    /// Which shard of it, such as `2/3`: each has a share of what may be spent, also when it is run again.
    pub(crate) shard: Option<String>,
    pub(crate) answer_tokens: u32,
}

/// Between a payer's name and its shard.
pub(super) const SHARD: char = '#';

impl Payer {
    /// As the ledger's rows name it.
    pub(crate) fn own_name(&self) -> String {
        self.shard.as_ref().map_or_else(|| self.name.clone(), |shard| format!("{}{SHARD}{shard}", self.name))
    }

    /// Which shard a row is of; nothing where another pays it.
    pub(super) fn shard_of<'g>(&self, generator: &'g str) -> Option<Option<&'g str>> {
        match generator.strip_prefix(&self.name)? {
            "" => Some(None),
            rest => rest.strip_prefix(SHARD).map(Some),
        }
    }

    /// Whether a row is paid for by it, or by one of its shards.
    pub(super) fn pays(&self, generator: &str) -> bool {
        self.shard_of(generator).is_some()
    }
}
