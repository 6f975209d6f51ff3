//! Parking and waking: how locks, channels, timers and all other code above the engine wait. (Waits
//! for descriptors go through `descriptor.rs`, in the same steps.)
//!
//! A wait is four steps, and [`until`] does them all:
//!
//! 1. [`waiter`] names the next wait of the calling coroutine, or of the calling plain thread.
//! 2. The caller puts the waiter into a list, where the thread that causes the event will find it.
//! 3. [`block`] parks the coroutine, or blocks the thread, until [`wake`] ends this very wait.
//! 4. A wait that timed out or was cancelled takes the waiter out of its list.
//!
//! No wake is lost between steps 2 and 3: if it comes before the park, the park ends at once. A
//! wake that comes too late does nothing, because each wait has its own number.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::blocking_pool as pool;
use super::cancel;
use super::context;
use super::current;
use super::id::Id;
use super::mailbox::{Mailbox, ThreadId};
use super::scopes::{ScopeId, Until};
use super::task::{CancelWait, Flag, Task, Wait, Wake};
use super::waiter::{Parker, Waiter};

pub(crate) use super::context::{Running, running};
pub(crate) use super::current::in_coroutine;

/// Names the next wait of the calling coroutine, or else of the calling thread, which must
/// [`block`] next.
#[inline]
pub(crate) fn waiter() -> Parker {
    context::running(waiter_of)
}

/// [`waiter`], for a caller that knows what runs.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn waiter_of(running: Option<Running<'_>>) -> Parker {
    match running {
        Some(Running { scheduler, task }) => scheduler.prepare(task),
        None => thread_waiter(),
    }
}

#[cold]
fn thread_waiter() -> Parker {
    current::refuse_to_block();
    let mailbox = context::try_with(|scheduler| scheduler.mailbox());
    Parker::thread(mailbox.unwrap_or_else(Mailbox::late))
}

/// Waits until `parker`, from the last call of [`waiter`], is woken, or `deadline` has passed.
///
/// Unwinds instead of returning if the coroutine was cancelled before a wake came. A wait that was
/// woken returns, so whatever the wake has handed over is never lost.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn block(parker: Parker, why: Wait, deadline: Option<Instant>) -> Wake {
    check_cancelled();
    let wake = block_unless_cancelled(parker, why, deadline);
    if wake == Wake::Cancelled {
        raise();
    }
    wake
}

/// [`block`], for a caller that must clean up before its coroutine unwinds: returns
/// `Wake::Cancelled` where `block` unwinds. Call [`check_cancelled`] before it, and [`raise`] after
/// the clean-up.
///
/// Inlined into its callers down to the switch, because the processor mispredicts each return that
/// follows a switch.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn block_unless_cancelled(parker: Parker, why: Wait, deadline: Option<Instant>) -> Wake {
    if parker.is_thread() {
        return block_thread(parker, deadline);
    }
    context::running(
        #[cfg_attr(not(debug_assertions), inline(always))]
        |running| match running {
            Some(Running { scheduler, task }) => scheduler.park(task, why, deadline),
            // Not reached: the running coroutine has made the parker.
            None => Wake::Ready,
        },
    )
}

/// [`block_unless_cancelled`], for a wait with a place in a queue. A cancellation takes the place
/// out at once, whichever thread requests it. (There is one exception: a request from another
/// thread to cancel a scope inside of the coroutine takes effect when the coroutine's thread takes
/// the message.)
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn block_in_queue(
    running: Option<Running<'_>>,
    parker: Parker,
    why: Wait,
    deadline: Option<Instant>,
    place: &dyn CancelWait,
) -> Wake {
    match running {
        Some(Running { scheduler, task }) => scheduler.park_in_queue(task, why, deadline, place),
        None => block_thread(parker, deadline),
    }
}

/// The calling coroutine, if a cancellation of its root would end its next wait: the argument of
/// [`Waiter::is_being_cancelled`].
#[inline]
pub(crate) fn cancellable_id(running: Option<Running<'_>>) -> Option<Id> {
    let Running { scheduler, task } = running?;
    let hidden = task.scopes.is_root_shielded() || scheduler.is_unwinding(task);
    (!hidden).then_some(task.id)
}

#[cold]
fn block_thread(parker: Parker, deadline: Option<Instant>) -> Wake {
    let woken = pool::while_blocked(|| parker.block(deadline));
    if woken { Wake::Ready } else { Wake::TimedOut }
}

