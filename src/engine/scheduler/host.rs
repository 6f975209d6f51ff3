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

    /// Notes what wakes the host while the loop waits. This is user code, which may make something
    /// ready: call it before looking whether there is anything to do.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let is_known = |known: &Waker| known.will_wake(waker);
        if !self.waker.borrow().as_ref().is_some_and(is_known) {
            // Nothing is cloned or dropped under the borrow.
            let waker = waker.clone();
            drop(self.waker.replace(Some(waker)));
        }
    }

    /// The loop waits from now on.
    pub(super) fn wait(&self) {
        self.waiting.set(true);
    }

    /// The loop waits no more.
    pub(super) fn resume(&self) {
        self.waiting.set(false);
    }

    /// The host has returned, and is not woken any more. The drop of its waker is user code.
    pub(super) fn leave(&self) {
        self.resume();
        let waker = self.waker.take();
        cancel::catch_and_forget(|| drop(waker));
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
