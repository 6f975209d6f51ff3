//! All locks together: contention, owned guards, `Send` and `Sync`.

use std::cell::Cell;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::thread as system;

use plainsong::sync::{
    Condvar, LazyLock, Mutex, OnceLock, ReentrantMutex, RwLock, Semaphore, WaitGroup,
};
use plainsong::time::after;

use crate::util::{MOMENT, run, watch};

#[test]
fn many_threads_and_coroutines_add_up() {
    watch(|| {
        const EACH: u64 = 300;
        let (mutex, lock) = (Mutex::new(0), RwLock::new((0, 0)));
        let reentrant = ReentrantMutex::new(Cell::new(0));
        let work = || {
            for n in 0..EACH {
                *mutex.lock().unwrap() += 1;
                if n % 3 == 0 {
                    let (left, right) = *lock.read().unwrap();
                    assert_eq!(left, right);
                } else {
                    let mut both = lock.write().unwrap();
                    both.0 += 1;
                    if n % 16 == 1 {
                        plainsong::yield_now();
                    }
                    both.1 += 1;
                }
                let outer = reentrant.lock();
                let inner = reentrant.lock();
                inner.set(inner.get() + 1);
                if n % 16 == 2 {
                    plainsong::yield_now();
                }
                drop(outer);
            }
        };
        system::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(work);
                threads.spawn(|| {
                    plainsong::run(|| {
                        plainsong::scope(|s| {
                            for _ in 0..5 {
                                s.spawn(work);
                            }
                        });
                    });
                });
            }
        });
        assert_eq!(mutex.into_inner().unwrap(), 18 * EACH);
        assert_eq!(lock.into_inner().unwrap(), (18 * EACH * 2 / 3, 18 * EACH * 2 / 3));
        assert_eq!(reentrant.into_inner().get(), 18 * EACH);
    });
}

#[test]
fn an_owned_guard_unlocks_from_a_timer() {
    run(|| {
        let mutex = Arc::new(Mutex::new(1));
        let guard = Arc::clone(&mutex).lock_owned().unwrap();
        after(MOMENT, move || drop(guard));
        assert_eq!(*mutex.lock().unwrap(), 1);
        let lock = Arc::new(RwLock::new(2));
        let guard = Arc::clone(&lock).write_owned().unwrap();
        after(MOMENT, move || drop(guard));
        let reader = Arc::clone(&lock).read_owned().unwrap();
        assert_eq!(*reader, 2);
        after(MOMENT, move || drop(reader));
        *lock.write().unwrap() += 1;
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).acquire_owned().unwrap();
        after(MOMENT, move || drop(permit));
        drop(permits.acquire().unwrap());
    });
}

#[test]
fn what_threads_may_share_and_panics_may_cross() {
    fn shared<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    shared::<Mutex<Cell<i32>>>();
    shared::<RwLock<i32>>();
    shared::<ReentrantMutex<i32>>();
    shared::<Condvar>();
    shared::<Semaphore>();
    shared::<plainsong::sync::Barrier>();
    shared::<plainsong::sync::Event>();
    shared::<OnceLock<i32>>();
    shared::<LazyLock<i32>>();
    shared::<WaitGroup>();
    // A guard is `Sync` if its data is, whether or not that is `Send`.
    fn lent<T: Sync>() {}
    lent::<plainsong::sync::OwnedMutexGuard<std::sync::MutexGuard<'static, i32>>>();
    lent::<plainsong::sync::OwnedRwLockWriteGuard<std::sync::MutexGuard<'static, i32>>>();
}
