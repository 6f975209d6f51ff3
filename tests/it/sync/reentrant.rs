//! `ReentrantMutex`.

use std::cell::Cell;
use std::sync::Arc;
use std::thread as system;

use plainsong::sync::ReentrantMutex;

use super::panic_with;
use crate::util::{MOMENT, both};

#[test]
fn a_reentrant_lock_belongs_to_one_coroutine() {
    both(|| {
        let mut lock = ReentrantMutex::new(Cell::new(1));
        let (one, two) = (lock.lock(), lock.try_lock().unwrap());
        let three = lock.lock_timeout(MOMENT).unwrap();
        three.set(one.get() + two.get());
        let foreign = || lock.try_lock().is_none() && lock.lock_timeout(MOMENT).is_none();
        assert!(plainsong::task::gather([foreign])[0]);
        let elsewhere = || format!("{lock:?}");
        let there = system::scope(|s| s.spawn(elsewhere).join().unwrap());
        assert_eq!(there, "ReentrantMutex { data: <locked>, .. }");
        assert_eq!(elsewhere(), "ReentrantMutex { data: Cell { value: 2 }, .. }");
        drop((one, three));
        assert!(plainsong::task::gather([foreign])[0]);
        drop(two);
        assert!(!plainsong::task::gather([foreign])[0]);
        panic_with(|| (lock.lock(), lock.lock()));
        assert_eq!(lock.get_mut().get(), 2);
        assert_eq!(lock.into_inner().get(), 2);
    });
}

#[test]
fn a_reentrant_lock_that_a_thread_has_left_locked_is_not_the_next_thread_s() {
    let mutex = Arc::new(ReentrantMutex::new(1));
    let theirs = Arc::clone(&mutex);
    system::spawn(move || std::mem::forget(theirs.lock())).join().unwrap();
    for _ in 0..100 {
        // One of these threads reuses the memory of the first.
        let theirs = Arc::clone(&mutex);
        assert!(system::spawn(move || theirs.try_lock().is_none()).join().unwrap());
    }
}
