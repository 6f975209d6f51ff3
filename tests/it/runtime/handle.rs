//! `Handle`: spawning into a runtime from outside of its run.

use std::cell::RefCell;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, OnceLock, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use plainsong::sync::Event;
use plainsong::time::{Sleep, sleep};
use plainsong::{Handle, JoinHandle, Runtime, blocking, spawn, spawn_anywhere, yield_now};

use crate::util::{
    HOUR, MOMENT, OnDrop, count_drop, counter, load, panic_of, run_on, runtime, until, watch,
};

#[test]
fn a_handle_keeps_what_comes_before_the_run() {
    for workers in [1, 3] {
        watch(move || {
            let runtime = runtime(workers);
            let handle = runtime.handle();
            for _ in 0..20 {
                let early: Vec<_> = (0..10).map(|n| handle.spawn(move || n)).collect();
                assert!(early.iter().all(|one| !one.is_finished()));
                let sum: i32 =
                    runtime.run(|| early.into_iter().map(|one| one.join().unwrap()).sum());
                assert_eq!(sum, 45);
            }
        });
    }
}

#[test]
fn a_runtime_that_goes_cancels_what_it_has_kept() {
    let gone = counter();
    let runtime = runtime(2);
    let handle = runtime.handle();
    let guard = count_drop(&gone);
    let kept = handle.spawn(move || drop(guard));
    let guard = count_drop(&gone);
    let also = std::thread::spawn(move || handle.spawn(move || drop(guard))).join().unwrap();
    drop(runtime);
    assert_eq!(load(&gone), 2);
    assert!(kept.join().unwrap_err().is_cancelled());
    assert!(also.join().unwrap_err().is_cancelled());
}

#[test]
fn a_handle_of_a_runtime_that_has_gone() {
    let handle = run_on(2, Handle::current);
    let gone = counter();
    let guard = count_drop(&gone);
    let late = handle.spawn(move || drop(guard));
    assert_eq!(load(&gone), 1);
    assert!(late.join().unwrap_err().is_cancelled());
}

#[test]
fn a_blocking_call_never_waits_for_a_run_that_waits_for_the_call() {
    for workers in [1, 2] {
        let joined = Arc::new(OnceLock::new());
        let theirs = Arc::clone(&joined);
        run_on(workers, move || {
            let (begun, handle) = (Arc::new(Event::new()), Handle::current());
            let (tell, closing) = mpsc::channel::<()>();
            // It unwinds, or is dropped, when the run is closing, and not before.
            spawn_anywhere(move || {
                let _tell = tell;
                sleep(HOUR);
            });
            let call = Arc::clone(&begun);
            spawn(move || {
                blocking(move || {
                    call.set();
                    closing.recv().unwrap_err();
                    theirs.set(handle.spawn(|| ()).join()).unwrap();
                });
            });
            begun.wait();
        });
        let joined = Arc::into_inner(joined).and_then(OnceLock::into_inner).unwrap();
        // With two workers, the other one may start the job before it hears of the end.
        assert!(joined.map_or_else(|error| error.is_cancelled(), |()| workers == 2));
    }
}

#[test]
fn what_a_runtime_has_not_started_ends_with_it_even_after_its_thread() {
    thread_local! {
        static LAST: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    watch(|| {
        let thread = std::thread::spawn(|| {
            // Made first, so dropped last: after the library's own thread-locals.
            LAST.with(|_| ());
            let runtime = Runtime::builder().build().unwrap();
            let handle = runtime.handle().spawn(|| 1);
            LAST.set(Some(runtime));
            handle
        });
        assert!(thread.join().unwrap().join().unwrap_err().is_cancelled());
    });
}

#[test]
fn outside_of_a_run_there_is_no_current_handle() {
    watch(|| {
        assert!(panic_of(Handle::current).contains("Runtime::handle"));
        plainsong::run(|| {
            let plain = std::thread::spawn(|| panic_of(Handle::current));
            assert!(plain.join().unwrap().contains("no plainsong runtime"));
        });
    });
}

#[test]
fn a_thread_that_never_stops_spawning_does_not_keep_a_run_going() {
    for workers in [1, 2] {
        watch(move || {
            let runtime = runtime(workers);
            let stop = AtomicBool::new(false);
            std::thread::scope(|s| {
                for _ in 0..3 {
                    let (handle, stop) = (runtime.handle(), &stop);
                    s.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            handle.spawn(|| ());
                        }
                    });
                }
                runtime.run(|| sleep(MOMENT));
                stop.store(true, Ordering::Relaxed);
            });
        });
    }
}

#[test]
fn a_destructor_spawns_through_a_handle_while_the_run_ends() {
    for workers in [1, 2] {
        let cancelled = Arc::new(AtomicBool::new(false));
        let theirs = cancelled.clone();
        run_on(workers, move || {
            let begun = Arc::new(AtomicBool::new(false));
            let begins = begun.clone();
            spawn_anywhere(move || {
                let _late = OnDrop(|| {
                    let late = Handle::current().spawn(|| ());
                    theirs.store(late.join().is_err(), Ordering::SeqCst);
                });
                begins.store(true, Ordering::SeqCst);
                sleep(HOUR);
            });
            until(|| begun.load(Ordering::SeqCst));
        });
        assert!(cancelled.load(Ordering::SeqCst));
    }
}

