//! How the scheduler knows which coroutines unwind.
//!
//! A wait must not raise a cancellation while its coroutine already unwinds: a second unwind out of
//! a destructor ends the process. `thread::panicking` does not answer that question, because std
//! counts panics per thread. While one coroutine is suspended in a destructor that an unwind runs,
//! `thread::panicking` is true for all coroutines of the thread, and the count behind it cannot be
//! read. So the scheduler decides for the running coroutine:
//!
//! 1. If `thread::panicking` is false, the coroutine does not unwind.
//! 2. Otherwise it unwinds, if nothing else can be the reason. There are two other possible
//!    reasons: another coroutine was suspended while `thread::panicking` was true, or a scope was
//!    opened in a destructor that an unwind runs (see below). `others` counts both.
//! 3. Otherwise the case is ambiguous. The coroutine unwinds if there is evidence of its own:
//!    - this library has raised a cancellation in it that has not been caught (`Flag::Raised`);
//!    - or it has begun to panic in this period of ambiguity (`panicked_in`): the panic hook has
//!      seen it, or this library has resumed a payload or closed a generator;
//!    - or it was known to unwind when it was suspended (`Flag::Unwinds`, which becomes one of the
//!      other two when the coroutine is resumed).
//!
//! A period of ambiguity begins when `others` rises from zero. Periods are numbered, so evidence
//! from an earlier period does not count.
//!
//! # Limits
//!
//! During a period of ambiguity, an unwind is not recognised if user code started it with
//! `std::panic::resume_unwind`, or if the program has replaced the panic hook. Conversely, a
//! coroutine that catches its own panic counts as unwinding until the period ends, and no
//! cancellation reaches it before that. The period ends when the coroutine suspends the next time,
//! if none unwinds then.
//!
//! A panic that begins while `Flag::Raised` is set, and that a destructor catches, counts as the
//! reason of the unwind from then on. So the cancellation poisons the locks that are left.
//! Conversely, a generator that is closed while `Flag::Raised` is set poisons none of its locks:
//! the cancellation may be what drops it, or the coroutine may have swallowed the payload before.
//!
//! # Scopes in destructors
//!
//! A destructor that an unwind runs may open a scope, such as a time-out. A cancellation of that
//! scope may be raised, because its payload stops at the scope and never leaves the destructor. So
//! opening the scope hides all levels outside of it, and clears the evidence. While the scope is
//! open, the case is ambiguous. Closing the scope restores the evidence. Locks look at that of the
//! open scopes, too: the panic outside poisons what it unlocks, wherever that is.
//!
//! A generator that is resumed in such a destructor runs in a scope of this kind. So an unwind of
//! its body is known from that of its caller.
//!
//! A coroutine that has caught its own panic may be taken for one that unwinds, and its scope for
//! one of a destructor. The end of the period shows what they are, and the levels outside of the
//! scope are visible again.
//!
//! # Payloads that are swallowed
//!
//! User code may catch the payload of a cancellation, and go on. `Flag::Raised` stays set then,
//! since the library cannot see that. A panic that begins later sets `Flag::Panicked`, and is the
//! reason of the unwind from then on. A scope that is opened meanwhile leaves `Flag::Raised` as it
//! was when it is closed, and clears it first if it hides the level of the payload.

use std::cell::Cell;
use std::thread;

use super::super::scopes::Evidence;
use super::super::task::{Flag, Task};

/// The knowledge of one thread about its unwinding coroutines.
#[derive(Debug)]
pub(super) struct Unwinding {
    // How many reasons there may be for `thread::panicking`, other than the running coroutine:
    // coroutines that were suspended while it was true, open scopes of clean-ups, and the thread's
    // own stack.
    others: Cell<u32>,
    // The thread's own stack is counted, because it was true when the loop began to run.
    host: Cell<bool>,
    // The number of the current period of ambiguity, or of the last one. Never 0.
    period: Cell<u32>,
}

impl Unwinding {
    pub(super) const fn new() -> Self {
        Self { others: Cell::new(0), host: Cell::new(false), period: Cell::new(1) }
    }

    /// A run begins on this thread.
    pub(super) fn start(&self) {
        self.others.set(0);
        self.host.set(false);
        self.enter();
    }

    /// The loop begins to run, on a stack that may be unwinding.
    pub(super) fn enter(&self) {
        if thread::panicking() && !self.host.replace(true) {
            self.count();
        }
    }

    /// Undoes [`enter`](Self::enter) when a host goes on.
    pub(super) fn leave(&self) {
        if self.host.replace(false) {
            self.uncount();
        }
    }

    fn count(&self) {
        if self.others.replace(self.others.get() + 1) == 0 {
            self.period.set(self.period.get().wrapping_add(1).max(1));
        }
    }

    fn uncount(&self) {
        self.others.set(self.others.get() - 1);
    }

