//! Cancellation is an unwind: the coroutine's next wait raises a payload that no user code can
//! make, destructors run, and whoever owns the cancelled scope catches it.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use super::task::{Id, Task};

/// What a cancelled coroutine unwinds with.
struct Unwind {
    task: Id,
}

/// How a coroutine's body ended, when not by returning.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was cancelled, and unwound.
    Cancelled,
    /// It panicked with this payload.
    Panicked(Box<dyn Any + Send>),
}

/// Unwinds the coroutine that runs. Says nothing: this is no panic.
pub(crate) fn raise(task: &Task) -> ! {
    panic::resume_unwind(Box::new(Unwind { task: task.id }))
}

/// Runs a coroutine's body to its end, however it ends.
#[inline]
pub(crate) fn run_root<T>(task: &Task, body: impl FnOnce() -> T) -> Result<T, Failure> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| classify(task, payload))
}

#[cold]
fn classify(task: &Task, payload: Box<dyn Any + Send>) -> Failure {
    match payload.downcast::<Unwind>() {
        // Nobody but `raise` makes one, and a payload that user code carried from one
        // coroutine to another is a panic there.
        Ok(unwind) if unwind.task == task.id => Failure::Cancelled,
        Ok(unwind) => Failure::Panicked(unwind),
        Err(payload) => Failure::Panicked(payload),
    }
}
