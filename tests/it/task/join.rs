//! Handles: results, panics, state, and joins from other threads.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use plainsong::sync::{Barrier, Event, Semaphore};
use plainsong::thread::park;
use plainsong::time::sleep;
use plainsong::{Builder, JoinHandle, spawn, yield_now};

use crate::util::{OnDrop, asleep, panic_of, run, until, until_asleep, until_parked};

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
        // Another thread could end such a wait, so it is no deadlock.
        until(|| true);
    });
}

#[test]
fn a_join_gives_the_value() {
    run(|| {
        assert_eq!(spawn(|| vec![1, 2]).join().unwrap(), [1, 2]);
        // Neither the closure nor its result is `Send`.
        let local = Rc::new(5);
        let theirs = Rc::clone(&local);
        let shared = spawn(move || theirs).join().unwrap();
        assert!(Rc::ptr_eq(&local, &shared));
        let large = spawn(|| [7u8; 10_000]).join().unwrap();
        assert!(large.iter().all(|&byte| byte == 7));
    });
}

#[test]
fn a_panic_ends_in_its_handle() {
    run(|| {
        let number = std::hint::black_box(5);
        let error = spawn(move || -> u32 { panic!("number {number}") }).join().unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert!(error.to_string().contains("number 5"), "{error}");
        assert!(format!("{error:?}").contains("number 5"), "{error:?}");
        assert_eq!(*error.into_panic().downcast::<String>().unwrap(), "number 5");

        let error = spawn(|| std::panic::panic_any(17)).join().unwrap_err();
        assert_eq!(*error.into_panic().downcast::<i32>().unwrap(), 17);
        let error = plainsong::thread::spawn(|| panic!("std's shape")).join().unwrap_err();
        assert_eq!(*error.downcast::<&str>().unwrap(), "std's shape");
    });
}

#[test]
fn a_dropped_handle_detaches() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let (flag, done) = (Rc::clone(&dropped), Rc::new(Cell::new(false)));
        let theirs = Rc::clone(&done);
        drop(spawn(move || {
            sleep(Duration::from_nanos(1));
            theirs.set(true);
            OnDrop(move || flag.set(true))
        }));
        while !done.get() {
            yield_now();
        }
        yield_now();
        assert!(dropped.get(), "the result that nobody takes is dropped");
    });
}

#[test]
fn a_result_is_dropped_with_its_handle() {
    run(|| {
        let dropped = Rc::new(Cell::new(0));
        let count = Rc::clone(&dropped);
        let child = spawn(move || OnDrop(move || count.set(count.get() + 1)));
        yield_now();
        assert!(child.is_finished());
        assert_eq!(dropped.get(), 0);
        drop(child);
        assert_eq!(dropped.get(), 1);
    });
}

#[test]
fn a_handle_shows_its_state() {
    run(|| {
        let child = Builder::new().name("shown").spawn(|| sleep(Duration::MAX)).unwrap();
        let line = line!() - 1;
        assert!(format!("{child:?}").contains("ready"), "{child:?}");
        until_parked(&child);
        let shown = format!("{child:?}");
        for part in ["shown", "waits for a timer", &format!("join.rs:{line}")] {
            assert!(shown.contains(part), "{shown}");
        }
        let reader = spawn(plainsong::thread::park);
        until_parked(&reader);
        assert!(format!("{reader:?}").contains("unpark"), "{reader:?}");
        let ended = spawn(|| ());
        yield_now();
        assert!(format!("{ended:?}").contains("finished"), "{ended:?}");
        let elsewhere = thread::spawn(move || format!("{reader:?}")).join().unwrap();
        assert!(elsewhere.contains("another thread"), "{elsewhere}");
    });
}

#[test]
fn join_timeout_gives_the_handle_back() {
    run(|| {
        let mut child = spawn(|| {
            for _ in 0..3 {
                plainsong::thread::park();
            }
            5
        });
        let waker = child.thread().clone();
        let value = loop {
            match child.join_timeout(Duration::from_nanos(1)) {
                Ok(value) => break value.unwrap(),
                Err(same) => child = same,
            }
            waker.unpark();
        };
        assert_eq!(value, 5);
        let ended = spawn(|| 6);
        yield_now();
        // A time-out of zero is enough for a coroutine that has ended, and the longest one is
        // accepted.
        assert_eq!(ended.join_timeout(Duration::ZERO).unwrap().unwrap(), 6);
        assert_eq!(spawn(|| 7).join_timeout(Duration::MAX).unwrap().unwrap(), 7);
    });
}

