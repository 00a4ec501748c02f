//! What becomes of each row.

use anyhow::Result;
use datafusion::prelude::SessionContext;

use crate::Prepare;
use crate::clusters::{Clusters, Near, Pointers};
use crate::keys::{CONTAMINATED, EVALUATION_ONLY, Keys, NO_TEXT, equal};
use crate::near;
use crate::scratch::{OFTEN, Scratch};

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is an example.
    Kept,
    /// It is one although it resembles another: what is tested on does not depend on what else is there.
    Marked(Near),
    /// It is a duplicate.
    Duplicate(Near),
    /// It is out for another reason.
    Out { reason: String, detail: String },
}

/// All that decides.
pub(crate) struct Verdicts {
    keys: Keys,
    /// The first row of each exact duplicate.
    exact: Pointers,
    near: Clusters,
}

impl Verdicts {
    /// Finds the duplicates.
    pub(crate) fn new(
        session: &SessionContext,
        keys: Keys,
        config: &Prepare,
        scratch: &Scratch,
        threads: usize,
    ) -> Result<Self> {
        let (exact, mut found) = (Pointers::new(scratch, OFTEN)?, 0u64);
        equal(session, "exact_key", |position, first| {
            found += 1;
            exact.set(position, first)
        })?;
        tracing::info!("{found} exact duplicates");
        let settings = (config.near_duplicate_threshold, config.structural_duplicates);
        let near = near::clusters(session, &keys, &exact, settings, scratch, threads)?;
        Ok(Self { keys, exact, near })
    }

    /// Pairs of rows in one bucket that were too many to compare.
    pub(crate) fn pairs_not_compared(&self) -> u64 {
        self.near.not_compared
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Decides about a row. A synthetic row goes where its parent goes, except that it may have a text where that has none.
    pub(crate) fn of(&self, position: u64, parent_id: Option<&str>) -> Result<Verdict> {
        let own = self.own(position)?;
        let Some(parent_id) = parent_id.filter(|_| own == Verdict::Kept) else { return Ok(own) };
        let stays = match self.keys.parents.get(position)?.map(|parent| self.own(parent)).transpose()? {
            Some(Verdict::Kept | Verdict::Marked(_)) => true,
            // What nobody documented is what texts are made for.
            Some(Verdict::Out { reason, .. }) => reason == NO_TEXT,
            Some(Verdict::Duplicate(_)) | None => false,
        };
        if stays {
            return Ok(own);
        }
        let detail = format!("its parent {parent_id} is rejected or a duplicate");
        Ok(Verdict::Out { reason: "parent_rejected".to_owned(), detail })
    }

    fn own(&self, position: u64) -> Result<Verdict> {
        if let Some(reason) = self.keys.reason(position)? {
            let detail = match reason {
                CONTAMINATED => format!("holds a test text of {}", self.keys.collision(position)?),
                _ => String::new(),
            };
            return Ok(Verdict::Out { reason: reason.to_owned(), detail });
        }
        let near = match self.exact.get(position)? {
            Some(first) => {
                let kept = self.near.root(first)?;
                Some(Near { kind: "exact", neighbour: first, jaccard: 1.0, kept })
            }
            None => self.near.near(position)?,
        };
        let is_tested = self.keys.rank(position)? == 0;
        Ok(match near {
            None => Verdict::Kept,
            Some(near) if is_tested => Verdict::Marked(near),
            Some(near) => Verdict::Duplicate(near),
        })
    }

    /// Whether a row is only there to be evaluated on, and so is no example although it is kept.
    pub(crate) fn is_for_evaluation(&self, position: u64) -> Result<bool> {
        Ok(self.keys.reason(position)? == Some(EVALUATION_ONLY) || self.keys.rank(position)? == 0)
    }
}
