//! What the page shows, gathered; `report.json` is this.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use arrow::array::AsArray;
use codepair_runtime::{Context, Manifest, column, float_column, integer_column, read_output, text_column};
use serde::Serialize;
use serde_json::Value;

use crate::{Report, plots};

/// Tokens of a target that a heatmap shows.
const HEATMAP_ROWS: u64 = 24;
/// Candidates shown of each query.
const SHOWN_CANDIDATES: usize = 3;

#[derive(Serialize)]
pub(crate) struct Data {
    title: String,
    pipeline: String,
    fingerprint: String,
    git_commit: Option<String>,
    search: Vec<Model>,
    search_columns: Vec<ScoreColumn>,
    generation: Vec<Model>,
    generation_columns: Vec<ScoreColumn>,
    signatures: BTreeMap<String, String>,
    curves: Vec<Figure>,
    lengths: Vec<Figure>,
    heatmaps: Vec<Heatmap>,
    generated: Vec<Generated>,
    queries: Vec<Query>,
    sources: Vec<Source>,
    examples: Vec<Count>,
    rejected: Vec<Count>,
    steps: Vec<StepRow>,
}

/// A model with its scores by `decoding metric`.
#[derive(Serialize)]
struct Model {
    name: String,
    kind: String,
    parameters: Option<u64>,
    training_seconds: Option<f64>,
    rows: u64,
    scores: BTreeMap<String, f64>,
    fingerprint: String,
}

/// A column of a comparison table: whatever metric a model has.
#[derive(Serialize)]
struct ScoreColumn {
    key: String,
    label: String,
    best: f64,
}

#[derive(Serialize)]
struct Figure {
    model: String,
    svg: String,
    fingerprint: String,
}

#[derive(Serialize)]
struct Heatmap {
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
struct Generated {
    model: String,
    source: String,
    reference: String,
    greedy: String,
    beam: String,
    greedy_bleu: f64,
    beam_bleu: f64,
}

#[derive(Serialize)]
struct Query {
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
    name: String,
    score: f64,
    relevant: bool,
}

#[derive(Serialize)]
struct Source {
    source: String,
    kind: String,
    files: u64,
    rows_read: u64,
    functions: u64,
    problems: u64,
    rejected: u64,
    digest: String,
}

#[derive(Serialize)]
struct Count {
    stage: String,
    what: String,
    rows: u64,
}

#[derive(Serialize)]
struct StepRow {
    step: String,
    fingerprint: String,
    digest: String,
    seconds: f64,
    peak_megabytes: u64,
    host: String,
}

/// Reads all inputs.
pub(crate) fn gather(context: &Context, config: &Report) -> Result<Data> {
    let mut models = Vec::new();
    let mut signatures = BTreeMap::new();
    let mut lengths = Vec::new();
    for manifest in context.inputs("scores") {
        let scores = Scores::read(context, manifest)?;
        signatures.extend(scores.signatures());
        if let Some(svg) = scores.length_plot()? {
            lengths.push(Figure { model: scores.model.clone(), svg, fingerprint: manifest.fingerprint.clone() });
        }
        models.push((scores.task.clone(), scores.into_model(context, manifest)));
    }
    let of = |task: &str, models: &mut Vec<(String, Model)>| -> Vec<Model> {
        let (these, others) = std::mem::take(models).into_iter().partition(|(t, _)| t == task);
        *models = others;
        let these: Vec<(String, Model)> = these;
        these.into_iter().map(|(_, model)| model).collect()
    };
    let (search, generation) = (of("search", &mut models), of("generation", &mut models));
    Ok(Data {
        search_columns: score_columns(&search),
        generation_columns: score_columns(&generation),
        search,
        generation,
        title: config.title.clone().unwrap_or_else(|| context.config.name().to_owned()),
        pipeline: context.config.name().to_owned(),
        fingerprint: context.attempt.fingerprint().to_owned(),
        git_commit: context.inputs("sources").next().and_then(|m| m.git_commit.clone()),
        signatures,
        curves: curves(context)?,
        lengths,
        heatmaps: heatmaps(context)?,
        generated: generated(context, config.examples)?,
        queries: queries(context, config.examples)?,
        sources: sources(context)?,
        examples: counts(context, "examples", &["dataset", "kind", "split"])?,
        rejected: counts(context, "rejected", &["source", "reason"])?,
        steps: steps(context),
    })
}

/// All metrics of the models, MRR and BLEU first; what a random ranking would reach is no column.
fn score_columns(models: &[Model]) -> Vec<ScoreColumn> {
    let mut best: BTreeMap<&String, f64> = BTreeMap::new();
    for (key, value) in models.iter().flat_map(|model| &model.scores) {
        let entry = best.entry(key).or_insert(*value);
        *entry = entry.max(*value);
    }
    best.retain(|key, _| !key.ends_with("_of_random"));
    let label = |key: &str| key.trim_start_matches("exact ").replace('_', " ");
    let mut columns: Vec<ScoreColumn> =
        best.into_iter().map(|(key, best)| ScoreColumn { key: key.clone(), label: label(key), best }).collect();
    columns.sort_by_key(|column| !(column.key.ends_with("mrr") || column.key.ends_with("bleu")));
    columns
}

/// The rows of one model's `scores`.
struct Scores {
    model: String,
    task: String,
    rows: Vec<ScoreRow>,
}

struct ScoreRow {
    decoding: String,
    metric: String,
    bucket: String,
    value: f64,
    count: u64,
    signature: String,
}

impl Scores {
    fn read(context: &Context, manifest: &Manifest) -> Result<Self> {
        let mut scores = Self { model: String::new(), task: String::new(), rows: Vec::new() };
        for batch in read_output(&context.store, manifest, "scores", &[])? {
            let texts = |name| text_column(&batch, name);
            let (models, tasks, decodings) = (texts("model")?, texts("task")?, texts("decoding")?);
            let (metrics, buckets, signatures) = (texts("metric")?, texts("bucket")?, texts("signature")?);
            let (values, counts) = (float_column(&batch, "value")?, integer_column(&batch, "count")?);
            for (row, count) in counts.into_iter().enumerate() {
                models.value(row).clone_into(&mut scores.model);
                tasks.value(row).clone_into(&mut scores.task);
                scores.rows.push(ScoreRow {
                    decoding: decodings.value(row).to_owned(),
                    metric: metrics.value(row).to_owned(),
                    bucket: buckets.value(row).to_owned(),
                    value: values.value(row),
                    count,
                    signature: signatures.value(row).to_owned(),
                });
            }
        }
        Ok(scores)
    }

