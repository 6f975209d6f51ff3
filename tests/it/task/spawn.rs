//! `spawn`, `Builder` and the order in which coroutines run.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use plainsong::{Builder, spawn, yield_now};

use crate::util::run;

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
fn names_and_ids() {
    run(|| {
        assert_eq!(plainsong::current().name(), Some("main"));
        let child = Builder::new().name("worker").spawn(|| plainsong::current().id()).unwrap();
        assert_eq!(child.name(), Some("worker"));
        let (thread, id) = (child.thread().clone(), child.id());
        assert_eq!(thread.id(), child.join().unwrap());
        assert_eq!(spawn(|| ()).name(), None);
        // An id is never used again, even if a slot is.
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
