//! How a cancellation reaches a wait, and which coroutines unwind.
//!
//! A wait of a coroutine that unwinds must not raise: a second unwind out of a destructor ends the process.
//! `thread::panicking` tells, but per thread and not per coroutine: while one coroutine is suspended in a
//! destructor that runs because it unwinds, it is true for all. std's count behind it cannot be read. So
//! this is what is known of the coroutine that runs:
//!
//! - If `thread::panicking` is false, it does not unwind.
//! - If it is true, no other coroutine is suspended that was running while it was true (`suspended`
//!   below counts those), and no scope is open that was opened in a destructor, it unwinds.
//! - Otherwise the matter is ambiguous. Then the coroutine unwinds if this library has raised a
//!   cancellation in it that has not been caught (`Flag::Raised`), or if the panic hook has seen it panic
//!   (`panicked_in`), or if it was known to unwind when it was suspended (`Flag::Unwinds`).
//!
//! What is not recognised: a `std::panic::resume_unwind` of the user's own in an ambiguous time, and a panic
//! there once the program has replaced the hook. In the other direction, a coroutine that catches its own
//! panic in an ambiguous time counts as unwinding until that time is over, so that no cancellation
//! reaches it before.
//!
//! A scope that is opened in a destructor, such as a time-out, is an exception: a payload that stops there
//! never leaves the destructor, so it may be raised. Opening such a scope hides all levels outside of it, and
//! begins an ambiguous time for its inside.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io::{self, Write};
use std::process;
use std::thread;
use std::time::Instant;

use super::super::cancel;
use super::super::coroutine::Suspended;
use super::super::id::Id;
use super::super::scopes::{Cause, Level, ScopeId};
use super::super::task::{Flag, Task, Wake};
use super::{Alarm, Call, Scheduler};

/// How often a coroutine may swallow a cancellation before it is given up.
const SWALLOWED_MAX: u32 = 1000;

/// What is known of the coroutines of one thread that unwind.
#[derive(Debug)]
pub(super) struct Unwinding {
    // How many coroutines are suspended that may be unwinding: those that were suspended while the thread
    // panicked. The thread itself is one more, if it panicked when the run began.
    suspended: Cell<u32>,
    // The number of the ambiguous time under way, or of the last one.
    period: Cell<u32>,
}

impl Unwinding {
    pub(super) const fn new() -> Self {
        Self { suspended: Cell::new(0), period: Cell::new(1) }
    }

    /// A run begins on this thread.
    pub(super) fn start(&self) {
        self.set_suspended(u32::from(thread::panicking()));
    }

    fn set_suspended(&self, suspended: u32) {
        if self.suspended.replace(suspended) == 0 {
            self.period.set(self.period.get() + 1);
        }
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
        if self.is_unwinding(task) {
            let raised = task.flags.set(Flag::Raised, false);
            task.panicked_in.set(0);
            let cause = if raised { Cause::Cancelled } else { Cause::Panicked };
            task.scopes.open_in_cleanup(id, timer, cause);
        } else {
            task.scopes.open(id, timer);
        }
        if deadline.is_some() && later.is_none() {
            task.scopes.request(Level::Scope(id));
        }
        id
    }

    /// Closes the innermost scope of the running coroutine.
    pub(crate) fn close_scope(&self, task: &Task, id: ScopeId) {
        let (timer, cause) = task.scopes.close(id);
        if let Some(timer) = timer {
            self.timers.borrow_mut().cancel(timer);
        }
        // It unwinds again as when the scope was opened.
        if let Some(cause) = cause {
            self.set_unwinding(task, cause);
        }
    }

    /// The running coroutine is known to unwind, in an ambiguous time.
    fn set_unwinding(&self, task: &Task, cause: Cause) {
        match cause {
            Cause::Cancelled => _ = task.flags.set(Flag::Raised, true),
            Cause::Panicked => task.panicked_in.set(self.unwinding.period.get()),
        }
    }

    /// Suspends while the thread panics, which this coroutine's unwinding makes true for all others.
    #[cold]
    pub(super) fn suspend_unwinding(&self, task: &Task, how: Suspended) {
        // A task that is not known to unwind is counted too: it may, and as long as any does, no other must
        // be taken for it.
        let suspended = &self.unwinding.suspended;
        task.flags.set(Flag::Unwinds, self.is_unwinding(task));
        task.flags.set(Flag::Counted, true);
        self.unwinding.set_suspended(suspended.get() + 1);
        // SAFETY: as in `suspend`.
        unsafe { task.suspend(how) };
        if task.flags.set(Flag::Counted, false) {
            suspended.set(suspended.get() - 1);
        }
        if task.flags.set(Flag::Unwinds, false) && !task.flags.has(Flag::Raised) {
            self.set_unwinding(task, Cause::Panicked);
        }
    }

    /// Whether `thread::panicking` may be true because of something else than `task`, which runs.
    fn is_ambiguous(&self, task: &Task) -> bool {
        self.unwinding.suspended.get() > 0 || task.scopes.in_cleanup()
    }

    /// The running coroutine panics: from the panic hook.
    pub(crate) fn note_panic(&self, task: &Task) {
        if self.is_ambiguous(task) {
            task.panicked_in.set(self.unwinding.period.get());
        }
    }

    fn has_panicked(&self, task: &Task) -> bool {
        task.panicked_in.get() == self.unwinding.period.get()
    }

    /// Whether the running coroutine is known to unwind.
    pub(crate) fn is_unwinding(&self, task: &Task) -> bool {
        thread::panicking()
            && (!self.is_ambiguous(task) || task.flags.has(Flag::Raised) || self.has_panicked(task))
    }

    /// Whether the running coroutine unwinds from a panic of its own, as far as is known.
    pub(crate) fn is_panicking(&self, task: &Task) -> bool {
        thread::panicking()
            && !task.flags.has(Flag::Raised)
            && (!self.is_ambiguous(task) || self.has_panicked(task))
    }

    /// Corrects the count when no coroutine unwinds after all: a payload was swallowed.
    pub(super) fn recount_unwinding(&self) {
        if self.unwinding.suspended.get() == 0 || thread::panicking() {
            return;
        }
        self.unwinding.suspended.set(0);
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
