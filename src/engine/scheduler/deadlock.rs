//! The report when every coroutine that is left waits for another.

use std::cell::Cell;
use std::io::{self, Write};
use std::process;
use std::time::Duration;

use super::super::task::Wait;
use super::Scheduler;

/// Whether something outside of the run could wake a coroutine of this thread.
#[derive(Debug)]
pub(super) struct Outside {
    // How many waits are under way that something outside of the run could end.
    count: Cell<u32>,
    // No plain thread takes part, so waits that only a plain thread could end are not counted.
    strict: Cell<bool>,
}

impl Outside {
    pub(super) const fn new() -> Self {
        Self { count: Cell::new(0), strict: Cell::new(false) }
    }

    pub(super) fn set_strict(&self, strict: bool) {
        self.strict.set(strict);
    }

    /// Whether nothing outside of the run could end a wait that is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// A wait begins. Returns whether it is counted, for [`leave`](Self::leave).
    #[inline]
    pub(super) fn enter(&self, wait: Wait) -> bool {
        let internal = wait.is_internal() || self.strict.get() && wait.is_ended_by_threads();
        self.count.set(self.count.get() + u32::from(!internal));
        !internal
    }

    /// A wait is over.
    #[inline]
    pub(super) fn leave(&self, counted: bool) {
        self.count.set(self.count.get() - u32::from(counted));
    }
}

impl Scheduler {
    /// Notes that a plain thread may, or may no longer, cancel a wait of a coroutine.
    pub(crate) fn watched_from_outside(&self, watched: bool) {
        let counted = !self.outside.strict.get();
        if watched {
            self.outside.count.set(self.outside.count.get() + u32::from(counted));
        } else {
            self.outside.leave(counted);
        }
    }

    /// Handles a deadlock: every coroutine that is left, on any worker, waits for another of them.
    /// Cancels them all. `run` panics with the report when they have ended.
    #[cold]
    pub(super) fn report_deadlock(&self) {
        let waits = self.list_waits();
        if !self.with_worker(|worker| worker.workers.report(&waits)) {
            // This is the second deadlock of the run: the cancelled coroutines do not end, because
            // their destructors wait for each other.
            let _ = writeln!(
                io::stderr(),
                "plainsong: while unwinding from a deadlock, every coroutine that is left waits for another \
                 of them:{waits}"
            );
            process::abort();
        }
        self.with_worker(|worker| worker.workers.close(worker.number));
        self.cancel_all(None);
    }

    /// Adds this worker's coroutines to the report, if another worker closes the run because of a
    /// deadlock.
    pub(super) fn add_to_report(&self) {
        self.with_worker(|worker| {
            if worker.workers.deadlock().is_some() {
                worker.workers.report(&self.list_waits());
            }
        });
    }

    /// Lists the coroutines of this thread and their waits.
    fn list_waits(&self) -> String {
        let mut list = String::new();
        let now = (self.clock.update() / 1_000_000) as u32;
        self.tasks.for_each(|task| {
            let name = task.name().map_or("<unnamed>", |name| name);
            let since = Duration::from_millis(u64::from(now.wrapping_sub(task.since.get())));
            let (id, wait, spawned) = (task.id, task.waiting.get(), task.spawned);
            list += &format!(
                "\n  {id} '{name}' has waited for {since:?} for {wait}; spawned at {spawned}"
            );
        });
        list
    }
}
