//! `cancel`, the end of a run, and `shield`: results, swallowed cancellations, destructors.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use plainsong::sync::channel;
use plainsong::time::{sleep, timeout};
use plainsong::{JoinError, JoinHandle, thread};

use crate::util::{
    HOUR, MOMENT, OnDrop, alone, count_drop, counter, dying, load, pair, panic_of, run, run_on,
    runtime, spawn_with_handle, until, until_parked, watch,
};

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
                // Swallows until the other has ended its clean-up, which takes a few turns.
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
            // The first to be cancelled is slow to unwind. Meanwhile no other wait may return.
            let slow = plainsong::spawn(|| {
                let _guard = OnDrop(|| sleep(Duration::from_millis(5)));
                sleep(Duration::MAX);
            });
            let theirs = Rc::clone(&log);
            let sleeper = plainsong::spawn(move || {
                sleep(HOUR);
                theirs.borrow_mut().push("slept an hour");
                sleep(HOUR);
            });
            let theirs = Rc::clone(&log);
            let accepting = plainsong::spawn(move || {
                let listener = plainsong::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let _accepted = listener.accept();
                theirs.borrow_mut().push("accepted nobody");
            });
            let theirs = Rc::clone(&log);
            let ticking = plainsong::spawn(move || {
                let mut ticks = plainsong::time::interval(HOUR);
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

#[test]
fn a_loop_that_only_yields() {
    run(|| {
        let busy = plainsong::spawn(|| {
            loop {
                plainsong::yield_now();
            }
        });
        plainsong::yield_now();
        busy.cancel();
        assert!(busy.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn one_that_has_ended_keeps_its_result() {
    run(|| {
        let done = plainsong::spawn(|| 7);
        plainsong::yield_now();
        assert!(done.is_finished());
        done.cancel();
        done.cancel();
        assert_eq!(done.join().unwrap(), 7);
        let failed = plainsong::spawn(|| std::panic::resume_unwind(Box::new("its own")));
        plainsong::yield_now();
        failed.cancel();
        let error: JoinError = failed.join().unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
    });
}

#[test]
fn one_that_does_not_wait_any_more_keeps_its_result() {
    run(|| {
        let own = spawn_with_handle(JoinHandle::cancel);
        plainsong::yield_now();
        let handle = own.take().unwrap();
        handle.join().unwrap();
    });
}

#[test]
fn the_next_coroutine_in_the_same_place_is_not_cancelled() {
    run(|| {
        let first = plainsong::spawn(|| ());
        plainsong::yield_now();
        let second = plainsong::spawn(|| {
            plainsong::yield_now();
            5
        });
        first.cancel();
        assert_eq!(second.join().unwrap(), 5);
    });
}

#[test]
fn what_has_come_is_not_lost() {
    run(|| {
        // The data and the request both come before the reader runs. It takes the data or leaves
        // it.
        for _ in 0..50 {
            let (mut ours, mut theirs) = pair();
            let kept = ours.try_clone().unwrap();
            let got = Rc::new(Cell::new(0));
            let seen = Rc::clone(&got);
            let reader = plainsong::spawn(move || {
                seen.set(ours.read(&mut [0; 5]).unwrap());
                plainsong::yield_now();
            });
            until_parked(&reader);
            theirs.write_all(b"hello").unwrap();
            reader.cancel();
            assert!(reader.join().unwrap_err().is_cancelled());
            kept.set_nonblocking(true).unwrap();
            let left = match (&kept).read(&mut [0; 5]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                left => left.unwrap(),
            };
            assert_eq!(got.get() + left, 5);
        }
    });
}

#[test]
fn an_unpark_and_a_cancellation_together() {
    run(|| {
        let parked = plainsong::spawn(|| {
            thread::park();
            true
        });
        until_parked(&parked);
        parked.thread().unpark();
        parked.cancel();
        assert!(parked.join().unwrap(), "the unpark came first");

        let parked = plainsong::spawn(thread::park);
        until_parked(&parked);
        parked.cancel();
        parked.thread().unpark();
        assert!(parked.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn during_its_own_unwinding() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        let slot = Rc::new(RefCell::new(None::<JoinHandle<()>>));
        let own = Rc::clone(&slot);
        let unwinding = plainsong::spawn(move || {
            let _first = OnDrop(|| theirs.borrow_mut().push("first"));
            let _second = OnDrop(|| {
                own.borrow().as_ref().unwrap().cancel();
                sleep(Duration::from_micros(10));
                own.borrow().as_ref().unwrap().cancel();
                plainsong::yield_now();
                theirs.borrow_mut().push("second");
            });
            sleep(HOUR);
        });
        until_parked(&unwinding);
        unwinding.cancel();
        *slot.borrow_mut() = Some(unwinding);
        while !slot.borrow().as_ref().unwrap().is_finished() {
            plainsong::yield_now();
            slot.borrow().as_ref().unwrap().cancel();
        }
        assert!(slot.take().unwrap().join().unwrap_err().is_cancelled());
        assert_eq!(*log.borrow(), ["second", "first"]);
    });
}

#[test]
fn while_it_unwinds_from_a_panic() {
    run(|| {
        let panicking = plainsong::spawn(|| {
            let _guard = OnDrop(|| sleep(MOMENT));
            std::panic::resume_unwind(Box::new("its own"));
        });
        until_parked(&panicking);
        panicking.cancel();
        let error = panicking.join().unwrap_err();
        assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "its own");
    });
}

#[test]
fn a_shield_holds_and_nests() {
    run(|| {
        let reached = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&reached);
        let shielded = plainsong::spawn(move || {
            plainsong::shield(|| {
                plainsong::shield(|| sleep(Duration::from_micros(10)));
                thread::park();
                theirs.set(1);
                plainsong::yield_now();
                theirs.set(2);
            });
            theirs.set(3);
            plainsong::yield_now();
            theirs.set(4);
        });
        until_parked(&shielded);
        shielded.cancel();
        until_parked(&shielded);
        shielded.thread().unpark();
        // The first unpark may have come during the sleep.
        while !shielded.is_finished() {
            shielded.thread().unpark();
            plainsong::yield_now();
        }
        assert!(shielded.join().unwrap_err().is_cancelled());
        assert_eq!(reached.get(), 3);
    });
}

#[test]
fn a_wait_that_must_not_unwind_is_late_for_a_time_out() {
    run(|| {
        let ended = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&ended);
        let child = plainsong::spawn(move || {
            timeout(MOMENT, || {
                plainsong::no_unwind(|| {
                    thread::park();
                    // An inner one works as usual.
                    assert!(timeout(MOMENT, thread::park).is_err());
                    theirs.set(true);
                });
                sleep(HOUR);
            })
        });
        sleep(3 * MOMENT);
        until_parked(&child);
        child.thread().unpark();
        assert!(child.join().unwrap().is_err());
        assert!(ended.get());
    });
}

#[test]
fn the_end_of_a_run_leaves_one_that_must_not_unwind_where_it_is() {
    for workers in [1, 2] {
        watch(move || {
            let dropped = counter();
            let (guard, theirs) = (count_drop(&dropped), count_drop(&dropped));
            let runtime = runtime(workers);
            let (left, listening) = runtime.run(|| {
                let (sender, receiver) = channel::bounded::<u32>(0);
                let left = plainsong::spawn_anywhere(move || {
                    let _guard = guard;
                    plainsong::no_unwind(|| receiver.recv())
                });
                let listening = plainsong::spawn_anywhere(move || {
                    let _guard = theirs;
                    thread::park();
                });
                // A dump sees the other worker's coroutines, too.
                until(|| {
                    let dump = plainsong::inspect::dump();
                    let waits = |id| dump.coroutines().any(|c| c.id == id && c.waits_for.is_some());
                    waits(left.id()) && waits(listening.id())
                });
                // It has left the queue when the sender looks for it.
                (left, (listening, sender))
            });
            assert!(left.join().unwrap_err().is_cancelled());
            assert!(listening.0.join().unwrap_err().is_cancelled());
            assert_eq!(load(&dropped), 1);
            assert!(listening.1.try_send(1).is_err());
        });
    }
}

#[test]
fn one_that_borrows_is_waited_for_although_it_must_not_unwind() {
    run(|| {
        let mut waited = false;
        let ended = timeout(MOMENT, || {
            plainsong::scope(|s| {
                s.spawn(|| {
                    plainsong::no_unwind(|| sleep(20 * MOMENT));
                    waited = true;
                });
            });
        });
        assert!(ended.is_err() && waited);
    });
}

#[test]
fn a_shield_that_a_panic_ends() {
    run(|| {
        let result = catch_unwind(|| plainsong::shield(|| std::panic::resume_unwind(Box::new(1))));
        assert!(result.is_err());
        let child = plainsong::spawn(|| {
            let _ = catch_unwind(|| plainsong::shield(|| std::panic::resume_unwind(Box::new(1))));
            sleep(HOUR);
        });
        until_parked(&child);
        child.cancel();
        assert!(child.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn nothing_is_said_and_no_hook_runs() {
    alone(nothing_is_said_and_no_hook_runs, || {
        std::panic::set_hook(Box::new(|_| std::process::abort()));
        plainsong::run(|| {
            let child = plainsong::spawn(|| sleep(HOUR));
            until_parked(&child);
            child.cancel();
            assert!(child.join().unwrap_err().is_cancelled());
            assert!(timeout(Duration::ZERO, || sleep(HOUR)).is_err());
            plainsong::scope(|s| {
                s.spawn(|| sleep(HOUR));
                s.cancel();
            });
        });
    });
}

#[test]
fn a_hook_that_runs_while_another_coroutine_unwinds() {
    alone(a_hook_that_runs_while_another_coroutine_unwinds, || {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static HOOKS: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| {
            HOOKS.fetch_add(1, Ordering::Relaxed);
        }));
        plainsong::run(|| {
            let slow = plainsong::spawn(|| {
                let _guard = OnDrop(|| sleep(Duration::from_millis(2)));
                sleep(HOUR);
            });
            until_parked(&slow);
            slow.cancel();
            plainsong::yield_now();
            let failing = plainsong::spawn(|| panic!("while another unwinds"));
            assert!(failing.join().unwrap_err().is_panic());
            assert!(!slow.is_finished());
            assert!(slow.join().unwrap_err().is_cancelled());
        });
        assert_eq!(HOOKS.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_drop_that_panics_ends_the_process() {
    let output = crate::util::dying(a_drop_that_panics_ends_the_process, || {
        plainsong::run(|| {
            let child = plainsong::spawn(|| {
                let _guard = OnDrop(|| panic!("in a destructor"));
                sleep(HOUR);
            });
            until_parked(&child);
            child.cancel();
            drop(child.join());
        });
        std::process::exit(0);
    });
    if let Some(output) = output {
        assert!(output.contains("in a destructor"), "{output}");
    }
}

#[test]
fn a_wait_in_a_queue_ends_for_one_that_has_swallowed_a_cancellation_while_another_unwinds() {
    run(|| {
        let (_sender, receiver) = channel::unbounded::<()>();
        let swallows = plainsong::spawn(move || {
            assert!(catch_unwind(|| sleep(HOUR)).is_err());
            plainsong::shield(|| timeout(Duration::from_millis(20), || receiver.recv()).is_err())
        });
        until_parked(&swallows);
        swallows.cancel();
        plainsong::yield_now();
        // Suspended in the middle of a panic, which makes `panicking` true for the whole thread.
        let (go, gone) = channel::bounded::<()>(0);
        let unwinds = plainsong::spawn(move || {
            let _on = OnDrop(move || assert!(gone.recv().is_err()));
            panic!("expected");
        });
        plainsong::yield_now();
        assert!(swallows.join().unwrap());
        drop(go);
        assert!(unwinds.join().unwrap_err().is_panic());
    });
}

/// The reason of a coroutine that was cancelled.
fn reason<T>(handle: JoinHandle<T>) -> Option<String> {
    let error = handle.join().err().unwrap();
    assert!(error.is_cancelled());
    error.reason().map(str::to_owned)
}

#[test]
fn the_reason_of_the_first_request_is_the_one_of_the_error() {
    run(|| {
        let told = plainsong::spawn(thread::park);
        let silent = plainsong::spawn(thread::park);
        let unbegun = plainsong::spawn(thread::park);
        unbegun.cancel_with("never begun");
        plainsong::yield_now();
        told.cancel_with(String::from("the peer has gone"));
        told.cancel_with("too late");
        silent.cancel();
        silent.cancel_with("too late");
        let error = told.join().unwrap_err();
        assert_eq!(error.reason(), Some("the peer has gone"));
        assert_eq!(error.to_string(), "the coroutine was cancelled: the peer has gone");
        assert_eq!(reason(silent), None);
        assert_eq!(reason(unbegun).as_deref(), Some("never begun"));
        let panicked: JoinHandle<()> = plainsong::spawn(|| resume_unwind(Box::new(1)));
        assert_eq!(panicked.join().err().unwrap().reason(), None);
    });
}

#[test]
fn the_reason_reaches_coroutines_of_other_workers_and_those_that_never_begin() {
    for workers in [1, 2] {
        run_on(workers, || {
            let handles: Vec<_> =
                (0..100).map(|_| plainsong::spawn_anywhere(|| sleep(HOUR))).collect();
            handles.iter().for_each(|handle| handle.cancel_with("enough"));
            for handle in handles {
                assert_eq!(reason(handle).as_deref(), Some("enough"));
            }
        });
    }
}

#[test]
fn the_reason_of_a_scope_is_that_of_its_children() {
    run(|| {
        plainsong::scope(|s| {
            let (here, anywhere) = (s.spawn(|| sleep(HOUR)), s.spawn_anywhere(|| sleep(HOUR)));
            let alone = s.spawn(|| sleep(HOUR));
            alone.cancel_with("alone");
            s.cancel_with("all");
            let late = s.spawn(|| sleep(HOUR));
            let reason = |error: JoinError| error.reason().map(str::to_owned);
            assert_eq!(reason(here.join().unwrap_err()).as_deref(), Some("all"));
            assert_eq!(reason(anywhere.join().unwrap_err()).as_deref(), Some("all"));
            assert_eq!(reason(late.join().unwrap_err()).as_deref(), Some("all"));
            assert_eq!(reason(alone.join().unwrap_err()).as_deref(), Some("alone"));
        });
    });
}

#[test]
fn a_deadlock_report_has_the_reason() {
    let report = panic_of(|| {
        let strict = plainsong::Runtime::builder().strict_deadlock(true).build().unwrap();
        strict.run(|| {
            let (_sender, receiver) = channel::bounded::<i32>(1);
            let child = plainsong::spawn(move || {
                let _clean_up = OnDrop(|| assert!(receiver.recv().is_err()));
                sleep(HOUR);
            });
            plainsong::yield_now();
            child.cancel_with("the peer has gone");
            drop(child.join());
        });
    });
    assert!(report.contains("; cancelled: the peer has gone; spawned at "), "{report}");
}
