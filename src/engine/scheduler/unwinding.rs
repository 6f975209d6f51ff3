//! How a cancellation reaches a wait, and which coroutines unwind.
//!
//! `thread::panicking` is per thread: while one coroutine is suspended in a destructor that runs because
//! it unwinds, it is true for all. So the coroutines that are suspended then are counted here.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io::{self, Write};
use std::process;
use std::thread;
use std::time::Instant;

use super::super::cancel;
use super::super::coroutine::Suspended;
use super::super::id::Id;
use super::super::scopes::{Level, ScopeId};
use super::super::task::{Flag, Task, Wake};
use super::{Alarm, Call, Scheduler};

/// How often a coroutine may swallow a cancellation before it is given up.
const SWALLOWED_MAX: u32 = 1000;

/// How many coroutines are suspended that may be unwinding: those that suspended while the thread
/// panicked.
#[derive(Debug)]
pub(super) struct Unwinding(Cell<u32>);

impl Unwinding {
    pub(super) const fn new() -> Self {
        Self(Cell::new(0))
    }
}

impl Scheduler {
    /// Cancels a level of a coroutine of this thread.
    pub(crate) fn cancel(&self, slot: u32, id: Id, level: Level) {
        self.tasks.find(slot, id, |task| self.request(task, level));
    }

    /// Requests that a level be cancelled, and wakes the coroutine if that concerns its wait.
    pub(super) fn request(&self, task: &Task, level: Level) {
        task.scopes.request(level);
        self.wake_cancelled(task);
    }

    /// Cancels every coroutine of the run but `except`, and all that are spawned from now on. Returns the
    /// calls of this thread, which will not be made.
    pub(crate) fn close(&self, except: &Task) -> Vec<Call> {
        self.with_worker(|worker| worker.workers.close(worker.number));
        self.cancel_all(Some(except.id));
        self.cancel_calls()
    }

    /// Does on this worker what another has begun with [`close`](Self::close).
    pub(super) fn close_here(&self) {
        self.add_to_report();
        self.cancel_all(None);
        self.mailbox().set_cancelling_all(false);
        self.drop_calls();
    }

    /// Cancels every coroutine of this thread but `except`, and all that are spawned from now on.
    pub(super) fn cancel_all(&self, except: Option<Id>) {
        self.closing.set(true);
        self.tasks.for_each(|task| {
            if Some(task.id) != except {
                self.request(task, Level::Root);
            }
        });
    }

    /// Ends the wait of a task that a request concerns.
    fn wake_cancelled(&self, task: &Task) {
        if !task.scopes.is_pending() || !task.parked.get() || task.flags.has(Flag::Unwinds) {
            return;
        }
        // SAFETY: a place is set only for as long as its coroutine is parked on its account.
        let in_queue = task.place.get().is_none_or(|place| unsafe { place.as_ref() }.cancel());
        // A wait that has been served has happened, and its wake is on the way.
        if in_queue {
            self.wake_task(task, Wake::Cancelled);
        }
    }

    /// Opens a scope in the running coroutine, to be cancelled at `deadline`.
    pub(crate) fn open_scope(&self, task: &Task, deadline: Option<Instant>) -> ScopeId {
        let id = ScopeId::next(&self.next_scope);
        // A deadline that has passed needs no timer.
        let later = deadline.filter(|deadline| *deadline > self.now());
        let timer = later.map(|deadline| {
            let alarm = Alarm::Cancel(task.slot.get(), id);
            self.timers.borrow_mut().add(self.clock.nanos_at(deadline), alarm)
        });
        task.scopes.open(id, timer);
        if deadline.is_some() && later.is_none() {
            task.scopes.request(Level::Scope(id));
        }
        id
    }

    /// Closes the innermost scope of the running coroutine.
    pub(crate) fn close_scope(&self, task: &Task, id: ScopeId) {
        if let Some(timer) = task.scopes.close(id) {
            self.timers.borrow_mut().cancel(timer);
        }
    }

