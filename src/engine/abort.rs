//! A guard for code that must not unwind.

use std::mem;
use std::process;

/// Ends the process when it is dropped, which an unwind does. Call [`disarm`](Self::disarm) at the
/// end of the code.
#[must_use]
pub(crate) struct AbortOnUnwind(());

impl AbortOnUnwind {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Forgets the guard.
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
