//! A coroutine that has not started: it may go to any thread, and is made where it starts.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::panic::RefUnwindSafe;
use std::sync::Arc;

use super::mailbox::Mailbox;
use super::mutex::{Mutex, MutexGuard};
use super::stack::Stack;
use super::task::Task;

/// What is kept of a coroutine before it starts.
pub(crate) trait PendingTask: Send {
    /// The size of stack that was asked for.
    fn stack_size(&self) -> Option<usize>;

    /// Makes a task of the calling thread of it; `None` when it has started or ended.
    fn make_task(&mut self, stack: Stack) -> Option<Task>;

    /// Ends it unstarted, unless it has started or ended: because of `error`, or else as cancelled.
    fn end(&mut self, error: Option<io::Error>);
}

/// Where a coroutine is that may be started on any worker, and what is asked of it before it is
/// anywhere.
///
/// The pending task is kept with it, as one allocation instead of two; only the [`Job`] reaches
/// that.
pub(crate) struct Slot<P: ?Sized = dyn PendingTask> {
    state: Mutex<State>,
    pending: UnsafeCell<P>,
}

// SAFETY: a shared slot gives access to what is locked only, and a job, which has the pending task
// to itself, is shared with nobody: the pending task only moves between threads, which its `Send`
// allows.
unsafe impl<P: ?Sized + Send> Sync for Slot<P> {}
// No code of a user runs under the lock.
impl<P: ?Sized> RefUnwindSafe for Slot<P> {}

#[derive(Clone, Copy, Default)]
struct State {
    place: Option<(&'static Mailbox, u32)>,
    asked: Asked,
}

/// What was asked of a coroutine before it started.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) cancelled: bool,
    pub(super) unparked: bool,
}

impl<P: ?Sized> Slot<P> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The thread and the slot there of the coroutine; if it has not started, `ask` notes what is
    /// asked.
    pub(super) fn place_or(&self, ask: impl FnOnce(&mut Asked)) -> Option<(&'static Mailbox, u32)> {
        let mut state = self.lock();
        if state.place.is_none() {
            ask(&mut state.asked);
        }
        state.place
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("place", &self.lock().place).finish_non_exhaustive()
    }
}

/// What makes a coroutine of the thread that it is started on. A job that is dropped tells its
/// handle.
pub(crate) struct Job(Arc<Slot>);

impl Job {
    /// The job of a pending task.
    ///
    /// # Safety
    ///
    /// The pending task must hold nothing that borrows any more once it has started or ended, and
    /// what it borrows must live until then.
    pub(crate) unsafe fn new<'a>(pending: impl PendingTask + 'a) -> Self {
        let slot: Arc<Slot<dyn PendingTask + 'a>> =
            Arc::new(Slot { state: Mutex::default(), pending: UnsafeCell::new(pending) });
        // SAFETY: the two types differ in a lifetime only. Other owners of the slot may keep it for
        // longer than that, but reach nothing of the pending task but its memory; and when that is
        // freed nothing in it borrows, by the caller's promise.
        Self(unsafe { std::mem::transmute::<Arc<Slot<dyn PendingTask + 'a>>, Arc<Slot>>(slot) })
    }

    /// Where its coroutine is, or will be.
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.0
    }

    #[inline]
    fn pending(&mut self) -> &mut dyn PendingTask {
        // SAFETY: there is one job of a slot, it is borrowed mutably, and nothing else reaches the
        // task.
        unsafe { &mut *self.0.pending.get() }
    }

    /// The size of stack that was asked for.
    pub(super) fn stack_size(&mut self) -> Option<usize> {
        self.pending().stack_size()
    }

    /// Makes a task of the calling thread of it, to be added there.
    #[inline]
    pub(super) fn make_task(&mut self, stack: Stack) -> Option<Task> {
        self.pending().make_task(stack)
    }

    /// Notes where the task is. Returns what was asked of it before.
    pub(super) fn started(self, mailbox: &'static Mailbox, slot: u32) -> Asked {
        let mut state = self.0.lock();
        state.place = Some((mailbox, slot));
        state.asked
    }

    /// Ends it unstarted, because of `error`.
    #[cold]
    pub(super) fn fail(mut self, error: io::Error) {
        self.pending().end(Some(error));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.pending().end(None);
    }
}