/// Waits until the waiter that `list` gets is woken, or `deadline` has passed. `list` puts the
/// waiter into a list and returns a guard whose drop takes it out again, or `None` if there is
/// nothing to wait for any more.
///
/// Unwinds like [`block`], after the guard was dropped.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn until<L>(
    why: Wait,
    deadline: Option<Instant>,
    list: impl FnOnce(Waiter) -> Option<L>,
) -> Wake {
    let parker = waiter();
    let Some(listed) = list(parker.into()) else { return Wake::Ready };
    let wake = if is_cancel_pending() {
        Wake::Cancelled
    } else {
        block_unless_cancelled(parker, why, deadline)
    };
    // The coroutine may be given up below, without an unwind.
    drop(listed);
    if wake == Wake::Cancelled {
        raise();
    }
    wake
}

/// Raises a pending cancellation, or panics where waits are forbidden.
#[inline]
pub(crate) fn check_cancelled() {
    if is_cancel_pending() {
        raise();
    }
}

/// Whether the next wait panics because waits are forbidden here.
pub(crate) fn are_waits_refused() -> bool {
    context::running(|running| match running {
        Some(Running { task, .. }) => task.scopes.are_waits_forbidden(),
        None => current::refuses_to_block(),
    })
}

/// Whether the next wait must raise a cancellation, or panic because waits are forbidden.
#[inline]
pub(crate) fn is_cancel_pending() -> bool {
    context::running(|running| {
        running.is_some_and(|Running { scheduler, task }| scheduler.is_cancel_pending(task))
    })
}

/// Raises the cancellation that is pending, or that ended the last wait.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn raise() -> ! {
    context::running(
        #[cfg_attr(not(debug_assertions), inline(always))]
        |running| match running {
            // The coroutine does not unwind yet: that was checked when its wait was ended.
            Some(Running { scheduler, task }) => scheduler.raise(task),
            None => unreachable!("a plain thread is never cancelled"),
        },
    )
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

/// Ends the waits of all these waiters. The waker of a future is user code and may panic. The panic
/// is resumed after all waiters have been woken.
pub(crate) fn wake_all(waiters: impl IntoIterator<Item = Waiter>) {
    // A waker may wait, and its coroutine be given up there. So it comes last.
    let (mut futures, mut panicked) = (Vec::new(), None);
    waiters.into_iter().for_each(|waiter| match waiter {
        Waiter::Parked(_) => wake(waiter),
        Waiter::Future(_) => futures.push(waiter),
    });
    futures.into_iter().for_each(|waiter| wake_future(waiter, &mut panicked));
    if let Some(payload) = panicked {
        resume_unwind(payload);
    }
}

#[cold]
fn wake_future(waiter: Waiter, panicked: &mut Option<Box<dyn Any + Send>>) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| wake(waiter))) {
        // The first panic is resumed. Later payloads are forgotten, because their drop may panic
        // too.
        match panicked {
            None => *panicked = Some(payload),
            Some(_) => mem::forget(payload),
        }
    }
}

/// Takes an operation that did not have to wait from the budget, and yields if the budget is spent.
/// Returns whether it has yielded.
#[inline]
pub(crate) fn spend() -> bool {
    let spent = !current::spend();
    if spent {
        overspent();
    }
    spent
}

/// Yields in place of a wait that is over before it begins, because a program may loop over such
/// waits. Timers and messages get a tick, and the other coroutines run.
#[cold]
pub(crate) fn yield_to_loop() {
    overspent();
    check_cancelled();
}

#[cold]
fn overspent() {
    context::running(|running| match running {
        Some(Running { scheduler, task }) => scheduler.overspent(task),
        // A plain thread has no turns, so its budget is unlimited.
        None => current::set_budget(u32::MAX),
    });
}

/// The time, from the clock of this thread's scheduler.
#[inline]
pub(crate) fn now() -> Instant {
    context::try_with(|scheduler| scheduler.now()).unwrap_or_else(Instant::now)
}

/// The deadline that is `timeout` from now. `None`, which means never, if the clock cannot hold it.
#[inline]
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    now().checked_add(timeout)
}

/// The deadline of a `fail_after` around the caller.
#[inline]
pub(crate) fn fails_at() -> Option<Instant> {
    current::with(|task| task?.scopes.fails_at())
}

/// The earlier of `deadline` and the deadline of a `fail_after` around the caller, for a wait that
/// reports when its time is up. (A wait without a deadline has no way to report that.)
#[cold]
pub(crate) fn limited(deadline: Instant) -> Instant {
    current::with(|task| task.map_or(deadline, |task| task.scopes.limited(deadline)))
}

