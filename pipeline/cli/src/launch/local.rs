//! The local executor: child processes, independent steps side by side within a limit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use codepair_runtime::{PROGRESS_LINES, PlannedStep, ProgressLine, bars, block_on, run_folder};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Ended, Launch};
use crate::binaries::{command, error_of, level_and_message};

/// How long children may take to clean up after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

enum Event {
    Line { step: usize, line: String },
    Closed { step: usize },
}

struct Running {
    child: Child,
    started: Instant,
    log: String,
    bar: Option<ProgressBar>,
}

/// Runs the steps. A failed step stops those that need it and nothing else; Ctrl-C stops all.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Vec<Ended>> {
    watch_for_interrupts();
    let terminal = std::io::stderr().is_terminal().then(bars);
    let (events, inbox) = channel();
    let mut waiting: Vec<usize> = launch.steps.clone();
    let mut running: BTreeMap<usize, Running> = BTreeMap::new();
    let mut ended: Vec<Ended> = Vec::new();
    let mut interrupted_at: Option<Instant> = None;
    while !waiting.is_empty() || !running.is_empty() {
        if INTERRUPTED.load(Ordering::Relaxed) {
            let since = *interrupted_at.get_or_insert_with(|| {
                running.values_mut().for_each(|r| signal(&r.child, libc::SIGTERM));
                Instant::now()
            });
            if since.elapsed() > GRACE {
                running.values_mut().for_each(|r| signal(&r.child, libc::SIGKILL));
            }
            ended.extend(waiting.drain(..).map(|i| never_began(&launch.plan.steps[i].name, "the run was interrupted")));
        }
        give_up_on_dependants(launch, &mut waiting, &mut ended);
        while running.len() < launch.jobs
            && let Some(at) = waiting.iter().position(|&i| is_ready(launch, i, &waiting, &running))
        {
            let step = waiting.remove(at);
            running.insert(step, start(launch, step, &events, terminal)?);
        }
        match inbox.recv_timeout(Duration::from_millis(100)) {
            Ok(Event::Line { step, line }) => {
                if let Some(running) = running.get_mut(&step) {
                    show(&launch.plan.steps[step], running, &line);
                }
            }
            Ok(Event::Closed { step }) => {
                if let Some(done) = running.remove(&step) {
                    ended.push(end(launch, step, done)?);
                }
            }
            Err(_) => {}
        }
    }
    Ok(ended)
}

fn watch_for_interrupts() {
    std::thread::spawn(|| {
        block_on(async {
            let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
            match terminate {
                Ok(mut terminate) => tokio::select! { _ = terminate.recv() => (), _ = tokio::signal::ctrl_c() => () },
                Err(_) => drop(tokio::signal::ctrl_c().await),
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
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
fn is_ready(launch: &Launch<'_>, step: usize, waiting: &[usize], running: &BTreeMap<usize, Running>) -> bool {
    let needs = |other: &usize| launch.plan.steps[step].upstream.contains_key(&launch.plan.steps[*other].name);
    !waiting.iter().any(needs) && !running.keys().any(needs)
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

fn start(launch: &Launch<'_>, index: usize, events: &Sender<Event>, bars: Option<&MultiProgress>) -> Result<Running> {
    let step = &launch.plan.steps[index];
    let mut command = command(&step.stage, launch.config, launch.sets)?;
    if let Some(model) = &step.description.model {
        command.arg("--model").arg(model);
    }
    for input in &step.description.inputs {
        let fingerprint = &step.upstream[&input.step];
        command.arg("--input").arg(format!("{}={fingerprint}", input.dataset));
    }
    if bars.is_some() {
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
    let bar = bars.map(|bars| {
        let bar = bars.add(ProgressBar::new_spinner().with_style(style(WITHOUT_BAR)));
        bar.set_prefix(step.name.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    });
    Ok(Running { child, started: Instant::now(), log: String::new(), bar })
}

const WITHOUT_BAR: &str = "{spinner} {prefix:.bold} {elapsed} {wide_msg}";
const WITH_BAR: &str = "{spinner} {prefix:.bold} {elapsed} {bar:24} {human_pos}/{human_len}, {eta} left  {wide_msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Moves a step's bar; without progress it is a spinner.
fn advance(bar: &ProgressBar, progress: Option<ProgressLine>) {
    let Some(progress) = progress else {
        bar.set_style(style(WITHOUT_BAR));
        bar.set_message("");
        return;
    };
    if bar.length() != Some(progress.total) || bar.position() > progress.done {
        bar.set_length(progress.total);
        bar.set_style(style(WITH_BAR));
        bar.reset_eta();
    }
    bar.set_position(progress.done);
    bar.set_message(progress.label());
}

#[allow(clippy::print_stderr, reason = "the children's own log lines, already formatted")]
fn show(step: &PlannedStep, running: &mut Running, line: &str) {
    if let Some(progress) = ProgressLine::parse(line) {
        running.bar.iter().for_each(|bar| advance(bar, progress.clone()));
        return;
    }
    running.log.push_str(line);
    running.log.push('\n');
    match &running.bar {
        Some(bar) => match level_and_message(line) {
            (Some("INFO"), message) => bar.set_message(message),
            (Some("ERROR" | "WARN") | None, message) => bar.suspend(|| eprintln!("{} | {message}", step.name)),
            _ => {}
        },
        None => eprintln!("{} | {line}", step.name),
    }
}

fn end(launch: &Launch<'_>, index: usize, mut running: Running) -> Result<Ended> {
    let step = &launch.plan.steps[index];
    let status = running.child.wait()?;
    if let Some(bar) = &running.bar {
        bar.finish_and_clear();
    }
    let log =
        format!("{}/logs/{}.log", run_folder(&launch.plan.pipeline, &launch.plan.run), step.name.replace(':', "-"));
    launch.store.put(&log, running.log.clone())?;
    let exit = status.code();
    let message = if exit == Some(0) { String::new() } else { error_of(&running.log) };
    let seconds = running.started.elapsed().as_secs_f64();
    if running.bar.is_some() && exit == Some(0) {
        tracing::info!("{} done in {seconds:.1} s", step.name);
    }
    // A child that a signal ended has no code of its own.
    Ok(Ended { step: step.name.clone(), exit: Some(exit.unwrap_or(1)), message, seconds })
}
