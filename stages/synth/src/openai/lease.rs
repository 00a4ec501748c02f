//! Who may ask a server's model, or spend what a generator may: one run at a time, or two would pay for the same answers, and
//! pass a limit to spending together. A lease is a row of numbered objects, each created once: the newest says who holds it. Its holder renews it by the
//! next number; one that is not renewed is taken over.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use codepair_runtime::{Created, Interrupt, Store, sha256};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const FOLDER: &str = "ledger/leases";
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// A lease whose newest number stays the same for so long, as the one who waits sees it, is nobody's any more.
const STALE: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The content of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    /// Who holds it; nobody where it was given back.
    by: Option<Process>,
    /// The run whose shards hold it together: each renews it, and none gives it back, for another may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

/// A process, told from all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Process {
    host: String,
    id: u32,
    /// Clock ticks since the machine started, of `/proc/ID/stat`: another process of the same id has others.
    started: String,
    /// Of this boot of the machine, and of process ids within it: containers have their own.
    boot: String,
    /// A run may hold several, one after another.
    token: String,
}

impl Process {
    fn own() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let id = std::process::id();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            id,
            started: started(id).unwrap_or_default(),
            boot: format!("{} {}", read("/proc/sys/kernel/random/boot_id"), namespace.display()),
            token: uuid::Uuid::new_v4().simple().to_string(),
        }
    }

    /// Whether it ended; false where nobody here can know.
    fn has_ended(&self) -> bool {
        let own = Self::own();
        let is_near = !self.boot.trim().is_empty() && (&self.host, &self.boot) == (&own.host, &own.boot);
        is_near && started(self.id).is_none_or(|started| started != self.started)
    }
}

/// A process, and the group that it holds a lease with.
#[derive(Clone, Debug)]
struct Holder {
    process: Process,
    group: Option<String>,
}

impl Holder {
    /// Whether others of its group hold it already.
    fn is_of_group(&self, held: &Held) -> bool {
        held.by.is_some() && self.group.is_some() && self.group == held.group
    }
}

/// When a process started, in clock ticks since the machine did; nothing where there is no such process.
fn started(id: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the start is the twentieth field after it.
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned())
}

/// The right to ask, until it is dropped.
pub(super) struct Lease {
    lost: watch::Receiver<bool>,
    stop: Option<Sender<()>>,
    renewing: Option<JoinHandle<()>>,
}