/// The earlier one of two deadlines.
#[inline]
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

/// Whether the deadline of a `fail_after` around the caller has passed.
#[cold]
pub(crate) fn is_past_deadline() -> bool {
    fails_at().is_some_and(|deadline| deadline <= now())
}

/// Calls `f`. Its waits do not see cancellations of the levels that are open now.
pub(crate) fn shield<T>(f: impl FnOnce() -> T) -> T {
    shielded(true, f)
}

/// [`shield`], in which a cancellation of the root abandons the coroutine, unless it borrows.
pub(crate) fn no_unwind<T>(f: impl FnOnce() -> T) -> T {
    shielded(false, f)
}

fn shielded<T>(hides_root: bool, f: impl FnOnce() -> T) -> T {
    current::with(|task| {
        let Some(task) = task else {
            let _forbid = current::forbid_yields();
            return f();
        };
        let value = {
            let _shield = task.scopes.shield(hides_root || task.flags.has(Flag::Borrows));
            f()
        };
        if task.scopes.is_pending() {
            // A loop may spend its whole budget inside of shields, where no yield raises. So the
            // next operation outside of a shield yields.
            current::set_budget(0);
        }
        value
    })
}

/// Notes what the running coroutine will use first after its next wait. It is prefetched just
/// before the coroutine is resumed.
#[inline]
pub(crate) fn prefetch_on_resume<T>(what: &T) {
    current::with(|task| {
        if let Some(task) = task {
            task.ahead.set(std::ptr::from_ref(what).cast());
        }
    });
}

/// Whether a coroutine calls this, and `thread` is a worker of its run.
pub(crate) fn shares_run_with(thread: ThreadId) -> bool {
    context::running(|running| {
        running.is_some_and(|Running { scheduler, .. }| {
            thread == ThreadId::current()
                || scheduler.with_worker(|worker| worker.workers.has_thread(thread))
        })
    })
}

/// Whether the caller is in a scope that was opened in a destructor which an unwind runs.
/// `of_panic`: the unwind of a panic.
#[inline]
pub(crate) fn cleans_up(of_panic: bool) -> bool {
    std::thread::panicking()
        && current::with(|task| task.is_some_and(|task| task.scopes.in_cleanup(of_panic)))
}

/// Whether the caller is known to unwind from a panic. A cancellation does not count. In a scope,
/// an unwind outside of it does not count either: see [`cleans_up`].
#[inline]
pub(crate) fn is_panicking() -> bool {
    std::thread::panicking()
        && context::running(|running| {
            running.is_none_or(|Running { scheduler, task }| scheduler.is_panicking(task))
        })
}

/// Goes on with a panic that was caught: perhaps on another thread or in another coroutine, so that
/// the panic hook has not seen it here.
pub(crate) fn resume_unwind(payload: Box<dyn Any + Send>) -> ! {
    if !cancel::is_cancellation(&*payload) {
        context::running(|running| {
            if let Some(Running { scheduler, task }) = running {
                scheduler.note_panic(task);
            }
        });
    }
    panic::resume_unwind(payload)
}

/// Notes that the running coroutine begins to unwind because a generator is closed.
pub(crate) fn note_unwind() {
    context::running(|running| {
        if let Some(Running { scheduler, task }) = running {
            scheduler.note_unwind(task);
        }
    });
}

/// Notes that a panic of the running coroutine has been caught.
pub(crate) fn forget_panic() {
    current::with(|task| task.into_iter().for_each(Task::forget_panic));
}

/// Whether the running coroutine is known to unwind; on a plain thread, whether the thread does.
pub(crate) fn unwinds() -> bool {
    if in_coroutine() { is_unwinding() } else { std::thread::panicking() }
}

/// Whether the running coroutine is known to unwind, from a panic or a cancellation.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking()
        && context::running(|running| {
            running.is_some_and(|Running { scheduler, task }| scheduler.is_unwinding(task))
        })
}

/// Opens a scope that nothing cancels, until the guard is dropped. Does nothing on a plain thread.
#[cold]
pub(crate) fn open_scope() -> impl Drop {
    struct Close(Option<ScopeId>);
    impl Drop for Close {
        fn drop(&mut self) {
            context::running(|running| {
                if let (Some(Running { scheduler, task }), Some(scope)) = (running, self.0) {
                    scheduler.close_scope(task, scope);
                }
            });
        }
    }
    Close(context::running(|running| {
        let Running { scheduler, task } = running?;
        Some(scheduler.open_scope(task, Until::Closed))
    }))
}
