//! `RwLock`.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr;
use std::sync::{Arc, LockResult, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use super::guard::{lends, lends_mut};
use super::poison::{Poison, Watch};
use super::raw_rwlock::{Access, RawRwLock};
use crate::engine::park;

/// One writer or any number of readers, as [`std::sync::RwLock`], for coroutines and threads alike.
///
/// Who comes first is served first, and readers that come one after the other read together. So
/// neither readers nor writers starve; and who has a read guard and asks for another waits for
/// ever if a writer has come in between. A panic of a writer poisons the lock; a cancellation does not.
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
    value: UnsafeCell<T>,
}

// SAFETY: the value moves from thread to thread by way of the writers, which a `T: Send` allows.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: as above; and readers on several threads share it, which a `T: Sync` allows.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
// What a panic leaves behind is told by the poison.
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

impl<T> RwLock<T> {
    /// A lock that nobody has.
    pub const fn new(value: T) -> Self {
        Self { raw: RawRwLock::new(), poison: Poison::new(), value: UnsafeCell::new(value) }
    }

    /// The value of a lock that nobody can have any more.
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
    /// Waits until nobody writes, and nobody who came before waits to.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.raw.lock(Access::Read, None);
        // SAFETY: just locked.
        self.poison.check(unsafe { RwLockReadGuard::new(self) })
    }

    /// Takes the lock for reading if nobody writes and nobody waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when somebody does; `Poisoned`, with the guard.
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.try_to(Access::Read)?;
        // SAFETY: just locked.
        Ok(self.poison.check(unsafe { RwLockReadGuard::new(self) })?)
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
    pub fn read_timeout(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.until(Access::Read, park::deadline(timeout))?;
        // SAFETY: just locked.
        Ok(self.poison.check(unsafe { RwLockReadGuard::new(self) })?)
    }

    /// Waits until nobody else has the lock, and nobody who came before waits for it.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.raw.lock(Access::Write, None);
        // SAFETY: just locked.
        self.poison.check(unsafe { RwLockWriteGuard::new(self) })
    }

    /// Takes the lock for writing if nobody has it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when somebody has it; `Poisoned`, with the guard.
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.try_to(Access::Write)?;
        // SAFETY: just locked.
        Ok(self.poison.check(unsafe { RwLockWriteGuard::new(self) })?)
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
    pub fn write_timeout(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.until(Access::Write, park::deadline(timeout))?;
        // SAFETY: just locked.
        Ok(self.poison.check(unsafe { RwLockWriteGuard::new(self) })?)
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
    pub fn read_owned(self: Arc<Self>) -> LockResult<OwnedRwLockReadGuard<T>> {
        self.raw.lock(Access::Read, None);
        // SAFETY: just locked.
        let guard = unsafe { OwnedRwLockReadGuard::new(Arc::clone(&self)) };
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
    pub fn write_owned(self: Arc<Self>) -> LockResult<OwnedRwLockWriteGuard<T>> {
        self.raw.lock(Access::Write, None);
        // SAFETY: just locked.
        let guard = unsafe { OwnedRwLockWriteGuard::new(Arc::clone(&self)) };
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

    fn until<G>(&self, access: Access, deadline: Option<Instant>) -> Result<(), TryLockError<G>> {
        if self.raw.lock(access, deadline) { Ok(()) } else { Err(TryLockError::WouldBlock) }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
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

/// Makes the guards of one way to hold the lock: `$holder`.
macro_rules! guards {
    ([$($life:lifetime)?], $read:ident, $write:ident, $holder:ty, $by:literal) => {
        #[doc = concat!("Holds a [`RwLock`] for reading; made by [`RwLock::read", $by, "`].")]
        #[must_use = "the lock is given back when the guard is dropped"]
        pub struct $read<$($life,)? T: ?Sized> {
            lock: $holder,
            // As std's: it is unlocked where it was locked, which the search for deadlocks relies on.
            not_send: PhantomData<*const ()>,
        }

        #[doc = concat!("Holds a [`RwLock`] for writing; made by [`RwLock::write", $by, "`].")]
        #[must_use = "the lock is given back when the guard is dropped"]
        pub struct $write<$($life,)? T: ?Sized> {
            lock: $holder,
            watch: Watch,
            not_send: PhantomData<*const ()>,
        }

        // SAFETY: a shared guard gives out shared references to the value only.
        unsafe impl<$($life,)? T: ?Sized + Sync> Sync for $read<$($life,)? T> {}
        // SAFETY: as above.
        unsafe impl<$($life,)? T: ?Sized + Sync> Sync for $write<$($life,)? T> {}

        impl<$($life,)? T: ?Sized> $read<$($life,)? T> {
            /// # Safety
            ///
            /// The lock must have been taken for reading, for this guard.
            #[inline]
            unsafe fn new(lock: $holder) -> Self {
                Self { lock, not_send: PhantomData }
            }
        }

        impl<$($life,)? T: ?Sized> $write<$($life,)? T> {
            /// # Safety
            ///
            /// The lock must have been taken for writing, for this guard.
            #[inline]
            unsafe fn new(lock: $holder) -> Self {
                let watch = lock.poison.watch();
                Self { lock, watch, not_send: PhantomData }
            }

            /// Makes a read guard of a write guard: nobody writes in between, and readers that wait
            /// may come in.
            pub fn downgrade(s: Self) -> $read<$($life,)? T> {
                s.lock.raw.downgrade();
                let s = mem::ManuallyDrop::new(s);
                // SAFETY: the guard that is never dropped has no other use for its holder; and the lock
                // is a reader's now, this one's.
                unsafe { $read::new(ptr::read(&s.lock)) }
            }
        }

        impl<$($life,)? T: ?Sized> Drop for $read<$($life,)? T> {
            #[inline]
            fn drop(&mut self) {
                self.lock.raw.unlock(Access::Read);
            }
        }

        impl<$($life,)? T: ?Sized> Drop for $write<$($life,)? T> {
            #[inline]
            fn drop(&mut self) {
                self.lock.poison.done(&self.watch);
                self.lock.raw.unlock(Access::Write);
            }
        }

        lends!([$($life,)?] $read<$($life,)? T>, lock);
        lends!([$($life,)?] $write<$($life,)? T>, lock);
        lends_mut!([$($life,)?] $write<$($life,)? T>, lock);
    };
}

guards!(['a], RwLockReadGuard, RwLockWriteGuard, &'a RwLock<T>, "");
// (A shared one cannot be made to give up its share of the lock.)
guards!([], OwnedRwLockReadGuard, OwnedRwLockWriteGuard, Arc<RwLock<T>>, "_owned");
