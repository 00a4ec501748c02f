//! Hard negatives out of the corpus: the codes nearest to a text that are not its own, by BM25 or by vectors.

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;

use anyhow::{Result, ensure};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Float32Type;
use codepair_runtime::{Config, Context, Progress, column, text_column};
use codepair_search::{Hit, Nearest, dot};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::GeneratorKind;
use crate::corpus::{Bm25Miner, Corpus};
use crate::mining::{Chosen, Rules, Sample};
use crate::rows::{Made, Pair, PairKind, Parent, Provenance, chunked, documented, key, limited, of_shard};

/// Queries whose negatives are looked for in one pass over the vectors of the corpus.
const QUERIES: usize = 1 << 15;
/// Queries that are scored by BM25 before their pairs are written.
const CHUNK: usize = 1024;
/// Vectors of the corpus that are in memory at once.
const BLOCK: usize = 4096;

/// How negatives are mined.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mined {
    /// `bm25`, or the name of a generator of kind `embed` that makes vectors of texts and codes.
    by: String,
    /// Negatives of a text.
    negatives: usize,
    /// The first so many candidates are left out.
    range_min: usize,
    /// Candidates that are looked at; without it ten times the negatives.
    range_max: Option<usize>,
    /// Only candidates that score at most so much.
    max_score: Option<f32>,
    /// Only candidates that score at least so much.
    min_score: Option<f32>,
    /// Only candidates that score so much less than the text's own code.
    absolute_margin: Option<f32>,
    /// The same as a share of the own code's score: 0.05 leaves out what scores above 95% of it, which is often right too.
    relative_margin: Option<f32>,
    /// Of those that are left `top`, the nearest, or `random`.
    sample: Sample,
    /// Of what is sampled at random.
    seed: u64,
    /// Mine only for the first so many rows.
    limit: Option<usize>,
}

impl Default for Mined {
    fn default() -> Self {
        Self {
            by: "bm25".to_owned(),
            negatives: 3,
            range_min: 0,
            range_max: None,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            sample: Sample::Top,
            seed: 0,
            limit: None,
        }
    }
}

impl GeneratorKind for Mined {
    fn files(&self, _config: &Config) -> Result<BTreeMap<String, String>> {
        self.rules().check()?;
        Ok(BTreeMap::new())
    }

    fn reads_vectors_of(&self) -> Option<&str> {
        (self.by != "bm25").then_some(self.by.as_str())
    }

    fn generate(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        match self.by.as_str() {
            "bm25" => self.by_words(context, name, made),
            _ => self.by_vectors(context, name, made),
        }
    }
}

impl Mined {
    fn rules(&self) -> Rules {
        Rules {
            negatives: self.negatives,
            range_min: self.range_min,
            range_max: self.range_max.unwrap_or(self.range_min + 10 * self.negatives),
            max_score: self.max_score,
            min_score: self.min_score,
            absolute_margin: self.absolute_margin,
            relative_margin: self.relative_margin,
            sample: self.sample,
            seed: self.seed,
        }
    }

