//! The primitives that threads share: std's, or shuttle's in the model check, which tries the
//! orders in which threads can run. Only code that the model check covers takes them from here.

#[cfg(not(plainsong_model))]
pub(crate) use std::{
    hint,
    sync::atomic,
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};

#[cfg(plainsong_model)]
pub(crate) use shuttle::{
    hint,
    sync::atomic,
    sync::{Condvar, Mutex, MutexGuard},
    thread, thread_local,
};

/// Methods of std's thread-locals that shuttle's lack.
#[cfg(plainsong_model)]
pub(crate) trait LocalCell<T> {
    fn get(&'static self) -> T;
    fn set(&'static self, value: T);
    fn replace(&'static self, value: T) -> T;
}

/// The initial value of a thread-local without a destructor. In the model, the end of a thread
/// destroys the thread-local all the same, and it then reads as this value.
#[cfg(plainsong_model)]
pub(crate) trait Initial {
    const INITIAL: Self;
}

#[cfg(plainsong_model)]
impl Initial for bool {
    const INITIAL: Self = false;
}

#[cfg(plainsong_model)]
impl Initial for u32 {
    const INITIAL: Self = 0;
}

#[cfg(plainsong_model)]
impl Initial for u64 {
    const INITIAL: Self = 0;
}

#[cfg(plainsong_model)]
impl Initial for usize {
    const INITIAL: Self = 0;
}

#[cfg(plainsong_model)]
impl<T> Initial for Option<T> {
    const INITIAL: Self = None;
}

#[cfg(plainsong_model)]
impl<T> Initial for *const T {
    const INITIAL: Self = std::ptr::null();
}

#[cfg(plainsong_model)]
impl<T: Copy + Initial> LocalCell<T> for shuttle::thread::LocalKey<std::cell::Cell<T>> {
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
