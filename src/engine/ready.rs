//! The ready queue: first in, first out, linked through the tasks themselves.
//!
//! A turn's cost is the scheduler's own instructions as much as the switch, so this is a list
//! that needs no room, no bounds check and no reference count.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::task::Task;

/// A task's place in the ready queue: the one behind it.
#[derive(Debug)]
pub(crate) struct Link(Cell<*const Task>);

impl Link {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(ptr::null()))
    }
}

/// Tasks that are to be resumed, in this order.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    first: Cell<*const Task>,
    // Meaningless when `first` is null.
    last: Cell<*const Task>,
}

impl ReadyQueue {
    pub(crate) const fn new() -> Self {
        Self { first: Cell::new(ptr::null()), last: Cell::new(ptr::null()) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.get().is_null()
    }

    /// Appends a task.
    ///
    /// # Safety
    ///
    /// The task must not be in the queue, and must live, where it is, until it has been popped.
    #[inline]
    pub(crate) unsafe fn push(&self, task: &Task) {
        task.link.0.set(ptr::null());
        if self.first.get().is_null() {
            self.first.set(task);
        } else {
            // SAFETY: the queue is not empty, so `last` is in it, and alive by the caller's promise.
            unsafe { (*self.last.get()).link.0.set(task) };
        }
        self.last.set(task);
    }

    /// Takes the first task, which is alive.
    #[inline]
    pub(crate) fn pop(&self) -> Option<NonNull<Task>> {
        let first = NonNull::new(self.first.get().cast_mut())?;
        // SAFETY: it is in the queue, so it is alive by the promise of whoever pushed it.
        self.first.set(unsafe { first.as_ref() }.link.0.get());
        Some(first)
    }
}
