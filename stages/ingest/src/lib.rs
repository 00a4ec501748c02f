//! Ingest: sources become `functions`, `pairs`, `problems`, `queries` and `judgments`; rows that cannot be used become
//! `rejected`.

mod files;
mod found;
mod look;
mod shards;
mod sink;
mod sources;
mod split;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use codepair_runtime::{Config, Context, Merge, Stage, Step, config_error, input_error};
use codepair_schemas::rows;

use sink::{Sink, Splits};
use sources::Reading;
use split::SplitBy;

pub use look::{Seen, look};
pub use sources::Source;
pub use split::Shares;

/// `[ingest.NAME]`, one table a source.
pub type Sources = BTreeMap<String, Source>;

/// The stage.
pub struct Ingest;

impl Stage for Ingest {
    const NAME: &'static str = "ingest";
    type Config = Sources;

    fn steps(sources: &Sources, config: &Config) -> Result<Vec<Step>> {
        if sources.is_empty() {
            return Err(config_error(format!(
                "{}: there is no source; add one, such as [ingest.stdlib] kind = \"source_tree\" python = \"python3\"",
                config.path().display()
            )));
        }
        let mut digests = BTreeMap::new();
        let (mut resolved, mut overrides) = (serde_json::Map::new(), serde_json::Map::new());
        for (name, source) in sources {
            digests.insert(name.clone(), source.digest(config).with_context(|| format!("[ingest.{name}]"))?);
            source.check_columns(config).with_context(|| format!("[ingest.{name}]"))?;
            let (value, changed) = source.values()?;
            resolved.insert(name.clone(), value);
            overrides.insert(name.clone(), changed);
        }
        Ok(vec![Step {
            config: serde_json::json!({ "ingest": resolved }),
            overrides: serde_json::json!({ "ingest": overrides }),
            sources: digests,
            ..Step::default()
        }])
    }

    fn run(context: &mut Context, sources: &Sources) -> Result<()> {
        let mut sink = Sink::new(&context.attempt, context.shard)?;
        let mut summaries = Vec::new();
        let reading = Reading { config: &context.config, threads: context.threads, shard: context.shard };
        for (name, source) in sources {
            let expected = context.description.sources.get(name).map_or("", String::as_str);
            sink.begin(name);
            let read = source.read(name, &reading, &mut sink).with_context(|| format!("[ingest.{name}]"))?;
            if read.digest != expected {
                // Or the cache of digests knew an older state of a file with the same size and times.
                source.forget_digests(&context.config)?;
                return Err(input_error(format!(
                    "[ingest.{name}]: the files changed while they were read, or since they were hashed; run it again"
                )));
            }
            sink.say_splits();
            summaries.push(sink.summary(source.kind(), read.digest, read.files));
        }
        let splits = sink.splits().clone();
        if context.shard.is_all() {
            check(&context.config, sources, &summaries, &splits, |source| sink.first_rejection(source))?;
        } else {
            context.attempt.note("splits", serde_json::to_value(splits)?);
        }
        sink.finish(&mut context.attempt)?;
        context.attempt.write_rows(summaries)
    }

    fn merge() -> Option<Merge<Sources>> {
        Some(shards::merge)
    }
}

/// That every source has a row that can be used, and every split that is asked for has rows: without, a training fails, some
/// stages later.
fn check(
    config: &Config,
    sources: &Sources,
    summaries: &[rows::Source],
    splits: &Splits,
    first_rejection: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    for summary in summaries {
        let (name, files, read, rejected) = (&summary.source, summary.files, summary.rows_read, summary.rejected);
        tracing::info!("{name}: {read} rows of {files} files, {rejected} of them rejected");
        let first = || first_rejection(name).unwrap_or_else(|| "is the path right?".to_owned());
        if read == rejected {
            return Err(input_error(format!("[ingest.{name}]: {files} files hold no usable row; {}", first())));
        }
        if rejected >= FEW_ROWS && 2 * rejected > read {
            tracing::warn!(
                "[ingest.{name}]: {rejected} of {read} rows are rejected, the first as {}; all of them: codepair sql --config {} \"select \
                 reason, count(*) from rejected group by 1\"",
                first(),
                config.path().display()
            );
        }
    }
    check_splits(sources, splits)
}

/// So few rows may all be of one split by chance.
const FEW_ROWS: u64 = 30;

/// That each split that shares ask for has rows.
fn check_splits(sources: &Sources, splits: &Splits) -> Result<()> {
    let count = |name: &str, split: &str| splits.get(name).and_then(|own| own.get(split)).copied().unwrap_or(0);
    for split in ["validation", "test"] {
        let asked = sources.iter().filter(|(_, source)| {
            source
                .shares()
                .is_some_and(|shares| if split == "test" { shares.test > 0.0 } else { shares.validation > 0.0 })
        });
        let is_filled = splits.keys().any(|name| count(name, split) > 0);
        for (name, source) in asked {
            let all: u64 = splits.get(name).iter().flat_map(|own| own.values()).sum();
            if all < FEW_ROWS || count(name, split) > 0 {
                continue;
            }
            let divided = match source.split_by() {
                Some(SplitBy::Row) => "",
                Some(SplitBy::File) => "divide rows and not files, with split_by = \"row\", or ",
                _ => {
                    "where no column or file name says the split, divide smaller groups: files with split_by = \"file\", rows with \"row\"; or "
                }
            };
            let said = format!(
                "[ingest.{name}]: none of the {all} rows came into the split {split}, though shares ask for it: a group of rows \
                 stays whole, and the groups are few; {divided}raise its share, or ask for none: shares = {{ {split} = 0.0 }}"
            );
            if !is_filled {
                return Err(input_error(said));
            }
            tracing::warn!("{said}");
        }
    }
    Ok(())
}
