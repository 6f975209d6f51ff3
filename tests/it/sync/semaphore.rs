//! `Semaphore` in tokio's shape.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use plainsong::sync::{Semaphore, TryAcquireError};
use plainsong::time::sleep;

use crate::util::{HOUR, MOMENT, both, panic_of, run, until_parked};

#[test]
fn a_semaphore_is_what_it_is_in_tokio() {
    both(|| {
        let permits = Arc::new(Semaphore::new(3));
        let (one, two) = (permits.acquire().unwrap(), permits.try_acquire_many(2).unwrap());
        assert_eq!((one.num_permits(), two.num_permits()), (1, 2));
        assert_eq!(permits.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
        assert_eq!(permits.acquire_timeout(MOMENT).unwrap_err(), TryAcquireError::NoPermits);
        drop(two);
        assert_eq!(permits.available_permits(), 2);
        let owned = Arc::clone(&permits).acquire_many_owned(2).unwrap();
        assert!(Arc::clone(&permits).try_acquire_owned().is_err());
        assert_eq!((owned.num_permits(), owned.semaphore().available_permits()), (2, 0));
        owned.forget();
        one.forget();
        assert_eq!(permits.available_permits(), 0);
        permits.add_permits(5);
        assert_eq!((permits.forget_permits(2), permits.forget_permits(9)), (2, 3));
        permits.add_permits(1);
        assert_eq!(format!("{permits:?}"), "Semaphore { permits: 1, closed: false, .. }");
        assert!(permits.acquire_many(0).is_ok());
        permits.close();
        assert!(permits.is_closed() && permits.acquire().is_err());
        assert_eq!(permits.try_acquire().unwrap_err(), TryAcquireError::Closed);
        assert!(panic_of(|| permits.add_permits(usize::MAX)).contains("MAX_PERMITS"));
        assert_eq!(permits.available_permits(), 1);
    });
}

#[test]
fn five_at_most_at_once() {
    run(|| {
        let (five, inside, most) = (Semaphore::new(5), Cell::new(0), Cell::new(0));
        plainsong::scope(|s| {
            for _ in 0..20 {
                s.spawn(|| {
                    let _permit = five.acquire().unwrap();
                    inside.set(inside.get() + 1);
                    most.set(most.get().max(inside.get()));
                    sleep(MOMENT);
                    inside.set(inside.get() - 1);
                });
            }
        });
        assert_eq!((most.get(), five.available_permits()), (5, 5));
    });
}

#[test]
fn one_that_asks_for_many_is_not_passed_by_those_that_ask_for_few() {
    run(|| {
        let (permits, log) = (Semaphore::new(2), RefCell::new(Vec::new()));
        plainsong::scope(|s| {
            for n in [3, 1, 2, 1] {
                let (permits, log) = (&permits, &log);
                s.spawn(move || {
                    permits.acquire_many(n).unwrap().forget();
                    log.borrow_mut().push(n);
                });
            }
            plainsong::yield_now();
            // Two permits are there, but belong to the first waiter.
            assert_eq!(permits.available_permits(), 0);
            assert!(permits.try_acquire().is_err());
            permits.add_permits(1);
            plainsong::yield_now();
            assert_eq!(*log.borrow(), [3]);
            permits.add_permits(2);
            plainsong::yield_now();
            assert_eq!(*log.borrow(), [3, 1]);
            permits.add_permits(2);
            plainsong::yield_now();
        });
        assert_eq!((log.into_inner(), permits.available_permits()), (vec![3, 1, 2, 1], 0));
    });
}

#[test]
fn one_that_wanted_many_and_gives_up_lets_the_others_go() {
    run(|| {
        let permits = Rc::new(Semaphore::new(2));
        let ask = |n| {
            let permits = Rc::clone(&permits);
            plainsong::spawn(move || permits.acquire_many(n).unwrap().forget())
        };
        let (many, few) = (ask(3), ask(2));
        until_parked(&few);
        many.cancel();
        assert!(many.join().unwrap_err().is_cancelled());
        few.join().unwrap();
        permits.add_permits(2);
        let theirs = Rc::clone(&permits);
        let timed = plainsong::spawn(move || theirs.acquire_many_timeout(3, MOMENT).is_err());
        let few = ask(2);
        assert!(timed.join().unwrap());
        few.join().unwrap();
        assert_eq!(permits.available_permits(), 0);
    });
}

#[test]
fn closing_ends_all_waits_with_an_error() {
    run(|| {
        let permits = Semaphore::new(1);
        plainsong::scope(|s| {
            let permit = permits.acquire().unwrap();
            let waits: Vec<_> = (1..5)
                .map(|n| {
                    let permits = &permits;
                    s.spawn(move || permits.acquire_many(n).is_err())
                })
                .collect();
            let timed = s.spawn(|| permits.acquire_timeout(HOUR).unwrap_err());
            plainsong::yield_now();
            permits.close();
            for one in waits {
                assert!(one.join().unwrap());
            }
            assert_eq!(timed.join().unwrap(), TryAcquireError::Closed);
            drop(permit);
        });
        assert_eq!(permits.available_permits(), 1);
    });
}

#[test]
fn permits_are_split_and_merged() {
    let (permits, others) = (Arc::new(Semaphore::new(5)), Arc::new(Semaphore::new(5)));
    let mut four = permits.try_acquire_many(4).unwrap();
    let one = four.split(1).unwrap();
    assert!(four.split(4).is_none() && four.split(usize::MAX).is_none());
    drop(four);
    assert_eq!(permits.available_permits(), 4);
    let mut rest = permits.try_acquire_many(4).unwrap();
    rest.merge(one);
    assert_eq!((rest.num_permits(), permits.available_permits()), (5, 0));
    drop(rest);
    assert_eq!(permits.available_permits(), 5);

    let mut owned = Arc::clone(&permits).try_acquire_many_owned(3).unwrap();
    let part = owned.split(2).unwrap();
    owned.merge(part);
    let foreign = Arc::clone(&others).try_acquire_owned().unwrap();
    assert!(panic_of(|| owned.merge(foreign)).contains("different semaphores"));
    drop(owned);
    assert_eq!((permits.available_permits(), others.available_permits()), (5, 5));
}

#[test]
fn permits_are_given_back_also_when_others_have_been_added_up_to_the_largest_number() {
    run(|| {
        let permits = Semaphore::new(Semaphore::MAX_PERMITS);
        let held = permits.try_acquire_many(3).unwrap();
        permits.add_permits(3);
        drop(held);
        assert!(permits.available_permits() >= Semaphore::MAX_PERMITS);
        assert!(panic_of(|| permits.add_permits(1)).contains("MAX_PERMITS"));
        // A waiter gives up while there are so many.
        permits.forget_permits(usize::MAX);
        assert_eq!(permits.acquire_timeout(MOMENT).unwrap_err(), TryAcquireError::NoPermits);
    });
}
