//! One source into a store of its own, and what came of it.

use std::path::Path;

use codepair_ingest::Ingest;
use codepair_runtime::{Config, Manifest, Request, Store, read_output, run_stage, text_column};

/// Ingests one source, whose table's lines are given, into a new store.
pub(crate) fn ingest(folder: &Path, table: &str) -> anyhow::Result<(Store, Manifest)> {
    let text = format!("name = \"t\"\n[store]\nurl = \"file://own\"\n[ingest.s]\n{table}\n");
    let config = Config::parse(&text, &folder.join("c.toml"), &[])?;
    let store = Store::memory();
    let manifest = run_stage::<Ingest>(&store, &config, &Request::default())?;
    Ok((store, manifest))
}

pub(crate) fn column((store, manifest): &(Store, Manifest), dataset: &str, name: &str) -> Vec<String> {
    let batches = read_output(store, manifest, dataset, &[]).unwrap();
    let values = |batch| text_column(batch, name).unwrap().iter().map(|v| v.unwrap().to_owned()).collect::<Vec<_>>();
    batches.iter().flat_map(values).collect()
}

pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
