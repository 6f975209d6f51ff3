//! `run` and `run_all`: results, clean-up, and misuse.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;
use std::{net, thread};

use plainsong::net::{TcpListener, TcpStream};
use plainsong::time::{after, sleep};

use crate::util::{
    HOUR, OnDrop, alone, descriptors, dying, mappings, pair, panic_of, resident, until_parked,
    watch,
};

#[test]
fn run_returns_the_value_and_may_borrow() {
    let mut count = 0;
    let text = String::from("borrowed");
    let borrowed = plainsong::run(|| {
        count += 1;
        sleep(Duration::from_nanos(1));
        &text
    });
    assert_eq!((borrowed.as_str(), count), ("borrowed", 1));
}

#[test]
fn run_panics_with_the_panic_of_its_closure() {
    assert_eq!(panic_of(|| plainsong::run(|| panic!("of main"))), "of main");
    assert_eq!(panic_of(|| plainsong::run_all(|| panic!("of main"))), "of main");
    // The thread can run again.
    assert_eq!(plainsong::run(|| plainsong::spawn(|| 1).join().unwrap()), 1);
}

#[test]
fn a_panic_of_main_ends_the_others() {
    watch(|| {
        let dropped = Rc::new(Cell::new(false));
        let flag = Rc::clone(&dropped);
        panic_of(|| {
            plainsong::run(|| {
                let guard = OnDrop(move || flag.set(true));
                let child = plainsong::spawn(move || {
                    let _guard = guard;
                    sleep(Duration::MAX);
                });
                until_parked(&child);
                panic!("early");
            })
        });
        assert!(dropped.get());
    });
}

#[test]
fn what_is_left_at_the_end_is_unwound() {
    alone(what_is_left_at_the_end_is_unwound, || {
        plainsong::run(|| ());
        let before = descriptors();
        let dropped = Rc::new(Cell::new(0));
        let silent = Rc::new(Cell::new(true));
        let heard = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let hook = heard.clone();
        std::panic::set_hook(Box::new(move |_| {
            hook.store(true, std::sync::atomic::Ordering::Relaxed);
        }));
        plainsong::run(|| {
            let count = || {
                let dropped = Rc::clone(&dropped);
                OnDrop(move || dropped.set(dropped.get() + 1))
            };
            let guard = count();
            plainsong::spawn(move || {
                let _guard = guard;
                sleep(Duration::MAX);
            });
            let (guard, listener) = (count(), TcpListener::bind("127.0.0.1:0").unwrap());
            let address = listener.local_addr().unwrap();
            plainsong::spawn(move || {
                let _guard = guard;
                listener.serve(|_| sleep(Duration::MAX))
            });
            let guard = count();
            plainsong::spawn(move || {
                let _guard = guard;
                let mut stream = TcpStream::connect(address).unwrap();
                stream.read(&mut [0; 8])
            });
            let guard = count();
            plainsong::spawn(move || {
                let _guard = guard;
                plainsong::thread::park();
            });
            let guard = count();
            let yielding = Rc::clone(&silent);
            plainsong::spawn(move || {
                let _guard = guard;
                while yielding.get() {
                    plainsong::yield_now();
                }
            });
            let guard = count();
            let other = plainsong::spawn(|| sleep(Duration::MAX));
            plainsong::spawn(move || {
                let _guard = guard;
                other.join()
            });
            for _ in 0..100 {
                plainsong::yield_now();
            }
            // This one never starts, and its captures are dropped all the same.
            let guard = count();
            plainsong::spawn(move || {
                let _guard = guard;
                unreachable!("started after the end");
            });
        });
        assert_eq!(dropped.get(), 7);
        assert_eq!(descriptors(), before);
        // A cancellation runs no panic hook.
        assert!(!heard.load(std::sync::atomic::Ordering::Relaxed));
    });
}

#[test]
fn run_all_waits_for_every_coroutine() {
    watch(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        let value = plainsong::run_all(|| {
            plainsong::spawn(move || {
                sleep(Duration::from_millis(2));
                let later = Rc::clone(&theirs);
                plainsong::spawn(move || {
                    sleep(Duration::from_millis(2));
                    later.borrow_mut().push("grandchild");
                });
                theirs.borrow_mut().push("child");
            });
            "main"
        });
        assert_eq!(value, "main");
        assert_eq!(*log.borrow(), ["child", "grandchild"]);
    });
}

