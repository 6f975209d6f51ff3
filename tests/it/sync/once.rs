//! `Once`, `OnceLock` and `LazyLock`.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread as system;
use std::time::Duration;

use plainsong::sync::{LazyLock, Once, OnceLock};
use plainsong::time::{sleep, timeout};

use super::panic_with;
use crate::util::{HOUR, MOMENT, both, panic_of, run, watch};

#[test]
fn a_once_lock_is_what_it_is_in_std() {
    both(|| {
        let mut once = OnceLock::new();
        assert_eq!(once.get(), None);
        assert_eq!(once.get_mut(), None);
        assert_eq!(format!("{once:?}"), "OnceLock(<uninit>)");
        assert_eq!(once.get_or_init(|| 92), &92);
        assert_eq!(once.get_or_init(|| panic!("called twice")), &92);
        assert_eq!(once.set(5), Err(5));
        assert_eq!((once.get(), once.wait()), (Some(&92), &92));
        assert_eq!(format!("{once:?}"), "OnceLock(92)");
        assert_eq!(once.clone(), OnceLock::from(92));
        *once.get_mut().unwrap() += 1;
        assert_eq!(once.take(), Some(93));
        assert_eq!(once.set(1), Ok(()));
        assert_eq!(once.into_inner(), Some(1));
        assert_eq!(OnceLock::<i32>::default().into_inner(), None);
    });
}

#[test]
fn an_initialiser_that_panics_or_is_cancelled_leaves_it_to_the_next() {
    both(|| {
        let once = OnceLock::new();
        panic_with(|| once.get_or_init(|| std::panic::resume_unwind(Box::new("scripted"))));
        assert_eq!(once.get(), None);
        let first = timeout(MOMENT, || {
            *once.get_or_init(|| -> i32 {
                sleep(HOUR);
                1
            })
        });
        assert!(first.is_err() && once.get().is_none());
        assert_eq!(once.get_or_try_init(|| Err("no")), Err("no"));
        assert_eq!(once.get_or_init(|| 2), &2);
    });
}

