//! Blocking calls: a call is made once and its value returned, or it is taken back and its caller
//! is unwound.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicUsize, Ordering};

use super::check;
use crate::engine::blocking::{attempt, try_offload};
use crate::{JoinHandle, Runtime, spawn, spawn_anywhere, yield_now};

/// Runs two coroutines that make calls with `call`, while `then` has their handles. Returns how
/// many calls were made, and how many coroutines had the value.
fn check_calls(
    call: fn(Arc<AtomicUsize>, Arc<()>) -> Arc<()>,
    then: fn(&[JoinHandle<Arc<()>>; 2]),
    right: fn(made: usize, had: usize),
) {
    check(move || {
        let (made, value) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let runtime = Runtime::builder().workers(2).build().unwrap();
        let had = runtime.run(|| {
            let callers = [(); 2].map(|()| {
                let (made, value) = (Arc::clone(&made), Arc::clone(&value));
                spawn_anywhere(move || call(made, value))
            });
            then(&callers);
            callers.into_iter().filter_map(|caller| caller.join().ok()).count()
        });
        // A call that was left alone may still be under way.
        while Arc::strong_count(&made) > 1 || Arc::strong_count(&value) > 1 {
            shuttle::thread::yield_now();
        }
        right(made.load(Ordering::SeqCst), had);
    });
}

/// A call that waits for its end.
fn lends(made: Arc<AtomicUsize>, value: Arc<()>) -> Arc<()> {
    attempt(|| {
        made.fetch_add(1, Ordering::SeqCst);
        Arc::clone(&value)
    })
    .unwrap()
}

/// A call that is left alone when its caller is cancelled.
fn leaves(made: Arc<AtomicUsize>, value: Arc<()>) -> Arc<()> {
    try_offload(None, move || {
        made.fetch_add(1, Ordering::SeqCst);
        value
    })
    .unwrap()
}

#[test]
fn each_caller_has_its_value() {
    check_calls(lends, |_| (), |made, had| assert_eq!((made, had), (2, 2)));
}

#[test]
fn a_cancelled_call_is_taken_back_or_returns_its_value() {
    let then = |callers: &[JoinHandle<_>; 2]| {
        yield_now();
        callers[0].cancel();
    };
    check_calls(lends, then, |made, had| assert!(made == had && had >= 1));
}

#[test]
fn the_value_of_a_call_that_was_left_alone_is_dropped() {
    let then = |callers: &[JoinHandle<_>; 2]| {
        yield_now();
        callers[0].cancel();
    };
    check_calls(leaves, then, |made, had| assert!(made >= had && had >= 1));
}

#[test]
fn a_call_that_makes_a_call_has_a_thread_for_it() {
    check(|| {
        let value = crate::run(|| {
            let child = spawn(|| attempt(|| crate::run(|| attempt(|| 7).unwrap())).unwrap());
            child.join().unwrap()
        });
        assert_eq!(value, 7);
    });
}