#[test]
fn nesting_is_refused_in_words() {
    watch(|| {
        plainsong::run(|| {
            for message in [
                panic_of(|| plainsong::run(|| ())),
                panic_of(|| plainsong::run_all(|| ())),
                panic_of(|| plainsong::Runtime::builder().build().unwrap().run(|| ())),
            ] {
                assert!(message.contains("already"), "{message}");
                assert!(message.contains("spawn"), "{message}");
            }
            // The outer run goes on.
            assert_eq!(plainsong::spawn(|| 5).join().unwrap(), 5);
            // Another thread can have a run of its own.
            let inner = thread::spawn(|| plainsong::run(|| 6));
            assert_eq!(inner.join().unwrap(), 6);
        });
    });
}

#[test]
fn spawning_outside_is_refused_in_words() {
    let message = panic_of(|| plainsong::spawn(|| ()));
    assert!(message.contains("plainsong::run"), "{message}");
    let message = panic_of(|| plainsong::thread::spawn(|| ()));
    assert!(message.contains("plainsong::run"), "{message}");
    let message = panic_of(|| after(Duration::ZERO, || ()));
    assert!(message.contains("plainsong::run"), "{message}");
    let error = plainsong::Builder::new().spawn(|| ()).unwrap_err();
    assert!(error.to_string().contains("plainsong::run"), "{error}");
    plainsong::run(|| ());
    // It is the same after a run.
    let message = panic_of(|| plainsong::spawn(|| ()));
    assert!(message.contains("plainsong::run"), "{message}");
}