    fn signatures(&self) -> BTreeMap<String, String> {
        self.rows.iter().map(|row| (format!("{} ({})", row.metric, row.decoding), row.signature.clone())).collect()
    }

    /// BLEU by input length, of generators.
    fn length_plot(&self) -> Result<Option<String>> {
        let order = |bucket: &str| bucket.split('-').next().and_then(|n| n.parse::<u32>().ok());
        let mut bars: Vec<(u32, &str, &str, f64, u64)> = Vec::new();
        for row in self.rows.iter().filter(|row| row.metric == "bleu") {
            if let Some(first) = order(&row.bucket) {
                bars.push((first, &row.bucket, &row.decoding, row.value, row.count));
            }
        }
        if bars.is_empty() {
            return Ok(None);
        }
        bars.sort_by(|a, b| (a.0, a.2).cmp(&(b.0, b.2)));
        plots::bars(&bars.iter().map(|b| (b.1, b.2, b.3, b.4)).collect::<Vec<_>>()).map(Some)
    }

    fn into_model(self, context: &Context, manifest: &Manifest) -> Model {
        let trained = context.inputs("training_steps").find(|m| m.step == format!("train:{}", self.model));
        let note = |key: &str| trained.and_then(|m| m.notes.get(key)).cloned();
        let kind = trained.map_or_else(
            || "no training".to_owned(),
            |m| m.config["train"][&self.model]["model"]["kind"].as_str().unwrap_or_default().to_owned(),
        );
        let all = self.rows.iter().filter(|row| row.bucket == "all");
        Model {
            kind,
            parameters: note("parameters").as_ref().and_then(Value::as_u64),
            training_seconds: note("training_seconds").as_ref().and_then(Value::as_f64),
            rows: self.rows.iter().map(|row| row.count).max().unwrap_or(0),
            scores: all.map(|row| (format!("{} {}", row.decoding, row.metric), row.value)).collect(),
            fingerprint: manifest.fingerprint.clone(),
            name: self.model,
        }
    }
}

fn curves(context: &Context) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for manifest in context.inputs("training_steps") {
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for batch in read_output(&context.store, manifest, "training_steps", &["split", "step", "loss"])? {
            let (splits, losses) = (text_column(&batch, "split")?, float_column(&batch, "loss")?);
            for (row, step) in integer_column(&batch, "step")?.into_iter().enumerate() {
                let line = if splits.value(row) == "train" { &mut training } else { &mut validation };
                line.push((step as f64, losses.value(row)));
            }
        }
        figures.push(Figure {
            model: manifest.step.trim_start_matches("train:").to_owned(),
            svg: plots::curves(&training, &validation)?,
            fingerprint: manifest.fingerprint.clone(),
        });
    }
    Ok(figures)
}

