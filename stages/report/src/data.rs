//! What the page shows, gathered; `report.json` is this.

mod examples;
mod scores;
mod training;

use std::collections::BTreeMap;

use anyhow::Result;
use codepair_runtime::{Context, float_column, integer_column, read_output, text_column};
use serde::Serialize;

use self::examples::{Generated, Heatmap, Query, generated, heatmaps, queries};
use self::scores::{Difference, Group, Model, ScoreColumn, Scores, differences, groups, score_columns};
use self::training::{Synthesis, Training, syntheses, trainings};
use crate::{Report, plots};

#[derive(Serialize)]
pub(crate) struct Data {
    title: String,
    pipeline: String,
    fingerprint: String,
    git_commit: Option<String>,
    made: String,
    benchmarks: Vec<Benchmark>,
    differences: Vec<Difference>,
    signatures: BTreeMap<String, String>,
    trainings: Vec<Training>,
    syntheses: Vec<Synthesis>,
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

/// A table of models.
#[derive(Serialize)]
struct Benchmark {
    task: String,
    name: String,
    /// Its name, and what is read and written where the benchmark has several tables.
    label: String,
    /// Which rows, what is read and what written or found.
    protocol: String,
    models: Vec<Model>,
    /// Those that differ in their seeds alone, together.
    groups: Vec<Group>,
    columns: Vec<ScoreColumn>,
    /// The search model that is furthest above chance, and how many times as good as chance it is.
    lead: Option<(String, f64)>,
}

#[derive(Serialize)]
struct Figure {
    model: String,
    svg: String,
    fingerprint: String,
}

#[derive(Serialize)]
struct Source {
    source: String,
    kind: String,
    files: u64,
    rows_read: u64,
    functions: u64,
    pairs: u64,
    problems: u64,
    queries: u64,
    judgments: u64,
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
    ended: String,
    host: String,
}

/// Reads all inputs.
pub(crate) fn gather(context: &Context, config: &Report) -> Result<Data> {
    let mut signatures = BTreeMap::new();
    let mut lengths = Vec::new();
    let mut tables: BTreeMap<(String, String, String), Vec<Model>> = BTreeMap::new();
    for scores in Scores::read(context)? {
        signatures.extend(scores.signatures());
        if let Some(svg) = scores.length_plot()? {
            let model = format!("{} on {}", scores.model, scores.benchmark);
            lengths.push(Figure { model, svg, fingerprint: scores.evaluation(context) });
        }
        let key = (scores.task.clone(), scores.benchmark.clone(), scores.protocol.clone());
        tables.entry(key).or_default().push(scores.into_model(context));
    }
    let names: Vec<String> = tables.keys().map(|(_, name, _)| name.clone()).collect();
    let label = |name: &String, protocol: &String| match names.iter().filter(|other| *other == name).count() {
        1 => name.clone(),
        _ => format!("{name}: {}", protocol.rsplit(", ").next().unwrap_or(protocol)),
    };
    let benchmarks = tables.into_iter().rev().map(|((task, name, protocol), models)| Benchmark {
        label: label(&name, &protocol),
        columns: score_columns(&models),
        groups: groups(&models, context.config.variations("train")),
        lead: models.iter().filter_map(Model::over_chance).max_by(|a, b| a.1.total_cmp(&b.1)),
        task,
        name,
        protocol,
        models,
    });
    Ok(Data {
        benchmarks: benchmarks.collect(),
        differences: differences(context)?,
        title: config.title.clone().unwrap_or_else(|| context.config.name().to_owned()),
        pipeline: context.config.name().to_owned(),
        fingerprint: context.attempt.fingerprint().to_owned(),
        git_commit: context.inputs("sources").next().and_then(|m| m.git_commit.clone()),
        signatures,
        made: format!("{:.0}", jiff::Timestamp::now()),
        trainings: trainings(context),
        syntheses: syntheses(context)?,
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
        let model = manifest.step.trim_start_matches("train:");
        let own = context.config.variations("train").iter().find(|one| one.name == model);
        figures.push(Figure {
            model: own.map_or_else(|| model.to_owned(), |own| format!("{model} ({})", own.all_settings())),
            svg: plots::curves(&training, &validation)?,
            fingerprint: manifest.fingerprint.clone(),
        });
    }
    Ok(figures)
}

fn sources(context: &Context) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for batch in context.read("sources", &[])? {
        let texts = |name| text_column(&batch, name);
        let (names, kinds, digests) = (texts("source")?, texts("kind")?, texts("digest")?);
        let numbers = |name| integer_column(&batch, name);
        let (files, read, functions) = (numbers("files")?, numbers("rows_read")?, numbers("functions")?);
        let (pairs, problems, rejected) = (numbers("pairs")?, numbers("problems")?, numbers("rejected")?);
        let (queries, judgments) = (numbers("queries")?, numbers("judgments")?);
        for row in 0..batch.num_rows() {
            found.push(Source {
                source: names.value(row).to_owned(),
                kind: kinds.value(row).to_owned(),
                files: files[row],
                rows_read: read[row],
                functions: functions[row],
                pairs: pairs[row],
                problems: problems[row],
                queries: queries[row],
                judgments: judgments[row],
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
            ended: format!("{:.0}", manifest.ended_at),
            peak_megabytes: manifest.peak_memory_bytes / 1_000_000,
            host: manifest.host.clone(),
        });
    }
    rows.into_values().collect()
}
