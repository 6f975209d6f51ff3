//! The short lock around the state of each primitive.

use std::sync::PoisonError;

use crate::engine::shared::{Mutex, MutexGuard};

/// Guards a primitive's state for a few instructions, in which nothing waits and no code of a user
/// runs: so it may block the thread, and it is never poisoned in any way that matters.
#[derive(Debug, Default)]
pub(super) struct Lock<S>(Mutex<S>);

pub(super) type Guard<'a, S> = MutexGuard<'a, S>;

impl<S> Lock<S> {
    pub(super) const fn new(state: S) -> Self {
        Self(Mutex::new(state))
    }

    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
