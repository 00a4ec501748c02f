//! What becomes of each row.

use std::collections::HashMap;

use anyhow::Result;
use datafusion::prelude::SessionContext;

use crate::Prepare;
use crate::candidates::{EVALUATION_ONLY, Keys, NO_TEXT, equal, id_hash};
use crate::near::{self, Near};

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is an example.
    Kept,
    /// It is a duplicate.
    Duplicate(Near),
    /// It is out for another reason.
    Out { reason: String, detail: String },
}

/// All that decides.
pub(crate) struct Verdicts {
    keys: Keys,
    /// The first row of each exact duplicate.
    exact: HashMap<u64, u64>,
    near: HashMap<u64, Near>,
}

impl Verdicts {
    /// Finds the duplicates.
    pub(crate) fn new(session: &SessionContext, keys: Keys, config: &Prepare, threads: usize) -> Result<Self> {
        let mut exact = HashMap::new();
        equal(session, "exact_key", |position, first| {
            exact.insert(position, first);
            Ok(())
        })?;
        tracing::info!("{} exact duplicates", exact.len());
        let (threshold, structural) = (config.near_duplicate_threshold, config.structural_duplicates);
        let near = near::clusters(session, &keys, &exact, threshold, structural, threads)?;
        Ok(Self { keys, exact, near })
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The rows that duplicates point to.
    pub(crate) fn pointed_to(&self) -> impl Iterator<Item = u64> {
        let exact = self.exact.iter().flat_map(|(_, &first)| [first, self.kept(first)]);
        exact.chain(self.near.values().flat_map(|near| [near.neighbour, near.kept]))
    }

    /// Decides about a row. A synthetic row goes where its parent goes, except that it may have a text where that has none.
    pub(crate) fn of(&self, position: u64, parent_id: Option<&str>) -> Verdict {
        let own = self.own(position);
        let Some(parent_id) = parent_id.filter(|_| own == Verdict::Kept) else { return own };
        let parent = self.keys.parents.get(&id_hash(parent_id));
        let stays = |&parent: &u64| match self.own(parent) {
            Verdict::Kept => true,
            // What nobody documented is what texts are made for.
            Verdict::Out { reason, .. } => reason == NO_TEXT,
            Verdict::Duplicate(_) => false,
        };
        if parent.is_some_and(stays) {
            return own;
        }
        let detail = format!("its parent {parent_id} is rejected or a duplicate");
        Verdict::Out { reason: "parent_rejected".to_owned(), detail }
    }

    fn own(&self, position: u64) -> Verdict {
        let out = |reason: &str, detail| Verdict::Out { reason: reason.to_owned(), detail };
        if let Some(reason) = self.keys.reason(position) {
            let held = self.keys.collisions.get(&position);
            return out(reason, held.map(|id| format!("holds a test text of {id}")).unwrap_or_default());
        }
        if let Some(&first) = self.exact.get(&position) {
            let kept = self.kept(first);
            return Verdict::Duplicate(Near { kind: "exact", neighbour: first, jaccard: 1.0, kept });
        }
        self.near.get(&position).map_or(Verdict::Kept, |near| Verdict::Duplicate(near.clone()))
    }

    /// The row that is kept of a row's near-duplicates.
    fn kept(&self, position: u64) -> u64 {
        self.near.get(&position).map_or(position, |near| near.kept)
    }

    /// Whether a row is only there to be evaluated on, and so is no example although it is kept.
    pub(crate) fn is_for_evaluation(&self, position: u64) -> bool {
        self.keys.reason(position) == Some(EVALUATION_ONLY) || self.keys.ranks[position as usize] == 0
    }
}
