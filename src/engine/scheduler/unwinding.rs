//! How a cancellation reaches a wait, and how the scheduler knows which coroutines unwind.
//!
//! A wait must not raise a cancellation while its coroutine already unwinds: a second unwind out of
//! a destructor ends the process. `thread::panicking` does not answer that question, because std
//! counts panics per thread. While one coroutine is suspended in a destructor that an unwind runs,
//! `thread::panicking` is true for all coroutines of the thread, and the count behind it cannot be
//! read. So the scheduler decides for the running coroutine:
//!
//! 1. If `thread::panicking` is false, the coroutine does not unwind.
//! 2. Otherwise it unwinds, if nothing else can be the reason. There are two other possible
//!    reasons: another coroutine was suspended while `thread::panicking` was true (`suspended`
//!    counts these), or the coroutine has opened a scope in a destructor that an unwind runs (see
//!    below).
//! 3. Otherwise the case is ambiguous. The coroutine unwinds if there is evidence of its own:
//!    - this library has raised a cancellation in it that has not been caught (`Flag::Raised`);
//!    - or the panic hook has seen it panic in this period of ambiguity (`panicked_in`);
//!    - or it was known to unwind when it was suspended (`Flag::Unwinds`, which becomes one of the
//!      other two when the coroutine is resumed).
//!
//! A period of ambiguity begins when `suspended` rises from zero. Periods are numbered, so evidence
//! from an earlier period does not count.
//!
//! # Limits
//!
//! During a period of ambiguity, an unwind is not recognised if user code started it with
//! `std::panic::resume_unwind`, or if the program has replaced the panic hook. Conversely, a
//! coroutine that catches its own panic counts as unwinding until the period ends, and no
//! cancellation reaches it before that.
//!
//! # Scopes in destructors
//!
//! A destructor that an unwind runs may open a scope, such as a time-out. A cancellation of that
//! scope may be raised, because its payload stops at the scope and never leaves the destructor. So
//! opening the scope hides all levels outside of it, and clears the evidence. While the scope is
//! open, the case is ambiguous. Closing the scope restores the evidence.

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

/// How often a coroutine may swallow a cancellation before it is abandoned.
const SWALLOWED_MAX: u32 = 1000;

/// One thread's record of its unwinding coroutines.
#[derive(Debug)]
pub(super) struct Unwinding {
    // How many coroutines were suspended while `thread::panicking` was true, and so may be
    // unwinding. If it was true when the run began, the thread's own stack counts as one more.
    suspended: Cell<u32>,
    // The number of the current period of ambiguity, or of the last one. Never 0.
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

    /// Requests the cancellation of a level, and wakes the coroutine if the request concerns its
    /// wait.
    pub(super) fn request(&self, task: &Task, level: Level) {
        task.scopes.request(level);
        self.wake_cancelled(task);
    }

    /// Cancels every coroutine of the run except `except`, and all that are spawned from now on.
    /// Returns the calls of this thread, which will not be made.
    pub(crate) fn close(&self, except: &Task) -> Vec<Call> {
        self.with_worker(|worker| worker.workers.close(worker.number));
        self.cancel_all(Some(except.id));
        self.cancel_calls()
    }

    /// Closes the run on this worker, after another worker has called [`close`](Self::close).
    pub(super) fn close_here(&self) {
        self.add_to_report();
        self.cancel_all(None);
        self.mailbox().set_cancelling_all(false);
        self.drop_calls();
    }

    /// Cancels every coroutine of this thread except `except`, and all that are spawned from now
    /// on.
    pub(super) fn cancel_all(&self, except: Option<Id>) {
        self.closing.set(true);
        self.tasks.for_each(|task| {
            if Some(task.id) != except {
                self.request(task, Level::Root);
            }
        });
    }

    /// Ends the wait of a parked task if a pending request concerns it.
    fn wake_cancelled(&self, task: &Task) {
        if !task.scopes.is_pending() || !task.parked.get() || task.flags.has(Flag::Unwinds) {
            return;
        }
        // SAFETY: a place is set only while its coroutine is parked in `park_in_queue`, on whose
        // stack it is.
        let in_queue = task.place.get().is_none_or(|place| unsafe { place.as_ref() }.cancel());
        // If the place was no longer in its queue, the wait has been served, and its wake is on the
        // way.
        if in_queue {
            self.wake_task(task, Wake::Cancelled);
        }
    }

    /// Opens a scope in `task`, the running coroutine. The scope is cancelled at `deadline`.
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
        // The coroutine unwinds again, as it did when the scope was opened.
        if let Some(cause) = cause {
            self.set_unwinding(task, cause);
        }
    }

    /// Notes that the running coroutine unwinds, for a period of ambiguity.
    fn set_unwinding(&self, task: &Task, cause: Cause) {
        match cause {
            Cause::Cancelled => _ = task.flags.set(Flag::Raised, true),
            Cause::Panicked => task.panicked_in.set(self.unwinding.period.get()),
        }
    }

    /// Suspends while `thread::panicking` is true. It stays true for all other coroutines if this
    /// one is the reason.
    #[cold]
    pub(super) fn suspend_unwinding(&self, task: &Task, how: Suspended) {
        // A task that is not known to unwind is counted too, because it may be the one that does.
        // While it is suspended, `thread::panicking` proves nothing about the others.
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

    /// Whether `thread::panicking` may be true for another reason than `task`, the running
    /// coroutine.
    fn is_ambiguous(&self, task: &Task) -> bool {
        self.unwinding.suspended.get() > 0 || task.scopes.in_cleanup()
    }

    /// Notes that the running coroutine panics. The panic hook calls this.
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

    /// Whether the running coroutine is known to unwind from a panic of its own.
    pub(crate) fn is_panicking(&self, task: &Task) -> bool {
        thread::panicking()
            && !task.flags.has(Flag::Raised)
            && (!self.is_ambiguous(task) || self.has_panicked(task))
    }

    /// Ends the period of ambiguity if `thread::panicking` is false: then no coroutine unwinds,
    /// because a suspended one would keep it true. A coroutine was counted that did not unwind.
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

    /// Raises a pending cancellation, unless the coroutine already unwinds: a second unwind out of
    /// a destructor would end the process.
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
            // The coroutine has swallowed the last payload. The others run first, so that a loop
            // around the wait does not starve them.
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
        "It borrows from other stacks, so the process ends."
    } else {
        "It is abandoned: it will not run again, and what its stack holds is leaked."
    };
    // This is a bug in the program, and there is no caller to return an error to.
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
