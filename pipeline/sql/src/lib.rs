//! A DataFusion session over the datasets of a store.

mod checked;
mod pool;
mod tokens;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use codepair_runtime::{Manifest, Plan, Store, input_error};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use url::Url;

use crate::checked::{Checked, fault};
use crate::pool::SortPool;

pub use tokens::register as register_tokenizers;

/// An error of the engine: of a file that is missing or damaged an error of the inputs, which says what to do.
#[must_use]
pub fn explain(error: DataFusionError) -> anyhow::Error {
    match fault(error.find_root()) {
        Some(fault) => input_error(fault),
        None => error.into(),
    }
}

/// A session with `threads` partitions that reads text as plain UTF-8 arrays.
#[must_use]
pub fn session(threads: usize) -> SessionContext {
    SessionContext::new_with_config(config(threads))
}

/// As [`session`], for work on narrow rows in bounded memory: sorts go on in the folder `scratch` once they fill half of
/// `memory_limit` bytes; the other half is for what no pool counts.
///
/// # Errors
/// The folder cannot be used.
pub fn bounded_session(threads: usize, memory_limit: Option<u64>, scratch: &Path) -> Result<SessionContext> {
    let mut config = config(threads).with_batch_size(BOUNDED_BATCH_ROWS);
    config.options_mut().optimizer.repartition_file_min_size = REPARTITION_BYTES;
    let mut runtime = RuntimeEnvBuilder::new().with_temp_file_path(scratch);
    if let Some(limit) = memory_limit {
        let pool = usize::try_from(limit)? / 2;
        runtime = runtime.with_memory_pool(Arc::new(SortPool::new(pool)));
        config.options_mut().execution.sort_spill_reservation_bytes = pool / (8 * threads.max(1));
    }
    Ok(SessionContext::new_with_config_rt(config, runtime.build_arc()?))
}

/// Files from this size on are read by all threads: decisions about a row take longer than reading it.
const REPARTITION_BYTES: usize = 64 << 10;
/// Small, for rows may be a mebibyte long.
const BOUNDED_BATCH_ROWS: usize = 4096;

fn config(threads: usize) -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(threads).with_information_schema(true);
    config.options_mut().execution.parquet.schema_force_view_types = false;
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    config
}

/// Registers a dataset as the table `table`, in the order of the manifests and their parts.
///
/// # Errors
/// No manifest holds it.
pub fn register(context: &SessionContext, store: &Store, table: &str, holders: &[(&Manifest, &str)]) -> Result<()> {
    // Each table has a store of its own, in which nothing is but its files.
    let url = Url::parse(&format!("codepair://{table}/"))?;
    let mut checked = Checked::new(store);
    let mut paths = Vec::new();
    for (manifest, dataset) in holders {
        for output in manifest.files(dataset).filter(|output| output.rows.is_some()) {
            let path = checked.admit(store, manifest, output);
            paths.push(ListingTableUrl::parse(format!("{url}{path}"))?);
        }
    }
    context.register_object_store(&url, Arc::new(checked));
    let (_, first) = holders.first().with_context(|| format!("no artifact holds {table}"))?;
    let schema = codepair_schemas::dataset(first).with_context(|| format!("no dataset is named {first}"))?.schema();
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(paths).with_listing_options(options).with_schema(schema);
    context.register_table(table, Arc::new(ListingTable::try_new(config)?))?;
    Ok(())
}

/// Registers a dataset that has no rows yet.
///
/// # Errors
/// There is no such dataset.
pub fn register_empty(context: &SessionContext, dataset: &str) -> Result<()> {
    let schema = codepair_schemas::dataset(dataset).with_context(|| format!("no dataset is named {dataset}"))?.schema();
    context.register_table(dataset, Arc::new(EmptyTable::new(schema)))?;
    Ok(())
}

/// The datasets that a query reads; none where it is no query, which whoever runs it will say.
#[must_use]
pub fn datasets(context: &SessionContext, query: &str) -> Vec<String> {
    let state = context.state();
    let dialect = state.config_options().sql_parser.dialect;
    let Ok(statement) = state.sql_to_statement(query, &dialect) else { return Vec::new() };
    let tables = state.resolve_table_references(&statement).unwrap_or_default();
    let names = tables.iter().map(|table| table.table().to_owned());
    let found: BTreeSet<String> = names.filter(|name| codepair_schemas::dataset(name).is_some()).collect();
    found.into_iter().collect()
}

/// Registers every dataset of a plan's artifacts that are there, each as one table over all steps that write it, and
/// the functions `tokenize('NAME', text)` and `detokenize('NAME', tokens)`. Returns the tables' names.
///
/// # Errors
/// The store cannot be read.
pub fn register_plan(context: &SessionContext, store: &Store, plan: &Plan) -> Result<Vec<String>> {
    let mut manifests = Vec::new();
    for step in &plan.steps {
        match Manifest::find(store, &step.name, &step.fingerprint) {
            Ok(found) => manifests.extend(found),
            // Whoever asks for what it holds is told before; others need not wait for it.
            Err(error) => tracing::warn!("{error:#}; its datasets are left out"),
        }
    }
    let mut tables: BTreeMap<&str, Vec<(&Manifest, &str)>> = BTreeMap::new();
    let mut tokenizers = HashMap::new();
    for manifest in &manifests {
        for output in &manifest.outputs {
            let holders = tables.entry(&output.dataset).or_default();
            if output.rows.is_some() && !holders.iter().any(|(m, _)| std::ptr::eq(*m, manifest)) {
                holders.push((manifest, &output.dataset));
            }
            if let Some(name) = output.name().strip_prefix("tokenizers/").and_then(|n| n.strip_suffix(".json")) {
                tokenizers.insert(name.to_owned(), manifest.read(store, output)?);
            }
        }
    }
    tables.retain(|_, holders| !holders.is_empty());
    for (table, holders) in &tables {
        register(context, store, table, holders)?;
    }
    register_tokenizers(context, &tokenizers)?;
    Ok(tables.into_keys().map(str::to_owned).collect())
}