    /// Whether `thread::panicking` may be true for another reason than the running coroutine.
    #[inline]
    pub(super) fn is_ambiguous(&self) -> bool {
        self.others.get() > 0
    }

    /// Notes that the running coroutine panics. The panic hook calls this.
    pub(super) fn note_panic(&self, task: &Task) {
        task.flags.set(Flag::Panicked, task.flags.has(Flag::Raised));
        self.note_unwind(task);
    }

    /// Notes that the running coroutine unwinds, from a panic or because a generator is closed.
    pub(super) fn note_unwind(&self, task: &Task) {
        if self.is_ambiguous() {
            self.set_panicked(task);
        }
    }

    fn set_panicked(&self, task: &Task) {
        task.panicked_in.set(self.period.get());
        task.scopes.note_panic();
    }

    fn has_panicked(&self, task: &Task) -> bool {
        task.panicked_in.get() == self.period.get()
    }

    /// Whether the running coroutine is known to unwind.
    #[inline]
    pub(super) fn is_unwinding(&self, task: &Task) -> bool {
        thread::panicking() && self.is_unwinding_itself(task)
    }

    #[cold]
    fn is_unwinding_itself(&self, task: &Task) -> bool {
        !self.is_ambiguous() || task.flags.has(Flag::Raised) || self.has_panicked(task)
    }

    /// Whether the running coroutine is known to unwind from a panic of its own.
    pub(super) fn is_panicking(&self, task: &Task) -> bool {
        thread::panicking()
            && if task.flags.has(Flag::Raised) {
                task.flags.has(Flag::Panicked)
            } else {
                !self.is_ambiguous() || self.has_panicked(task)
            }
    }

    /// The evidence that `task` unwinds, if it does, or has swallowed a payload.
    #[inline]
    pub(super) fn evidence(task: &Task, unwinds: bool) -> Evidence {
        let raised = task.flags.has(Flag::Raised);
        Evidence { raised, panicked: unwinds && (!raised || task.flags.has(Flag::Panicked)) }
    }

    /// Forgets all evidence.
    pub(super) fn forget(task: &Task) {
        task.flags.set(Flag::Raised, false);
        task.forget_panic();
    }

    /// Notes that `task` opens a scope in a destructor that an unwind runs.
    pub(super) fn begin_cleanup(&self, task: &Task) {
        Self::forget(task);
        self.count();
    }

    /// Undoes [`begin_cleanup`](Self::begin_cleanup), apart from the evidence.
    pub(super) fn end_cleanup(&self, task: &Task) {
        // The code of the scope may have left some, too.
        Self::forget(task);
        self.uncount();
    }

    /// Adds what [`evidence`](Self::evidence) has found.
    #[inline]
    pub(super) fn restore(&self, task: &Task, evidence: Evidence) {
        let Evidence { raised, panicked } = evidence;
        if raised {
            task.flags.set(Flag::Raised, true);
            task.flags.set(Flag::Panicked, panicked);
        } else if panicked {
            self.set_panicked(task);
        }
    }

    /// Notes that `task` is about to be suspended while `thread::panicking` is true. It stays true
    /// for all other coroutines if this one is the reason.
    pub(super) fn before_suspend(&self, task: &Task) {
        // A task that is not known to unwind is counted too, because it may be the one that does.
        // While it is suspended, `thread::panicking` proves nothing about the others.
        task.flags.set(Flag::Unwinds, self.is_unwinding(task));
        task.flags.set(Flag::Counted, true);
        self.count();
    }

    /// Undoes [`before_suspend`](Self::before_suspend) when `task` has been resumed.
    pub(super) fn after_resume(&self, task: &Task) {
        if task.flags.set(Flag::Counted, false) {
            self.uncount();
        }
        if task.flags.set(Flag::Unwinds, false) && !task.flags.has(Flag::Raised) {
            self.set_panicked(task);
        }
    }

    /// Ends the period of ambiguity if `thread::panicking` is false: then no coroutine unwinds,
    /// because a suspended one would keep it true. A coroutine was counted that did not unwind.
    /// Returns whether [`end_period_of`](Self::end_period_of) must be called for each task.
    #[inline]
    pub(super) fn end_period(&self) -> bool {
        let over = self.is_ambiguous() && !thread::panicking();
        if over {
            self.others.set(0);
            self.host.set(false);
        }
        over
    }

    /// Forgets that `task` was counted, at the end of a period. Returns whether it was taken for
    /// unwinding.
    pub(super) fn end_period_of(task: &Task) -> bool {
        task.flags.set(Flag::Counted, false);
        let cleaned = task.scopes.end_cleanups();
        task.flags.set(Flag::Unwinds, false) || cleaned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_period_has_the_number_of_a_task_that_has_never_panicked() {
        let unwinding = Unwinding::new();
        unwinding.period.set(u32::MAX);
        unwinding.count();
        assert_eq!(unwinding.period.get(), 1);
    }
}
