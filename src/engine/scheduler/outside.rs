//! Counts the waits that something outside of the run could end.

use std::cell::Cell;

use super::super::task::Wait;

/// Whether something outside of the run could wake a coroutine of this thread.
#[derive(Debug)]
pub(super) struct Outside {
    // How many waits are under way that something outside of the run could end.
    count: Cell<u32>,
    // No plain thread takes part, so waits that only a plain thread could end are not counted.
    strict: Cell<bool>,
}

impl Outside {
    pub(super) const fn new() -> Self {
        Self { count: Cell::new(0), strict: Cell::new(false) }
    }

    pub(super) fn set_strict(&self, strict: bool) {
        self.strict.set(strict);
    }

    /// Whether nothing outside of the run could end a wait that is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// A wait begins. Returns whether it is counted, for [`leave`](Self::leave).
    #[inline]
    pub(super) fn enter(&self, wait: Wait) -> bool {
        let internal = wait.is_internal() || self.strict.get() && wait.is_ended_by_threads();
        self.count.set(self.count.get() + u32::from(!internal));
        !internal
    }

    /// A wait is over.
    #[inline]
    pub(super) fn leave(&self, counted: bool) {
        self.count.set(self.count.get() - u32::from(counted));
    }

    /// Notes that a plain thread, or something `outside`, may cancel a wait of a coroutine, or may
    /// no longer.
    pub(super) fn set_watched(&self, watched: bool, outside: bool) {
        let counted = outside || !self.strict.get();
        if watched {
            self.count.set(self.count.get() + u32::from(counted));
        } else {
            self.leave(counted);
        }
    }
}