    /// Suspends while the thread panics, which this coroutine's unwinding makes true for all others.
    #[cold]
    pub(super) fn suspend_unwinding(&self, task: &Task, how: Suspended) {
        // A task that is not known to unwind is counted too: it may, and as long as any does, no other must
        // be taken for it.
        task.flags.set(Flag::Unwinds, self.is_unwinding(task));
        task.flags.set(Flag::Counted, true);
        let Unwinding(count) = &self.unwinding;
        count.set(count.get() + 1);
        // SAFETY: as in `suspend`.
        unsafe { task.suspend(how) };
        task.flags.set(Flag::Unwinds, false);
        let counted = task.flags.set(Flag::Counted, false);
        count.set(count.get() - u32::from(counted));
    }

    /// Whether the running coroutine is known to unwind.
    ///
    /// `thread::panicking` speaks for the thread. If no coroutine is suspended while it is true, it speaks of
    /// the running one; otherwise that unwinds if it was cancelled and its payload has not been caught.
    /// A coroutine that panics by itself at such a time is not recognised.
    pub(crate) fn is_unwinding(&self, task: &Task) -> bool {
        thread::panicking() && (self.unwinding.0.get() == 0 || task.flags.has(Flag::Raised))
    }

    /// Whether the running coroutine unwinds from a panic of its own, as far as is known.
    pub(crate) fn is_panicking(&self, task: &Task) -> bool {
        thread::panicking() && self.unwinding.0.get() == 0 && !task.flags.has(Flag::Raised)
    }

    /// Corrects the count when no coroutine unwinds after all: a payload was swallowed.
    pub(super) fn recount_unwinding(&self) {
        if self.unwinding.0.get() == 0 || thread::panicking() {
            return;
        }
        self.unwinding.0.set(0);
        self.tasks.for_each(|task| {
            task.flags.set(Flag::Counted, false);
            if task.flags.set(Flag::Unwinds, false) {
                self.wake_cancelled(task);
            }
        });
    }

    /// Whether the running coroutine's next wait must raise, or panic because it is forbidden.
    #[inline]
    pub(crate) fn is_cancel_pending(&self, task: &Task) -> bool {
        task.scopes.is_pending() && !self.is_unwinding(task)
    }

    /// Raises a pending cancellation, unless the coroutine unwinds already: a second unwind on top of one
    /// would end the process.
    #[inline]
    pub(super) fn check_cancelled(&self, task: &Task) {
        if self.is_cancel_pending(task) {
            self.raise(task);
        }
    }

    /// Raises the pending cancellation in the running coroutine, which does not unwind.
    #[cold]
    pub(crate) fn raise(&self, task: &Task) -> ! {
        assert!(
            !task.scopes.are_waits_forbidden(),
            "a wait inside of `no_wait`: move it out, or let the code around it be interleaved"
        );
        if task.flags.set(Flag::Raised, true) {
            // It was swallowed. The others go first, so that a loop around it harms only itself.
            self.suspend(task, Suspended::Ready);
            if task.count_swallowed() > SWALLOWED_MAX {
                give_up(task);
                self.suspend(task, Suspended::Abandoned);
            }
        }
        cancel::raise(task)
    }
}

/// Reports that a coroutine cannot be ended.
#[cold]
fn give_up(task: &Task) {
    let name = task.name().map_or("<unnamed>", |name| name);
    let fate = if task.flags.has(Flag::Borrows) {
        "Others have lent it what is on their stacks, so the process ends."
    } else {
        "It is abandoned: it will not run again, and what its stack holds is leaked."
    };
    // No caller can be told, and this is a bug that must not stay silent.
    let _ = writeln!(
        io::stderr(),
        "plainsong: coroutine {} '{name}', spawned at {}, was cancelled and has caught the \
         unwind {SWALLOWED_MAX} times. {fate} Let `catch_unwind` pass on what is not your panic, with \
         `resume_unwind`.",
        task.id,
        task.spawned,
    );
    if task.flags.has(Flag::Borrows) {
        process::abort();
    }
    task.abandoned();
}
