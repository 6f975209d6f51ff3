//! `Mutex`.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

use super::guard::{Protected, guard_deref, guard_deref_mut};
use super::poison::{Poison, Watch};
use super::raw_mutex::RawMutex;
use super::wait::Unserved;
use crate::engine::park;

/// Mutual exclusion, as [`std::sync::Mutex`], for coroutines and threads alike.
///
/// A coroutine that waits for the lock parks, so the guard may be held across waits. The lock is
/// handed to the waiter that has waited longest. A panic while it is held poisons it; a
/// cancellation does not.
///
/// A coroutine that locks it twice waits for ever; see [`ReentrantMutex`](super::ReentrantMutex).
///
/// ```
/// use plainsong::sync::Mutex;
///
/// let total = Mutex::new(0);
/// plainsong::run(|| {
///     plainsong::scope(|s| {
///         for _ in 0..10 {
///             s.spawn(|| {
///                 let mut total = total.lock().unwrap();
///                 let before = *total;
///                 plainsong::yield_now(); // with the lock held
///                 *total = before + 1;
///             });
///         }
///     });
/// });
/// assert_eq!(total.into_inner().unwrap(), 10);
/// ```
pub struct Mutex<T: ?Sized> {
    raw: RawMutex,
    poison: Poison,
    value: Protected<T>,
}

// The poison says what a panic has left behind.
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

impl<T> Mutex<T> {
    /// A mutex that is not locked.
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self { raw: RawMutex::new(), poison: Poison::new(), value: Protected::new(value) }
    }

    /// The value of a mutex that can no longer be locked.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the value.
    pub fn into_inner(self) -> LockResult<T> {
        let Self { poison, value, .. } = self;
        poison.check(value.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the lock is free and takes it.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.raw.lock();
        MutexGuard::new(self)
    }

    /// [`lock`](Self::lock), for a caller that owes something to others when its wait ends.
    #[track_caller]
    pub(super) fn lock_unless_cancelled(
        &self,
    ) -> Result<LockResult<MutexGuard<'_, T>>, Unserved<()>> {
        self.raw.lock_unless_cancelled()?;
        Ok(MutexGuard::new(self))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it is not free; `Poisoned`, with the guard.
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.raw.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(MutexGuard::new(self)?)
    }

    /// Waits until the lock is free and takes it, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the time is over; `Poisoned`, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use plainsong::sync::Mutex;
    ///
    /// plainsong::run(|| {
    ///     let mutex = Mutex::new(());
    ///     let guard = mutex.lock().unwrap();
    ///     assert!(mutex.lock_timeout(Duration::from_millis(1)).is_err());
    ///     drop(guard);
    ///     assert!(mutex.lock_timeout(Duration::from_millis(1)).is_ok());
    /// });
    /// ```
    #[track_caller]
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.raw.lock_until(park::deadline(timeout)) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(MutexGuard::new(self)?)
    }

    /// As [`lock`](Self::lock), with a guard that owns a share of the mutex, so that it can be
    /// stored anywhere on this thread, as in a call that [`time::after`](crate::time::after) makes.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn lock_owned(self: Arc<Self>) -> LockResult<OwnedMutexGuard<T>> {
        self.raw.lock();
        OwnedMutexGuard::new(self)
    }

    /// As [`try_lock`](Self::try_lock), with a guard that owns a share of the mutex.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it is not free; `Poisoned`, with the guard.
    pub fn try_lock_owned(self: Arc<Self>) -> TryLockResult<OwnedMutexGuard<T>> {
        if !self.raw.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(OwnedMutexGuard::new(self)?)
    }

    /// Whether a panic has passed through while the lock was held.
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Says that the value is in order again.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// The value, which a mutable borrow shows to be unlocked.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the value.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let value = self.value.get_mut();
        self.poison.check(value)
    }
}

impl<T: Default> Default for Mutex<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    #[track_caller]
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => out.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => out.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// Holds a [`Mutex`] locked; made by [`Mutex::lock`].
#[must_use = "the mutex is unlocked when the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    watch: Watch,
    // As std's: it is unlocked where it was locked, which the search for deadlocks relies on.
    not_send: PhantomData<*const ()>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The guard of a mutex that the caller has just locked.
    #[inline]
    fn new(mutex: &'a Mutex<T>) -> LockResult<Self> {
        let watch = mutex.poison.watch();
        mutex.poison.check(Self { mutex, watch, not_send: PhantomData })
    }

    /// The mutex.
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

/// Holds a [`Mutex`] locked, and a share of it; made by [`Mutex::lock_owned`].
#[must_use = "the mutex is unlocked when the guard is dropped"]
pub struct OwnedMutexGuard<T: ?Sized> {
    mutex: Arc<Mutex<T>>,
    watch: Watch,
    not_send: PhantomData<*const ()>,
}

impl<T: ?Sized> OwnedMutexGuard<T> {
    /// The guard of a mutex that the caller has just locked.
    fn new(mutex: Arc<Mutex<T>>) -> LockResult<Self> {
        let (watch, poisoned) = (mutex.poison.watch(), mutex.is_poisoned());
        let guard = Self { mutex, watch, not_send: PhantomData };
        if poisoned { Err(PoisonError::new(guard)) } else { Ok(guard) }
    }
}

guard_deref_mut!(['a,] MutexGuard<'a, T>, |guard| guard.mutex.value.get());
guard_deref_mut!([] OwnedMutexGuard<T>, |guard| guard.mutex.value.get());

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.done(&self.watch);
        self.mutex.raw.unlock();
    }
}

impl<T: ?Sized> Drop for OwnedMutexGuard<T> {
    fn drop(&mut self) {
        self.mutex.poison.done(&self.watch);
        self.mutex.raw.unlock();
    }
}