#[test]
fn handles_are_joined_where_their_results_may_go() {
    fn is_send<T: Send>() {}
    is_send::<JoinHandle<Vec<u8>>>();
    is_send::<plainsong::JoinError>();
    is_send::<plainsong::thread::Thread>();
    run(|| {
        let (send, receive) = mpsc::channel();
        send.send(spawn(|| 1)).unwrap();
        yield_now();
        let joiner = thread::spawn(move || receive.recv().unwrap().join().unwrap());
        until(|| joiner.is_finished());
        assert_eq!(joiner.join().unwrap(), 1);
    });
    // Joined after the end of its run, with the result still in the handle.
    let child = run(|| {
        let child = spawn(|| vec![3]);
        yield_now();
        child
    });
    assert_eq!(child.join().unwrap(), [3]);
    let cancelled = run(|| {
        let child = spawn(|| sleep(Duration::MAX));
        until_parked(&child);
        child
    });
    let error = cancelled.join().unwrap_err();
    assert!(error.is_cancelled() && !error.is_panic());
    assert!(panic_of(|| error.into_panic()).contains("cancelled"));
}

#[test]
fn an_error_or_a_token_may_be_written_to_something_that_waits() {
    use std::fmt::Write;
    /// Waits like a socket that is full.
    struct Slow;
    impl Write for Slow {
        fn write_str(&mut self, _: &str) -> std::fmt::Result {
            yield_now();
            Ok(())
        }
    }
    run(|| {
        let scripted = || std::panic::resume_unwind(Box::new("scripted"));
        let error = spawn(scripted).join().unwrap_err();
        let token = plainsong::CancellationToken::new();
        assert_eq!(format!("{error:?}"), "JoinError(the coroutine panicked: scripted)");
        assert_eq!(format!("{token:?}"), "CancellationToken { cancelled: false, .. }");
        plainsong::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| write!(Slow, "{error} {error:?}").unwrap());
            }
        });
        plainsong::scope(|s| {
            s.spawn(|| write!(Slow, "{token:?}").unwrap());
            s.spawn(|| token.is_cancelled());
        });
    });
}

#[test]
fn a_handle_joined_by_a_plain_thread() {
    run(|| {
        let child = spawn(|| {
            park();
            "joined"
        });
        let parked = child.thread().clone();
        let joiner = asleep(|| child.join().unwrap());
        parked.unpark();
        until(|| joiner.is_finished());
        assert_eq!(joiner.join().unwrap(), "joined");
        let ended = spawn(|| "joined");
        yield_now();
        assert!(ended.is_finished());
        assert_eq!(thread::spawn(|| ended.join().unwrap()).join().unwrap(), "joined");
    });
}

#[test]
fn a_handle_joined_by_a_thread_that_ran_coroutines_before() {
    run(|| {
        let child = spawn(|| {
            park();
            "joined"
        });
        let waker = child.thread().clone();
        let (tell, told) = mpsc::channel();
        let joiner = thread::spawn(move || {
            plainsong::run(|| sleep(Duration::from_nanos(1)));
            tell.send(rustix::thread::gettid()).unwrap();
            // Outside of a runtime this blocks the thread.
            child.join().unwrap()
        });
        until_asleep(told.recv().unwrap());
        waker.unpark();
        until(|| joiner.is_finished());
        assert_eq!(joiner.join().unwrap(), "joined");
    });
}

#[test]
fn a_handle_joined_in_another_runtime() {
    run(|| {
        let child = plainsong::spawn(|| {
            park();
            vec![1, 2, 3]
        });
        let waker = child.thread().clone();
        let other = thread::spawn(move || {
            plainsong::run(|| {
                let child = child.join_timeout(Duration::from_nanos(1)).unwrap_err();
                waker.unpark();
                let ticks = plainsong::spawn(|| sleep(Duration::from_nanos(1)));
                let value = child.join().unwrap();
                ticks.join().unwrap();
                value
            })
        });
        until(|| other.is_finished());
        assert_eq!(other.join().unwrap(), [1, 2, 3]);
    });
}

#[test]
fn a_thousand_handles_joined_elsewhere() {
    run(|| {
        let (handles, theirs) = mpsc::channel::<plainsong::JoinHandle<usize>>();
        let joiner = thread::spawn(move || theirs.into_iter().map(|h| h.join().unwrap()).sum());
        for n in 0..1000 {
            let child = plainsong::spawn(move || {
                for _ in 0..n % 3 {
                    plainsong::yield_now();
                }
                n
            });
            handles.send(child).unwrap();
            if n % 7 == 0 {
                plainsong::yield_now();
            }
        }
        drop(handles);
        until(|| joiner.is_finished());
        let sum: usize = joiner.join().unwrap();
        assert_eq!(sum, 1000 * 999 / 2);
    });
}
