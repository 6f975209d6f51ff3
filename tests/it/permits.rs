//! Semaphores, events and barriers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread as system;
use std::time::Duration;

use plainsong::sync::{Barrier, Event, Semaphore, TryAcquireError};
use plainsong::time::{sleep, timeout};

use crate::util::{both, panic_of, run, until, until_parked, watch};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

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
            // Two are there, and yet none can be had.
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
fn closing_sends_all_away_who_wait() {
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
fn ten_thousand_wait_for_one_event() {
    run(|| {
        let (event, order) = (Event::new(), RefCell::new(Vec::new()));
        plainsong::scope(|s| {
            for n in 0..10_000 {
                let (event, order) = (&event, &order);
                s.spawn(move || {
                    event.wait();
                    order.borrow_mut().push(n);
                });
            }
            plainsong::yield_now();
            event.set();
            // They have been let go, whatever comes now.
            event.clear();
        });
        assert_eq!(order.into_inner(), (0..10_000).collect::<Vec<_>>());
        assert!(!event.is_set());
    });
}

#[test]
fn an_event_is_what_it_is_in_python() {
    both(|| {
        let event = Arc::new(Event::default());
        assert!(!event.is_set() && !event.wait_timeout(MOMENT));
        assert_eq!(format!("{event:?}"), "Event { set: false, .. }");
        event.set();
        event.set();
        event.wait();
        assert!(event.is_set() && event.wait_timeout(Duration::ZERO));
        event.clear();
        let theirs = Arc::clone(&event);
        let thread = system::spawn(move || theirs.set());
        event.wait();
        thread.join().unwrap();
    });
}

#[test]
fn a_barrier_has_one_leader_each_time() {
    watch(|| {
        let (barrier, leaders) = (Barrier::new(6), AtomicUsize::new(0));
        let work = || {
            for _ in 0..50 {
                if barrier.wait().is_leader() {
                    leaders.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        system::scope(|s| {
            (0..2).for_each(|_| drop(s.spawn(work)));
            for _ in 0..2 {
                s.spawn(|| plainsong::run(|| plainsong::task::gather([work, work])));
            }
        });
        assert_eq!(leaders.into_inner(), 50);
        for lonely in [0, 1] {
            assert!(Barrier::new(lonely).wait().is_leader());
        }
    });
}

#[test]
fn one_who_gives_up_at_a_barrier_has_not_been_there() {
    run(|| {
        let barrier = Barrier::new(3);
        plainsong::scope(|s| {
            let waits = s.spawn(|| barrier.wait().is_leader());
            assert!(timeout(MOMENT, || barrier.wait()).is_err());
            assert!(barrier.wait_timeout(MOMENT).is_none());
            assert!(!waits.is_finished());
            let second = s.spawn(|| barrier.wait().is_leader());
            plainsong::yield_now();
            assert!(barrier.wait().is_leader());
            assert!(!waits.join().unwrap() && !second.join().unwrap());
        });
    });
}

#[test]
fn waits_are_told_apart_in_the_report() {
    let waits: [(&str, fn()); 4] = [
        ("permits of a semaphore", || drop(Semaphore::new(0).acquire())),
        ("an event to be set", || Event::new().wait()),
        ("the others at a barrier", || _ = Barrier::new(2).wait()),
        ("a value to be initialised", || _ = plainsong::sync::OnceLock::<i32>::new().wait()),
    ];
    run(move || {
        for (text, wait) in waits {
            let handle = plainsong::spawn(wait);
            until_parked(&handle);
            assert!(format!("{handle:?}").contains(text), "{handle:?}");
        }
        // Somebody else may end such a wait: it is no deadlock.
        until(|| true);
    });
}
