//! Sleeps, time-outs inside time-outs, and calls for later: nothing is early, what is due first
//! decides, and what was cancelled does not happen.

#![no_main]

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plainsong::spawn;
use plainsong::time::{at, now, sleep_until, timeout_at};

#[derive(Arbitrary, Debug)]
enum Task {
    /// A sleep in two time-outs.
    Nested { outer: u16, inner: u16, sleep: u16, cancelled: bool },
    /// A call, cancelled after so many microseconds if it has not been made.
    Call { due: u16, cancelled: Option<u16> },
}

fuzz_target!(|tasks: Vec<Task>| {
    plainsong::run(|| {
        let start = now();
        // Up to a millisecond.
        let due = |micros: u16| start + Duration::from_micros(u64::from(micros % 1024));
        let handles: Vec<_> = tasks
            .into_iter()
            .take(16)
            .map(|task| match task {
                Task::Nested { outer, inner, sleep, cancelled } => {
                    let (outer, inner, sleep) = (due(outer), due(inner), due(sleep));
                    let handle = spawn(move || nested(outer, inner, sleep));
                    if cancelled {
                        handle.cancel();
                    }
                    (handle, cancelled)
                }
                Task::Call { due: time, cancelled } => {
                    let (time, cancelled) = (due(time), cancelled.map(due));
                    (spawn(move || call(time, cancelled)), false)
                }
            })
            .collect();
        for (handle, cancelled) in handles {
            match handle.join() {
                Ok(()) => assert!(!cancelled, "it was cancelled before it began"),
                Err(error) => assert!(error.is_cancelled() && cancelled, "{error:?}"),
            }
        }
    });
});

fn nested(outer: Instant, inner: Instant, sleep: Instant) {
    let began = Cell::new(None);
    let result = timeout_at(outer, || {
        timeout_at(inner, || {
            began.set(Some(now()));
            sleep_until(sleep);
        })
    });
    let ended = now();
    match result {
        Ok(Ok(())) => assert!(ended >= sleep, "a sleep that was too short"),
        Ok(Err(_)) => assert!(ended >= inner, "the inner time-out was early"),
        Err(_) => assert!(ended >= outer, "the outer time-out was early"),
    }
    // The sleep was due first, and nothing was due yet.
    let first = outer.min(inner).min(sleep);
    if began.get().is_some_and(|began| began < first) && sleep < outer.min(inner) {
        assert_eq!(result, Ok(Ok(())), "the sleep was over first");
    }
}

fn call(time: Instant, cancelled: Option<Instant>) {
    let called = Rc::new(Cell::new(false));
    let theirs = Rc::clone(&called);
    let timer = at(time, move || {
        assert!(now() >= time, "called too early");
        theirs.set(true);
    });
    let Some(cancelled) = cancelled else {
        sleep_until(time + Duration::from_micros(1));
        while !called.get() {
            plainsong::yield_now();
        }
        return;
    };
    sleep_until(cancelled);
    let before = called.get();
    let prevented = timer.cancel();
    assert!(!(prevented && before), "a call that was made cannot be prevented");
    sleep_until(time + Duration::from_micros(1));
    if prevented {
        (0..3).for_each(|_| plainsong::yield_now());
        assert!(!called.get(), "a call that was cancelled");
    }
}
