//! A coroutine that has not started. Any thread may take it, and the thread that starts it makes
//! the task.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::mem;
use std::panic::{Location, RefUnwindSafe};
use std::sync::Arc;

use super::mailbox::Mailbox;
use super::mutex::{Mutex, MutexGuard};
use super::scopes::CancelReason;
use super::stack::Stack;
use super::task::Task;

/// Why a coroutine is not started, although it was not cancelled.
pub(crate) type Refusal = String;

/// A coroutine before it starts.
pub(crate) trait PendingTask: Send {
    /// The requested stack size.
    fn stack_size(&self) -> Option<usize>;

    /// Where it was spawned. `None` if it has started or ended.
    fn spawned(&self) -> Option<&'static Location<'static>>;

    /// Makes its task, which belongs to the calling thread. `None` if it has started or ended.
    fn make_task(&mut self, stack: Stack) -> Option<Task>;

    /// Makes a task that ends it without starting it, on a stack of any size: as cancelled for a
    /// reason, or because there was no stack for it. `None` if it has started or ended.
    fn make_end(
        &mut self,
        stack: Stack,
        why: Result<Option<CancelReason>, Refusal>,
    ) -> Option<Task>;

    /// Ends it without starting it, as cancelled for a reason. Does nothing if it has started or
    /// ended.
    fn end(&mut self, reason: Option<CancelReason>);
}

/// Where a coroutine is that any worker may start, and the requests that come before its start.
///
/// The pending task is in the same allocation. Only the [`Job`] reaches it.
pub(crate) struct Slot<P: ?Sized = dyn PendingTask> {
    state: Mutex<State>,
    pending: UnsafeCell<P>,
}

// SAFETY: a shared slot gives access only to the locked state. Only the job reaches the pending
// task, and a job is not shared. So the pending task only moves between threads, which its `Send`
// allows.
unsafe impl<P: ?Sized + Send> Sync for Slot<P> {}
// No user code runs under the lock.
impl<P: ?Sized> RefUnwindSafe for Slot<P> {}

#[derive(Default)]
struct State {
    place: Option<(&'static Mailbox, u32)>,
    asked: Asked,
}

/// Requests to a coroutine that came before it started.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) cancelled: bool,
    pub(super) reason: Option<CancelReason>,
    pub(super) unparked: bool,
}

impl Asked {
    /// Notes a cancellation. The reason of the first one stays.
    pub(super) fn cancel(&mut self, reason: Option<&CancelReason>) {
        if !mem::replace(&mut self.cancelled, true) {
            self.reason = reason.cloned();
        }
    }
}

impl<P: ?Sized> Slot<P> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The coroutine's thread and its slot there. If it has not started, `ask` notes the request.
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

/// The right to start one coroutine, on the thread that calls [`make_task`](Self::make_task).
/// Dropping the job instead ends the coroutine, and its handle sees it as cancelled.
pub(crate) struct Job(Arc<Slot>);

impl Job {
    /// The job of a pending task.
    ///
    /// # Safety
    ///
    /// Everything that the pending task borrows must live until it has started or ended. After
    /// that, it must hold nothing that borrows.
    pub(crate) unsafe fn new<'a>(pending: impl PendingTask + 'a) -> Self {
        let slot: Arc<Slot<dyn PendingTask + 'a>> =
            Arc::new(Slot { state: Mutex::default(), pending: UnsafeCell::new(pending) });
        // SAFETY: the two types differ only in a lifetime. Other owners of the slot may outlive it,
        // but they never reach the pending task, and only free its memory. By the caller's promise,
        // nothing in it borrows any more by then.
        Self(unsafe { std::mem::transmute::<Arc<Slot<dyn PendingTask + 'a>>, Arc<Slot>>(slot) })
    }

    /// Where the coroutine is, or will be.
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.0
    }

    #[inline]
    fn pending(&mut self) -> &mut dyn PendingTask {
        // SAFETY: a slot has one job, which is borrowed mutably, and nothing else reaches the
        // pending task.
        unsafe { &mut *self.0.pending.get() }
    }

    /// The requested stack size.
    pub(super) fn stack_size(&mut self) -> Option<usize> {
        self.pending().stack_size()
    }

    /// Where the coroutine was spawned. `None` if it was cancelled.
    pub(super) fn spawned(&mut self) -> Option<&'static Location<'static>> {
        let cancelled = self.0.lock().asked.cancelled;
        self.pending().spawned().filter(|_| !cancelled)
    }

    /// Makes the task, for the scheduler of the calling thread.
    #[inline]
    pub(super) fn make_task(&mut self, stack: Stack) -> Option<Task> {
        self.pending().make_task(stack)
    }

    /// Notes where the task is. Returns the requests that came before.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn started(self, mailbox: &'static Mailbox, slot: u32) -> Asked {
        let mut state = self.0.lock();
        state.place = Some((mailbox, slot));
        mem::take(&mut state.asked)
    }

    /// Makes a task that ends the coroutine without starting it, because there was no stack for it.
    pub(super) fn make_end(&mut self, stack: Stack, error: &io::Error) -> Option<Task> {
        let state = self.0.lock();
        let why = if state.asked.cancelled {
            Ok(state.asked.reason.clone())
        } else {
            Err(format!("cannot start a coroutine that was spawned anywhere: {error}"))
        };
        drop(state);
        self.pending().make_end(stack, why)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.pending().spawned().is_some() {
            let reason = self.0.lock().asked.reason.take();
            self.pending().end(reason);
        }
    }
}