#[test]
fn an_initialiser_may_wait_and_is_called_once() {
    run(|| {
        let (once, calls) = (OnceLock::new(), Cell::new(0));
        let init = || {
            calls.set(calls.get() + 1);
            sleep(MOMENT);
            42
        };
        plainsong::scope(|s| {
            let waits = s.spawn(|| *once.wait());
            let all: Vec<_> = (0..10).map(|_| s.spawn(|| *once.get_or_init(init))).collect();
            let sets = s.spawn(|| once.set(1));
            for one in all {
                assert_eq!(one.join().unwrap(), 42);
            }
            assert_eq!(waits.join().unwrap(), 42);
            assert_eq!(sets.join().unwrap(), Err(1));
        });
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn one_of_many_threads_initialises() {
    watch(|| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static ONCE: OnceLock<usize> = OnceLock::new();
        static LAZY: LazyLock<usize> = LazyLock::new(|| {
            system::sleep(MOMENT);
            CALLS.fetch_add(1, Ordering::SeqCst)
        });
        system::scope(|s| {
            for n in 0..8 {
                s.spawn(move || {
                    let once = plainsong::run(|| {
                        *ONCE.get_or_init(|| {
                            sleep(MOMENT);
                            n
                        })
                    });
                    assert_eq!(ONCE.get(), Some(&once));
                    assert_eq!(*LAZY, 0);
                });
            }
        });
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_lazy_lock_is_poisoned_by_a_panic_and_not_by_a_cancellation() {
    both(|| {
        let mut lazy = LazyLock::new(|| {
            sleep(5 * MOMENT);
            1
        });
        assert_eq!(format!("{lazy:?}"), "LazyLock(<uninit>)");
        assert_eq!(LazyLock::get(&lazy), None);
        // The initialiser is shielded, and the cancellation comes at the next wait.
        let _ = timeout(Duration::ZERO, || (*lazy, plainsong::yield_now()));
        assert_eq!(format!("{lazy:?}"), "LazyLock(1)");
        *LazyLock::force_mut(&mut lazy) += 1;
        assert_eq!(LazyLock::get_mut(&mut lazy), Some(&mut 2));
        let lazy: LazyLock<i32> = LazyLock::new(|| std::panic::resume_unwind(Box::new("scripted")));
        panic_with(|| *lazy);
        assert!(panic_of(|| *lazy).contains("poisoned"));
        assert_eq!(*LazyLock::<i32>::default(), 0);
    });
}

#[test]
fn a_once_lock_that_is_made_of_a_value_waits_for_nothing() {
    run(|| {
        let made = timeout(Duration::ZERO, || {
            for n in 0..300 {
                let once = OnceLock::from(n);
                assert_eq!((once.get(), once.clone().into_inner()), (Some(&n), Some(n)));
            }
        });
        assert_eq!(made, Ok(()));
    });
}

#[test]
fn a_once_calls_one_closure_and_others_wait_for_its_end() {
    run(|| {
        let (once, calls) = (Once::new(), Cell::new(0));
        plainsong::scope(|s| {
            let waits = s.spawn(|| once.wait());
            for _ in 0..10 {
                s.spawn(|| {
                    once.call_once(|| {
                        calls.set(calls.get() + 1);
                        sleep(MOMENT);
                        assert!(!once.is_completed());
                    });
                    assert!(once.is_completed());
                });
            }
            waits.join().unwrap();
            assert!(once.is_completed());
        });
        once.call_once_force(|_| calls.set(7));
        once.wait_force();
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn a_panic_poisons_a_once_and_a_cancellation_does_not() {
    both(|| {
        let once = Once::new();
        assert!(timeout(MOMENT, || once.call_once(|| sleep(HOUR))).is_err());
        plainsong::scope(|s| {
            let waits = s.spawn(|| panic_of(|| once.wait()));
            let calls = s.spawn(|| panic_of(|| once.call_once(|| unreachable!())));
            panic_with(|| {
                once.call_once(|| {
                    sleep(MOMENT);
                    std::panic::resume_unwind(Box::new("scripted"))
                });
            });
            for panic in [waits.join().unwrap(), calls.join().unwrap()] {
                assert!(panic.contains("poisoned"), "{panic}");
            }
        });
        assert!(timeout(MOMENT, || once.wait_force()).is_err());
        assert!(timeout(MOMENT, || once.call_once_force(|_| sleep(HOUR))).is_err());
        // It is still poisoned, and its next caller mends it.
        once.call_once_force(|state| assert!(state.is_poisoned()));
        once.call_once(|| unreachable!());
        Once::new().call_once_force(|state| assert!(!state.is_poisoned()));
    });
}

#[test]
fn an_initialiser_that_needs_its_own_value_panics() {
    both(|| {
        let once = OnceLock::new();
        let uses: [fn(&OnceLock<u32>) -> u32; 3] = [
            |once| *once.get_or_init(|| 1),
            |once| *once.wait(),
            |once| once.set(1).map_or(0, |()| 1),
        ];
        for use_it in uses {
            let message = panic_of(|| once.get_or_init(|| use_it(&once)));
            assert!(message.contains("waits for that value itself"), "{message}");
        }
        assert_eq!(once.get_or_init(|| 2), &2);
        static LAZY: LazyLock<u32> = LazyLock::new(|| *LAZY + 1);
        // The second time it is poisoned.
        let message = panic_of(|| *LAZY);
        assert!(message.contains("itself") || message.contains("poisoned"), "{message}");

        let calls: [fn(&Once); 4] = [
            |once| once.call_once(|| ()),
            |once| once.call_once_force(|_| ()),
            |once| once.wait(),
            |once| once.wait_force(),
        ];
        for call in calls {
            let once = Once::new();
            let message = panic_of(|| once.call_once(|| call(&once)));
            assert!(message.contains("waits for its own end"), "{message}");
        }
    });
}
