//! What is said and done when nobody is left who could go on.

use std::io::{self, Write};
use std::process;
use std::time::Duration;

use super::scheduler::Scheduler;
use super::task::Wait;

impl Scheduler {
    /// Notes that somebody outside can, or can no longer, cancel what a coroutine waits for.
    pub(crate) fn watched_from_outside(&self, watched: bool) {
        if !self.strict.get() {
            let outside = self.outside.get();
            self.outside.set(if watched { outside + 1 } else { outside - 1 });
        }
    }

    /// Whether something else than a coroutine of this thread may end such a wait.
    pub(super) fn is_ended_from_outside(&self, wait: Wait) -> bool {
        !(wait.is_internal() || self.strict.get() && wait.is_ended_by_threads())
    }

    /// Every coroutine that is left, on any worker, waits for another of them. Cancels them all: `run`
    /// panics with the report when they have ended.
    #[cold]
    pub(super) fn report_deadlock(&self) {
        let waits = self.list_waits();
        if !self.at_post(|post| post.workers.report(&waits)) {
            // Not even the cancelled ones end: their destructors wait for each other.
            let _ = writeln!(
                io::stderr(),
                "plainsong: while unwinding from a deadlock, every coroutine that is left waits for another \
                 of them:{waits}"
            );
            process::abort();
        }
        self.at_post(|post| post.workers.close(post.number));
        self.cancel_all(None);
    }

    /// Another worker closes the run: if that is because of a deadlock, this one has its part in it.
    pub(super) fn add_to_report(&self) {
        self.at_post(|post| {
            if post.workers.deadlock().is_some() {
                post.workers.report(&self.list_waits());
            }
        });
    }

    /// What each coroutine of this thread waits for.
    fn list_waits(&self) -> String {
        let mut list = String::new();
        let now = (self.elapsed() / 1_000_000) as u32;
        for (_, task) in &*self.tasks.borrow() {
            let name = task.name().map_or("<unnamed>", |name| name);
            let since = Duration::from_millis(u64::from(now.wrapping_sub(task.since.get())));
            let (id, wait, spawned) = (task.id, task.waiting.get(), task.spawned);
            list += &format!(
                "\n  {id} '{name}' has waited for {since:?} for {wait}; spawned at {spawned}"
            );
        }
        list
    }
}
