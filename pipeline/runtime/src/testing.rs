//! What the stages' contract tests share: artifacts written by the test, on a store in memory and one on disk.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{Attempt, Config, Manifest, Published, Request, Stage, Store, run_stage};

/// Calls `test` with a store in memory and with one on disk, and checks that both gave the same digest.
///
/// # Panics
/// When the digests differ, or a store cannot be made.
#[allow(clippy::expect_used, reason = "a failing test stops here")]
pub fn on_each_store(folder: &Path, test: impl Fn(&Store) -> Manifest) {
    let on_disk = Store::local(&folder.join("store")).expect("the folder is the test's own");
    assert_eq!(test(&Store::memory()).digest, test(&on_disk).digest, "the store changes no output");
}

/// Publishes an artifact of `step` under the fingerprint `test`.
///
/// # Errors
/// It cannot be written, or is there already.
pub fn publish(store: &Store, step: &str, fill: impl FnOnce(&mut Attempt) -> Result<()>) -> Result<()> {
    publish_as("test", store, step, fill)
}

/// Publishes an artifact of `step` under a fingerprint.
///
/// # Errors
/// It cannot be written, or is there already.
pub fn publish_as(
    fingerprint: &str,
    store: &Store,
    step: &str,
    fill: impl FnOnce(&mut Attempt) -> Result<()>,
) -> Result<()> {
    let mut attempt = Attempt::new(store, step, fingerprint);
    fill(&mut attempt)?;
    match attempt.publish(|_| {})? {
        Published::Ours(_) => Ok(()),
        Published::Theirs(_) => bail!("{step} was published before"),
    }
}

/// Runs a stage on the artifacts that [`publish`] wrote, for all its inputs named in `datasets`.
///
/// # Errors
/// As [`run_stage`].
pub fn run<S: Stage>(store: &Store, config: &Config, model: Option<&str>, datasets: &[&str]) -> Result<Manifest> {
    let given: Vec<(String, String)> = datasets.iter().map(|d| ((*d).to_owned(), "test".to_owned())).collect();
    run_stage::<S>(store, config, &Request { model, given: &given, ..Request::default() })
}

/// Runs two ways of doing the same in turn and prints the medians of their seconds: for measurements, which decide no test.
#[allow(clippy::print_stdout, reason = "the measurement")]
pub fn compare(one: &str, mut first: impl FnMut() -> f64, other: &str, mut second: impl FnMut() -> f64) {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        ones.push(first());
        others.push(second());
    }
    ones.sort_by(f64::total_cmp);
    others.sort_by(f64::total_cmp);
    println!("\n| {one} | {:.3} s | {other} | {:.3} s | {:.2}× |", ones[3], others[3], others[3] / ones[3]);
}
