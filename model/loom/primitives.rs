//! loom's primitives in the shape of std's.
//!
//! loom makes its primitives at run time, for one execution. The library makes its own in
//! constants, and passes mailboxes on from one execution to the next. So each primitive here makes
//! loom's when it is first used in an execution.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LockResult, Mutex as StdMutex, PoisonError, TryLockResult};
use std::time::Duration;

pub(crate) use loom::hint;

/// As loom's, which knows no `const`.
macro_rules! thread_locals {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = const $init:block;)*) => {$(
        $(#[$attribute])*
        static $name: loom::thread::LocalKey<$type> =
            loom::thread::LocalKey { init: || $init, _p: std::marker::PhantomData };
    )*};
}
pub(crate) use thread_locals as thread_local;

/// Executions begun.
static EXECUTION: AtomicUsize = AtomicUsize::new(1);

pub(crate) fn begin_execution() {
    EXECUTION.fetch_add(1, Ordering::SeqCst);
}

/// A primitive of loom's, made anew in each execution.
struct Fresh<T: 'static>(StdMutex<(usize, Option<&'static T>)>);

impl<T> Fresh<T> {
    const fn new() -> Self {
        Self(StdMutex::new((0, None)))
    }

    fn get(&self, make: impl FnOnce() -> T) -> &'static T {
        let mut place = self.0.lock().unwrap();
        let now = EXECUTION.load(Ordering::SeqCst);
        match place.1 {
            Some(made) if place.0 == now => made,
            _ => {
                // Leaked: whether loom's primitives may be dropped in a later execution is not
                // documented.
                let made = &*Box::leak(Box::new(make()));
                *place = (now, Some(made));
                made
            }
        }
    }
}

pub(crate) mod atomic {
    use std::sync::atomic::{AtomicU8 as StdAtomicU8, Ordering as StdOrdering};

    pub(crate) use std::sync::atomic::Ordering;

    use super::Fresh;

    /// Orders that are weakened, to see that the models notice.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[repr(u8)]
    pub(crate) enum Weak {
        Nothing,
        Acquire,
        Release,
        SeqCst,
    }

    static WEAK: StdAtomicU8 = StdAtomicU8::new(Weak::Nothing as u8);

    pub(crate) fn set_weak(what: Weak) {
        WEAK.store(what as u8, StdOrdering::SeqCst);
    }

    fn is_weak(what: Weak) -> bool {
        WEAK.load(StdOrdering::SeqCst) == what as u8
    }

    /// The order that loom is told.
    fn told(order: Ordering) -> Ordering {
        use Ordering::{AcqRel, Acquire, Relaxed, Release};
        match order {
            Acquire if is_weak(Weak::Acquire) => Relaxed,
            Release if is_weak(Weak::Release) => Relaxed,
            AcqRel if is_weak(Weak::Acquire) => Release,
            AcqRel if is_weak(Weak::Release) => Acquire,
            order => order,
        }
    }

    /// loom takes `SeqCst` for `AcqRel`, and knows it only of fences. So such an operation stands
    /// between two of them. The `weakest` is what is left of it if it is weakened.
    fn ordered<T>(order: Ordering, weakest: Ordering, operation: impl FnOnce(Ordering) -> T) -> T {
        if order != Ordering::SeqCst {
            return operation(told(order));
        }
        if is_weak(Weak::SeqCst) {
            return operation(weakest);
        }
        loom::sync::atomic::fence(Ordering::SeqCst);
        let result = operation(weakest);
        loom::sync::atomic::fence(Ordering::SeqCst);
        result
    }

    pub(crate) fn fence(order: Ordering) {
        if order == Ordering::SeqCst && is_weak(Weak::SeqCst) {
            return loom::sync::atomic::fence(Ordering::AcqRel);
        }
        loom::sync::atomic::fence(order);
    }

