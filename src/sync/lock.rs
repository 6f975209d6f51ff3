//! The short lock around the state of each primitive.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use super::guard::{Protected, guard_deref, guard_deref_mut};
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::shared::{hint, thread};

/// How often a thread looks at a taken lock before it yields. It waits twice as long before each
/// look: two threads that both want the lock all the time then have it for many turns each, instead
/// of taking the cache line from each other at every turn. (T. E. Anderson, The Performance of Spin
/// Lock Alternatives for Shared-Memory Multiprocessors, 1990.) A stream between two workers takes
/// 32 ns an item with this, and 83 without.
const SPINS: u32 = 7;
/// How often a thread yields before it sleeps.
const YIELDS: u32 = 64;
/// One sleep. It is needed only where a yield does not let the holder run: under real-time
/// priorities.
const SLEEP: Duration = Duration::from_micros(50);

/// Guards a primitive's state for a few instructions, in which nothing waits, nothing is woken and
/// no code of a user runs: so it may spin. A call that would wait where that is no longer possible,
/// in the last destructors of a thread, panics before it has changed the state.
///
/// It is taken with one atomic exchange and released with a plain store, where a lock that the
/// kernel knows of needs an exchange for each. The holder can be late only when the kernel takes
/// the processor from it; the others then yield to it.
pub(crate) struct Lock<S: ?Sized> {
    // 1 while it is taken. It is a whole word because padding keeps what was in the memory before,
    // and `inspect::leaks` could take that for a pointer.
    taken: AtomicUsize,
    // Where the primitive was created, for reports.
    created: &'static Location<'static>,
    state: Protected<S>,
}

// No code that could panic runs while the state is half-way.
impl<S> UnwindSafe for Lock<S> {}
impl<S> RefUnwindSafe for Lock<S> {}

/// Holds a [`Lock`].
pub(crate) struct Guard<'a, S: ?Sized> {
    lock: &'a Lock<S>,
    // It is held for a few instructions of one thread.
    not_send: PhantomData<*const ()>,
}

impl<S> Lock<S> {
    #[track_caller]
    pub(crate) const fn new(state: S) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            created: Location::caller(),
            state: Protected::new(state),
        }
    }

    /// Where the primitive was created.
    pub(super) fn created(&self) -> &'static Location<'static> {
        self.created
    }

    /// Takes the lock if it is free at this moment.
    pub(super) fn try_lock(&self) -> Option<Guard<'_, S>> {
        let free = self.taken.swap(1, Ordering::Acquire) == 0;
        free.then(|| Guard { lock: self, not_send: PhantomData })
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, S> {
        if self.taken.swap(1, Ordering::Acquire) == 1 {
            self.lock_slowly();
        }
        Guard { lock: self, not_send: PhantomData }
    }

    #[cold]
    fn lock_slowly(&self) {
        let mut looks = 0;
        // It is only read until it is free: an exchange would take the cache line from the holder.
        while self.taken.load(Ordering::Relaxed) == 1 || self.taken.swap(1, Ordering::Acquire) == 1
        {
            match looks {
                0..SPINS => (0..1 << looks).for_each(|_| hint::spin_loop()),
                SPINS.. if looks < SPINS + YIELDS => thread::yield_now(),
                _ => thread::sleep(SLEEP),
            }
            looks += 1;
        }
    }
}

guard_deref_mut!(['a,] Guard<'a, T>, |guard| guard.lock.state.get());

impl<S: ?Sized> Drop for Guard<'_, S> {
    #[inline]
    fn drop(&mut self) {
        // The next thread that takes the lock, with `Acquire`, sees what was done to the state.
        self.lock.taken.store(0, Ordering::Release);
    }
}

impl<S> fmt::Debug for Lock<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}