#[test]
fn a_run_that_cannot_start_leaves_what_was_kept_to_the_next() {
    for workers in [1, 3] {
        watch(move || {
            let runtime = runtime(workers);
            let answer = runtime.handle().spawn(|| 42);
            let message = panic_of(|| plainsong::run(|| runtime.run(|| ())));
            assert!(message.contains("already"), "{message}");
            assert_eq!(runtime.run(|| answer.join().unwrap()), 42);
        });
    }
}

#[test]
fn what_another_run_of_the_same_runtime_does_can_be_waited_for() {
    watch(|| {
        let runtime = runtime(1);
        let (begin, begins) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        std::thread::scope(|s| {
            let first = s.spawn(|| {
                runtime.run(move || {
                    begin.send(()).unwrap();
                    until(|| ends.try_recv().is_ok());
                });
            });
            begins.recv().unwrap();
            // The first run may take everything that comes through the handle.
            let answer = runtime.run(|| {
                let slow = Handle::current().spawn(|| {
                    sleep(Duration::from_millis(20));
                    7
                });
                slow.join().unwrap()
            });
            assert_eq!(answer, 7);
            end.send(()).unwrap();
            first.join().unwrap();
        });
    });
}

#[test]
fn two_runtimes_ask_each_other() {
    watch(|| {
        let (left, right) = (runtime(2), runtime(2));
        let (to_left, to_right) = (left.handle(), right.handle());
        let barrier = Barrier::new(2);
        let ask = |runtime: &Runtime, other: Handle| {
            runtime.run(|| {
                let sum: usize = (0..200)
                    .map(|n| {
                        let theirs = other.spawn(move || {
                            yield_now();
                            n
                        });
                        theirs.join().unwrap()
                    })
                    .sum();
                assert_eq!(sum, 199 * 100);
                // Ends only when the other has its answers.
                let (done, is_done) = mpsc::channel();
                std::thread::scope(|s| {
                    s.spawn(|| {
                        barrier.wait();
                        done.send(()).unwrap();
                    });
                    until(|| is_done.try_recv().is_ok());
                });
            });
        };
        std::thread::scope(|s| {
            s.spawn(|| ask(&left, to_right));
            ask(&right, to_left);
        });
    });
}

#[test]
fn plain_threads_spawn_while_runs_begin_and_end() {
    for workers in [1, 2, 3, 8] {
        watch(move || {
            let runtime = runtime(workers);
            let stop = AtomicBool::new(false);
            let (began, gone, made) = (counter(), counter(), counter());
            std::thread::scope(|s| {
                for _ in 0..2 {
                    let handle = runtime.handle();
                    let (began, gone, made, stop) = (&began, &gone, &made, &stop);
                    s.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            let (began, guard) = (began.clone(), count_drop(gone));
                            made.fetch_add(1, Ordering::SeqCst);
                            handle.spawn(move || {
                                let _guard = guard;
                                began.fetch_add(1, Ordering::SeqCst);
                            });
                            std::thread::sleep(Duration::from_micros(30));
                        }
                    });
                }
                for _ in 0..500 {
                    runtime.run_all(|| sleep(Duration::from_micros(200)));
                    runtime.run(yield_now);
                }
                stop.store(true, Ordering::Relaxed);
            });
            drop(runtime);
            assert_eq!(load(&made), load(&gone));
            assert!(load(&began) <= load(&made));
        });
    }
}

#[test]
fn a_handle_spawns_with_a_name_and_a_stack() {
    assert!(Handle::try_current().is_none());
    let handle = runtime(1).handle();
    let small = plainsong::Builder::new().stack_size(1);
    assert_eq!(
        handle.spawn_with(small, || ()).unwrap_err().kind(),
        std::io::ErrorKind::InvalidInput
    );
    run_on(2, || {
        let handle = Handle::try_current().unwrap();
        let guest = move || {
            let builder = plainsong::Builder::new().name("guest").stack_size(4 << 20);
            handle.spawn_with(builder, || {
                assert!(std::hint::black_box([1_u8; 512 * 1024]).iter().all(|one| *one == 1));
                plainsong::current().name().map(str::to_owned)
            })
        };
        let here = guest().unwrap().join().unwrap();
        let there = std::thread::spawn(guest).join().unwrap().unwrap().join().unwrap();
        assert_eq!([here.as_deref(), there.as_deref()], [Some("guest"); 2]);
    });
}

/// Its thread still counted as a worker of the run that was over.
#[test]
fn a_waker_at_the_end_of_a_run_is_outside_of_it() {
    struct Look(Handle, mpsc::Sender<(bool, JoinHandle<i32>)>);
    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            let _ = self.1.send((Handle::try_current().is_some(), self.0.spawn(|| 7)));
        }
    }
    for workers in [1, 2] {
        watch(move || {
            let runtime = runtime(workers);
            let (look, seen) = mpsc::channel();
            let waker = Waker::from(Arc::new(Look(runtime.handle(), look)));
            let armed = runtime.run(move || {
                let mut armed = Box::pin(Sleep::new(HOUR));
                assert!(armed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                armed
            });
            let (inside, next) = seen.recv().unwrap();
            assert!(!inside);
            assert_eq!(runtime.run(|| next.join().unwrap()), 7);
            drop(armed);
        });
    }
}
