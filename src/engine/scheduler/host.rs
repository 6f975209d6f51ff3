//! The host of a loop that is a guest of another one.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use super::super::cancel;

/// The host of a loop: another loop, which runs on this thread between two slices of this one.
pub(super) struct Host {
    // The loop waits, and nothing has woken the host since.
    waiting: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Host {
    pub(super) const fn new() -> Self {
        Self { waiting: Cell::new(false), waker: RefCell::new(None) }
    }

    /// The loop waits from now on.
    pub(super) fn wait(&self, waker: &Waker) {
        // Wakers are user code, so none is cloned or dropped under the borrow.
        let waker = waker.clone();
        let before = self.waker.replace(Some(waker));
        self.waiting.set(true);
        drop(before);
    }

    /// The loop waits no more.
    pub(super) fn resume(&self) {
        self.waiting.set(false);
    }

    /// There may be something to do. Wakes the host if the loop waits. The waker is user code: no
    /// state of the scheduler may be borrowed.
    #[inline]
    pub(super) fn notify(&self) {
        if self.waiting.get() {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = waker {
            // It is called in the middle of operations that must not end there.
            cancel::catch_and_forget(|| waker.wake());
        }
    }
}
