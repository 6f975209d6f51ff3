//! `Id`: the name of a coroutine, unique in the process.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies a coroutine. No other coroutine of the process ever has the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(NonZeroU64);

impl Id {
    /// How many ids a thread takes at once, so that a spawn touches no shared memory.
    const BLOCK: u64 = 1024;

    /// The next id of the thread whose counter is `next`.
    #[inline]
    pub(crate) fn allocate(next: &Cell<u64>) -> Self {
        static BLOCKS: AtomicU64 = AtomicU64::new(0);
        let mut id = next.get();
        if id % Self::BLOCK == 0 {
            id = BLOCKS.fetch_add(1, Ordering::Relaxed) * Self::BLOCK;
        }
        next.set(id + 1);
        // Ids count from one, so the last id of a block is a multiple of 1024.
        Self(NonZeroU64::MIN.saturating_add(id))
    }

    /// The id whose [`get`](Self::get) is this. `None` for zero.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The id as a number.
    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }

    /// The id as reports carry it, in 32 bits: exact for the first four billion coroutines.
    pub(crate) fn short(self) -> u32 {
        self.0.get() as u32
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
