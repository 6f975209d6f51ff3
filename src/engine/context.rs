//! This thread's scheduler, and the way to it for everything that runs above the loop.
//!
//! The scheduler itself and what is below it never come here: they are handed what they need.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ptr;

use super::current;
use super::scheduler::Scheduler;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::thread_local;
use super::task::Task;

thread_local! {
    static OWNED: Owned = const { Owned(ManuallyDrop::new(Scheduler::new())) };
    // Where the scheduler is, while it is there: to be found with one load.
    static PLACE: Cell<*const Scheduler> = const { Cell::new(ptr::null()) };
}

struct Owned(ManuallyDrop<Scheduler>);

impl Drop for Owned {
    fn drop(&mut self) {
        current::leave_for_good();
        if current::is_ending() {
            // This runs on the stack of a coroutine, which called `std::process::exit`. Its task and its stack are
            // still in use, so the scheduler stays as it is until the process has ended.
            return;
        }
        PLACE.set(ptr::null());
        // SAFETY: this is the drop, so it is done once, and nothing finds the scheduler any more. No coroutine
        // is left that could use it: this is the thread's own stack, and a run ends only after its last
        // coroutine.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

/// Calls `f` with this thread's scheduler.
///
/// # Panics
///
/// In a destructor of a thread-local that runs after ours.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&Scheduler) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!(
            "this thread is ending, and its plainsong scheduler has been dropped: a destructor of a \
             thread-local must not spawn or use coroutines any more"
        ),
    }
}

/// Calls `f` with this thread's scheduler, unless the thread is ending and it has been dropped.
#[inline]
pub(crate) fn try_with<R>(f: impl FnOnce(&Scheduler) -> R) -> Option<R> {
    let known = PLACE.try_with(Cell::get).unwrap_or(ptr::null());
    let place = if known.is_null() { find() } else { known };
    // SAFETY: where it is not null, the scheduler is there: its drop sets `PLACE` to null first. That comes
    // with the end of its thread, which does not come while `f` runs: a coroutine, too, runs on its own
    // thread only, and has ended before that.
    unsafe { place.as_ref() }.map(f)
}

#[cold]
fn find() -> *const Scheduler {
    let place = OWNED.try_with(|owned| ptr::from_ref(&*owned.0)).unwrap_or(ptr::null());
    PLACE.set(place);
    place
}

/// The coroutine that runs, and the scheduler that runs it.
#[derive(Clone, Copy)]
pub(crate) struct Running<'a> {
    pub(crate) scheduler: &'a Scheduler,
    pub(crate) task: &'a Task,
}

/// Calls `f` with the coroutine that runs, if one does.
#[inline(always)]
pub(crate) fn running<R>(f: impl FnOnce(Option<Running<'_>>) -> R) -> R {
    current::with(|task| match task {
        // SAFETY: as in `try_with`; a coroutine runs only where a scheduler does, which has been found then.
        Some(task) => match unsafe { PLACE.get().as_ref() } {
            Some(scheduler) => f(Some(Running { scheduler, task })),
            None => f(None),
        },
        None => f(None),
    })
}
