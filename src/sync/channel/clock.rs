//! Wakes futures at a time, for receivers of the clock in `async` code.
//!
//! An executor of another kind does not have our timers, and a future may move between threads, so
//! one thread of the process does this for all of them. It starts with the first registration, and
//! ends when it has had none for a while.

use std::cmp::Reverse;
use std::mem;
use std::process;
use std::time::{Duration, Instant};

use crate::engine::cancel;
use crate::engine::mutex::{Condvar, Mutex};
use crate::engine::park;
use crate::engine::pin;
use crate::engine::shared::start_thread;
use crate::engine::waiter::Waiter;

/// How long the thread stays without any registration.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The time of a registration, and a number that tells equal ones apart.
type Key = (Instant, u64);

struct Clock {
    state: Mutex<State>,
    // A registration has come that is due before all others.
    changed: Condvar,
}

struct State {
    // In descending order.
    waiters: Vec<(Key, Waiter)>,
    next: u64,
    // The process in which the thread runs, or 0.
    process: u32,
}

impl State {
    fn find(&self, key: Key) -> Result<usize, usize> {
        self.waiters.binary_search_by_key(&Reverse(key), |(key, _)| Reverse(*key))
    }

    fn remove(&mut self, key: Key) -> Option<Waiter> {
        let at = self.find(key).ok()?;
        Some(self.waiters.remove(at).1)
    }
}

static CLOCK: Clock = Clock {
    state: Mutex::new(State { waiters: Vec::new(), next: 0, process: 0 }),
    changed: Condvar::new(),
};

/// A waiter that is to be woken at a time, unless this is dropped before.
pub(super) struct Registration {
    key: Key,
}

impl Registration {
    /// Has `waiter` woken at `time`.
    pub(super) fn new(time: Instant, waiter: Waiter) -> Self {
        let mut state = CLOCK.state.lock();
        let process = process::id();
        let before = mem::replace(&mut state.process, process);
        if ![0, process].contains(&before) {
            // A forked process has the waiters of its parent and no thread. They are leaked here:
            // their wakers may need what other threads of the parent held.
            mem::forget(mem::take(&mut state.waiters));
        }
        let key = (time, state.next);
        state.next += 1;
        let (Ok(at) | Err(at)) = state.find(key);
        state.waiters.insert(at, (key, waiter));
        if before != process {
            if let Err(error) = start_thread("plainsong-clock", Box::new(run)) {
                state.process = 0;
                let _waiter = state.remove(key);
                drop(state);
                panic!("no thread can be started that waits for the clock: {error}");
            }
        } else if at + 1 == state.waiters.len() {
            CLOCK.changed.notify_one();
        }
        Self { key }
    }

    /// The time at which the waiter is woken.
    pub(super) fn time(&self) -> Instant {
        self.key.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Dropped without the lock: a waker in it is of users.
        let _waiter = CLOCK.state.lock().remove(self.key);
    }
}

/// The loop of the thread.
fn run() {
    pin::unpin();
    let mut state = CLOCK.state.lock();
    loop {
        let Some(&(first, _)) = state.waiters.last() else {
            let (woken, timed_out) = CLOCK.changed.wait_timeout(state, IDLE_MAX);
            state = woken;
            if timed_out && state.waiters.is_empty() {
                state.process = 0;
                return;
            }
            continue;
        };
        let left = first.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let waiter = state.waiters.pop().map(|(_, waiter)| waiter);
            drop(state);
            // A waker is code of users.
            cancel::catch_and_forget(|| waiter.into_iter().for_each(park::wake));
            state = CLOCK.state.lock();
        } else {
            state = CLOCK.changed.wait_timeout(state, left).0;
        }
    }
}
