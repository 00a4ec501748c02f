//! Work on all cores that comes out in the order in which it went in, with a bound on what is under way.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};

use crate::DEEP_STACK;

/// Pieces a thread that wait for work.
const WAITING: usize = 4;
/// Pieces a thread, made or mapped, that the first unfinished one may hold up: a large piece between small ones.
const AHEAD: usize = 16;

/// Makes pieces on one thread, maps them on `threads` others, and hands the results on in the order of the pieces, on the
/// calling thread. The others, and the one that makes them, have a [`DEEP_STACK`], for parsers that recurse. At most a few
/// dozen pieces a thread are in memory at once.
///
/// # Errors
/// The first error of any of the three, in the order of the pieces.
pub fn ordered<P: Send, R: Send>(
    threads: usize,
    produce: impl FnOnce(&mut dyn FnMut(P) -> Result<()>) -> Result<()> + Send,
    map: impl Fn(P) -> Result<R> + Sync,
    mut consume: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let threads = threads.max(1);
    let (work, todo) = sync_channel::<(P, SyncSender<Result<R>>)>(WAITING * threads);
    let (line, results) = sync_channel::<Receiver<Result<R>>>(AHEAD * threads);
    let todo = Arc::new(Mutex::new(todo));
    std::thread::scope(|scope| {
        let producer = std::thread::Builder::new().stack_size(DEEP_STACK).spawn_scoped(scope, move || {
            produce(&mut |piece| {
                let (result, slot) = sync_channel(1);
                let stopped = || anyhow!("the work ended early");
                line.send(slot).map_err(|_| stopped())?;
                work.send((piece, result)).map_err(|_| stopped())
            })
        })?;
        for _ in 0..threads {
            let (todo, map) = (Arc::clone(&todo), &map);
            std::thread::Builder::new().stack_size(DEEP_STACK).spawn_scoped(scope, move || {
                while let Some((piece, result)) = take(&todo) {
                    // Nobody waits for it where the work ended early.
                    let _ = result.send(map(piece));
                }
            })?;
        }
        // Where all workers panic, the producer is to hear that nobody takes its pieces any more.
        drop(todo);
        let mut consumed = Ok(());
        for slot in &results {
            // A slot without a result is that of a worker that panicked; the scope passes the panic on.
            let Ok(result) = slot.recv() else { break };
            consumed = result.and_then(&mut consume);
            if consumed.is_err() {
                break;
            }
        }
        drop(results);
        let produced = producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        consumed.and(produced)
    })
}

fn take<T>(todo: &Mutex<Receiver<T>>) -> Option<T> {
    todo.lock().ok()?.recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn squares(threads: usize, until: usize, fail_at: Option<usize>) -> (Result<()>, Vec<usize>) {
        let mut seen = Vec::new();
        let done = ordered(
            threads,
            |emit| (0..until).try_for_each(emit),
            |n| if Some(n) == fail_at { Err(anyhow!("no {n}")) } else { Ok(n * n) },
            |square| {
                seen.push(square);
                Ok(())
            },
        );
        (done, seen)
    }

    #[test]
    fn results_come_in_order_and_errors_end_the_work() {
        for threads in [1, 2, 16] {
            let (done, seen) = squares(threads, 1000, None);
            done.unwrap();
            assert_eq!(seen, (0..1000).map(|n| n * n).collect::<Vec<_>>());
            let (done, seen) = squares(threads, 1000, Some(7));
            assert_eq!((done.unwrap_err().to_string().as_str(), seen.len()), ("no 7", 7));
        }
        let failing = ordered(2, |_: &mut dyn FnMut(u8) -> Result<()>| Err(anyhow!("no file")), Ok, |_| Ok(()));
        assert_eq!(failing.unwrap_err().to_string(), "no file");
    }

    #[test]
    fn a_panic_comes_out_however_much_is_left_to_do() {
        for threads in [1, 2] {
            let map = |n: usize| if n >= 5 { panic!("piece {n}") } else { Ok(n) };
            let work = || ordered(threads, |emit| (0..10_000).try_for_each(emit), map, |_| Ok(()));
            assert!(std::panic::catch_unwind(work).is_err());
        }
    }

    #[test]
    fn few_pieces_are_under_way_at_once() {
        let (made, used, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let produce = |emit: &mut dyn FnMut(()) -> Result<()>| {
            (0..500).try_for_each(|_| {
                let open = made.fetch_add(1, Ordering::SeqCst) + 1 - used.load(Ordering::SeqCst);
                most.fetch_max(open, Ordering::SeqCst);
                emit(())
            })
        };
        let consume = |()| {
            std::thread::sleep(std::time::Duration::from_micros(50));
            used.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        ordered(2, produce, Ok, consume).unwrap();
        assert!((2..=2 * (WAITING + AHEAD + 2)).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    }
}
