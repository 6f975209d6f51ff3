//! `Condvar`: order, time-outs, poison, cancellation.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread as system;

use plainsong::sync::{Condvar, Mutex};

use super::panic_with;
use crate::util::{HOUR, MOMENT, both, run, until, until_parked, watch};

#[test]
fn a_notification_wakes_the_longest_waiter() {
    run(|| {
        let (mutex, changed, log) = (Mutex::new(()), Condvar::new(), RefCell::new(Vec::new()));
        plainsong::scope(|s| {
            changed.notify_one();
            changed.notify_all();
            for n in 0..5 {
                let (mutex, changed, log) = (&mutex, &changed, &log);
                s.spawn(move || {
                    drop(changed.wait(mutex.lock().unwrap()).unwrap());
                    log.borrow_mut().push(n);
                });
            }
            plainsong::yield_now();
            for n in 1..=3 {
                changed.notify_one();
                until(|| log.borrow().len() == n);
            }
            plainsong::yield_now();
            assert_eq!(*log.borrow(), [0, 1, 2]);
            changed.notify_all();
        });
        assert_eq!(log.into_inner(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_condition_variable_with_time_outs() {
    both(|| {
        let (mutex, changed) = (Mutex::new(0), Condvar::new());
        let guard = mutex.lock().unwrap();
        let (guard, result) = changed.wait_timeout(guard, MOMENT).unwrap();
        assert!(result.timed_out());
        let (mut guard, result) = changed.wait_timeout_while(guard, MOMENT, |n| *n == 0).unwrap();
        assert!(result.timed_out());
        *guard = 1;
        let (guard, result) = changed.wait_timeout_while(guard, MOMENT, |n| *n == 0).unwrap();
        assert!(!result.timed_out());
        drop(guard);
        plainsong::scope(|s| {
            s.spawn(|| {
                *mutex.lock().unwrap() = 2;
                changed.notify_all();
            });
            let guard = mutex.lock().unwrap();
            let (guard, result) = changed.wait_timeout_while(guard, HOUR, |n| *n < 2).unwrap();
            assert!(*guard == 2 && !result.timed_out());
            drop(guard);
            s.spawn(|| {
                *mutex.lock().unwrap() = 3;
                changed.notify_one();
            });
            assert_eq!(*changed.wait_while(mutex.lock().unwrap(), |n| *n < 3).unwrap(), 3);
        });
    });
}

#[test]
fn a_condition_variable_tells_of_poison() {
    run(|| {
        let (mutex, changed) = (Mutex::new(1), Condvar::new());
        plainsong::scope(|s| {
            let waits = s.spawn(|| changed.wait(mutex.lock().unwrap()).is_err());
            plainsong::yield_now();
            panic_with(|| mutex.lock().unwrap());
            changed.notify_one();
            assert!(waits.join().unwrap());
            let guard = mutex.lock().unwrap_err().into_inner();
            let (guard, result) = changed.wait_timeout(guard, MOMENT).unwrap_err().into_inner();
            assert!(*guard == 1 && result.timed_out());
            #[allow(deprecated)]
            let (guard, in_time) = changed.wait_timeout_ms(guard, 1).unwrap_err().into_inner();
            assert!(*guard == 1 && !in_time);
        });
    });
}

/// The first waiter is notified, and cancelled while it waits for the mutex.
#[test]
fn a_notification_of_a_cancelled_waiter_goes_to_the_next() {
    run(|| {
        let (mutex, changed) = (Arc::new(Mutex::new(())), Arc::new(Condvar::new()));
        let wait = || {
            let (mutex, changed) = (Arc::clone(&mutex), Arc::clone(&changed));
            plainsong::spawn(move || drop(changed.wait(mutex.lock().unwrap())))
        };
        let (first, second) = (wait(), wait());
        until_parked(&second);
        let guard = mutex.lock().unwrap();
        changed.notify_one();
        plainsong::yield_now();
        // It has been notified, and waits for the mutex.
        first.cancel();
        assert!(first.join().unwrap_err().is_cancelled());
        drop(guard);
        second.join().unwrap();
    });
}

#[test]
fn a_producer_on_a_thread_and_a_consumer_in_a_coroutine() {
    watch(|| {
        let (items, changed) = (Mutex::new(Vec::new()), Condvar::new());
        system::scope(|s| {
            s.spawn(|| {
                for n in 0..2000 {
                    items.lock().unwrap().push(n);
                    changed.notify_one();
                }
            });
            plainsong::run(|| {
                let mut seen = Vec::new();
                while seen.len() < 2000 {
                    let guard = items.lock().unwrap();
                    seen.append(&mut changed.wait_while(guard, |items| items.is_empty()).unwrap());
                }
                assert!(seen.is_sorted());
            });
        });
    });
}
