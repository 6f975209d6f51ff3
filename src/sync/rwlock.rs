//! `RwLock`.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, LockResult, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use super::guard::{Protected, guard_deref, guard_deref_mut};
use super::poison::{Poison, Watch};
use super::raw_rwlock::{Access, RawRwLock};
use crate::engine::park;

/// One writer or any number of readers, as [`std::sync::RwLock`], for coroutines and threads alike.
///
/// The lock is granted in the order of arrival, and readers that come one after the other read
/// together. So neither readers nor writers starve; but a holder of a read guard that asks for
/// another waits for ever if a writer has come in between. A panic of a writer poisons the lock; a
/// cancellation does not.
///
/// ```
/// use plainsong::sync::RwLock;
///
/// let names = RwLock::new(vec!["anna"]);
/// plainsong::run(|| {
///     let (one, two) = (names.read().unwrap(), names.read().unwrap());
///     assert_eq!(one.len() + two.len(), 2);
///     drop((one, two));
///     names.write().unwrap().push("berta");
/// });
/// assert_eq!(names.into_inner().unwrap(), ["anna", "berta"]);
/// ```
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    poison: Poison,
    // Readers on several threads share the value: so `Sync` needs a `T: Sync`, too.
    shared: PhantomData<T>,
    value: Protected<T>,
}

// The poison says what a panic has left behind.
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

impl<T> RwLock<T> {
    /// A lock that is not taken.
    #[track_caller]
    pub const fn new(value: T) -> Self {
        let (raw, poison) = (RawRwLock::new(), Poison::new());
        Self { raw, poison, shared: PhantomData, value: Protected::new(value) }
    }

    /// The value of a lock that can no longer be taken.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the value.
    pub fn into_inner(self) -> LockResult<T> {
        let Self { poison, value, .. } = self;
        poison.check(value.into_inner())
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until there is no writer, and no earlier waiter that wants to write.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.raw.lock(Access::Read, None);
        self.poison.check(RwLockReadGuard::new(self))
    }

    /// Takes the lock for reading if there is no writer and no waiter.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is one; `Poisoned`, with the guard.
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.try_to(Access::Read)?;
        Ok(self.poison.check(RwLockReadGuard::new(self))?)
    }

    /// Waits as [`read`](Self::read) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the time is over; `Poisoned`, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn read_timeout(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.until(Access::Read, park::deadline(timeout))?;
        Ok(self.poison.check(RwLockReadGuard::new(self))?)
    }

    /// Waits until the lock is free, and there is no earlier waiter.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[inline]
    #[track_caller]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.raw.lock(Access::Write, None);
        self.poison.check(RwLockWriteGuard::new(self))
    }

    /// Takes the lock for writing if it is free.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it is not; `Poisoned`, with the guard.
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.try_to(Access::Write)?;
        Ok(self.poison.check(RwLockWriteGuard::new(self))?)
    }

    /// Waits as [`write`](Self::write) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the time is over; `Poisoned`, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn write_timeout(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.until(Access::Write, park::deadline(timeout))?;
        Ok(self.poison.check(RwLockWriteGuard::new(self))?)
    }

    /// As [`read`](Self::read), with a guard that owns a share of the lock.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn read_owned(self: Arc<Self>) -> LockResult<OwnedRwLockReadGuard<T>> {
        self.raw.lock(Access::Read, None);
        let guard = OwnedRwLockReadGuard::new(Arc::clone(&self));
        self.poison.check(guard)
    }

    /// As [`write`](Self::write), with a guard that owns a share of the lock.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn write_owned(self: Arc<Self>) -> LockResult<OwnedRwLockWriteGuard<T>> {
        self.raw.lock(Access::Write, None);
        let guard = OwnedRwLockWriteGuard::new(Arc::clone(&self));
        self.poison.check(guard)
    }

    /// Whether a writer has panicked.
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
    /// When the lock is poisoned, with the value.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let value = self.value.get_mut();
        self.poison.check(value)
    }

    #[inline]
    fn try_to<G>(&self, access: Access) -> Result<(), TryLockError<G>> {
        if self.raw.try_lock(access) { Ok(()) } else { Err(TryLockError::WouldBlock) }
    }

    #[track_caller]
    fn until<G>(&self, access: Access, deadline: Option<Instant>) -> Result<(), TryLockError<G>> {
        if self.raw.lock(access, deadline) { Ok(()) } else { Err(TryLockError::WouldBlock) }
    }
}

