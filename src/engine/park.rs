//! The one door to the engine for everything that waits or wakes: sockets, locks, channels, timers.
//!
//! A wait is four steps, and [`until`] does them all:
//!
//! 1. [`waiter`] names the next wait of the calling coroutine, or of the calling plain thread.
//! 2. The caller lists the waiter where the event will be seen.
//! 3. [`block`] parks the coroutine, or blocks the thread, until [`wake`] ends this very wait.
//! 4. A wait that timed out or was cancelled takes the waiter out of its list.
//!
//! Nothing is lost between 2 and 3: a wake that comes before the park ends that park at once.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::blocking_pool as pool;
use super::context;
use super::current;
use super::id::Id;
use super::mailbox::{Mailbox, ThreadId};
use super::task::{CancelWait, Wait, Wake};
use super::waiter::{Parker, Waiter, Waiters};

pub(crate) use super::context::{Running, running};
pub(crate) use super::current::in_coroutine;

/// The next wait of the calling coroutine, or else of the calling thread. It must [`block`] next.
#[inline]
pub(crate) fn waiter() -> Parker {
    context::running(|running| match running {
        Some(Running { scheduler, task }) => scheduler.prepare(task),
        None => thread_waiter(),
    })
}

#[cold]
fn thread_waiter() -> Parker {
    let mailbox = context::try_with(|scheduler| scheduler.mailbox());
    Parker::thread(mailbox.unwrap_or_else(Mailbox::late))
}

/// Waits until `parker`, made here just before, is woken, or `deadline` has passed.
///
/// Unwinds instead of returning when the coroutine has been cancelled and the wait has not happened: what
/// a wake has handed over is never lost.
#[inline(always)]
pub(crate) fn block(parker: Parker, why: Wait, deadline: Option<Instant>) -> Wake {
    check_cancelled();
    let wake = block_unless_cancelled(parker, why, deadline);
    if wake == Wake::Cancelled {
        raise();
    }
    wake
}

/// [`block`], for a wait that must be forgotten elsewhere before its coroutine unwinds: it returns
/// `Wake::Cancelled` where that unwinds. Call [`check_cancelled`] before, and [`raise`] after.
///
/// It is part of its callers, down to the switch: each return that follows a switch is predicted wrongly by
/// the processor.
#[inline(always)]
pub(crate) fn block_unless_cancelled(parker: Parker, why: Wait, deadline: Option<Instant>) -> Wake {
    if parker.is_thread() {
        return block_thread(parker, deadline);
    }
    context::running(
        #[inline(always)]
        |running| match running {
            Some(Running { scheduler, task }) => scheduler.park(task, why, deadline),
            // The parker was made by the coroutine that runs.
            None => Wake::Ready,
        },
    )
}

/// [`block_unless_cancelled`], for a wait with a place in a queue, which a cancellation takes out of it at
/// once, on whatever thread it is requested. (Only the request to cancel one of the scopes inside of a
/// coroutine, made on another thread, takes effect when the coroutine's thread learns of it.)
#[inline(always)]
pub(crate) fn block_in_queue(
    parker: Parker,
    why: Wait,
    deadline: Option<Instant>,
    place: &dyn CancelWait,
) -> Wake {
    if parker.is_thread() {
        return block_thread(parker, deadline);
    }
    context::running(
        #[inline(always)]
        |running| match running {
            Some(Running { scheduler, task }) => {
                scheduler.park_in_queue(task, why, deadline, place)
            }
            None => Wake::Ready,
        },
    )
}

/// The coroutine that calls this, if a cancellation of the whole of it would end its next wait: what
/// [`Waiter::is_being_cancelled`] asks for.
#[inline]
pub(crate) fn cancellable_id() -> Option<Id> {
    context::running(|running| {
        let Running { scheduler, task } = running?;
        let hidden = task.scopes.is_root_shielded() || scheduler.is_unwinding(task);
        (!hidden).then_some(task.id)
    })
}

#[cold]
fn block_thread(parker: Parker, deadline: Option<Instant>) -> Wake {
    let woken = pool::while_blocked(|| parker.block(deadline));
    if woken { Wake::Ready } else { Wake::TimedOut }
}

/// Waits until a waiter that `list` has listed is woken, or `deadline` has passed. `list` returns what
/// takes the waiter out again in its drop, or `None` when there is nothing to wait for any more.
///
/// Unwinds like [`block`], with the waiter taken out.
#[inline(always)]
pub(crate) fn until<L>(
    why: Wait,
    deadline: Option<Instant>,
    list: impl FnOnce(Waiter) -> Option<L>,
) -> Wake {
    let parker = waiter();
    match list(parker.into()) {
        Some(_listed) => block(parker, why, deadline),
        None => Wake::Ready,
    }
}

