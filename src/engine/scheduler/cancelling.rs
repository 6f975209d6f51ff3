//! How a cancellation reaches a wait: request, wake, raise.

use std::io::{self, Write};
use std::process;

use super::super::cancel;
use super::super::coroutine::Suspended;
use super::super::current;
use super::super::id::Id;
use super::super::scopes::{CancelReason, Level, ScopeId, ScopeSettings, Until};
use super::super::task::{Flag, Task, Wake};
use super::core::Scheduler;
use super::unwinding::Unwinding;

/// How often a coroutine may swallow a cancellation before it is abandoned.
const SWALLOWED_MAX: u32 = 1000;

impl Scheduler {
    /// Cancels a level of a coroutine of this thread.
    pub(crate) fn cancel(&self, slot: u32, id: Id, level: Level, reason: Option<&CancelReason>) {
        self.tasks.find(slot, id, |task| self.request(task, level, reason));
        self.host.notify();
    }

    /// Requests the cancellation of a level, and wakes the coroutine if the request concerns its
    /// wait.
    pub(super) fn request(&self, task: &Task, level: Level, reason: Option<&CancelReason>) {
        self.observer.cancelled(task);
        task.scopes.request(level, reason);
        self.wake_cancelled(task);
    }

    /// Cancels every coroutine of this thread except `except`, and all that are spawned from now
    /// on.
    pub(super) fn cancel_all(&self, except: Option<Id>) {
        self.closing.set(true);
        self.tasks.for_each(|task| {
            if Some(task.id) != except {
                self.request(task, Level::Root, None);
            }
        });
    }

    /// Ends the wait of a parked task if a pending request concerns it.
    fn wake_cancelled(&self, task: &Task) {
        if !task.scopes.is_pending() || task.flags.has(Flag::Unwinds) {
            return;
        }
        // If the place was no longer in its queue, the wait has been served, and its wake is on the
        // way. A wait that has timed out leaves its queue, too, although its coroutine is ready.
        if task.leave_queue() && task.parked.get() {
            self.wake_task(task, Wake::Cancelled);
        }
    }

    /// Ends a period of ambiguity in which no coroutine unwinds any more, and wakes coroutines
    /// whose cancellation it has held back. Returns whether there was such a period.
    #[inline]
    pub(super) fn recount_unwinding(&self) -> bool {
        let over = self.unwinding.end_period();
        if over {
            self.tasks.for_each(|task| {
                if Unwinding::end_period_of(task) {
                    self.wake_cancelled(task);
                }
            });
        }
        over
    }

    /// Opens a scope in `task`, the running coroutine.
    #[inline]
    pub(crate) fn open_scope(&self, task: &Task, until: Until) -> ScopeId {
        let id = task.scopes.next_id(&self.next_scope);
        let cleanup = self.is_unwinding(task);
        let outside = Unwinding::evidence(task, cleanup);
        if cleanup {
            self.unwinding.begin_cleanup(task);
        // If nothing is requested that a wait here would see, the payload that was swallowed is of
        // a hidden level, and does not count against this scope.
        } else if outside.raised && !task.scopes.is_pending() {
            Unwinding::forget(task);
        }
        task.scopes.open(id, until, outside, cleanup);
        match until {
            Until::Passed => task.scopes.request(Level::Scope(id), None),
            Until::Token { outside } => self.outside.set_watched(true, outside),
            Until::Closed | Until::Later(_) | Until::Fails(_) => {}
        }
        id
    }

    /// Closes the innermost scope of the running coroutine. Returns whether the coroutine unwinds
    /// again, or has swallowed the payload of a level outside, as when the scope was opened.
    #[inline]
    pub(crate) fn close_scope(&self, task: &Task, id: ScopeId) -> bool {
        let Some((settings, outside, cleanup)) = task.scopes.close(id) else { return false };
        self.undo(&settings);
        if cleanup {
            self.unwinding.end_cleanup(task);
        }
        self.unwinding.restore(task, outside);
        cleanup || outside.raised
    }

