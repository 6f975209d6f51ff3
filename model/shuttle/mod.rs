//! Tries the orders in which threads can run, with shuttle: random ones, and ones that rarely
//! switch threads. A thread that is never woken is reported as a deadlock of shuttle's.
//!
//! There is no time and no kernel here: no timer fires, and a worker that sleeps waits for a
//! message.

mod blocking;
mod mailbox;
mod packet;
mod runs;
mod sync;

use std::sync::{Arc, Mutex, PoisonError};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

/// Schedules of each kind that a test tries.
const SCHEDULES: usize = 1000;

/// Runs `body` under many schedules: random ones, and ones that rarely switch threads.
pub(super) fn check(body: impl Fn() + Copy + Send + Sync + 'static) {
    // Mailboxes are passed on from test to test, and each belongs to one execution at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut config = Config::new();
    // A thread's context is built on its stack, which needs room for it.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(body);
    Runner::new(PctScheduler::new(3, SCHEDULES), config).run(body);
}

/// Calls `body` on `count` threads, with their numbers, and waits for them.
pub(super) fn threads<T: Send + Sync + 'static>(
    shared: T,
    count: usize,
    body: fn(&T, usize),
) -> Arc<T> {
    let shared = Arc::new(shared);
    let all: Vec<_> = (0..count)
        .map(|number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || body(&shared, number))
        })
        .collect();
    all.into_iter().for_each(|one| one.join().unwrap());
    shared
}
