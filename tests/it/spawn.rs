//! Coroutines and their handles: values, panics, names, order.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use plainsong::time::sleep;
use plainsong::{Builder, JoinHandle, spawn, yield_now};

use crate::util::{OnDrop, panic_of, run, until_parked};

#[test]
fn a_join_gives_the_value() {
    run(|| {
        assert_eq!(spawn(|| vec![1, 2]).join().unwrap(), [1, 2]);
        // Not `Send`, and neither is what it captures.
        let local = Rc::new(5);
        let theirs = Rc::clone(&local);
        let shared = spawn(move || theirs).join().unwrap();
        assert!(Rc::ptr_eq(&local, &shared));
        // Large results, too.
        let large = spawn(|| [7u8; 10_000]).join().unwrap();
        assert!(large.iter().all(|&byte| byte == 7));
    });
}

#[test]
fn a_spawned_coroutine_runs_at_the_next_turn() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        for n in 0..5 {
            let log = Rc::clone(&log);
            spawn(move || log.borrow_mut().push(n));
        }
        assert!(log.borrow().is_empty());
        yield_now();
        assert_eq!(*log.borrow(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn turns_go_round_in_order() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let children: Vec<_> = (0..3)
            .map(|n| {
                let log = Rc::clone(&log);
                spawn(move || {
                    for turn in 0..3 {
                        log.borrow_mut().push((turn, n));
                        yield_now();
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.join().unwrap());
        let expected: Vec<_> = (0..3).flat_map(|turn| (0..3).map(move |n| (turn, n))).collect();
        assert_eq!(*log.borrow(), expected);
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
fn names_and_ids() {
    run(|| {
        assert_eq!(plainsong::current().name(), Some("main"));
        let child = Builder::new().name("worker").spawn(|| plainsong::current().id()).unwrap();
        assert_eq!(child.name(), Some("worker"));
        let (thread, id) = (child.thread().clone(), child.id());
        assert_eq!(thread.id(), child.join().unwrap());
        assert_eq!(spawn(|| ()).name(), None);
        // Never the same id twice, however often a slot is used again.
        let mut ids = HashSet::from([id]);
        for _ in 0..5000 {
            let child = spawn(|| ());
            assert!(ids.insert(child.id()));
            child.join().unwrap();
        }
    });
    assert_ne!(run(|| spawn(|| ()).id()), run(|| spawn(|| ()).id()));
}

#[test]
fn a_handle_shows_its_state() {
    run(|| {
        let child = Builder::new().name("shown").spawn(|| sleep(Duration::MAX)).unwrap();
        let line = line!() - 1;
        assert!(format!("{child:?}").contains("ready"), "{child:?}");
        until_parked(&child);
        let shown = format!("{child:?}");
        for part in ["shown", "waits for a timer", &format!("spawn.rs:{line}")] {
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
        // No time is enough for what has ended, and the clock's end is no problem.
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
        while !joiner.is_finished() {
            yield_now();
        }
        assert_eq!(joiner.join().unwrap(), 1);
    });
    // After the end of its run, with the result still in it.
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
fn the_names_of_std_work_alike() {
    use plainsong::thread;
    fn program() {
        let me = thread::current();
        assert_eq!(me.id(), thread::current().id());
        thread::yield_now();
        thread::sleep(Duration::from_nanos(1));
        thread::park_timeout(Duration::from_nanos(1));
        me.unpark();
        thread::park();
        assert!(!thread::panicking());
    }
    run(program);
    std::thread::spawn(program).join().unwrap();
    run(|| {
        let child = thread::Builder::new().name("std".into()).stack_size(1 << 16).spawn(|| {
            program();
            thread::current().name().map(str::to_owned)
        });
        let child = child.unwrap();
        assert_eq!(child.thread().name(), Some("std"));
        assert_eq!(child.join().unwrap().as_deref(), Some("std"));
    });
    // On a plain thread `current` is std's.
    let named = std::thread::Builder::new().name("plain".into());
    let name = named.spawn(|| thread::current().name().map(str::to_owned)).unwrap();
    assert_eq!(name.join().unwrap().as_deref(), Some("plain"));
}

#[test]
fn a_chain_of_spawns_and_joins() {
    run(|| {
        fn link(depth: u32) -> u32 {
            if depth == 0 { 0 } else { 1 + spawn(move || link(depth - 1)).join().unwrap() }
        }
        assert_eq!(link(1000), 1000);
    });
}

#[test]
fn an_error_or_a_token_may_be_written_to_something_that_waits() {
    use std::fmt::Write;
    /// Like a socket that is full.
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