impl Lease {
    /// Waits until nobody else holds the lease of `what`, and takes it; `what` is also what the log calls it. Processes of one
    /// `group` hold it together.
    ///
    /// # Errors
    /// The store cannot be read or written, or the process is asked to end meanwhile.
    pub(super) fn take(store: &Store, what: &str, group: Option<&str>, interrupt: &Interrupt) -> Result<Self> {
        let folder = format!("{FOLDER}/{}", &sha256(what.as_bytes())[..16]);
        let own = Holder { process: Process::own(), group: group.map(str::to_owned) };
        let (mut seen, mut since, mut has_said) = (None, Instant::now(), false);
        loop {
            let newest = newest(store, &folder)?;
            let (number, held) = newest.unwrap_or((0, Held { by: None, group: None }));
            if own.is_of_group(&held) {
                // The one who was last may have left it long ago, and others wait for it to become stale.
                if renew(store, &folder, number + 1, &own, true)? {
                    return Ok(Self::hold(store.clone(), folder, number + 1, own));
                }
                // Another of the group was faster.
                std::thread::sleep(LOOK_EVERY.mul_f64(rand::random()));
                continue;
            }
            let (holder, group) = (held.by, held.group);
            if seen != Some(number) {
                (seen, since) = (Some(number), Instant::now());
            }
            // Of a group another may go on.
            let has_ended = |by: &Process| group.is_none() && by.has_ended();
            let is_free = holder.as_ref().is_none_or(|by| has_ended(by) || since.elapsed() >= STALE);
            if is_free && renew(store, &folder, number + 1, &own, true)? {
                return Ok(Self::hold(store.clone(), folder, number + 1, own));
            }
            if let (false, false, Some(by)) = (is_free, has_said, &holder) {
                tracing::info!("another run holds {what} (process {} on {}); waiting for it", by.id, by.host);
                has_said = true;
            }
            if interrupt.is_asked() {
                bail!("interrupted while another run holds {what}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn hold(store: Store, folder: String, mut number: u64, own: Holder) -> Self {
        let (stop, stopped) = channel();
        let (losing, lost) = watch::channel(false);
        let renewing = std::thread::spawn(move || {
            loop {
                let goes_on = stopped.recv_timeout(RENEWED_EVERY) == Err(RecvTimeoutError::Timeout);
                if own.group.is_some() {
                    if !goes_on {
                        return;
                    }
                    // Another of the group may have renewed it.
                    match newest(&store, &folder) {
                        Ok(Some((highest, held))) if own.is_of_group(&held) => number = highest,
                        Ok(_) => {
                            losing.send_replace(true);
                            return;
                        }
                        Err(error) => tracing::warn!("the lease could not be looked at: {error:#}"),
                    }
                }
                match renew(&store, &folder, number + 1, &own, goes_on) {
                    Ok(true) => number += 1,
                    Ok(false) if own.group.is_some() => {}
                    Ok(false) => {
                        losing.send_replace(true);
                        return;
                    }
                    // Where the store cannot be reached for long, somebody takes over, and the next try says so.
                    Err(error) => tracing::warn!("the lease could not be renewed: {error:#}"),
                }
                if !goes_on {
                    return;
                }
            }
        });
        Self { lost, stop: Some(stop), renewing: Some(renewing) }
    }

    /// Returns once somebody else has taken it over, as they may from a process that was stopped for long.
    pub(super) async fn lost(&self) {
        let mut lost = self.lost.clone();
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.renewing.take().map(JoinHandle::join);
    }
}

fn path(folder: &str, number: u64) -> String {
    format!("{folder}/{number:012}.json")
}

fn create(store: &Store, folder: &str, number: u64, by: Option<&Holder>) -> Result<Created> {
    let held = Held { by: by.map(|by| by.process.clone()), group: by.and_then(|by| by.group.clone()) };
    store.put_new(&path(folder, number), serde_json::to_vec(&held)?)
}

/// Creates the next object of a lease, or that which gives it back; false where somebody else has it now. Who slept for long
/// may find its next number free again, below the other's.
fn renew(store: &Store, folder: &str, number: u64, own: &Holder, goes_on: bool) -> Result<bool> {
    let created = create(store, folder, number, goes_on.then_some(own))?;
    match newest(store, folder)? {
        // A store that created it and whose answer got lost says that it was there.
        Some((highest, held)) if highest == number => {
            let is_own = created == Created::New || held.by.is_some_and(|by| by.token == own.process.token);
            if is_own {
                // Whoever looks takes the highest number, so those below can go.
                store.delete(&[path(folder, number - 1)])?;
            }
            Ok(is_own)
        }
        _ => {
            if created == Created::New {
                store.delete(&[path(folder, number)])?;
            }
            Ok(false)
        }
    }
}

/// The highest number and what it says; one that is gone again was not the highest.
fn newest(store: &Store, folder: &str) -> Result<Option<(u64, Held)>> {
    loop {
        let Some((path, _)) = store.list(folder)?.pop() else { return Ok(None) };
        let Some(bytes) = store.find(&path)? else { continue };
        let number = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        let number = number.with_context(|| format!("{path} is no part of a lease; delete it"))?;
        // Of a damaged one nobody knows the holder: it counts until it is stale.
        let unknown = || Held { by: Some(Process { boot: String::new(), ..Process::own() }), group: None };
        return Ok(Some((number, serde_json::from_slice(&bytes).unwrap_or_else(|_| unknown()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_runtime::block_on;

    fn alone(process: Process) -> Holder {
        Holder { process, group: None }
    }

    /// The shards of a run hold a lease together, and others wait for the last of them.
    #[test]
    fn a_group_holds_it_together() {
        let store = Store::memory();
        let take = |group| Lease::take(&store, "m", group, &Interrupt::default()).unwrap();
        let (first, second) = (take(Some("run in 2 shards")), take(Some("run in 2 shards")));
        let folder = store.list(FOLDER).unwrap().pop().unwrap().0.rsplit_once('/').unwrap().0.to_owned();
        drop(first);
        let (_, held) = newest(&store, &folder).unwrap().unwrap();
        let other = Holder { process: Process::own(), group: Some("another run".to_owned()) };
        assert!(held.by.is_some() && !other.is_of_group(&held) && !alone(Process::own()).is_of_group(&held));
        drop(second);
        // None gives it back, for none knows whether it is the last: it becomes stale.
        assert!(newest(&store, &folder).unwrap().unwrap().1.by.is_some());
    }

    #[test]
    fn the_second_waits_for_the_first() {
        let store = Store::memory();
        let take = |what: &str| Lease::take(&store, what, None, &Interrupt::default()).unwrap();
        let first = take("m");
        // Of another model nobody holds anything.
        drop(take("other"));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(take("m")));
            std::thread::sleep(Duration::from_millis(700));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap();
        });
        assert_eq!(store.list(FOLDER).unwrap().len(), 2, "one object a lease is left");
    }

    #[test]
    fn what_a_dead_process_held_is_free() {
        let store = Store::memory();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = alone(Process { id: child.id(), ..Process::own() });
        child.wait().unwrap();
        let folder = format!("{FOLDER}/{}", &sha256(b"m")[..16]);
        create(&store, &folder, 7, Some(&dead)).unwrap();
        let began = Instant::now();
        let lease = Lease::take(&store, "m", None, &Interrupt::default()).unwrap();
        assert!(began.elapsed() < STALE / 2);
        // Somebody takes over what was not renewed in time.
        create(&store, &folder, 9, Some(&dead)).unwrap();
        lease.stop.as_ref().unwrap().send(()).unwrap();
        block_on(lease.lost());
    }

    /// Who was stopped for long finds out, although the number that it would create next is free again.
    #[test]
    fn one_that_slept_has_lost_it() {
        let store = Store::memory();
        let (slept, other) = (alone(Process::own()), alone(Process::own()));
        create(&store, "l", 5, Some(&slept)).unwrap();
        create(&store, "l", 6, Some(&other)).unwrap();
        assert!(renew(&store, "l", 7, &other, true).unwrap());
        assert!(!renew(&store, "l", 6, &slept, true).unwrap());
        assert_eq!(newest(&store, "l").unwrap().unwrap(), (7, Held { by: Some(other.process.clone()), group: None }));
        // Its own object, whose answer got lost on the way.
        create(&store, "l", 8, Some(&other)).unwrap();
        assert!(renew(&store, "l", 8, &other, true).unwrap());
    }
}
