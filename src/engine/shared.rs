//! What threads meet at: std's, or in the model check shuttle's, which tries the orders in which
//! threads can run. Only what that check is about takes them from here.

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

/// What std's thread-locals have and shuttle's do not.
#[cfg(plainsong_model)]
pub(crate) trait LocalCell<T> {
    fn get(&'static self) -> T;
    fn set(&'static self, value: T);
    fn replace(&'static self, value: T) -> T;
}

#[cfg(plainsong_model)]
impl<T: Copy> LocalCell<T> for shuttle::thread::LocalKey<std::cell::Cell<T>> {
    fn get(&'static self) -> T {
        self.with(std::cell::Cell::get)
    }

    fn set(&'static self, value: T) {
        // A thread's end may come too late for it.
        let _ = self.try_with(|cell| cell.set(value));
    }

    fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}
