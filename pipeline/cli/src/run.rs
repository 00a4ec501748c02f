//! `codepair plan` and `codepair run`.

use std::time::Instant;

use anyhow::Result;
use codepair_runtime::{Config, ExitStatus, Manifest, Plan, Store, run_folder};

use crate::arguments::{Arguments, Executor, RunOptions, Selection};
use crate::launch::{Ended, Launch, local, overall};
use crate::planner::{Prospect, forecast, prospect};
use crate::table::{Table, print};

/// Prints what would run, why, and what it would cost.
pub(crate) fn plan(arguments: &Arguments, selection: &Selection) -> Result<ExitStatus> {
    let (config, store) = arguments.pipeline.open()?;
    let mut prospect = prospect(&config, &arguments.pipeline.set, &store, selection)?;
    forecast(&config, &arguments.pipeline.set, &mut prospect)?;
    if selection.json {
        print(&serde_json::to_string_pretty(&prospect.verdicts)?);
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&["step", "fingerprint", "will", "why"]);
    for verdict in &prospect.verdicts {
        let will = if verdict.run { "run" } else { "-" };
        table.row(&[&verdict.step, &verdict.fingerprint[..12], will, &verdict.reason]);
    }
    print(&table.to_string());
    for verdict in &prospect.verdicts {
        for forecast in &verdict.forecast {
            print(&format!("{}  {}", verdict.step, forecast["text"].as_str().unwrap_or_default()));
        }
    }
    Ok(ExitStatus::Done)
}

/// Runs what is not fresh.
pub(crate) fn run(arguments: &Arguments, options: &RunOptions) -> Result<ExitStatus> {
    let started = Instant::now();
    let (config, store) = arguments.pipeline.open()?;
    let Prospect { plan, verdicts, unchanged } =
        prospect(&config, &arguments.pipeline.set, &store, &options.selection)?;
    let steps: Vec<usize> = verdicts.iter().enumerate().filter(|(_, v)| v.run).map(|(i, _)| i).collect();
    if !unchanged || !steps.is_empty() {
        let path = format!("{}/plan.json", run_folder(&plan.pipeline, &plan.run));
        store.put_new(&path, serde_json::to_vec_pretty(&plan)?)?;
    }
    if steps.is_empty() {
        let fresh = verdicts.iter().filter(|verdict| verdict.fresh).count();
        let left_out = verdicts.len() - fresh;
        let left_out = if left_out > 0 { format!(", {left_out} left out") } else { String::new() };
        tracing::info!("nothing to do: {fresh} steps are fresh{left_out} ({:.2} s)", started.elapsed().as_secs_f64());
        return Ok(ExitStatus::Done);
    }
    for &step in &steps {
        tracing::info!("{} will run: {}", verdicts[step].step, verdicts[step].reason);
    }
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let launch = Launch { config: &config, sets: &arguments.pipeline.set, store: &store, plan: &plan, steps, jobs };
    let ended = match options.executor {
        Executor::Local => local::launch(&launch)?,
    };
    summarise(&store, &config, &plan, &ended)?;
    tracing::info!("{} steps in {:.1} s", ended.len(), started.elapsed().as_secs_f64());
    Ok(overall(&ended))
}

/// Logs the failures once, keeps them with the run, and says where the report is.
fn summarise(store: &Store, config: &Config, plan: &Plan, ended: &[Ended]) -> Result<()> {
    let failures: Vec<&Ended> = ended.iter().filter(|e| !e.succeeded()).collect();
    for failure in &failures {
        match failure.exit {
            Some(code) => tracing::error!("{} failed with exit code {code}: {}", failure.step, failure.message),
            None => tracing::warn!("{} did not run: {}", failure.step, failure.message),
        }
    }
    if !failures.is_empty() {
        let path = format!("{}/failures.json", run_folder(&plan.pipeline, &plan.run));
        store.put(&path, serde_json::to_vec_pretty(&failures)?)?;
        let failed =
            failures.iter().find(|failure| failure.exit.is_some()).map_or("STEP", |failure| failure.step.as_str());
        tracing::info!("the whole log: codepair logs {failed} --config {}", config.path().display());
        return Ok(());
    }
    for step in &plan.steps {
        let Some(manifest) = Manifest::find(store, &step.name, &step.fingerprint)? else { continue };
        for page in manifest.files("pages").filter(|page| page.path.ends_with(".html")) {
            let path = manifest.path(page);
            let place = store
                .local_path(&path)
                .map_or_else(|| format!("{}/{path}", store.url()), |path| path.display().to_string());
            tracing::info!("report: {place}");
        }
    }
    Ok(())
}