    /// Undoes the settings of a scope.
    pub(super) fn undo(&self, settings: &ScopeSettings) {
        if let Some(timer) = settings.timer {
            self.alarms.cancel(timer);
        }
        if let Some(outside) = settings.token {
            self.outside.set_watched(false, outside);
        }
    }

    /// Whether the running coroutine's next wait must raise, or panic because it is forbidden.
    #[inline]
    pub(crate) fn is_cancel_pending(&self, task: &Task) -> bool {
        task.scopes.is_pending() && (task.scopes.are_waits_forbidden() || !self.is_unwinding(task))
    }

    /// Raises a pending cancellation, unless the coroutine already unwinds: a second unwind out of
    /// a destructor would end the process.
    #[inline]
    fn check_cancelled(&self, task: &Task) {
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
        if task.scopes.abandons() {
            self.give_up(task);
        }
        task.flags.set(Flag::Panicked, false);
        // If so, the coroutine has swallowed the last payload.
        let has_swallowed = task.flags.has(Flag::Raised);
        if has_swallowed || !current::spend() {
            // The others run first, so that a loop around the wait does not starve them.
            self.switch(task, Suspended::Ready);
        }
        if has_swallowed && task.count_swallowed() > SWALLOWED_MAX {
            report_swallowing(task);
            self.give_up(task);
        }
        task.flags.set(Flag::Raised, true);
        cancel::raise(task)
    }

    /// Ends the running coroutine without an unwind.
    fn give_up(&self, task: &Task) -> ! {
        task.clear_raised();
        {
            // This calls wakers, which are user code: in a scope, so that they cannot suspend a
            // generator with our frames. A wait of theirs that a cancellation of the root would end
            // ends the coroutine.
            let _scope = task.scopes.shield(false);
            task.abandoned();
        }
        self.switch(task, Suspended::Abandoned);
        unreachable!("a coroutine that is given up does not run again")
    }

    /// Yields because the budget is spent.
    #[cold]
    pub(crate) fn overspent(&self, task: &Task) {
        if !task.scopes.are_waits_forbidden() {
            // The operations took time, so a tick is due.
            self.set_turns_left(1);
            let yields = &self.observer.budget_yields;
            yields.set(yields.get() + 1);
            if !task.scopes.abandons() {
                self.check_cancelled(task);
            }
            self.switch(task, Suspended::Ready);
            // The operation need not wait. A coroutine that may not unwind out of it goes on, to a
            // wait that may unwind it. But a loop of such operations must end.
            if !task.scopes.abandons() || task.count_swallowed() > SWALLOWED_MAX {
                self.check_cancelled(task);
            }
        }
    }

    /// Lets the other ready coroutines run before `task`, the running one.
    #[inline]
    pub(crate) fn yield_now(&self, task: &Task) {
        if task.scopes.yields_slowly() {
            self.check_cancelled(task);
            self.switch(task, Suspended::Ready);
        } else {
            self.suspend(task, Suspended::Ready);
        }
        self.check_cancelled(task);
    }

    /// Switches to the loop, whether the switch is slow or not.
    #[cold]
    fn switch(&self, task: &Task, how: Suspended) {
        if task.scopes.switches_slowly() {
            self.suspend_slowly(task, how);
        } else {
            self.suspend(task, how);
        }
    }
}

/// Reports that a coroutine cannot be ended. Ends the process if it must not be given up.
#[cold]
fn report_swallowing(task: &Task) {
    let name = task.name().map_or("<unnamed>", |name| name);
    let fate = if task.flags.has(Flag::Borrows) {
        "It borrows from other stacks, so the process ends."
    } else {
        "It is abandoned: it will not run again, and what its stack holds is leaked."
    };
    let reason = task.scopes.target().and_then(|level| task.scopes.reason(level));
    let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
    // This is a bug in the program, and there is no caller to return an error to.
    let _ = writeln!(
        io::stderr(),
        "plainsong: coroutine {} '{name}', spawned at {}, was cancelled{reason} and has caught the \
         unwind {SWALLOWED_MAX} times. {fate} Let `catch_unwind` pass on what is not your panic, with \
         `resume_unwind`.",
        task.id,
        task.spawned,
    );
    if task.flags.has(Flag::Borrows) {
        process::abort();
    }
}
