//! The parts that all locks have in common: the cell of the value, and the traits of the guards. A
//! guard dereferences to the value of its lock, and is shown as that value is.
//!
//! All rests on one promise of the files that define a lock: a guard is made only when the lock has
//! been taken for it, and the lock is not given back before its guards are dropped.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;

/// The value of a lock.
pub(super) struct Protected<T: ?Sized>(UnsafeCell<T>);

// SAFETY: guards of several threads reach the value one after the other. That moves it from thread
// to thread, which a `T: Send` allows. A lock whose guards share the value asks for more itself.
unsafe impl<T: ?Sized + Send> Sync for Protected<T> {}

impl<T> Protected<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(super) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> Protected<T> {
    #[inline]
    pub(super) const fn get(&self) -> *mut T {
        self.0.get()
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

/// Implements `Sync`, `Deref`, `Debug` and `Display` for a guard; `$value` is a pointer to the
/// value of the lock of the guard `$this`.
macro_rules! guard_deref {
    ([$($generics:tt)*] $guard:ty, |$this:ident| $value:expr) => {
        // SAFETY: a shared guard gives out shared references to the value only, which a `T: Sync`
        // allows. Its reference to the lock, or share of it, is private.
        #[allow(unsafe_code)]
        unsafe impl<$($generics)* T: ?Sized + Sync> Sync for $guard {}

        #[allow(unsafe_code)]
        impl<$($generics)* T: ?Sized> std::ops::Deref for $guard {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                let $this = self;
                // SAFETY: by the promise at the top of this file, the lock is held for as long as
                // this guard lives. The value is there for as long as the lock. Nobody borrows it
                // mutably but through a guard that holds the lock alone, and is itself borrowed
                // mutably for that.
                unsafe { &*$value }
            }
        }

        impl<$($generics)* T: ?Sized + std::fmt::Debug> std::fmt::Debug for $guard {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<$($generics)* T: ?Sized + std::fmt::Display> std::fmt::Display for $guard {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                (**self).fmt(f)
            }
        }
    };
}

/// [`guard_deref`], with `DerefMut`, for a guard that holds its lock alone.
macro_rules! guard_deref_mut {
    ([$($generics:tt)*] $guard:ty, |$this:ident| $value:expr) => {
        guard_deref!([$($generics)*] $guard, |$this| $value);

        #[allow(unsafe_code)]
        impl<$($generics)* T: ?Sized> std::ops::DerefMut for $guard {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                let $this = self;
                // SAFETY: as in `deref`; and this guard, the only one, is borrowed mutably.
                unsafe { &mut *$value }
            }
        }
    };
}

pub(super) use {guard_deref, guard_deref_mut};