impl<T: Default> Default for RwLock<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    #[track_caller]
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => out.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => out.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

/// Holds a [`RwLock`] for reading; made by [`RwLock::read`].
#[must_use = "the lock is given back when the guard is dropped"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    raw: &'a RawRwLock,
    // As std's, and not the lock itself: so a guard of a `&'static str` is one of a shorter `&str`.
    // It also makes the guard stay on its thread, which the search for deadlocks relies on.
    value: *const T,
}

/// Holds a [`RwLock`] for writing; made by [`RwLock::write`].
#[must_use = "the lock is given back when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    watch: Watch,
    // As std's: it is unlocked where it was locked, which the search for deadlocks relies on.
    not_send: PhantomData<*const ()>,
}

/// Holds a [`RwLock`] for reading, and a share of it; made by [`RwLock::read_owned`].
#[must_use = "the lock is given back when the guard is dropped"]
pub struct OwnedRwLockReadGuard<T: ?Sized>(Owned<T>);

/// Holds a [`RwLock`] for writing, and a share of it; made by [`RwLock::write_owned`].
#[must_use = "the lock is given back when the guard is dropped"]
pub struct OwnedRwLockWriteGuard<T: ?Sized>(Owned<T>);

/// A lock that is held, and a share of it.
struct Owned<T: ?Sized> {
    lock: Arc<RwLock<T>>,
    // Of a writer.
    watch: Option<Watch>,
    not_send: PhantomData<*const ()>,
}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    /// The guard of a lock that the caller has just taken for reading.
    #[inline]
    fn new(lock: &'a RwLock<T>) -> Self {
        Self { raw: &lock.raw, value: lock.value.get() }
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// The guard of a lock that the caller has just taken for writing.
    #[inline]
    fn new(lock: &'a RwLock<T>) -> Self {
        Self { lock, watch: lock.poison.watch(), not_send: PhantomData }
    }

    /// Makes a read guard of a write guard: no writer comes in between, and waiting readers may
    /// come in.
    pub fn downgrade(s: Self) -> RwLockReadGuard<'a, T> {
        let lock = s.lock;
        mem::forget(s);
        lock.raw.downgrade();
        RwLockReadGuard::new(lock)
    }
}

impl<T: ?Sized> OwnedRwLockReadGuard<T> {
    /// The guard of a lock that the caller has just taken for reading.
    fn new(lock: Arc<RwLock<T>>) -> Self {
        Self(Owned { lock, watch: None, not_send: PhantomData })
    }
}

impl<T: ?Sized> OwnedRwLockWriteGuard<T> {
    /// The guard of a lock that the caller has just taken for writing.
    fn new(lock: Arc<RwLock<T>>) -> Self {
        let watch = Some(lock.poison.watch());
        Self(Owned { lock, watch, not_send: PhantomData })
    }

    /// Makes a read guard of a write guard: no writer comes in between, and waiting readers may
    /// come in.
    pub fn downgrade(mut s: Self) -> OwnedRwLockReadGuard<T> {
        s.0.watch = None;
        s.0.lock.raw.downgrade();
        OwnedRwLockReadGuard(s.0)
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.raw.unlock(Access::Read);
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.done(&self.watch);
        self.lock.raw.unlock(Access::Write);
    }
}

impl<T: ?Sized> Drop for Owned<T> {
    fn drop(&mut self) {
        let Self { lock, watch, .. } = self;
        if let Some(watch) = watch {
            lock.poison.done(watch);
        }
        lock.raw.unlock(if watch.is_some() { Access::Write } else { Access::Read });
    }
}

guard_deref!(['a,] RwLockReadGuard<'a, T>, |guard| guard.value);
guard_deref_mut!(['a,] RwLockWriteGuard<'a, T>, |guard| guard.lock.value.get());
guard_deref!([] OwnedRwLockReadGuard<T>, |guard| guard.0.lock.value.get());
guard_deref_mut!([] OwnedRwLockWriteGuard<T>, |guard| guard.0.lock.value.get());
