//! `codepair plan` and `codepair run`.

use std::time::Instant;

use anyhow::Result;
use codepair_runtime::{Config, ExitStatus, Manifest, Plan, Store, newest_plan, quoted, run_folder};
use serde_json::json;

use crate::arguments::{Arguments, Executor, RunOptions, Selection};
use crate::launch::{Ended, Launch, local, overall};
use crate::planner::{Prospect, Verdict, forecast, prospect};
use crate::state::failures_path;
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
    let Prospect { mut plan, verdicts, unchanged } =
        prospect(&config, &arguments.pipeline.set, &store, &options.selection)?;
    let steps: Vec<usize> = verdicts.iter().enumerate().filter(|(_, v)| v.run).map(|(i, _)| i).collect();
    if !unchanged || !steps.is_empty() {
        let path = format!("{}/plan.json", run_folder(&plan.pipeline, &plan.run));
        store.put_new(&path, serde_json::to_vec_pretty(&plan)?)?;
    } else if let Some(newest) = newest_plan(&store, config.name())? {
        // Nothing is asked that the newest run was not.
        plan.run = newest.run;
    }
    for &step in &steps {
        tracing::info!("{} will run: {}", verdicts[step].step, verdicts[step].reason);
    }
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let launch = Launch { config: &config, sets: &arguments.pipeline.set, store: &store, plan: &plan, steps, jobs };
    let ended = match options.executor {
        _ if launch.steps.is_empty() => Vec::new(),
        Executor::Local => local::launch(&launch)?,
    };
    summarise(&store, &config, &plan, &ended)?;
    let status = overall(&ended);
    let page = report(&store, &plan)?;
    if options.selection.json {
        print(&serde_json::to_string_pretty(&as_json(&store, &plan, &verdicts, &ended, page.as_deref()))?);
    } else if let Some(page) = &page {
        print(&format!("report: {page}"));
    }
    let seconds = started.elapsed().as_secs_f64();
    match (status, ended.len()) {
        (ExitStatus::Done, 0) => {
            let fresh = verdicts.iter().filter(|verdict| verdict.fresh).count();
            let left_out = verdicts.len() - fresh;
            let left_out = if left_out > 0 { format!(", {left_out} left out") } else { String::new() };
            tracing::info!("nothing to do: {fresh} steps are fresh{left_out} ({seconds:.2} s)");
        }
        (ExitStatus::Done, steps) => tracing::info!("{steps} steps in {seconds:.1} s"),
        (_, steps) => {
            let failed = ended.iter().filter(|ended| !ended.succeeded()).count();
            let is_interrupted = ended.iter().all(|ended| ended.exit.is_none_or(|exit| exit == 0));
            let what =
                if is_interrupted { "was interrupted; the next one goes on from what is kept" } else { "failed" };
            tracing::error!("the run {what}: {failed} of {steps} steps were not made ({seconds:.1} s)");
        }
    }
    Ok(status)
}

/// Logs the failures once, and keeps them with the run.
fn summarise(store: &Store, config: &Config, plan: &Plan, ended: &[Ended]) -> Result<()> {
    let failures: Vec<&Ended> = ended.iter().filter(|e| !e.succeeded()).collect();
    for failure in &failures {
        match failure.exit {
            Some(code) => tracing::error!("{} failed with exit code {code}: {}", failure.step, failure.message),
            None => tracing::warn!("{} did not run: {}", failure.step, failure.message),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    store.put(&failures_path(&plan.pipeline, &plan.run), serde_json::to_vec_pretty(&failures)?)?;
    if let Some(failed) = failures.iter().find(|failure| failure.exit.is_some()) {
        let config = quoted(&config.path().display().to_string());
        tracing::info!("the whole log: codepair logs {} --config {config}", failed.step);
    }
    Ok(())
}

/// Where the plan's report is, if it is there.
fn report(store: &Store, plan: &Plan) -> Result<Option<String>> {
    for step in &plan.steps {
        let Some(manifest) = Manifest::find(store, &step.name, &step.fingerprint)? else { continue };
        if let Some(page) = manifest.files("pages").find(|page| page.path.ends_with(".html")) {
            let path = manifest.path(page);
            let local = store.local_path(&path).map(|path| path.display().to_string());
            return Ok(Some(local.unwrap_or_else(|| format!("{}/{path}", store.url()))));
        }
    }
    Ok(None)
}

/// What ran and how it ended, and what did not have to.
fn as_json(store: &Store, plan: &Plan, verdicts: &[Verdict], ended: &[Ended], page: Option<&str>) -> serde_json::Value {
    let step = |verdict: &Verdict| {
        let ended = ended.iter().find(|ended| ended.step == verdict.step);
        let state = match ended {
            Some(ended) if ended.succeeded() => "done",
            Some(ended) if ended.exit.is_some() => "failed",
            None if verdict.fresh => "fresh",
            _ => "not run",
        };
        json!({
            "step": verdict.step, "fingerprint": verdict.fingerprint, "state": state, "reason": verdict.reason,
            "seconds": ended.map(|ended| ended.seconds), "exit": ended.and_then(|ended| ended.exit),
            "message": ended.map(|ended| ended.message.as_str()).filter(|message| !message.is_empty()),
        })
    };
    json!({
        "pipeline": plan.pipeline, "run": plan.run, "store": store.url(), "report": page,
        "steps": verdicts.iter().map(step).collect::<Vec<_>>(),
    })
}
