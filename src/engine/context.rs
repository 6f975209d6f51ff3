//! This thread's scheduler, and how code above the loop finds it.
//!
//! The scheduler and the files below it never look it up here. They get what they need as
//! arguments.
//!
//! A closure that is lent the scheduler or the running coroutine calls no code of users. The
//! exceptions are scopes, hooks and the loop, where no generator can be suspended (`Within` in
//! `generator.rs`). So none goes on with a borrow of something that is gone.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ptr;

use super::current;
use super::defer::Defer;
use super::scheduler::Scheduler;
use super::settings::Moment;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::thread_local;
use super::task::Task;

thread_local! {
    static OWNED: Owned = const { Owned(ManuallyDrop::new(Scheduler::new())) };
    // The scheduler while it exists, so that one load finds it. The functions of this file only
    // lend it to closures, and take it out before it is dropped.
    static PLACE: Cell<Option<&'static Scheduler>> = const { Cell::new(None) };
    // The process in which this thread last began a run.
    static PROCESS: Cell<u32> = const { Cell::new(0) };
}

/// Prepares for a run. In a process that was forked after a run, this thread gets a new scheduler:
/// the epoll instance of the old one is shared with the parent, and each would take the other's
/// events.
///
/// Not inside of a run, which goes on with its scheduler: the new run is refused there. If the code
/// of a host has forked, the drop of the guard gives the host its scheduler back.
pub(super) fn prepare_run() -> impl Drop {
    let (process, before, place) = (std::process::id(), PROCESS.get(), PLACE.get());
    let hosted = current::is_hosted();
    if before == 0 {
        PROCESS.set(process);
    }
    let has_forked = ![0, process].contains(&before);
    let replaces = has_forked && (current::runs() == 0 || hosted);
    if replaces {
        // It is leaked: only a forked process has one, and on one thread.
        PLACE.set(Some(Box::leak(Box::new(Scheduler::new()))));
        PROCESS.set(process);
        current::set_hosted(false);
    }
    Defer::new(move || {
        if replaces && hosted {
            PLACE.set(place);
            PROCESS.set(before);
            current::set_hosted(true);
        }
    })
}

struct Owned(ManuallyDrop<Scheduler>);

impl Drop for Owned {
    fn drop(&mut self) {
        current::leave_for_good();
        if current::is_ending() {
            // This runs on the stack of a coroutine that has called `std::process::exit`. Its task
            // and its stack are still in use, so the scheduler stays as it is until the process
            // ends.
            return;
        }
        PLACE.set(None);
        // SAFETY: this is the drop, so it happens once, and nothing finds the scheduler any more.
        // No coroutine is left that could use it: this runs on the thread's own stack, and a run
        // ends only after its last coroutine.
        //
        // A generator may be left, suspended in code of a user. It does not go on any more.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

/// Calls `f` with this thread's scheduler.
///
/// # Panics
///
/// In a destructor of a thread-local that runs after the scheduler was dropped.
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

/// Calls `f` with this thread's scheduler. `None` if the thread is ending and the scheduler has
/// been dropped.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn try_with<R>(f: impl FnOnce(&Scheduler) -> R) -> Option<R> {
    // Not by `with_any`: a debug build copies what `f` owns once for each function on its way.
    place().map(f)
}

/// [`try_with`], which always calls `f`.
#[inline]
pub(crate) fn with_any<R>(f: impl FnOnce(Option<&Scheduler>) -> R) -> R {
    f(place())
}

/// This thread's scheduler. `None` after it has been dropped.
#[inline]
fn place() -> Option<&'static Scheduler> {
    match PLACE.try_with(Cell::get) {
        Ok(Some(scheduler)) => Some(scheduler),
        Ok(None) | Err(_) => find(),
    }
}

/// Whether the library's own thread-local has been dropped. Others that are older are still there.
pub(crate) fn is_ending() -> bool {
    current::is_ending() || place().is_none()
}

/// Calls `f` with this thread's scheduler, if it has been used before. Async-signal-safe.
pub(super) fn if_known<R>(f: impl FnOnce(&Scheduler) -> R) -> Option<R> {
    PLACE.try_with(Cell::get).unwrap_or(None).map(f)
}

#[cold]
fn find() -> Option<&'static Scheduler> {
    // SAFETY: the reference does not leave this file, but for closures, which cannot keep it. The
    // drop of the scheduler first takes it out of `PLACE`. The drop happens at the end of the
    // thread, so it does not happen while a closure runs. That is also true in a coroutine, which
    // runs only on its own thread and has ended before that.
    let place = OWNED.try_with(|owned| unsafe { &*ptr::from_ref(&*owned.0) }).ok();
    PLACE.set(place);
    place
}

/// Calls the hooks of the run, if there are any, for `task`, the running coroutine.
#[cold]
pub(super) fn call_hooks(task: &Task, moment: Moment) {
    with(|scheduler| scheduler.call_hooks(task, moment));
}

/// The running coroutine and its scheduler.
#[derive(Clone, Copy)]
pub(crate) struct Running<'a> {
    pub(crate) scheduler: &'a Scheduler,
    pub(crate) task: &'a Task,
}

/// Calls `f` with the running coroutine, if there is one.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn running<R>(f: impl FnOnce(Option<Running<'_>>) -> R) -> R {
    current::with(
        #[cfg_attr(not(debug_assertions), inline(always))]
        |task| match task {
            // A coroutine runs only on a thread whose scheduler has been found.
            Some(task) => match PLACE.get() {
                Some(scheduler) => f(Some(Running { scheduler, task })),
                None => f(None),
            },
            None => f(None),
        },
    )
}
