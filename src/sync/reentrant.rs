//! `ReentrantMutex`.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::guard::{Protected, guard_deref};
use super::raw_mutex::{HELD_ELSEWHERE, HELD_HERE, RawMutex, Whys};
use crate::engine::current;
use crate::engine::park;
#[cfg(plainsong_model)]
use crate::engine::shared::LocalCell;
use crate::engine::shared::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::engine::shared::thread_local;
use crate::engine::task::Wait;

const WHYS: Whys = [
    Wait::new(&HELD_HERE.of("lock", "ReentrantMutex")),
    Wait::new(&HELD_ELSEWHERE.of("lock", "ReentrantMutex")),
];

thread_local! {
    // The number of this thread where it is an owner itself, outside of coroutines.
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// The number of the coroutine that calls this, or else of the thread. No other coroutine or thread
/// has, had or will have it.
pub(super) fn owner_number() -> u64 {
    // Not an address, which the next thread may get.
    static THREADS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    current::with(|task| match task {
        Some(task) => task.id.get() << 1 | 1,
        None => {
            if THREAD.get() == 0 {
                THREAD.set(THREADS.fetch_add(1, Ordering::Relaxed) << 1);
            }
            THREAD.get()
        }
    })
}

/// A lock that its holder can take again. (std's unstable `ReentrantLock`.)
///
/// The holder is a coroutine or, outside of coroutines, a thread. As there may be several guards at
/// once, they give shared references only: put a `Cell` in the lock to change its value. It is
/// never poisoned.
///
/// ```
/// use std::cell::Cell;
/// use plainsong::sync::ReentrantMutex;
///
/// fn add(total: &ReentrantMutex<Cell<u32>>, n: u32) {
///     let guard = total.lock();
///     guard.set(guard.get() + 1);
///     if n > 1 {
///         add(total, n - 1); // takes the lock again
///     }
/// }
///
/// let total = ReentrantMutex::new(Cell::new(0));
/// plainsong::run(|| add(&total, 3));
/// assert_eq!(total.into_inner().get(), 3);
/// ```
pub struct ReentrantMutex<T: ?Sized> {
    raw: RawMutex,
    // The number of the holder. Only the holder itself writes this number, or finds its own here.
    owner: AtomicU64,
    // How many guards there are. Only the holder touches it, so no order is needed.
    count: AtomicU32,
    // The holder never leaves its thread, and neither do its guards: so all guards that exist at a
    // time are on one thread.
    value: Protected<T>,
}

// As std's: the value itself must keep consistent whatever shared references can change.
impl<T: ?Sized + UnwindSafe> UnwindSafe for ReentrantMutex<T> {}
impl<T: ?Sized + RefUnwindSafe> RefUnwindSafe for ReentrantMutex<T> {}

impl<T> ReentrantMutex<T> {
    /// A lock that is not taken.
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self {
            raw: RawMutex::new(),
            owner: AtomicU64::new(0),
            count: AtomicU32::new(0),
            value: Protected::new(value),
        }
    }

    /// The value of a lock that can no longer be taken.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> ReentrantMutex<T> {
    /// Waits until no other coroutine or thread has the lock and takes it, or takes it once more.
    ///
    /// # Panics
    ///
    /// After 2³² times, when none has been given back.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn lock(&self) -> ReentrantMutexGuard<'_, T> {
        match self.take(Some(None)) {
            Some(guard) => guard,
            None => unreachable!("a wait without a deadline"),
        }
    }

    /// Takes the lock if no other coroutine or thread has it.
    pub fn try_lock(&self) -> Option<ReentrantMutexGuard<'_, T>> {
        self.take(None)
    }

    /// Waits as [`lock`](Self::lock) does, for `timeout` at most. `None` when the time is over.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn lock_timeout(&self, timeout: Duration) -> Option<ReentrantMutexGuard<'_, T>> {
        let deadline: Option<Instant> = park::deadline(timeout);
        self.take(Some(deadline))
    }

    /// The value, which a mutable borrow shows to be unlocked.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Takes the lock, perhaps once more. Waits for it only if `wait` has a deadline, which may be
    /// never.
    #[track_caller]
    fn take(&self, wait: Option<Option<Instant>>) -> Option<ReentrantMutexGuard<'_, T>> {
        let me = owner_number();
        // Only the caller writes this number, so it is there only if the caller holds the lock.
        if self.owner.load(Ordering::Relaxed) == me {
            if wait.is_some() {
                park::spend();
            }
            let count = self.count.load(Ordering::Relaxed).checked_add(1);
            let count = count.expect("a lock was taken 2^32 times and never given back");
            self.count.store(count, Ordering::Relaxed);
        } else if match wait {
            Some(deadline) => self.raw.lock_for(&WHYS, deadline),
            None => self.raw.try_lock(),
        } {
            self.owner.store(me, Ordering::Relaxed);
            self.count.store(1, Ordering::Relaxed);
        } else {
            return None;
        }
        Some(ReentrantMutexGuard { mutex: self, not_send: PhantomData })
    }
}

impl<T: Default> Default for ReentrantMutex<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for ReentrantMutex<T> {
    #[track_caller]
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ReentrantMutex");
        match self.try_lock() {
            Some(guard) => out.field("data", &&*guard),
            None => out.field("data", &format_args!("<locked>")),
        };
        out.finish_non_exhaustive()
    }
}

/// Holds a [`ReentrantMutex`]; made by [`ReentrantMutex::lock`].
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ReentrantMutexGuard<'a, T: ?Sized> {
    mutex: &'a ReentrantMutex<T>,
    not_send: PhantomData<*const ()>,
}

guard_deref!(['a,] ReentrantMutexGuard<'a, T>, |guard| guard.mutex.value.get());

impl<T: ?Sized> Drop for ReentrantMutexGuard<'_, T> {
    fn drop(&mut self) {
        let count = self.mutex.count.load(Ordering::Relaxed) - 1;
        self.mutex.count.store(count, Ordering::Relaxed);
        if count == 0 {
            self.mutex.owner.store(0, Ordering::Relaxed);
            self.mutex.raw.unlock();
        }
    }
}