#[test]
fn a_runtime_a_thread() {
    watch(|| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                thread::spawn(move || {
                    plainsong::run(|| {
                        let children: Vec<_> = (0..100)
                            .map(|m| {
                                plainsong::spawn(move || {
                                    sleep(Duration::from_micros(m));
                                    n * m
                                })
                            })
                            .collect();
                        children.into_iter().map(|child| child.join().unwrap()).sum::<u64>()
                    })
                })
            })
            .collect();
        let sums: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(sums, (0..8).map(|n| n * 4950).collect::<Vec<_>>());
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_thousand_runs_on_one_thread_lose_nothing() {
    alone(a_thousand_runs_on_one_thread_lose_nothing, || {
        let once = || {
            plainsong::run(|| {
                let (ours, theirs) = pair();
                let reader = plainsong::spawn(move || (&ours).read(&mut [0; 8]));
                plainsong::spawn(|| sleep(Duration::MAX));
                after(Duration::MAX, || ());
                until_parked(&reader);
                drop(theirs);
                reader.join().unwrap().unwrap();
            });
        };
        (0..100).for_each(|_| once());
        let before = (descriptors(), mappings(), resident());
        (0..1000).for_each(|_| once());
        assert_eq!(descriptors(), before.0);
        assert!(mappings() <= before.1 + 2, "{} mappings, {} before", mappings(), before.1);
        let grown = resident().saturating_sub(before.2);
        assert!(grown < 1024, "{grown} KiB more after a thousand runs");
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_thousand_threads_that_run_lose_nothing() {
    alone(a_thousand_threads_that_run_lose_nothing, || {
        let once = || {
            let thread = thread::spawn(|| {
                plainsong::run(|| {
                    let (ours, theirs) = pair();
                    let reader = plainsong::spawn(move || (&ours).read(&mut [0; 8]));
                    until_parked(&reader);
                    drop(theirs);
                    reader.join().unwrap().unwrap();
                });
            });
            thread.join().unwrap();
        };
        (0..100).for_each(|_| once());
        let before = (descriptors(), mappings(), resident());
        (0..1000).for_each(|_| once());
        assert_eq!(descriptors(), before.0);
        assert!(mappings() <= before.1 + 4, "{} mappings, {} before", mappings(), before.1);
        let grown = resident().saturating_sub(before.2);
        assert!(grown < 2048, "{grown} KiB more after a thousand threads");
    });
}

#[test]
fn forgetting_handles_is_safe() {
    watch(|| {
        let (value, peer) = plainsong::run(|| {
            let child = plainsong::spawn(|| sleep(Duration::from_nanos(1)));
            std::mem::forget(child);
            let ended = plainsong::spawn(|| vec![1; 100]);
            plainsong::yield_now();
            std::mem::forget(ended);
            std::mem::forget(plainsong::current());
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
            assert!((&stream).read(&mut [0; 8]).is_err());
            std::mem::forget(stream);
            std::mem::forget(listener);
            sleep(Duration::from_millis(2));
            (7, peer)
        });
        assert_eq!(value, 7);
        plainsong::run(|| sleep(Duration::from_nanos(1)));
        drop(peer);
        plainsong::run(|| sleep(Duration::from_nanos(1)));
    });
}

#[test]
fn what_ends_with_a_run_may_start_more() {
    watch(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        plainsong::run(|| {
            // Destructors of a cancelled coroutine may still spawn.
            let guard = OnDrop(move || {
                let log = Rc::clone(&theirs);
                let guard = OnDrop(move || log.borrow_mut().push("dropped unrun"));
                plainsong::spawn(move || drop(guard));
            });
            let child = plainsong::spawn(move || {
                let _guard = guard;
                sleep(Duration::MAX);
            });
            until_parked(&child);
        });
        assert_eq!(*log.borrow(), ["dropped unrun"]);
    });
}

#[test]
fn a_coroutine_that_never_begins_is_reported_once() {
    let output = dying(a_coroutine_that_never_begins_is_reported_once, || {
        // Nothing to report: these have begun, were cancelled, or belong to a run that failed.
        plainsong::run(|| {
            plainsong::spawn(|| sleep(HOUR));
            plainsong::yield_now();
            plainsong::spawn(|| ()).cancel();
            plainsong::spawn_anywhere(|| ()).cancel();
            after(HOUR, || ());
        });
        plainsong::run_all(|| plainsong::spawn(|| ()));
        panic_of(|| {
            plainsong::run(|| {
                plainsong::spawn(|| ());
                panic!("early");
            })
        });
        eprintln!("reported:");
        for _ in 0..2 {
            plainsong::run(|| {
                plainsong::spawn_anywhere(|| unreachable!("it never begins"));
                plainsong::spawn(|| unreachable!("it never begins"));
            });
        }
        eprintln!("the end");
        std::process::exit(1);
    });
    let Some(output) = output else { return };
    let (before, after) = output.split_once("reported:\n").expect("it was run");
    let (report, _) = after.split_once("the end").expect("it ends");
    assert!(!before.contains("plainsong: `run`"), "{output}");
    // The test is compiled as the library is.
    if cfg!(debug_assertions) {
        let line = "plainsong: `run` has returned, and cancels coroutines that have not begun. One of \
                    them was spawned at tests/it/runtime/run.rs:";
        assert!(report.starts_with(line), "{output}");
        assert_eq!(report.lines().count(), 1, "{output}");
    } else {
        assert_eq!(report, "", "{output}");
    }
}

#[test]
fn a_call_dropped_at_the_end_leaves_nothing_behind() {
    watch(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        plainsong::run(|| {
            let guard = OnDrop(move || {
                let log = Rc::clone(&theirs);
                let guard = OnDrop(move || log.borrow_mut().push("child"));
                plainsong::spawn(move || drop(guard));
                theirs.borrow_mut().push("call");
            });
            after(HOUR, move || drop(guard));
        });
        assert_eq!(*log.borrow(), ["call", "child"]);
        // The next run has nothing of it.
        log.borrow_mut().clear();
        plainsong::run_all(|| ());
        assert!(log.borrow().is_empty());
    });
}

#[test]
fn a_call_whose_drop_panics_does_not_take_the_process() {
    alone(a_call_whose_drop_panics_does_not_take_the_process, || {
        let _ = std::panic::catch_unwind(|| {
            plainsong::run(|| {
                let guard = OnDrop(|| panic!("in a call's destructor"));
                after(HOUR, move || drop(guard));
            });
        });
    });
}

#[test]
fn a_runtime_keeps_its_settings() {
    let runtime = plainsong::Runtime::builder().stack_size(64 * 1024).build().unwrap();
    assert_eq!(runtime.run(|| 1) + runtime.run(|| 2), 3);
}

#[test]
fn without_descriptors_run_says_so() {
    alone(without_descriptors_run_says_so, || {
        crate::util::limit_descriptors(descriptors() as u64 + 4);
        let rest: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        let message = panic_of(|| plainsong::run(|| ()));
        assert!(message.contains("cannot run coroutines on this thread"), "{message}");
        drop(rest);
        assert_eq!(plainsong::run(|| 1), 1);
    });
}
