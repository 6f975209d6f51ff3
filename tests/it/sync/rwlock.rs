//! `RwLock`: std's contract, and the order in which readers and writers take turns.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::thread as system;

use plainsong::sync::{RwLock, RwLockWriteGuard, TryLockError};
use plainsong::time::{sleep, timeout};

use super::{NonCopy, cancelled_with, panic_with, would_block};
use crate::util::{MOMENT, both, run, watch};

#[test]
fn an_rwlock_is_what_it_is_in_std() {
    both(|| {
        let mut lock = RwLock::new(NonCopy(1));
        let (one, two) = (lock.read().unwrap(), lock.try_read().unwrap());
        assert_eq!(one.0 + two.0, 2);
        assert!(would_block(lock.try_write()));
        assert!(would_block(lock.write_timeout(MOMENT)));
        let three = lock.read_timeout(MOMENT);
        assert!(three.is_ok());
        drop((one, two, three));
        let mut writer = lock.try_write().unwrap();
        writer.0 = 2;
        assert!(would_block(lock.try_read()) && would_block(lock.try_write()));
        assert!(would_block(lock.read_timeout(MOMENT)));
        assert_eq!(format!("{lock:?}"), "RwLock { data: <locked>, poisoned: false, .. }");
        assert_eq!(format!("{writer:?}"), "NonCopy(2)");
        let reader = RwLockWriteGuard::downgrade(writer);
        assert!(lock.try_read().is_ok() && would_block(lock.try_write()));
        assert_eq!(*reader, NonCopy(2));
        drop(reader);
        assert_eq!(format!("{lock:?}"), "RwLock { data: NonCopy(2), poisoned: false, .. }");
        lock.get_mut().unwrap().0 = 7;
        assert_eq!(lock.into_inner().unwrap(), NonCopy(7));
    });
}

#[test]
fn only_a_writer_that_panics_poisons_an_rwlock() {
    both(|| {
        let lock = RwLock::new(1);
        panic_with(|| lock.read().unwrap());
        panic_with(|| RwLockWriteGuard::downgrade(lock.write().unwrap()));
        cancelled_with(|| lock.write().unwrap());
        assert!(!lock.is_poisoned());
        panic_with(|| lock.write().unwrap());
        assert!(lock.is_poisoned());
        assert!(lock.read().is_err() && lock.write().is_err());
        assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(_))));
        lock.clear_poison();
        assert!(lock.read().is_ok() && lock.write().is_ok());
        let shared = Arc::new(lock);
        panic_with(|| Arc::clone(&shared).write_owned().unwrap());
        assert_eq!(*shared.clone().read_owned().unwrap_err().into_inner(), 1);
    });
}

/// Readers (`r`) and writers (`w`) ask in this order. Returns how they were served: a reader logs
/// `<` and `>`, a writer `(` and `)`.
fn phases(asked: &'static str) -> String {
    run(move || {
        let (lock, log) = (RwLock::new(()), RefCell::new(String::new()));
        plainsong::scope(|s| {
            let first = lock.write().unwrap();
            let (lock, log) = (&lock, &log);
            for letter in asked.chars() {
                s.spawn(move || {
                    if letter == 'r' {
                        let _guard = lock.read().unwrap();
                        log.borrow_mut().push('<');
                        sleep(MOMENT);
                        log.borrow_mut().push('>');
                    } else {
                        let _guard = lock.write().unwrap();
                        log.borrow_mut().push('(');
                        sleep(MOMENT);
                        log.borrow_mut().push(')');
                    }
                });
            }
            plainsong::yield_now();
            drop(first);
        });
        log.into_inner()
    })
}

#[test]
fn readers_and_writers_take_turns_in_phases() {
    assert_eq!(phases("rrwrww"), "<<>>()<>()()");
    assert_eq!(phases("wrrr"), "()<<<>>>");
    assert_eq!(phases("rwr"), "<>()<>");
}

#[test]
fn a_writer_is_not_starved_by_readers() {
    run(|| {
        let lock = RwLock::new(0);
        let stop = Cell::new(false);
        plainsong::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    while !stop.get() {
                        let _guard = lock.read().unwrap();
                        plainsong::yield_now();
                    }
                });
            }
            plainsong::yield_now();
            for n in 0..10 {
                assert_eq!(*lock.read().unwrap(), n);
                *lock.write().unwrap() += 1;
            }
            stop.set(true);
        });
    });
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    watch(|| {
        let lock = RwLock::new(());
        let _reader = lock.read().unwrap();
        system::scope(|s| {
            let writer = s.spawn(|| would_block(lock.write_timeout(20 * MOMENT)));
            while lock.try_read().is_ok() && !writer.is_finished() {
                system::yield_now();
            }
            // The writer usually waits now, and gives up while this thread has the lock.
            drop(lock.read().unwrap());
            assert!(writer.join().unwrap());
        });
        assert!(lock.try_read().is_ok());
    });
    run(|| {
        let lock = RwLock::new(());
        plainsong::scope(|s| {
            let _reader = lock.read().unwrap();
            let writer = s.spawn(|| timeout(MOMENT, || drop(lock.write())));
            plainsong::yield_now();
            let behind = s.spawn(|| drop(lock.read().unwrap()));
            plainsong::yield_now();
            assert!(lock.try_read().is_err() && !behind.is_finished());
            assert!(writer.join().unwrap().is_err());
            behind.join().unwrap();
            assert!(lock.try_read().is_ok());
        });
    });
}

#[test]
fn a_downgrade_lets_the_readers_in_that_wait() {
    run(|| {
        let lock = RwLock::new(1);
        plainsong::scope(|s| {
            let mut writer = lock.write().unwrap();
            let readers: Vec<_> = (0..3).map(|_| s.spawn(|| *lock.read().unwrap())).collect();
            let next = s.spawn(|| *lock.write().unwrap() += 1);
            plainsong::yield_now();
            *writer = 5;
            let reader = RwLockWriteGuard::downgrade(writer);
            for one in readers {
                assert_eq!(one.join().unwrap(), 5);
            }
            assert!(!next.is_finished());
            drop(reader);
        });
        assert_eq!(lock.into_inner().unwrap(), 6);
    });
}
