//! `Promise`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread as system;

use plainsong::sync::{Promise, PromiseError};
use plainsong::{Runtime, no_wait};

use crate::util::{HOUR, MOMENT, both};

#[test]
fn a_promise_is_kept_once() {
    both(|| {
        let promise = Promise::new();
        assert!(!promise.is_done() && promise.get().is_none());
        assert!(promise.wait_timeout(MOMENT).is_none());
        assert_eq!(format!("{promise:?}"), "Promise(<pending>)");
        let theirs = promise.clone();
        let thread = system::spawn(move || theirs.set(5));
        assert_eq!(promise.wait().unwrap(), &5);
        assert_eq!(thread.join().unwrap(), Ok(()));
        assert_eq!(promise.set(6), Err(6));
        assert!(!promise.set_error("late") && !promise.cancel() && !promise.is_cancelled());
        assert_eq!(promise.wait_timeout(HOUR).unwrap().unwrap(), &5);
        assert_eq!(format!("{promise:?}"), "Promise(Ok(5))");

        let failed = Promise::<()>::new();
        assert!(failed.set_error("no luck"));
        let error = failed.wait().unwrap_err();
        assert!(matches!(error, PromiseError::Failed(_)) && error.to_string() == "no luck");
        let cancelled = Promise::<()>::default();
        assert!(cancelled.cancel() && cancelled.is_cancelled() && cancelled.set(()).is_err());
        assert!(matches!(cancelled.wait(), Err(PromiseError::Cancelled)));
    });
}

#[test]
fn calls_are_made_in_order_and_at_once_when_it_is_done() {
    both(|| {
        let (promise, log) = (Promise::new(), Arc::new(Mutex::new(Vec::new())));
        let note = |n: i32| {
            let log = Arc::clone(&log);
            move |promise: &Promise<i32>| {
                log.lock().unwrap().push(n + promise.get().unwrap().unwrap())
            }
        };
        promise.on_done(note(1));
        promise.on_done(|_| resume_unwind(Box::new("scripted")));
        promise.on_done(note(2));
        let set = catch_unwind(AssertUnwindSafe(|| promise.set(10)));
        assert!(set.is_err());
        assert_eq!(*log.lock().unwrap(), [11, 12]);
        promise.on_done(note(3));
        assert_eq!(*log.lock().unwrap(), [11, 12, 13]);
    });
}

#[test]
fn calls_of_a_promise_are_made_in_the_order_in_which_they_were_asked_for() {
    both(|| {
        let (promise, log) = (Promise::new(), Arc::new(Mutex::new(Vec::new())));
        let note = |n: i32| {
            let log = Arc::clone(&log);
            move |_: &Promise<i32>| log.lock().unwrap().push(n)
        };
        let (first, last) = (note(1), note(3));
        promise.on_done(move |promise| {
            first(promise);
            promise.on_done(last);
        });
        promise.on_done(note(2));
        promise.set(0).unwrap();
        promise.on_done(note(4));
        assert_eq!(*log.lock().unwrap(), [1, 2, 3, 4]);
    });
}

#[test]
fn all_calls_of_a_promise_are_made_when_the_payload_of_a_panic_panics_in_its_destructor() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("of a payload");
        }
    }
    both(|| {
        let (promise, made) = (Promise::<i32>::new(), Arc::new(Mutex::new(0)));
        let count = || {
            let made = Arc::clone(&made);
            move |_: &Promise<i32>| *made.lock().unwrap() += 1
        };
        promise.on_done(|_| panic!("the first"));
        promise.on_done(|_| std::panic::panic_any(Panics));
        promise.on_done(count());
        let first = catch_unwind(AssertUnwindSafe(|| promise.set(7))).unwrap_err();
        assert_eq!(first.downcast_ref(), Some(&"the first"));
        promise.on_done(count());
        assert_eq!(*made.lock().unwrap(), 2);
    });
}

/// It waited for another thread that was setting the promise, which is long if the value is large.
#[test]
fn a_promise_is_set_and_cancelled_without_a_wait() {
    type Large = [u8; 8 << 10];
    let (send, receive) = std::sync::mpsc::channel::<Promise<Large>>();
    let setting = system::spawn(move || {
        receive.iter().for_each(|promise| _ = promise.set([1; 8 << 10]));
    });
    let runtime = Runtime::builder().stack_size(8 << 20).build().unwrap();
    runtime.run(move || {
        for round in 0..5_000 {
            let promise = Promise::new();
            send.send(promise.clone()).unwrap();
            (0..round % 400 * 20).for_each(|_| std::hint::spin_loop());
            no_wait(|| promise.cancel());
        }
    });
    setting.join().unwrap();
}
