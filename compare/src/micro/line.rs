//! A stopwatch that many tasks share: it records when the first and the last of them pass.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A line that each of a number of tasks crosses once.
///
/// Its atomics are for the runtimes that require `Send`. They cost a task a few nanoseconds.
pub(super) struct Line {
    expected: usize,
    crossed: AtomicUsize,
    first: OnceLock<Instant>,
    last: OnceLock<Instant>,
}

impl Line {
    pub(super) fn new(expected: usize) -> Line {
        Line {
            expected,
            crossed: AtomicUsize::new(0),
            first: OnceLock::new(),
            last: OnceLock::new(),
        }
    }

    pub(super) fn cross(&self) {
        let crossed = self.crossed.fetch_add(1, Relaxed) + 1;
        if crossed == 1 {
            let _ = self.first.set(Instant::now());
        }
        if crossed == self.expected {
            let _ = self.last.set(Instant::now());
        }
    }

    pub(super) fn all_crossed(&self) -> bool {
        // Not the count, because the last task may have counted and not yet recorded the time.
        self.last.get().is_some()
    }

    /// When the first task crossed. Panics if none has.
    pub(super) fn first(&self) -> Instant {
        *self.first.get().expect("no task has crossed the line")
    }

    /// When the last task crossed. Panics unless all have.
    pub(super) fn last(&self) -> Instant {
        *self.last.get().expect("not all tasks have crossed the line")
    }
}

/// Nanoseconds for each of `count`.
pub(super) fn ns_each(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}
