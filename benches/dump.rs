//! A dump of many parked coroutines, with backtraces: for how long their worker stops, and what
//! memory it takes.
//!
//! ```text
//! cargo bench -p benches --features backtrace --bench dump -- 100000
//! ```

use std::cell::Cell;
use std::fs;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plainsong::inspect::dump;
use plainsong::sync::channel;
use plainsong::time::sleep;
use plainsong::{spawn, yield_now};

const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    // cargo passes `--bench`.
    let count = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    plainsong::run(|| {
        let (_sender, receiver) = channel::unbounded::<u32>();
        let waiting = Rc::new(Cell::new(0));
        for number in 0..count {
            let (receiver, waiting) = (receiver.clone(), Rc::clone(&waiting));
            spawn(move || {
                waiting.set(waiting.get() + 1);
                waits(number, &receiver);
            });
        }
        while waiting.get() < count {
            yield_now();
        }
        println!("{count} coroutines are parked: {} MiB resident", resident() / 1024);
        for round in 1..=3 {
            take(round);
        }
    });
}

/// Every tenth coroutine waits a little deeper than the others.
#[inline(never)]
fn waits(number: usize, receiver: &channel::Receiver<u32>) {
    if number % 10 == 0 {
        waits(number + 1, receiver);
    } else if number % 2 == 0 {
        sleep(HOUR);
    } else {
        let _ = black_box(receiver.recv());
    }
}

/// A plain thread takes a dump, while a coroutine measures the longest time between its turns.
fn take(round: u32) {
    let before = resident();
    let done = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&done);
    let taken = thread::spawn(move || {
        let start = Instant::now();
        let dump = dump();
        let (took, held) = (start.elapsed(), resident());
        let frames: usize = dump.coroutines().map(|one| one.backtrace.len()).sum();
        let listed = dump.coroutines().count();
        drop(dump);
        theirs.store(true, Ordering::Release);
        (took, held, listed, frames)
    });
    let (mut pause, mut last) = (Duration::ZERO, Instant::now());
    while !done.load(Ordering::Acquire) {
        yield_now();
        let now = Instant::now();
        pause = pause.max(now - last);
        last = now;
    }
    let (took, held, listed, frames) = taken.join().expect("the dump is taken");
    println!(
        "dump {round}: {listed} coroutines with {frames} frames; the worker stopped for {} ms of \
         {} ms; {} MiB more while it was held, {} MiB more after it",
        pause.as_millis(),
        took.as_millis(),
        held.saturating_sub(before) / 1024,
        resident().saturating_sub(before) / 1024,
    );
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
