//! `Poison`: the mark that a panic leaves in a lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LockResult, PoisonError};

use crate::engine::park;

/// Whether a panic has passed through while a lock was held.
#[derive(Debug, Default)]
pub(super) struct Poison(AtomicBool);

impl Poison {
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Begins to watch, when a guard is made, for a panic that poisons.
    #[inline]
    pub(super) fn watch(&self) -> Watch {
        Watch { panicking: is_panicking() }
    }

    /// Ends the watch, when the guard is dropped: a panic in between poisons.
    #[inline]
    pub(super) fn done(&self, watch: &Watch) {
        if !watch.panicking && is_panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// `value` as std's locks return it.
    #[inline]
    pub(super) fn check<G>(&self, value: G) -> LockResult<G> {
        if self.get() { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

/// Whether a panic is unwinding the caller, in the innermost scope or outside.
#[inline]
fn is_panicking() -> bool {
    #[cold]
    fn is_panicking_itself() -> bool {
        park::is_panicking() || park::cleans_up(true)
    }
    // The other checks begin with this one, too. One is cheaper than two.
    std::thread::panicking() && is_panicking_itself()
}

/// Whether a panic was already unwinding when a guard was made.
#[derive(Debug)]
pub(super) struct Watch {
    panicking: bool,
}
