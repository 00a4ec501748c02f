//! Search: every test row's code is a candidate, every text a query, its own code the one relevant. Rows without a text are
//! candidates alone.

use anyhow::{Result, bail};
use burn::tensor::backend::Backend;
use codepair_code::words;
use codepair_model::{Role, Trained};
use codepair_runtime::{Context, Progress, input_error};
use codepair_schemas::rows::{Attention, Prediction, Ranking};
use codepair_schemas::{DocumentField, Field};
use codepair_search::{Bm25, dot, rank_of, top_k};
use rayon::prelude::*;

use crate::{Example, Pairs, Run};

/// Ranks by BM25.
pub(crate) fn bm25(context: &mut Context, pairs: &Pairs, run: &Run) -> Result<()> {
    let rows = Rows::new(run.examples, Field::Text, Field::Code)?;
    let index = Bm25::new(rows.candidates.iter().map(|e| words(&e.code)));
    rank(context, pairs, run, &rows, &run.protocol(Field::Text.name(), Field::Code.name()), |query| {
        index.scores(words(&rows.candidates[query].text))
    })
}

/// Ranks by a trained encoder.
pub(crate) fn evaluate<B: Backend>(
    context: &mut Context,
    pairs: &Pairs,
    run: &Run,
    model: &Trained<B>,
    device: &B::Device,
) -> Result<()> {
    let (source, target) = (model.card.source.column, model.card.target.column);
    let rows = Rows::new(run.examples, source, target)?;
    let column = |column| rows.candidates.iter().map(|e| e.column(column)).collect::<Vec<&str>>();
    let queries = model.vectors(Role::Query, &column(source), device)?;
    // A document that held its own query would be found by it.
    let text = |row: usize, field: DocumentField| {
        if field == source.into() { "" } else { rows.candidates[row].field(field) }
    };
    let candidates = model.documents(rows.candidates.len(), text, device)?;
    let protocol = run.protocol(source.name(), &model.card.target.without(source));
    rank(context, pairs, run, &rows, &protocol, |query| {
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
            return Err(input_error(format!("none of the {} rows has a text and code to search with", examples.len())));
        }
        Ok(Self { candidates, queries })
    }
}

fn rank(
    context: &mut Context,
    pairs: &Pairs,
    run: &Run,
    rows: &Rows,
    protocol: &str,
    scores_of: impl Fn(usize) -> Vec<f32> + Sync,
) -> Result<()> {
    let Rows { candidates: examples, queries } = rows;
    let name = run.model;
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
            Ok(rankings(run, protocol, examples, query, &scores, rank, pairs.depth))
        })
        .collect::<Result<Vec<Vec<Ranking>>>>()?;
    context.attempt.write_rows(ranked.into_iter().flatten())?;
    context.attempt.write_rows::<Prediction>([])?;
    context.attempt.write_rows::<Attention>([])
}

/// The best candidates; the right one is always among the rows, with its rank by the rule that ties count against it.
fn rankings(
    run: &Run,
    protocol: &str,
    examples: &[&Example],
    query: usize,
    scores: &[f32],
    rank: usize,
    depth: usize,
) -> Vec<Ranking> {
    let row = |candidate: usize, rank: usize| Ranking {
        benchmark: run.benchmark.to_owned(),
        model: run.model.to_owned(),
        protocol: protocol.to_owned(),
        ordinal: examples[query].ordinal,
        query_id: examples[query].id.clone(),
        rank: rank as u32,
        candidate_id: examples[candidate].id.clone(),
        score: f64::from(scores[candidate]),
        relevant: candidate == query,
        candidates: scores.len() as u64,
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
