//! The local executor: child processes, independent steps side by side within a limit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use codepair_runtime::{
    Manifest, PROGRESS_LINES, PlannedStep, ProgressLine, block_on, exit_status, host, logs_as_json,
};

use super::beat::{self, Beating};
use super::log::{Log, Logs};
use super::{Ended, Launch};
use crate::binaries::{command, level_and_message};
use crate::step_bar::StepBar;

/// How long children may take after SIGTERM: they keep what is under way, such as answers that are paid for.
const GRACE: Duration = Duration::from_secs(90);
/// How often the run was asked to end.
static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

enum Event {
    Line { step: usize, line: String },
    Closed { step: usize },
}

struct Running {
    child: Child,
    started: Instant,
    log: Log,
    bar: Option<StepBar>,
}

/// The children. Whoever holds them ends them: they are in process groups of their own, which Ctrl-C does not reach.
struct Children {
    running: BTreeMap<usize, Running>,
    grace: Duration,
}

impl Children {
    fn names(&self, launch: &Launch<'_>) -> Vec<String> {
        self.running.keys().map(|step| launch.plan.steps[*step].name.clone()).collect()
    }

    fn signal(&self, number: libc::c_int) {
        self.running.values().for_each(|running| signal(&running.child, number));
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        let since = Instant::now();
        for running in self.running.values_mut() {
            while since.elapsed() < self.grace && matches!(running.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Both fail where it has ended by itself.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// Runs the steps. A failed step stops those that need it and nothing else; Ctrl-C stops all.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Vec<Ended>> {
    watch_for_interrupts();
    let (events, inbox) = channel();
    let logs = Logs::new(launch.store, launch.plan);
    let beating = Beating::begin(launch.store, launch.plan, &launch.steps, host());
    beat::warn_of_others(launch.store, launch.plan, &launch.steps)?;
    let mut waiting: Vec<usize> = launch.steps.clone();
    let mut running = Children { running: BTreeMap::new(), grace: GRACE };
    let mut ended: Vec<Ended> = Vec::new();
    let mut interrupted_at: Option<Instant> = None;
    while !waiting.is_empty() || !running.running.is_empty() {
        let interrupts = INTERRUPTS.load(Ordering::Relaxed);
        if interrupts > 0 {
            let since = *interrupted_at.get_or_insert_with(|| {
                running.signal(libc::SIGTERM);
                let (count, most) = (running.running.len(), GRACE.as_secs());
                tracing::warn!("interrupted; {count} steps keep what is under way, {most} s at most; Ctrl-C again ends them at once");
                Instant::now()
            });
            if interrupts > 1 || since.elapsed() > GRACE {
                running.signal(libc::SIGKILL);
            }
            ended.extend(waiting.drain(..).map(|i| never_began(&launch.plan.steps[i].name, "the run was interrupted")));
        }
        give_up_on_dependants(launch, &mut waiting, &mut ended);
        while running.running.len() < launch.jobs
            && let Some(at) = waiting.iter().position(|&i| is_ready(launch, i, &waiting, &running))
        {
            let step = waiting.remove(at);
            match start(launch, step, &logs, &events) {
                Ok(child) => {
                    running.running.insert(step, child);
                    beating.at(running.names(launch));
                }
                Err(error) => ended
                    .push(Ended { exit: Some(1), ..never_began(&launch.plan.steps[step].name, &format!("{error:#}")) }),
            }
        }
        match inbox.recv_timeout(Duration::from_millis(100)) {
            Ok(Event::Line { step, line }) => {
                if let Some(running) = running.running.get_mut(&step) {
                    show(&launch.plan.steps[step], running, &line);
                }
            }
            Ok(Event::Closed { step }) => {
                if let Some(done) = running.running.remove(&step) {
                    beating.at(running.names(launch));
                    ended.push(end(launch, step, done));
                }
            }
            Err(_) => {}
        }
        running.running.values_mut().for_each(|running| running.log.store_now_and_then());
    }
    Ok(ended)
}

fn watch_for_interrupts() {
    std::thread::spawn(|| {
        block_on(async {
            let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
            let Ok(mut terminate) = terminate else { return };
            loop {
                tokio::select! { _ = terminate.recv() => (), _ = tokio::signal::ctrl_c() => () }
                INTERRUPTS.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
}

#[allow(unsafe_code, reason = "the standard library can only kill")]
fn signal(child: &Child, number: libc::c_int) {
    // SAFETY: `kill` touches no memory; the child has not been waited for, so its id is still its own.
    unsafe {
        libc::kill(child.id() as libc::pid_t, number);
    }
}

/// A step is ready when nothing that it reads is still to come.
fn is_ready(launch: &Launch<'_>, step: usize, waiting: &[usize], running: &Children) -> bool {
    let needs = |other: &usize| launch.plan.steps[step].upstream.contains_key(&launch.plan.steps[*other].name);
    !waiting.iter().any(needs) && !running.running.keys().any(needs)
}

fn give_up_on_dependants(launch: &Launch<'_>, waiting: &mut Vec<usize>, ended: &mut Vec<Ended>) {
    while let Some((at, failed)) = waiting.iter().enumerate().find_map(|(at, &i)| {
        let upstream = &launch.plan.steps[i].upstream;
        let failed = ended.iter().find(|e| !e.succeeded() && upstream.contains_key(&e.step))?;
        Some((at, failed.step.clone()))
    }) {
        let step = waiting.remove(at);
        ended.push(never_began(&launch.plan.steps[step].name, &format!("it needs {failed}")));
    }
}

fn never_began(step: &str, why: &str) -> Ended {
    Ended { step: step.to_owned(), exit: None, message: why.to_owned(), seconds: 0.0 }
}

fn start(launch: &Launch<'_>, index: usize, logs: &Logs, events: &Sender<Event>) -> Result<Running> {
    let step = &launch.plan.steps[index];
    let mut command = command(&step.stage, launch.config, launch.sets)?;
    command.arg("--plan").arg(&launch.plan.run);
    if let Some(model) = &step.description.model {
        command.arg("--model").arg(model);
    }
    if StepBar::are_drawn() {
        command.env(PROGRESS_LINES, "1");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // In a group of its own: Ctrl-C reaches the child through us, once.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().with_context(|| format!("cannot start codepair-{}", step.stage))?;
    let stderr = child.stderr.take().context("the child's standard error is piped")?;
    let events = events.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let _ = events.send(Event::Line { step: index, line });
        }
        let _ = events.send(Event::Closed { step: index });
    });
    Ok(Running { child, started: Instant::now(), log: logs.begin(&step.name), bar: StepBar::begin(&step.name) })
}

#[allow(clippy::print_stderr, reason = "the children's own log lines, already formatted")]
fn show(step: &PlannedStep, running: &mut Running, line: &str) {
    if let Some(progress) = ProgressLine::parse(line) {
        running.bar.iter().for_each(|bar| bar.advance(progress.clone()));
        return;
    }
    running.log.add(line);
    match &running.bar {
        Some(bar) => match level_and_message(line) {
            (Some("INFO"), message) => bar.remark(message),
            (Some("ERROR" | "WARN") | None, message) => bar.above(|| eprintln!("{} | {message}", step.name)),
            _ => {}
        },
        None if logs_as_json() => eprintln!("{}", as_json(&step.name, line)),
        None => eprintln!("{} | {line}", step.name),
    }
}

/// A child's line as an object that names the step; what is none, such as a panic's words, is an error's message.
fn as_json(step: &str, line: &str) -> serde_json::Value {
    let mut object = match serde_json::from_str(line) {
        Ok(serde_json::Value::Object(object)) => object,
        _ => serde_json::Map::from_iter([
            ("level".to_owned(), "ERROR".into()),
            ("fields".to_owned(), serde_json::json!({ "message": line })),
        ]),
    };
    object.insert("step".to_owned(), step.into());
    object.into()
}

/// What became of a step. Whatever goes wrong here is its fault alone: others go on.
fn end(launch: &Launch<'_>, index: usize, mut running: Running) -> Ended {
    let step = &launch.plan.steps[index];
    let status = running.child.wait();
    let has_bar = running.bar.take().is_some();
    running.log.store();
    let mut exit = status.as_ref().ok().and_then(std::process::ExitStatus::code);
    let mut message = if exit == Some(0) { String::new() } else { running.log.error() };
    if exit == Some(0) {
        let fault = match Manifest::find(launch.store, &step.name, &step.fingerprint) {
            Ok(Some(_)) => None,
            Ok(None) => Some((1, format!("it ended well, but its artifact {} is not there", step.fingerprint))),
            Err(error) => Some((exit_status(&error) as i32, format!("it ended well, but {error:#}"))),
        };
        if let Some((status, why)) = fault {
            (exit, message) = (Some(status), why);
        }
    }
    let seconds = running.started.elapsed().as_secs_f64();
    if exit != Some(0) && INTERRUPTS.load(Ordering::Relaxed) > 0 {
        return Ended { seconds, ..never_began(&step.name, "it was interrupted") };
    }
    if has_bar && exit == Some(0) {
        tracing::info!("{} done in {seconds:.1} s", step.name);
    }
    // A child that a signal ended has no code of its own.
    Ended { step: step.name.clone(), exit: Some(exit.unwrap_or(1)), message, seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeping(logs: &Logs) -> Running {
        let mut command = std::process::Command::new("sh");
        // It does not hear SIGTERM, as a child that hangs.
        command.args(["-c", "trap '' TERM; while :; do sleep 0.1; done"]);
        let child = command.spawn().unwrap();
        Running { child, started: Instant::now(), log: logs.begin("train:a"), bar: None }
    }

    #[test]
    fn whoever_drops_the_children_ends_them() {
        let store = codepair_runtime::Store::memory();
        let logs = Logs::in_folder(&store, "logs");
        let mut children = Children { running: BTreeMap::new(), grace: Duration::from_millis(300) };
        children.running.insert(0, sleeping(&logs));
        children.running.insert(1, sleeping(&logs));
        let ids: Vec<u32> = children.running.values().map(|running| running.child.id()).collect();
        drop(children);
        for id in ids {
            assert!(!std::path::Path::new(&format!("/proc/{id}")).exists(), "{id} lives on");
        }
    }

    #[test]
    fn lines_stay_json() {
        let line = r#"{"level":"INFO","fields":{"message":"begins"}}"#;
        assert_eq!(as_json("ingest", line)["step"], "ingest");
        assert_eq!(as_json("ingest", line)["fields"]["message"], "begins");
        assert_eq!(as_json("ingest", "thread 'main' panicked")["fields"]["message"], "thread 'main' panicked");
    }
}
