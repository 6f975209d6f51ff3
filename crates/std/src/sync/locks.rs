//! Locks that do not unwind. Unsafe code, destructors and code that puts its data in order after a
//! wait rely on that: crossbeam-channel locks its queues to leave them.

use ::std::fmt;
use ::std::ops::{Deref, DerefMut};
use ::std::sync::{LockResult, TryLockResult};

use ::plainsong::no_unwind;
use ::plainsong::sync::{self, MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use crate::must_return::must_return;

/// The methods that both locks have alike.
macro_rules! as_in_std {
    ($lock:ident) => {
        impl<T> $lock<T> {
            /// A lock that is free.
            #[track_caller]
            pub const fn new(value: T) -> Self {
                Self(sync::$lock::new(value))
            }

            /// The value of a lock that can no longer be taken.
            ///
            /// # Errors
            ///
            /// When the lock is poisoned, with the value.
            pub fn into_inner(self) -> LockResult<T> {
                self.0.into_inner()
            }
        }

        impl<T: ?Sized> $lock<T> {
            /// Whether a holder has panicked.
            pub fn is_poisoned(&self) -> bool {
                self.0.is_poisoned()
            }

            /// Forgets that a holder has panicked.
            pub fn clear_poison(&self) {
                self.0.clear_poison();
            }

            /// The value, which nobody else can have now.
            ///
            /// # Errors
            ///
            /// When the lock is poisoned, with the value.
            pub fn get_mut(&mut self) -> LockResult<&mut T> {
                self.0.get_mut()
            }
        }

        impl<T: ?Sized> Deref for $lock<T> {
            type Target = sync::$lock<T>;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        impl<T: ?Sized> DerefMut for $lock<T> {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.0
            }
        }

        impl<T> From<T> for $lock<T> {
            #[track_caller]
            fn from(value: T) -> Self {
                Self::new(value)
            }
        }

        impl<T: ?Sized + fmt::Debug> fmt::Debug for $lock<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

as_in_std!(Mutex);
as_in_std!(RwLock);

/// Mutual exclusion: [`std::sync::Mutex`](::std::sync::Mutex).
///
/// It has all methods of plainsong's [`Mutex`](::plainsong::sync::Mutex), too.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(sync::Mutex<T>);

impl<T: ?Sized> Mutex<T> {
    /// Waits until the lock is free and takes it.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Never unwinds: see [`no_unwind`]. If it has to wait where waits are forbidden, such as in
    /// [`no_wait`](::plainsong::no_wait), the process ends.
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        must_return("Mutex::lock", || no_unwind(|| self.0.lock()))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// When the lock is taken, or poisoned.
    #[track_caller]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

/// Many readers or one writer: [`std::sync::RwLock`](::std::sync::RwLock).
///
/// It has all methods of plainsong's [`RwLock`](::plainsong::sync::RwLock), too.
#[derive(Default)]
pub struct RwLock<T: ?Sized>(sync::RwLock<T>);

impl<T: ?Sized> RwLock<T> {
    /// Waits until there is no writer, and no earlier waiter that wants to write.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Never unwinds: see [`no_unwind`]. If it has to wait where waits are forbidden, such as in
    /// [`no_wait`](::plainsong::no_wait), the process ends.
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        must_return("RwLock::read", || no_unwind(|| self.0.read()))
    }

    /// Waits until the lock is free, and there is no earlier waiter.
    ///
    /// # Errors
    ///
    /// When the lock is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Never unwinds: see [`no_unwind`]. If it has to wait where waits are forbidden, such as in
    /// [`no_wait`](::plainsong::no_wait), the process ends.
    #[track_caller]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        must_return("RwLock::write", || no_unwind(|| self.0.write()))
    }

    /// [`read`](Self::read), if that need not wait.
    ///
    /// # Errors
    ///
    /// When there is a writer, or the lock is poisoned.
    #[track_caller]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.0.try_read()
    }

    /// [`write`](Self::write), if that need not wait.
    ///
    /// # Errors
    ///
    /// When the lock is taken, or poisoned.
    #[track_caller]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.0.try_write()
    }
}
