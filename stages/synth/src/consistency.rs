//! Whether generated text and code find each other: a pair is kept where its code ranks first for its text among all other
//! codes of the corpus, as one model or another sees it (the round-trip filter of generated data).

use anyhow::Result;
use codepair_model::{Cpu, CpuDevice, Role, Trained};
use codepair_runtime::{Context, Piece, Spool, config_error};
use codepair_search::{Nearest, dot};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::corpus::{Bm25Miner, Corpus};

/// Codes that a model encodes at once.
const BLOCK: usize = 4096;
/// Scores that differ by less than this, of BM25 as a share, are equal: they are summed in another order.
const ROUNDING: f32 = 1e-5;

/// `consistency = { by = "bm25" }`.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Consistency {
    /// `bm25`, or a search model that codepair trained: `NAME@FINGERPRINT`.
    by: String,
    /// The worst rank that a pair's code may have for its text.
    #[serde(default = "first")]
    rank: usize,
    /// The least score it may have.
    #[serde(default)]
    min_score: Option<f32>,
}

fn first() -> usize {
    1
}

/// A pair to check: the text and code as generated, and the text of the row it was made from.
pub(crate) struct CheckedPair<'a> {
    pub(crate) text: &'a str,
    pub(crate) code: &'a str,
    pub(crate) parent_text: &'a str,
}

/// Checks pairs, some thousands at a time.
pub(crate) struct Checker {
    wanted: Consistency,
    by: By,
}

enum By {
    Words(Box<Bm25Miner>),
    Vectors(Box<Vectors>),
}

struct Vectors {
    model: Trained<Cpu>,
    corpus: Corpus,
    /// Vectors of the codes, a block a piece.
    blocks: Vec<Piece>,
    spool: Spool,
}

impl Consistency {
    pub(crate) fn check(&self) -> Result<()> {
        if self.rank == 0 || !(self.by == "bm25" || self.by.contains('@')) {
            return Err(config_error(
                "consistency: by is \"bm25\" or a model, \"NAME@FINGERPRINT\", and rank at least 1",
            ));
        }
        Ok(())
    }
}

impl Checker {
    pub(crate) fn new(context: &Context, wanted: &Consistency) -> Result<Self> {
        let by = match wanted.by.as_str() {
            "bm25" => By::Words(Box::new(Bm25Miner::new(context)?)),
            model => By::Vectors(Box::new(Vectors::new(context, model)?)),
        };
        Ok(Self { wanted: wanted.clone(), by })
    }

    /// Of each draft nothing, or why it is inconsistent.
    pub(crate) fn check(&self, drafts: &[CheckedPair]) -> Result<Vec<Option<String>>> {
        let found = match &self.by {
            By::Words(miner) => drafts.par_iter().map(|d| miner.compare(d.text, d.code, d.parent_text)).collect(),
            By::Vectors(vectors) => vectors.compare(drafts, self.wanted.rank)?,
        };
        Ok(found.into_iter().map(|(score, better)| self.verdict(score, better)).collect())
    }

    fn verdict(&self, score: f32, better: usize) -> Option<String> {
        let by = &self.wanted.by;
        if better >= self.wanted.rank {
            return Some(format!("by {by}, at least {better} other codes rank before its own"));
        }
        let least = self.wanted.min_score.filter(|least| score < *least)?;
        Some(format!("by {by}, its code scores {score:.3}, less than {least}"))
    }
}

impl Bm25Miner {
    /// The score of a draft, and how many others are better.
    fn compare(&self, text: &str, code: &str, parent_text: &str) -> (f32, usize) {
        let own = self.score(text, code);
        (own, self.better(text, own * (1.0 + ROUNDING), parent_text))
    }
}

impl Vectors {
    fn new(context: &Context, model: &str) -> Result<Self> {
        let device = CpuDevice::default();
        let model = Trained::<Cpu>::pinned(&context.store, model, &device)?;
        let (mut spool, mut blocks) = (Spool::new()?, Vec::new());
        let corpus = Corpus::read(context, |chunk| {
            for part in chunk.chunks(BLOCK) {
                let codes: Vec<&str> = part.iter().map(|parent| parent.code.as_str()).collect();
                let vectors = model.vectors(Role::Document, &codes, &device)?;
                let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
                blocks.push(spool.put(&bytes)?);
            }
            Ok(())
        })?;
        Ok(Self { model, corpus, blocks, spool })
    }

    fn compare(&self, drafts: &[CheckedPair], rank: usize) -> Result<Vec<(f32, usize)>> {
        let device = CpuDevice::default();
        let texts: Vec<&str> = drafts.iter().map(|draft| draft.text).collect();
        let codes: Vec<&str> = drafts.iter().map(|draft| draft.code).collect();
        let queries = self.model.vectors(Role::Query, &texts, &device)?;
        let own = self.model.vectors(Role::Document, &codes, &device)?;
        let width = queries.first().map_or(1, Vec::len);
        let flat: Vec<f32> = queries.iter().flatten().copied().collect();
        let positives: Vec<&[u32]> = drafts.iter().map(|draft| self.corpus.positives(draft.parent_text)).collect();
        let mut nearest = Nearest::new(&flat, width, |draft| rank + positives[draft].len());
        for place in &self.blocks {
            let bytes = self.spool.get(*place)?;
            let block: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|float| f32::from_le_bytes(*float)).collect();
            nearest.search(&block, |position| self.corpus.is_first(position));
        }
        let found = nearest.finish().into_iter().zip(queries.iter().zip(&own)).zip(&positives);
        Ok(found
            .map(|((hits, (query, code)), positives)| {
                let score = dot(query, code);
                let others = hits.iter().filter(|hit| !positives.contains(&(hit.candidate as u32)));
                (score, others.filter(|hit| hit.score > score + ROUNDING).count())
            })
            .collect())
    }
}
