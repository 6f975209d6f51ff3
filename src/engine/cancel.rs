//! Cancellation is an unwind: the coroutine's next wait raises a payload that no user code can
//! make, destructors run, and the owner of the cancelled level catches it.
//!
//! A payload names its coroutine and its level, and only that level catches it as a cancellation.
//! If user code carries a payload to another coroutine, it is an ordinary panic there.

use std::any::Any;
use std::io::{self, Write};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::process;

use super::current;
use super::id::Id;
use super::scopes::{CancelReason, Level};
use super::task::{Task, drop_each};

/// The panic payload of a cancellation.
struct Payload {
    task: Id,
    /// The level that catches it.
    level: Level,
}

/// How a body ended, if it did not return.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The level was cancelled, for this reason, and the body has unwound.
    Cancelled(Option<CancelReason>),
    /// The body panicked with this payload, or an outer level was cancelled.
    // Boxed twice, so that it takes only one word in a packet.
    Panicked(Box<Box<dyn Any + Send>>),
}

/// Unwinds the running coroutine to the level that is cancelled. This is no panic, so no hook runs
/// and nothing is printed.
///
/// Inlined, like all functions from the wait to here: the unwinder takes a quarter of a microsecond
/// for each frame that it passes.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn raise(task: &Task) -> ! {
    let level = task.scopes.target().unwrap_or(Level::Root);
    unwind_with(Payload { task: task.id, level })
}

/// Unwinds with this payload. If the program is built without unwinding, reports that and ends the
/// process.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn unwind_with(payload: impl Any + Send) -> ! {
    if cfg!(panic = "abort") {
        let _ = writeln!(
            io::stderr(),
            "plainsong: a coroutine or generator had to be unwound (it was cancelled, its time was up, or \
             its runtime ended before it), and this program is built with panic = \"abort\". Build it \
             with panic = \"unwind\", or make sure that coroutines end by themselves: join them, \
             use `run_all`, and use the sockets' own time-outs."
        );
        process::abort();
    }
    panic::resume_unwind(Box::new(payload))
}

/// Runs `body` and catches its unwind, if any: a panic, or the cancellation of `level`.
#[inline]
pub(crate) fn catch<T>(task: &Task, level: Level, body: impl FnOnce() -> T) -> Result<T, Failure> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| classify(task, level, payload))
}

#[cold]
fn classify(task: &Task, level: Level, payload: Box<dyn Any + Send>) -> Failure {
    let stops_here = payload
        .downcast_ref::<Payload>()
        .is_some_and(|payload| payload.task == task.id && payload.level == level);
    if stops_here {
        task.clear_raised();
        return Failure::Cancelled(task.scopes.reason(level));
    }
    Failure::Panicked(Box::new(payload))
}

/// Calls `f`, which drops a value of the user, and catches its unwind. The payload is forgotten and
/// not dropped, because its drop might panic too.
#[inline]
pub(crate) fn catch_and_forget(f: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        forget(payload);
    }
}

#[cold]
fn forget(payload: Box<dyn Any + Send>) {
    mem::forget(current::with(|task| match task {
        Some(task) => classify(task, Level::Root, payload),
        None => Failure::Panicked(Box::new(payload)),
    }));
}

/// Drops the locals of `task`, the running coroutine.
#[inline]
pub(crate) fn drop_locals(task: &Task) {
    if task.may_have_locals() {
        drop_locals_slowly(task);
    }
}

#[cold]
fn drop_locals_slowly(task: &Task) {
    drop_each(task.locals(), |local| {
        catch_and_forget(|| drop(local));
        // The coroutine is at its end, so no unwind is left.
        task.forget_panic();
    });
}

/// Whether the payload of a panic is a cancellation of the calling coroutine that is still on its
/// way to its level.
pub(crate) fn is_cancellation(payload: &(dyn Any + Send)) -> bool {
    payload.downcast_ref::<Payload>().is_some_and(|payload| {
        current::with(|task| {
            let task = task.filter(|task| task.id == payload.task);
            task.is_some_and(|task| task.scopes.is_requested(payload.level))
        })
    })
}
