//! std's mutex without poisoning. No user code runs under these locks, so nothing panics half-way
//! through a change.

use std::sync::PoisonError;
use std::time::Duration;

use super::shared;
pub(crate) use super::shared::MutexGuard;

#[derive(Default, Debug)]
pub(crate) struct Mutex<T: ?Sized>(shared::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shared::Mutex::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// std's condition variable, for a [`Mutex`].
#[derive(Debug)]
pub(crate) struct Condvar(shared::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(shared::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a notification, for `timeout` at most. Returns whether the time passed first.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        // In the model, where there is no time, the time passes at once.
        #[cfg(plainsong_model)]
        if !timeout.is_zero() {
            shared::thread::yield_now();
            return (guard, true);
        }
        let waited = self.0.wait_timeout(guard, timeout);
        let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }
}
