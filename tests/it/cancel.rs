//! The end of a run cancels what is left: user code that swallows it, and that which must not.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use plainsong::time::sleep;

use crate::util::{OnDrop, alone, dying, until_parked, watch};

#[test]
fn a_swallowed_cancellation_comes_again() {
    watch(|| {
        let swallowed = Rc::new(Cell::new(0));
        let count = Rc::clone(&swallowed);
        plainsong::run(|| {
            let child = plainsong::spawn(move || {
                while count.get() < 500 {
                    let wait = catch_unwind(|| sleep(Duration::MAX));
                    assert!(wait.is_err());
                    count.set(count.get() + 1);
                }
            });
            until_parked(&child);
        });
        assert_eq!(swallowed.get(), 500);
    });
}

#[test]
fn the_others_go_on_beside_one_that_swallows() {
    watch(|| {
        let ended = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ended);
        plainsong::run(|| {
            let flag_seen = Rc::clone(&flag);
            let swallower = plainsong::spawn(move || {
                // Holds on until the other has ended its clean-up, which takes a few turns.
                while !flag_seen.get() {
                    let _ = catch_unwind(plainsong::yield_now);
                }
            });
            let other = plainsong::spawn(move || {
                let _guard = OnDrop(|| flag.set(true));
                sleep(Duration::MAX);
            });
            until_parked(&other);
            plainsong::yield_now();
            assert!(!swallower.is_finished());
        });
        assert!(ended.get());
    });
}

#[test]
fn a_payload_passed_on_still_ends_the_coroutine() {
    watch(|| {
        let seen = Rc::new(Cell::new(false));
        let flag = Rc::clone(&seen);
        plainsong::run(|| {
            let child = plainsong::spawn(move || {
                if let Err(payload) = catch_unwind(|| sleep(Duration::MAX)) {
                    flag.set(true);
                    resume_unwind(payload);
                }
            });
            until_parked(&child);
        });
        assert!(seen.get());
    });
}

#[test]
fn one_that_never_gives_up_is_named() {
    let output = dying(one_that_never_gives_up_is_named, || {
        plainsong::run(|| {
            let stubborn = plainsong::Builder::new().name("stubborn").spawn(|| {
                loop {
                    let _ = catch_unwind(plainsong::yield_now);
                }
            });
            drop(stubborn.unwrap());
            plainsong::yield_now();
        });
        std::process::exit(1);
    });
    if let Some(output) = output {
        assert!(output.contains("stubborn"), "{output}");
    }
}

#[test]
fn results_of_joins_in_the_clean_up() {
    watch(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        plainsong::run(|| {
            let child = plainsong::spawn(|| sleep(Duration::MAX));
            until_parked(&child);
            let mut child = Some(child);
            let guard = OnDrop(move || {
                // A destructor may wait, and sees that the child was cancelled.
                let error = child.take().unwrap().join().unwrap_err();
                theirs.borrow_mut().push(error.is_cancelled());
            });
            let parent = plainsong::spawn(move || {
                let _guard = guard;
                sleep(Duration::MAX);
            });
            until_parked(&parent);
        });
        assert_eq!(*log.borrow(), [true]);
    });
}

#[test]
fn a_clean_up_that_joins_one_cancelled_later() {
    alone(a_clean_up_that_joins_one_cancelled_later, || {
        // As above, but the child is the younger: it is cancelled while its parent unwinds.
        plainsong::run(|| {
            let handle = Rc::new(RefCell::new(None::<plainsong::JoinHandle<()>>));
            let child = Rc::clone(&handle);
            let parent = plainsong::spawn(move || {
                let _guard = OnDrop(|| {
                    let error = child.take().unwrap().join().unwrap_err();
                    assert!(error.is_cancelled());
                });
                sleep(Duration::MAX);
            });
            until_parked(&parent);
            let younger = plainsong::spawn(|| {
                sleep(Duration::MAX);
                unreachable!("an endless sleep ended");
            });
            until_parked(&younger);
            *handle.borrow_mut() = Some(younger);
        });
    });
}

#[test]
fn a_wait_never_returns_because_of_a_cancellation() {
    watch(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        plainsong::run(|| {
            // The first to be cancelled takes its time to unwind; nobody else's wait may seem to
            // have happened meanwhile.
            let slow = plainsong::spawn(|| {
                let _guard = OnDrop(|| sleep(Duration::from_millis(5)));
                sleep(Duration::MAX);
            });
            let theirs = Rc::clone(&log);
            let sleeper = plainsong::spawn(move || {
                sleep(Duration::from_secs(3600));
                theirs.borrow_mut().push("slept an hour");
                sleep(Duration::from_secs(3600));
            });
            let theirs = Rc::clone(&log);
            let accepting = plainsong::spawn(move || {
                let listener = plainsong::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let _accepted = listener.accept();
                theirs.borrow_mut().push("accepted nobody");
            });
            let theirs = Rc::clone(&log);
            let ticking = plainsong::spawn(move || {
                let mut ticks = plainsong::time::interval(Duration::from_secs(3600));
                ticks.tick();
                ticks.tick();
                theirs.borrow_mut().push("ticked");
            });
            until_parked(&slow);
            until_parked(&sleeper);
            until_parked(&accepting);
            until_parked(&ticking);
        });
        assert!(log.borrow().is_empty(), "{:?}", log.borrow());
    });
}

#[test]
fn panics_while_being_cancelled_stay_their_own() {
    watch(|| {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            plainsong::run(|| {
                let child = plainsong::spawn(|| {
                    if catch_unwind(|| sleep(Duration::MAX)).is_err() {
                        resume_unwind(Box::new("instead of the cancellation"));
                    }
                });
                until_parked(&child);
                5
            })
        }));
        assert_eq!(outcome.unwrap(), 5);
    });
}
