//! What the guards of all locks have in common: they lend the value of their lock, and show it as
//! their own.

#![allow(unsafe_code)]

/// Makes a guard lend the value of the lock in its field `$lock`, in a cell called `value`.
macro_rules! lends {
    ([$($generics:tt)*] $guard:ty, $lock:ident) => {
        impl<$($generics)* T: ?Sized> std::ops::Deref for $guard {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                // SAFETY: the lock is held for as long as this guard lives, and lends the value through
                // it: nobody has it mutably but through a borrow of the guard that holds it alone.
                unsafe { &*self.$lock.value.get() }
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

/// Makes a guard that nobody else has at the same time lend the value mutably.
macro_rules! lends_mut {
    ([$($generics:tt)*] $guard:ty, $lock:ident) => {
        impl<$($generics)* T: ?Sized> std::ops::DerefMut for $guard {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: as in `deref`, and this guard, which is the only one, is borrowed for it alone.
                unsafe { &mut *self.$lock.value.get() }
            }
        }
    };
}

pub(super) use {lends, lends_mut};