    macro_rules! atomic {
        ($($name:ident: $type:ty;)*) => {$(
            pub(crate) struct $name {
                initial: $type,
                fresh: Fresh<loom::sync::atomic::$name>,
            }

            #[allow(dead_code)]
            impl $name {
                pub(crate) const fn new(initial: $type) -> Self {
                    Self { initial, fresh: Fresh::new() }
                }

                fn get(&self) -> &'static loom::sync::atomic::$name {
                    self.fresh.get(|| loom::sync::atomic::$name::new(self.initial))
                }

                pub(crate) fn load(&self, order: Ordering) -> $type {
                    ordered(order, Ordering::Acquire, |order| self.get().load(order))
                }

                pub(crate) fn store(&self, value: $type, order: Ordering) {
                    ordered(order, Ordering::Release, |order| self.get().store(value, order));
                }

                pub(crate) fn swap(&self, value: $type, order: Ordering) -> $type {
                    ordered(order, Ordering::AcqRel, |order| self.get().swap(value, order))
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $type,
                    new: $type,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$type, $type> {
                    ordered(success, Ordering::AcqRel, |success| {
                        let failure = match failure {
                            Ordering::SeqCst => Ordering::Acquire,
                            failure => told(failure),
                        };
                        self.get().compare_exchange(current, new, success, failure)
                    })
                }

                pub(crate) fn compare_exchange_weak(
                    &self,
                    current: $type,
                    new: $type,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$type, $type> {
                    self.compare_exchange(current, new, success, failure)
                }

                pub(crate) fn fetch_update(
                    &self,
                    success: Ordering,
                    failure: Ordering,
                    mut f: impl FnMut($type) -> Option<$type>,
                ) -> Result<$type, $type> {
                    let mut before = self.load(failure);
                    while let Some(next) = f(before) {
                        match self.compare_exchange(before, next, success, failure) {
                            Ok(before) => return Ok(before),
                            Err(now) => before = now,
                        }
                    }
                    Err(before)
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(<$type>::default())
                }
            }

            impl std::fmt::Debug for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(stringify!($name))
                }
            }
        )*};
    }

    macro_rules! numbers {
        ($($name:ident: $type:ty;)*) => {
            atomic! { $($name: $type;)* }
            $(
                #[allow(dead_code)]
                impl $name {
                    numbers!(@ $type: fetch_add fetch_sub fetch_and fetch_or);
                }
            )*
        };
        (@ $type:ty: $($method:ident)*) => {$(
            pub(crate) fn $method(&self, value: $type, order: Ordering) -> $type {
                ordered(order, Ordering::AcqRel, |order| self.get().$method(value, order))
            }
        )*};
    }

    atomic! { AtomicBool: bool; }
    numbers! { AtomicU8: u8; AtomicI32: i32; AtomicU32: u32; AtomicU64: u64; AtomicUsize: usize; }
}

/// The data survives an execution: see [`Fresh`].
pub(crate) struct Mutex<T: ?Sized> {
    fresh: Fresh<loom::sync::Mutex<()>>,
    data: UnsafeCell<T>,
}

// SAFETY: as std's. One guard at a time reaches the data.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

pub(crate) struct MutexGuard<'a, T: ?Sized> {
    lock: loom::sync::MutexGuard<'static, ()>,
    data: &'a UnsafeCell<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { fresh: Fresh::new(), data: UnsafeCell::new(value) }
    }

    pub(crate) fn into_inner(self) -> LockResult<T> {
        Ok(self.data.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    fn raw(&self) -> &'static loom::sync::Mutex<()> {
        self.fresh.get(|| loom::sync::Mutex::new(()))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let lock = self.raw().lock().unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { lock, data: &self.data })
    }

    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.raw().try_lock() {
            Ok(lock) => Ok(MutexGuard { lock, data: &self.data }),
            Err(_) => Err(std::sync::TryLockError::WouldBlock),
        }
    }

    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        Ok(self.data.get_mut())
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.data.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, by this guard alone.
        unsafe { &mut *self.data.get() }
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(Fresh<loom::sync::Condvar>);

impl<T> fmt::Debug for Fresh<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fresh")
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(Fresh::new())
    }

    fn raw(&self) -> &'static loom::sync::Condvar {
        self.0.get(loom::sync::Condvar::new)
    }

    pub(crate) fn notify_one(&self) {
        self.raw().notify_one();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let MutexGuard { lock, data } = guard;
        let lock = self.raw().wait(lock).unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { lock, data })
    }

    /// There is no time: it passes at once.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, Passed)> {
        Ok((guard, Passed))
    }
}

/// The time has passed.
pub(crate) struct Passed;

impl Passed {
    pub(crate) fn timed_out(&self) -> bool {
        true
    }
}

/// Only threads of a test are loom's. None of these models starts a run.
pub(crate) mod thread {
    pub(crate) use loom::thread::yield_now;
    pub(crate) use std::thread::{Builder, scope};

    pub(crate) fn sleep(_: std::time::Duration) {
        yield_now();
    }
}

#[path = "../local.rs"]
mod local;
pub(crate) use local::LocalCell;

impl<T: Copy + local::Initial> LocalCell<T> for loom::thread::LocalKey<std::cell::Cell<T>> {
    fn get(&'static self) -> T {
        self.try_with(std::cell::Cell::get).unwrap_or(T::INITIAL)
    }

    fn set(&'static self, value: T) {
        // At the end of a thread, the value may already be destroyed.
        let _ = self.try_with(|cell| cell.set(value));
    }

    fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}
