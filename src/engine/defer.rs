//! `Defer`: code that must run however a block is left.

/// Calls a function when it is dropped, unless it was disarmed.
#[must_use]
pub(crate) struct Defer<R, F: FnOnce() -> R>(Option<F>);

impl<R, F: FnOnce() -> R> Defer<R, F> {
    pub(crate) fn new(f: F) -> Self {
        Self(Some(f))
    }

    /// Forgets the function.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl<R, F: FnOnce() -> R> Drop for Defer<R, F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}
