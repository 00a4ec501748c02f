//! Synth: functions and problems become positive and negative pairs, and vectors. Test rows are never read.

mod consistency;
mod corpus;
mod generators;
mod mining;
mod openai;
mod rows;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result};
use codepair_runtime::{Config, Context, Input, Merge, Stage, Step, config_error};

pub use generators::Generator;

/// `[synth.NAME]`, one table a generator.
pub type Generators = BTreeMap<String, Generator>;

/// That the vectors which a generator reads are made by another.
fn check_vectors(name: &str, generator: &Generator, all: &Generators) -> Result<()> {
    let makers = || all.iter().filter(|(_, maker)| maker.makes_vectors()).map(|(name, _)| name.as_str());
    match generator.reads_vectors_of() {
        Some(by) if !makers().any(|maker| maker == by) => {
            let known: Vec<&str> = ["bm25"].into_iter().chain(makers()).collect();
            Err(config_error(format!(
                "synth.{name}.by = {by:?}: it is bm25 or a generator of kind embed; there are {}",
                known.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

/// The stage.
pub struct Synth;

impl Stage for Synth {
    const NAME: &'static str = "synth";
    type Config = Generators;

    fn steps(generators: &Generators, config: &Config) -> Result<Vec<Step>> {
        let (mut resolved, mut overrides) = (serde_json::Map::new(), serde_json::Map::new());
        let mut sources = BTreeMap::new();
        for (name, generator) in generators {
            let place = || format!("[synth.{name}]");
            check_vectors(name, generator, generators)?;
            let (value, changed) = generator.values()?;
            resolved.insert(name.clone(), value);
            overrides.insert(name.clone(), changed);
            for (file, digest) in generator.files(config).with_context(place)? {
                sources.insert(format!("{name}.{file}"), digest);
            }
        }
        let mut inputs = vec![Input::new("functions", "ingest"), Input::new("problems", "ingest")];
        if generators.values().any(Generator::reads_queries) {
            inputs.push(Input::new("queries", "ingest"));
        }
        Ok(vec![Step {
            config: serde_json::json!({ "synth": resolved }),
            overrides: serde_json::json!({ "synth": overrides }),
            sources,
            inputs,
            forecasts: generators.values().any(Generator::asks),
            ..Step::default()
        }])
    }

    fn forecast(context: &Context, generators: &Generators) -> Result<Vec<serde_json::Value>> {
        let mut forecasts = Vec::new();
        for (name, generator) in generators {
            let forecast = generator.forecast(context, name).with_context(|| format!("[synth.{name}]"))?;
            forecasts.extend(forecast.map(serde_json::to_value).transpose()?);
        }
        Ok(forecasts)
    }

    fn run(context: &mut Context, generators: &Generators) -> Result<()> {
        let mut made = rows::Made::new(&context.attempt, context.shard)?;
        for vectors in [true, false] {
            for (name, generator) in generators.iter().filter(|(_, generator)| generator.makes_vectors() == vectors) {
                let began = Instant::now();
                generator.generate(context, name, &mut made).with_context(|| format!("[synth.{name}]"))?;
                made.note(name, "seconds", began.elapsed().as_secs_f64());
                tracing::info!("{name}: {} rows", made.count(name));
                if made.count(name) == 0 && context.shard.is_all() {
                    tracing::warn!(
                        "{name} made nothing: pairs are made of functions and problems for training, and the sources may have \
                         none; a source of texts and codes that belong together has pairs already"
                    );
                }
            }
            if vectors {
                made.finish_embeddings(&mut context.attempt)?;
            }
        }
        made.write(&mut context.attempt)
    }

    fn merge() -> Option<Merge<Generators>> {
        Some(|context, generators, shards| {
            let mut notes = shards.notes();
            for (name, generator) in generators {
                // Each shard noted what it spent itself, in this and earlier runs; others may have spent as well.
                let spent = generator.spent(context, name)?;
                if let Some(note) = notes.get_mut(name).and_then(serde_json::Value::as_object_mut) {
                    note.extend(spent.into_iter().map(|(key, value)| (key.to_owned(), value)));
                }
            }
            rows::merge(context, shards, notes)
        })
    }
}
