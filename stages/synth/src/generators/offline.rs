//! Pairs without any model: positives by edits that keep the meaning, negatives by edits that change it, and by the
//! nearest other function under BM25.

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_code::{Edited, Meaning, edit};
use codepair_runtime::{Config, Context, Progress, sha256};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::GeneratorKind;
use crate::corpus::Bm25Miner;
use crate::mining::{Chosen, Rules};
use crate::rows::{Made, Pair, PairKind, Parent, Provenance, chunked, count, documented, of_shard};

/// The nearest functions that are looked at for one that differs.
const NEAREST: usize = 8;
/// Rows that are edited before their pairs are written.
const CHUNK: usize = 2048;

/// How many pairs of each sort are made from a row.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Offline {
    /// Edits that keep the meaning, such as other names for local variables.
    positives: u32,
    /// Edits that change it, such as a flipped comparison.
    negatives: u32,
    /// The code that BM25 finds for the row's text, other than the row's own.
    nearest: u32,
    /// Which edit is made where.
    seed: u64,
}

impl Default for Offline {
    fn default() -> Self {
        Self { positives: 1, negatives: 1, nearest: 1, seed: 0 }
    }
}

impl GeneratorKind for Offline {
    fn files(&self, _config: &Config) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    fn generate(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        let nearest = (self.nearest > 0).then(|| Bm25Miner::new(context)).transpose()?;
        let rules = self.rules();
        let progress = Progress::new("editing", "rows", count(context, &["functions", "problems"]));
        chunked(of_shard(context, documented(context), |row| row.id.clone()), CHUNK, |parents| {
            let found: Vec<Row> = parents
                .par_iter()
                .map(|parent| {
                    let nearest = nearest.as_ref().map(|miner| miner.mine(&rules, &parent.text, &parent.id));
                    Ok(Row {
                        positives: self.edits(parent, Meaning::Kept, self.positives),
                        negatives: self.edits(parent, Meaning::Changed, self.negatives),
                        nearest: nearest.transpose()?.unwrap_or_default(),
                    })
                })
                .collect::<Result<_>>()?;
            progress.add(parents.len() as u64);
            for (parent, row) in parents.iter().zip(found) {
                row.put(self, name, parent, nearest.as_ref(), made)?;
            }
            Ok(())
        })
    }
}

/// What was found for one parent.
struct Row {
    positives: Vec<Edited>,
    negatives: Vec<Edited>,
    nearest: Vec<Chosen>,
}

impl Row {
    fn put(
        self,
        offline: &Offline,
        name: &str,
        parent: &Parent,
        nearest: Option<&Bm25Miner>,
        made: &mut Made,
    ) -> Result<()> {
        let sets = [
            (PairKind::Positive, self.positives, offline.positives, "no_positive_edit"),
            (PairKind::Negative, self.negatives, offline.negatives, "no_negative_edit"),
        ];
        for (kind, edits, wanted, reason) in sets {
            if wanted > 0 && edits.is_empty() {
                made.reject(name, parent.place(), reason, "no edit of this kind fits the code");
            }
            for edited in edits {
                let edit = edited.edit.to_owned();
                made.pair(
                    name,
                    parent,
                    Pair { kind, edit, text: parent.text.clone(), code: edited.code, provenance: offline.provenance() },
                )?;
            }
        }
        if offline.nearest > 0 && self.nearest.is_empty() {
            made.reject(name, parent.place(), "no_nearest", "no other code shares a word with the text");
        }
        for near in self.nearest {
            let Some(miner) = nearest else { break };
            let (code_id, code) = miner.corpus.row(near.hit.candidate)?;
            let (text, edit) = (parent.text.clone(), "nearest".to_owned());
            let parameters = Some(near.parameters(&code_id, "bm25", &offline.rules()));
            let provenance = Provenance { parameters, ..offline.provenance() };
            made.pair(name, parent, Pair { kind: PairKind::Negative, edit, text, code, provenance })?;
        }
        Ok(())
    }
}

impl Offline {
    fn provenance(&self) -> Provenance {
        Provenance { seed: i64::try_from(self.seed).ok(), ..Provenance::default() }
    }

    /// Distinct edits; fewer where the code has no room for more.
    fn edits(&self, parent: &Parent, meaning: Meaning, count: u32) -> Vec<Edited> {
        let mut edits: Vec<Edited> = Vec::new();
        for number in 0..count {
            let seed = sha256(format!("{} {} {number}", self.seed, parent.id).as_bytes());
            let seed = u64::from_str_radix(&seed[..16], 16).unwrap_or_default();
            if let Some(edited) = edit(&parent.code, meaning, seed)
                && edits.iter().all(|other| other.code != edited.code)
            {
                edits.push(edited);
            }
        }
        edits
    }

    /// The best other rows by BM25 that share a word with the text.
    fn rules(&self) -> Rules {
        let negatives = self.nearest as usize;
        let min_score = Some(f32::MIN_POSITIVE);
        Rules { negatives, range_max: NEAREST + negatives, min_score, ..Rules::default() }
    }
}