/// Raises a cancellation that is pending, or panics where waits are forbidden.
#[inline]
pub(crate) fn check_cancelled() {
    if is_cancel_pending() {
        raise();
    }
}

/// Whether a wait must raise, or panic because it is forbidden.
#[inline]
pub(crate) fn is_cancel_pending() -> bool {
    context::running(|running| {
        running.is_some_and(|Running { scheduler, task }| scheduler.is_cancel_pending(task))
    })
}

/// Raises the cancellation that is pending, or that ended the last wait.
#[cold]
pub(crate) fn raise() -> ! {
    context::running(|running| match running {
        // That it does not unwind already was known when its wait was ended.
        Some(Running { scheduler, task }) => scheduler.raise(task),
        None => unreachable!("a plain thread is never cancelled"),
    })
}

/// Ends the wait of `waiter`, wherever it is.
#[inline]
pub(crate) fn wake(waiter: Waiter) {
    match waiter {
        Waiter::Parked(parker) => {
            let local = context::try_with(|scheduler| {
                let (slot, wait) = parker.local_to(scheduler.mailbox())?;
                scheduler.unpark(slot, wait);
                Some(())
            });
            if local.flatten().is_none() {
                parker.send();
            }
        }
        Waiter::Future(cell) => cell.wake(),
    }
}

/// Ends the waits of all these waiters. The waker of a future may panic: then the panic goes on when all
/// others have been woken.
pub(crate) fn wake_all(waiters: Waiters) {
    let mut panicked = None;
    waiters.into_iter().for_each(|waiter| match waiter {
        Waiter::Parked(_) => wake(waiter),
        Waiter::Future(_) => wake_future(waiter, &mut panicked),
    });
    if let Some(payload) = panicked {
        panic::resume_unwind(payload);
    }
}

#[cold]
fn wake_future(waiter: Waiter, panicked: &mut Option<Box<dyn Any + Send>>) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| wake(waiter))) {
        // Of several, the first goes on. The drop of a payload may panic.
        match panicked {
            None => *panicked = Some(payload),
            Some(_) => mem::forget(payload),
        }
    }
}

/// Counts an operation that did not have to wait, and yields if it was one too many.
#[inline]
pub(crate) fn spend() {
    if !current::spend() {
        overspent();
    }
}

#[cold]
fn overspent() {
    context::running(|running| match running {
        Some(Running { scheduler, task }) => scheduler.overspent(task),
        // A plain thread has no turn that would end.
        None => current::set_budget(u32::MAX),
    });
}

/// The time, as the scheduler of this thread has it.
#[inline]
pub(crate) fn now() -> Instant {
    context::try_with(|scheduler| scheduler.now()).unwrap_or_else(Instant::now)
}

/// The time after `timeout`; `None`, which does not come, when the clock cannot hold it.
#[inline]
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    now().checked_add(timeout)
}

/// Calls `f` with the levels that are open now hidden from the waits inside of it.
pub(crate) fn shield<T>(f: impl FnOnce() -> T) -> T {
    current::with(|task| {
        let _shield = task.map(|task| task.scopes.shield());
        f()
    })
}

/// Prefetches what the running coroutine will use first after its next wait, just before it is resumed.
#[inline]
pub(crate) fn prefetch_on_resume<T>(what: &T) {
    current::with(|task| {
        if let Some(task) = task {
            task.ahead.set(std::ptr::from_ref(what).cast());
        }
    });
}

/// Whether this is a coroutine, and `thread` runs coroutines of the same run.
pub(crate) fn shares_run_with(thread: ThreadId) -> bool {
    context::running(|running| {
        running.is_some_and(|Running { scheduler, .. }| {
            thread == ThreadId::current()
                || scheduler.with_worker(|worker| worker.workers.has_thread(thread))
        })
    })
}

/// Whether a panic is unwinding the caller, as far as is known; a cancellation is none.
#[inline]
pub(crate) fn is_panicking() -> bool {
    std::thread::panicking()
        && context::running(|running| {
            running.is_none_or(|Running { scheduler, task }| scheduler.is_panicking(task))
        })
}

/// Whether the running coroutine is known to unwind, from a panic or a cancellation.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking()
        && context::running(|running| {
            running.is_some_and(|Running { scheduler, task }| scheduler.is_unwinding(task))
        })
}
