//! Search: every test row's code is a candidate, every text a query, its own code the one relevant. Rows without a text are
//! candidates alone.

use anyhow::{Result, bail};
use burn::tensor::backend::Backend;
use codepair_code::words;
use codepair_metrics::{SEARCH, all};
use codepair_model::{Role, Trained};
use codepair_runtime::{Context, Progress, input_error};
use codepair_schemas::Field;
use codepair_schemas::rows::{Attention, Prediction, Ranking, Score};
use codepair_search::{Bm25, dot, rank_of, top_k};
use rayon::prelude::*;

use crate::{Evaluate, Example};

/// Scores BM25.
pub(crate) fn bm25(context: &mut Context, config: &Evaluate, name: &str, examples: &[Example]) -> Result<()> {
    let rows = Rows::new(examples, Field::Text, Field::Code)?;
    let index = Bm25::new(rows.candidates.iter().map(|e| words(&e.code)));
    rank(context, config, name, &rows, |query| index.scores(words(&rows.candidates[query].text)))
}

/// Scores a trained encoder.
pub(crate) fn evaluate<B: Backend>(
    context: &mut Context,
    config: &Evaluate,
    model: &Trained<B>,
    examples: &[Example],
    device: &B::Device,
) -> Result<()> {
    let (source, target) = (model.card.source.column, model.card.target.column);
    let rows = Rows::new(examples, source, target)?;
    let column = |column| rows.candidates.iter().map(|e| e.column(column)).collect::<Vec<&str>>();
    let queries = model.vectors(Role::Query, &column(source), device)?;
    let candidates = model.vectors(Role::Document, &column(target), device)?;
    rank(context, config, &model.card.name, &rows, |query| {
        candidates.iter().map(|candidate| dot(&queries[query], candidate)).collect()
    })
}

/// What is searched, and for what.
struct Rows<'a> {
    candidates: Vec<&'a Example>,
    /// Those of the candidates, by number, that have something to ask with.
    queries: Vec<usize>,
}

impl<'a> Rows<'a> {
    fn new(examples: &'a [Example], source: Field, target: Field) -> Result<Self> {
        let has = |example: &Example, column| !example.column(column).trim().is_empty();
        let candidates: Vec<&Example> = examples.iter().filter(|example| has(example, target)).collect();
        let queries: Vec<usize> = (0..candidates.len()).filter(|row| has(candidates[*row], source)).collect();
        if queries.is_empty() {
            return Err(input_error(format!(
                "none of the {} test rows has a text and code to search with",
                examples.len()
            )));
        }
        Ok(Self { candidates, queries })
    }
}

fn rank(
    context: &mut Context,
    config: &Evaluate,
    name: &str,
    rows: &Rows,
    scores_of: impl Fn(usize) -> Vec<f32> + Sync,
) -> Result<()> {
    let Rows { candidates: examples, queries } = rows;
    let progress = Progress::new(&format!("ranking for {name}"), "queries", queries.len() as u64);
    let ranked = queries
        .par_iter()
        .map(|&query| {
            progress.add(1);
            let scores = scores_of(query);
            if let Some(candidate) = scores.iter().position(|score| score.is_nan()) {
                let (query, candidate) = (&examples[query].id, &examples[candidate].id);
                bail!("{name} gives the candidate {candidate} no number as its score for the query {query}");
            }
            let rank = rank_of(&scores, query);
            Ok((rank, rankings(name, examples, query, &scores, rank, config.ranking_depth)))
        })
        .collect::<Result<Vec<(usize, Vec<Ranking>)>>>()?;
    let ranks: Vec<usize> = ranked.iter().map(|(rank, _)| *rank).collect();
    let score = |metric: &str, signature: &str, value: f64| Score {
        model: name.to_owned(),
        task: "search".to_owned(),
        decoding: "exact".to_owned(),
        metric: metric.to_owned(),
        bucket: "all".to_owned(),
        value,
        count: ranks.len() as u64,
        signature: signature.to_owned(),
    };
    let mut scores: Vec<Score> = all(SEARCH).map(|m| score(m.name, m.signature, (m.score)(&ranks))).collect();
    let harmonic: f64 = (1..=examples.len()).map(|rank| 1.0 / rank as f64).sum();
    scores.push(score("mrr_of_random", "expectation, H_N / N", harmonic / examples.len() as f64));
    scores.sort_by(|a, b| a.metric.cmp(&b.metric));
    let rankings: Vec<Ranking> = ranked.into_iter().flat_map(|(_, rows)| rows).collect();
    context.attempt.write_rows(scores)?;
    context.attempt.write_rows(rankings)?;
    context.attempt.write_rows::<Prediction>([])?;
    context.attempt.write_rows::<Attention>([])
}

/// The best candidates; the right one is always among the rows, with its rank by the rule that ties count against it.
fn rankings(
    name: &str,
    examples: &[&Example],
    query: usize,
    scores: &[f32],
    rank: usize,
    depth: usize,
) -> Vec<Ranking> {
    let row = |candidate: usize, rank: usize| Ranking {
        model: name.to_owned(),
        ordinal: examples[query].ordinal,
        query_id: examples[query].id.clone(),
        rank: rank as u32,
        candidate_id: examples[candidate].id.clone(),
        score: f64::from(scores[candidate]),
        relevant: candidate == query,
    };
    let others = top_k(scores.iter().copied(), depth + 1).into_iter().map(|hit| hit.candidate).filter(|c| *c != query);
    let mut rows: Vec<Ranking> = Vec::new();
    for candidate in others.take(depth) {
        let place = rows.len() + 1;
        // The right one takes its own rank; those behind it move back by one.
        rows.push(row(candidate, if place >= rank { place + 1 } else { place }));
    }
    rows.push(row(query, rank));
    rows.sort_by_key(|row| row.rank);
    let last = rows.len();
    if last > depth && rows[last - 1].rank as usize > depth && !rows[last - 1].relevant {
        rows.pop();
    }
    rows
}