fn heatmaps(context: &Context) -> Result<Vec<Heatmap>> {
    let mut maps: BTreeMap<(String, u64), Heatmap> = BTreeMap::new();
    for batch in context.read("attention", &[])? {
        let texts = |name| text_column(&batch, name);
        let (models, targets, sources) = (texts("model")?, texts("target_token")?, texts("source_token")?);
        let (ordinals, rows) = (integer_column(&batch, "ordinal")?, integer_column(&batch, "target_position")?);
        let weights = float_column(&batch, "weight")?;
        for row in (0..batch.num_rows()).filter(|&row| rows[row] < HEATMAP_ROWS) {
            let model = models.value(row).to_owned();
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

fn generated(context: &Context, count: usize) -> Result<Vec<Generated>> {
    let mut found: BTreeMap<(String, u64), Generated> = BTreeMap::new();
    for batch in context.read("predictions", &[])? {
        let texts = |name| text_column(&batch, name);
        let (models, decodings, sources) = (texts("model")?, texts("decoding")?, texts("source")?);
        let (references, predictions) = (texts("reference")?, texts("prediction")?);
        let bleu = float_column(&batch, "bleu")?;
        for (row, ordinal) in integer_column(&batch, "ordinal")?.into_iter().enumerate() {
            let model = models.value(row).to_owned();
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
                entry.greedy_bleu = bleu.value(row);
            } else {
                predictions.value(row).clone_into(&mut entry.beam);
                entry.beam_bleu = bleu.value(row);
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

fn queries(context: &Context, count: usize) -> Result<Vec<Query>> {
    let mut names: HashMap<String, (String, String)> = HashMap::new();
    for batch in context.read("examples", &["id", "name", "text", "split"])? {
        let texts = |name| text_column(&batch, name);
        let (ids, found, queries, splits) = (texts("id")?, texts("name")?, texts("text")?, texts("split")?);
        for row in (0..batch.num_rows()).filter(|&row| splits.value(row) == "test") {
            names.insert(ids.value(row).to_owned(), (found.value(row).to_owned(), queries.value(row).to_owned()));
        }
    }
    let mut found: BTreeMap<u64, (String, BTreeMap<String, Answer>)> = BTreeMap::new();
    for batch in context.read("rankings", &[])? {
        let texts = |name| text_column(&batch, name);
        let (models, ids, candidates) = (texts("model")?, texts("query_id")?, texts("candidate_id")?);
        let (ordinals, ranks) = (integer_column(&batch, "ordinal")?, integer_column(&batch, "rank")?);
        let (scores, relevant) = (float_column(&batch, "score")?, column(&batch, "relevant")?.as_boolean());
        for row in 0..batch.num_rows() {
            let name = |id: &str| names.get(id).cloned().unwrap_or_default();
            let (_, answers) = found.entry(ordinals[row]).or_insert_with(|| (name(ids.value(row)).1, BTreeMap::new()));
            let model = models.value(row).to_owned();
            let empty = Answer { model: model.clone(), rank_of_right: 0, candidates: Vec::new() };
            let answer = answers.entry(model).or_insert(empty);
            if relevant.value(row) {
                answer.rank_of_right = ranks[row];
            }
            if answer.candidates.len() < SHOWN_CANDIDATES {
                answer.candidates.push(Candidate {
                    rank: ranks[row],
                    name: name(candidates.value(row)).0,
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

fn sources(context: &Context) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for batch in context.read("sources", &[])? {
        let texts = |name| text_column(&batch, name);
        let (names, kinds, digests) = (texts("source")?, texts("kind")?, texts("digest")?);
        let numbers = |name| integer_column(&batch, name);
        let (files, read, functions) = (numbers("files")?, numbers("rows_read")?, numbers("functions")?);
        let (problems, rejected) = (numbers("problems")?, numbers("rejected")?);
        for row in 0..batch.num_rows() {
            found.push(Source {
                source: names.value(row).to_owned(),
                kind: kinds.value(row).to_owned(),
                files: files[row],
                rows_read: read[row],
                functions: functions[row],
                problems: problems[row],
                rejected: rejected[row],
                digest: digests.value(row).to_owned(),
            });
        }
    }
    Ok(found)
}

/// Rows of a dataset by the values of some columns, over all steps that write it.
fn counts(context: &Context, dataset: &str, columns: &[&str]) -> Result<Vec<Count>> {
    let mut found: BTreeMap<(String, String), u64> = BTreeMap::new();
    for manifest in context.inputs(dataset) {
        for batch in read_output(&context.store, manifest, dataset, columns)? {
            let columns = columns.iter().map(|name| text_column(&batch, name)).collect::<Result<Vec<_>>>()?;
            for row in 0..batch.num_rows() {
                let what: Vec<&str> = columns.iter().map(|column| column.value(row)).collect();
                *found.entry((manifest.step.clone(), what.join(" · "))).or_default() += 1;
            }
        }
    }
    Ok(found.into_iter().map(|((stage, what), rows)| Count { stage, what, rows }).collect())
}

/// Every step behind the page, once.
fn steps(context: &Context) -> Vec<StepRow> {
    let mut rows: BTreeMap<&str, StepRow> = BTreeMap::new();
    for input in context.all_inputs() {
        let manifest = &input.manifest;
        rows.entry(&manifest.step).or_insert_with(|| StepRow {
            step: manifest.step.clone(),
            fingerprint: manifest.fingerprint.clone(),
            digest: manifest.digest.clone(),
            seconds: manifest.seconds(),
            peak_megabytes: manifest.peak_memory_bytes / 1_000_000,
            host: manifest.host.clone(),
        });
    }
    rows.into_values().collect()
}
