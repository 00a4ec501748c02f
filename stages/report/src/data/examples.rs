//! Single rows to look at: attention, generated programs, rankings.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use arrow::array::AsArray;
use codepair_metrics::sentence_bleu;
use codepair_runtime::{Context, column, float_column, integer_column, text_column};
use serde::Serialize;

/// Tokens of a target that a heatmap shows.
const HEATMAP_ROWS: u64 = 24;
/// Characters of a candidate that are shown.
const LINE: usize = 72;
/// Candidates shown of each query.
const SHOWN_CANDIDATES: usize = 3;

#[derive(Serialize)]
pub(super) struct Heatmap {
    model: String,
    source: Vec<String>,
    rows: Vec<HeatmapRow>,
}

#[derive(Serialize)]
struct HeatmapRow {
    token: String,
    weights: Vec<f64>,
}

#[derive(Serialize)]
pub(super) struct Generated {
    model: String,
    source: String,
    reference: String,
    greedy: String,
    beam: String,
    greedy_bleu: f64,
    beam_bleu: f64,
}

#[derive(Serialize)]
pub(super) struct Query {
    text: String,
    answers: Vec<Answer>,
}

#[derive(Serialize)]
struct Answer {
    model: String,
    rank_of_right: u64,
    candidates: Vec<Candidate>,
}

#[derive(Serialize)]
struct Candidate {
    rank: u64,
    /// The first line of its code.
    line: String,
    score: f64,
    relevant: bool,
}

pub(super) fn heatmaps(context: &Context) -> Result<Vec<Heatmap>> {
    let mut maps: BTreeMap<(String, u64), Heatmap> = BTreeMap::new();
    for batch in context.read("attention", &[])? {
        let texts = |name| text_column(&batch, name);
        let (benchmarks, models) = (texts("benchmark")?, texts("model")?);
        let (targets, sources) = (texts("target_token")?, texts("source_token")?);
        let (ordinals, rows) = (integer_column(&batch, "ordinal")?, integer_column(&batch, "target_position")?);
        let weights = float_column(&batch, "weight")?;
        for row in (0..batch.num_rows()).filter(|&row| rows[row] < HEATMAP_ROWS) {
            let model = on(models.value(row), benchmarks.value(row));
            let map = maps.entry((model.clone(), ordinals[row])).or_insert_with(|| Heatmap {
                model,
                source: Vec::new(),
                rows: Vec::new(),
            });
            if map.rows.len() <= rows[row] as usize {
                map.rows.push(HeatmapRow { token: targets.value(row).to_owned(), weights: Vec::new() });
            }
            if rows[row] == 0 {
                map.source.push(sources.value(row).to_owned());
            }
            map.rows[rows[row] as usize].weights.push(weights.value(row));
        }
    }
    Ok(maps.into_values().collect())
}

pub(super) fn generated(context: &Context, count: usize) -> Result<Vec<Generated>> {
    let mut found: BTreeMap<(String, u64), Generated> = BTreeMap::new();
    for batch in context.read("predictions", &[])? {
        let texts = |name| text_column(&batch, name);
        let (benchmarks, models) = (texts("benchmark")?, texts("model")?);
        let (decodings, sources) = (texts("decoding")?, texts("source")?);
        let (references, predictions) = (texts("reference")?, texts("prediction")?);
        for (row, ordinal) in integer_column(&batch, "ordinal")?.into_iter().enumerate() {
            let model = on(models.value(row), benchmarks.value(row));
            let bleu = sentence_bleu(references.value(row), predictions.value(row));
            let entry = found.entry((model.clone(), ordinal)).or_insert_with(|| Generated {
                model,
                source: sources.value(row).to_owned(),
                reference: references.value(row).to_owned(),
                greedy: String::new(),
                beam: String::new(),
                greedy_bleu: 0.0,
                beam_bleu: 0.0,
            });
            if decodings.value(row) == "greedy" {
                predictions.value(row).clone_into(&mut entry.greedy);
                entry.greedy_bleu = bleu;
            } else {
                predictions.value(row).clone_into(&mut entry.beam);
                entry.beam_bleu = bleu;
            }
        }
    }
    // The best, the worst and those between, evenly: a page of only good examples would lie.
    let mut all: Vec<Generated> = found.into_values().collect();
    all.sort_by(|a, b| b.beam_bleu.total_cmp(&a.beam_bleu));
    let step = (all.len().saturating_sub(1)).max(1) as f64 / (count.saturating_sub(1)).max(1) as f64;
    let chosen: Vec<usize> = (0..count.min(all.len())).map(|n| (n as f64 * step).round() as usize).collect();
    Ok(all.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)).map(|(_, row)| row).collect())
}

/// A model and the benchmark that it did.
fn on(model: &str, benchmark: &str) -> String {
    format!("{model} on {benchmark}")
}

/// By what a code is known: not all have a name.
fn first_line(code: &str) -> String {
    let line = code.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.chars().count() > LINE { line.chars().take(LINE).chain(['…']).collect() } else { line.to_owned() }
}

pub(super) fn queries(context: &Context, count: usize) -> Result<Vec<Query>> {
    let mut names: HashMap<String, (String, String)> = HashMap::new();
    for batch in context.read("examples", &["id", "code", "text", "split"])? {
        let texts = |name| text_column(&batch, name);
        let (ids, codes, queries, splits) = (texts("id")?, texts("code")?, texts("text")?, texts("split")?);
        for row in (0..batch.num_rows()).filter(|&row| splits.value(row) != "train") {
            let shown = (first_line(codes.value(row)), queries.value(row).to_owned());
            names.insert(ids.value(row).to_owned(), shown);
        }
    }
    let mut found: BTreeMap<(String, u64), (String, BTreeMap<String, Answer>)> = BTreeMap::new();
    for batch in context.read("rankings", &[])? {
        let texts = |name| text_column(&batch, name);
        let (benchmarks, models) = (texts("benchmark")?, texts("model")?);
        let (ids, candidates) = (texts("query_id")?, texts("candidate_id")?);
        let (ordinals, ranks) = (integer_column(&batch, "ordinal")?, integer_column(&batch, "rank")?);
        let (scores, relevant) = (float_column(&batch, "score")?, column(&batch, "relevant")?.as_boolean());
        for row in 0..batch.num_rows() {
            let name = |id: &str| names.get(id).cloned().unwrap_or_default();
            let key = (benchmarks.value(row).to_owned(), ordinals[row]);
            let (_, answers) = found.entry(key).or_insert_with(|| (name(ids.value(row)).1, BTreeMap::new()));
            let model = models.value(row).to_owned();
            let empty = Answer { model: model.clone(), rank_of_right: 0, candidates: Vec::new() };
            let answer = answers.entry(model).or_insert(empty);
            if relevant.value(row) {
                answer.rank_of_right = ranks[row];
            }
            if answer.candidates.len() < SHOWN_CANDIDATES {
                answer.candidates.push(Candidate {
                    rank: ranks[row],
                    line: name(candidates.value(row)).0,
                    score: scores.value(row),
                    relevant: relevant.value(row),
                });
            }
        }
    }
    let step = (found.len() / count.max(1)).max(1);
    let spread = found.into_values().step_by(step).take(count);
    Ok(spread.map(|(text, answers)| Query { text, answers: answers.into_values().collect() }).collect())
}