    fn queries<'a>(&self, context: &'a Context) -> Result<impl Iterator<Item = Result<Parent>> + 'a> {
        let parents = limited(self.limit, || documented(context))?;
        // The code of a query is in the corpus; here only its text counts.
        let parents = of_shard(context, parents, |row| row.id.clone());
        Ok(parents.map(|parent| parent.map(|parent| Parent { code: String::new(), ..parent })))
    }

    fn by_words(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        let min_score = Some(self.min_score.unwrap_or(f32::MIN_POSITIVE));
        let rules = Rules { min_score, ..self.rules() };
        let miner = Bm25Miner::new(context)?;
        let progress =
            Progress::new(&format!("mining {name}"), "texts", self.limit.unwrap_or(miner.corpus.len()) as u64);
        chunked(self.queries(context)?, CHUNK, |parents| {
            let chosen: Vec<Vec<Chosen>> =
                parents.par_iter().map(|p| miner.mine(&rules, &p.text, &p.id)).collect::<Result<_>>()?;
            progress.add(parents.len() as u64);
            parents
                .iter()
                .zip(chosen)
                .try_for_each(|(p, chosen)| self.put(name, p, (&chosen, &rules), &miner.corpus, made))
        })
    }

    fn by_vectors(&self, context: &Context, name: &str, made: &mut Made) -> Result<()> {
        ensure!(
            context.shard.is_all(),
            codepair_runtime::config_error(format!(
                "by = {:?} looks among the vectors of all rows, which no shard has: run it without --shard, or mine by = \"bm25\"",
                self.by
            ))
        );
        let corpus = Corpus::read(context, |_| Ok(()))?;
        let mut texts = vectors(context, &corpus, &self.by, "text").peekable();
        ensure!(
            texts.peek().is_some(),
            codepair_runtime::config_error(format!(
                "by = {:?}: no generator of that name and kind \"embed\" made vectors of texts",
                self.by
            ))
        );
        let rules = self.rules();
        let progress = Progress::new(&format!("mining {name}"), "codes", corpus.len() as u64);
        chunked(self.queries(context)?, QUERIES, |parents| {
            let mut queries = Queries::default();
            let mut with_vector = Vec::new();
            for parent in parents {
                match next_of(&mut texts, corpus.position(&parent.id))? {
                    Some(vector) => {
                        let query = queries.add(&parent.text, vector);
                        with_vector.push((parent, query));
                    }
                    None => {
                        made.reject(
                            name,
                            parent.place(),
                            "no_vector",
                            format!("{} has no vector of its text", self.by),
                        );
                    }
                }
            }
            if with_vector.is_empty() {
                return Ok(());
            }
            let found = self.search(context, &corpus, &queries, &rules, &progress)?;
            with_vector.iter().try_for_each(|(parent, query)| {
                let (hits, positive) = &found[*query];
                let positives = corpus.positives(&parent.text);
                let copies = corpus.copies_of(positives)?;
                let chosen = rules.choose(hits, positives, *positive, &parent.id, |at| copies.has(at))?;
                self.put(name, parent, (&chosen, &rules), &corpus, made)
            })
        })
    }

    /// What is nearest to each query, and the lowest score of its own codes: one pass over the vectors of the corpus.
    fn search(
        &self,
        context: &Context,
        corpus: &Corpus,
        queries: &Queries,
        rules: &Rules,
        progress: &Progress,
    ) -> Result<Vec<(Vec<Hit>, Option<f32>)>> {
        let Queries { texts, vectors: queries, .. } = queries;
        let width = queries.len() / texts.len();
        let mut owners: HashMap<u32, Vec<usize>> = HashMap::new();
        for (query, text) in texts.iter().enumerate() {
            for position in corpus.positives(text) {
                owners.entry(*position).or_default().push(query);
            }
        }
        let mut positive: Vec<Option<f32>> = vec![None; texts.len()];
        let mut nearest = Nearest::new(queries, width, |query| rules.range_max + corpus.positives(&texts[query]).len());
        let mut codes = vectors(context, corpus, &self.by, "code").peekable();
        let mut block: Vec<f32> = Vec::with_capacity(BLOCK * width);
        for start in (0..corpus.len()).step_by(BLOCK) {
            let end = corpus.len().min(start + BLOCK);
            // Rows without a vector are nowhere near anything.
            let mut there = vec![false; end - start];
            block.clear();
            for position in start..end {
                match next_of(&mut codes, Some(position))? {
                    Some(vector) => {
                        ensure!(
                            vector.len() == width,
                            "{}: vectors of {width} and of {} floats",
                            self.by,
                            vector.len()
                        );
                        there[position - start] = true;
                        block.extend(vector);
                    }
                    None => block.resize(block.len() + width, 0.0),
                }
                for &query in owners.get(&(position as u32)).into_iter().flatten() {
                    let score = dot(&queries[query * width..][..width], &block[(position - start) * width..]);
                    positive[query] = Some(positive[query].map_or(score, |other| other.min(score)));
                }
            }
            nearest.search(&block, |position| corpus.is_first(position) && there[position - start]);
            progress.add((end - start) as u64);
        }
        Ok(nearest.finish().into_iter().zip(positive).collect())
    }

    fn put(
        &self,
        name: &str,
        parent: &Parent,
        (chosen, rules): (&[Chosen], &Rules),
        corpus: &Corpus,
        made: &mut Made,
    ) -> Result<()> {
        if chosen.is_empty() {
            made.reject(name, parent.place(), "no_negative", "no candidate within the range fits the rules");
        }
        for chosen in chosen {
            let (code_id, code) = corpus.row(chosen.hit.candidate)?;
            let provenance = Provenance {
                parameters: Some(chosen.parameters(&code_id, &self.by, rules)),
                seed: i64::try_from(self.seed).ok(),
                ..Provenance::default()
            };
            let text = parent.text.clone();
            made.pair(
                name,
                parent,
                Pair { kind: PairKind::Negative, edit: "mined".to_owned(), text, code, provenance },
            )?;
        }
        Ok(())
    }
}

/// Texts, each once however many rows have it: each of its own codes takes place beside its nearest.
#[derive(Default)]
struct Queries {
    texts: Vec<String>,
    vectors: Vec<f32>,
    known: HashMap<u64, usize>,
}

impl Queries {
    /// The number of a text.
    fn add(&mut self, text: &str, vector: Vec<f32>) -> usize {
        *self.known.entry(key(text)).or_insert_with(|| {
            self.texts.push(text.to_owned());
            self.vectors.extend(vector);
            self.texts.len() - 1
        })
    }
}

/// The vectors of a field of the corpus' rows, each with its row's position, in their order. Vectors of other rows, of other
/// splits for one, are passed over.
fn vectors<'a>(
    context: &'a Context,
    corpus: &'a Corpus,
    by: &'a str,
    field: &'a str,
) -> impl Iterator<Item = Result<(usize, Vec<f32>)>> + 'a {
    let batches = context.attempt.read_back("embeddings", &["id", "generator", "dataset", "field", "vector"]);
    batches.flat_map(move |batch| {
        let read = || -> Result<Vec<(usize, Vec<f32>)>> {
            let batch = batch?;
            let column_of = |name| text_column(&batch, name);
            let (ids, generators) = (column_of("id")?, column_of("generator")?);
            let (datasets, fields) = (column_of("dataset")?, column_of("field")?);
            let vectors = column(&batch, "vector")?.as_list::<i32>();
            let wanted = (0..vectors.len()).filter(|row| {
                generators.value(*row) == by && fields.value(*row) == field && datasets.value(*row) != "queries"
            });
            let vector = |row| vectors.value(row).as_primitive::<Float32Type>().values().to_vec();
            Ok(wanted.filter_map(|row| Some((corpus.position(ids.value(row))?, vector(row)))).collect())
        };
        match read() {
            Ok(rows) => rows.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    })
}

/// The vector of the row at a position, which is asked for in ascending order.
fn next_of(
    vectors: &mut Peekable<impl Iterator<Item = Result<(usize, Vec<f32>)>>>,
    position: Option<usize>,
) -> Result<Option<Vec<f32>>> {
    let Some(position) = position else { return Ok(None) };
    while vectors.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other < position)).is_some() {}
    let next = vectors.next_if(|next| next.as_ref().map_or(true, |(other, _)| *other == position)).transpose()?;
    Ok(next.map(|(_, vector)| vector))
}
