//! The host of a loop that is a guest of another one.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// The host of a loop that waits: another loop that runs on this thread meanwhile.
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
        drop(before);
        self.waiting.set(true);
    }

    /// The loop waits no more.
    pub(super) fn resume(&self) {
        self.waiting.set(false);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.get()
    }

    /// There is something to do. Wakes the host if the loop waits.
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
            waker.wake();
        }
    }
}
