//! The traits that the guards of all locks have in common: a guard dereferences to the value of its
//! lock, and is shown as that value is.

#![allow(unsafe_code)]

/// Implements `Deref`, `Debug` and `Display` for a guard; `$value` is a pointer to the value of the
/// lock of the guard `$this`.
macro_rules! guard_deref {
    ([$($generics:tt)*] $guard:ty, |$this:ident| $value:expr) => {
        impl<$($generics)* T: ?Sized> std::ops::Deref for $guard {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                let $this = self;
                // SAFETY: only the lock's own file makes guards, each when the lock has just been
                // taken for it, and only the drop of the guard gives the lock back. So the lock is
                // held for as long as this guard lives, and the value is there for as long as the
                // lock. Nobody borrows it mutably but through a guard that holds
                // the lock alone, and is itself borrowed mutably for that.
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
