//! How a cancellation reaches a wait, and what keeps it from one that unwinds.
//!
//! `thread::panicking` is per thread: while one coroutine is suspended in a destructor that
//! runs because it unwinds, it is true for all. So who unwinds is counted here, at each suspension.

#![allow(unsafe_code)]

use std::io::{self, Write};
use std::process;
use std::thread;
use std::time::Instant;

use super::calls::Call;
use super::cancel::{self, ScopeId};
use super::context;
use super::coroutine::Suspended;
use super::scheduler::{Alarm, Scheduler, suspend};
use super::task::{Flag, Id, Task, Wake};

/// How often a coroutine may swallow a cancellation before it is given up.
const SWALLOWED_MAX: u32 = 1000;

impl Scheduler {
    /// Cancels a scope of a coroutine of this thread, or its root.
    pub(crate) fn cancel(&self, slot: u32, id: Id, scope: Option<ScopeId>) {
        self.find(slot, id, |task| {
            task.request(scope);
            self.interrupt(task);
        });
    }

    /// Cancels every coroutine of the run but `except`, and whatever is spawned from now on. Returns the
    /// calls of this thread, which will not be made.
    pub(crate) fn close(&self, except: &Task) -> Vec<Call> {
        self.at_post(|post| post.workers.close(post.number));
        self.cancel_all(Some(except.id));
        self.cancel_calls()
    }

    /// Does what another worker has begun with [`close`](Self::close).
    pub(super) fn close_all(&self) {
        self.add_to_report();
        self.cancel_all(None);
        self.drop_calls();
    }

    /// Cancels every coroutine of this thread but `except`, and whatever is spawned from now on.
    pub(super) fn cancel_all(&self, except: Option<Id>) {
        self.closing.set(true);
        for (_, task) in self.tasks.borrow().iter().filter(|(_, task)| Some(task.id) != except) {
            task.request(None);
            self.interrupt(task);
        }
    }

    /// Ends the wait of a task that a cancellation has reached.
    pub(super) fn interrupt(&self, task: &Task) {
        if task.interrupt.get() && task.parked.get() && !task.flags.has(Flag::Unwinds) {
            self.wake_task(task, Wake::Cancelled);
        }
    }

    /// Opens a scope in the running coroutine, to be cancelled at `deadline`.
    pub(crate) fn open_scope(&self, task: &Task, deadline: Option<Instant>) -> ScopeId {
        let id = ScopeId::next(&self.next_scope);
        let timer = deadline.map(|deadline| {
            let alarm = Alarm::Cancel(task.slot.get(), id);
            self.timers.borrow_mut().add(self.nanos(deadline), alarm)
        });
        task.open_scope(id, timer);
        id
    }

    /// Closes the innermost scope of the running coroutine.
    pub(crate) fn close_scope(&self, task: &Task, id: ScopeId) {
        if let Some(timer) = task.close_scope(id) {
            self.timers.borrow_mut().cancel(timer);
        }
    }

    /// Suspends while the thread panics, which this coroutine's unwinding makes true for all others.
    #[cold]
    pub(super) fn suspend_unwinding(&self, task: &Task, how: Suspended) {
        // One that is not known to unwind is counted too: it may, and as long as somebody does,
        // nobody else must be taken for the one.
        task.flags.set(Flag::Unwinds, self.is_unwinding(task));
        task.flags.set(Flag::Counted, true);
        self.unwinding.set(self.unwinding.get() + 1);
        // SAFETY: as in `suspend`.
        unsafe { task.suspend(how) };
        task.flags.set(Flag::Unwinds, false);
        let counted = task.flags.set(Flag::Counted, false);
        self.unwinding.set(self.unwinding.get() - u32::from(counted));
    }

    /// Whether the running coroutine is known to unwind.
    ///
    /// `thread::panicking` speaks for the thread. If nobody is suspended while it is true, it speaks of
    /// the running coroutine; otherwise that unwinds if it was cancelled and its payload
    /// has not been caught. One that panics by itself at such a time is not recognised.
    pub(crate) fn is_unwinding(&self, task: &Task) -> bool {
        thread::panicking() && (self.unwinding.get() == 0 || task.flags.has(Flag::Raised))
    }

    /// Whether the running coroutine unwinds from a panic of its own, as far as is known.
    pub(crate) fn is_panicking(&self, task: &Task) -> bool {
        thread::panicking() && self.unwinding.get() == 0 && !task.flags.has(Flag::Raised)
    }

    /// Corrects the count when nobody unwinds after all: someone had swallowed the payload.
    pub(super) fn settle_unwinding(&self) {
        if self.unwinding.get() == 0 || thread::panicking() {
            return;
        }
        self.unwinding.set(0);
        for (_, task) in &*self.tasks.borrow() {
            task.flags.set(Flag::Counted, false);
            if task.flags.set(Flag::Unwinds, false) {
                self.interrupt(task);
            }
        }
    }
}

/// Unwinds the running coroutine, unless it unwinds already: a second unwind on top of one would
/// end the process.
#[cold]
pub(super) fn raise(task: &Task) {
    if !context::with(|cx| cx.scheduler.is_unwinding(task)) {
        interrupt(task);
    }
}

/// Unwinds the running coroutine, which does not unwind.
#[cold]
pub(super) fn interrupt(task: &Task) -> ! {
    assert!(
        !task.must_not_wait(),
        "a wait inside of `no_wait`: move it out, or let the code around it be interleaved"
    );
    unwind(task)
}

#[cold]
pub(super) fn unwind(task: &Task) -> ! {
    if task.flags.set(Flag::Raised, true) {
        // It was swallowed. The others go first, so that a loop around it harms only itself.
        suspend(task, Suspended::Ready);
        if task.count_swallowed() > SWALLOWED_MAX {
            give_up(task);
            suspend(task, Suspended::Abandoned);
        }
    }
    cancel::raise(task)
}

/// Says that a coroutine cannot be ended.
#[cold]
fn give_up(task: &Task) {
    let name = task.name().map_or("<unnamed>", |name| name);
    let fate = if task.flags.has(Flag::Borrows) {
        "Others have lent it what is on their stacks, so the process ends."
    } else {
        "It is abandoned: it will not run again, and what its stack holds is leaked."
    };
    // Nobody else can be told, and this is a bug that must not stay silent.
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
