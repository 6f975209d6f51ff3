//! A guard for code that must not be left by an unwind.

use std::mem;
use std::process;

/// Ends the process when it is dropped, which an unwind does, unless it has been disarmed.
#[must_use]
pub(crate) struct AbortOnUnwind(());

impl AbortOnUnwind {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// The dangerous part is over.
    #[inline]
    pub(crate) fn disarm(self) {
        mem::forget(self);
    }
}

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        process::abort();
    }
}
