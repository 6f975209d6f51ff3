//! The holder of a lock, for reports.

use crate::engine::current;
use crate::engine::id::Id;
use crate::engine::shared::atomic::{AtomicU64, Ordering};
use crate::engine::subject::Held;

/// Notes who has a lock. It is written with plain stores by the party that has just acquired the
/// lock, and means something only while the lock is held.
#[derive(Debug)]
pub(super) struct Holder(AtomicU64);

/// Not known: the lock is free, or has been handed over to a waiter that has not run yet.
const UNKNOWN: u64 = 0;
/// A plain thread.
const THREAD: u64 = u64::MAX;

impl Holder {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }

    #[inline]
    fn caller() -> u64 {
        current::with(|task| task.map_or(THREAD, |task| task.id.get()))
    }

    /// The caller has acquired the lock.
    #[inline]
    pub(super) fn set(&self) {
        self.0.store(Self::caller(), Ordering::Relaxed);
    }

    /// Not known any more.
    #[inline]
    pub(super) fn clear(&self) {
        self.0.store(UNKNOWN, Ordering::Relaxed);
    }

    /// The caller gives its share of the lock up, and others may have shares.
    #[inline]
    pub(super) fn leave(&self) {
        if self.0.load(Ordering::Relaxed) == Self::caller() {
            self.clear();
        }
    }

    pub(super) fn get(&self) -> Held {
        match self.0.load(Ordering::Relaxed) {
            THREAD => Held::Thread,
            number => Id::from_number(number).map_or(Held::Unknown, Held::Coroutine),
        }
    }
}
