//! Runtimes with many workers: how a run begins and ends.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;
use std::{io, panic};

use plainsong::net::TcpListener;
use plainsong::time::sleep;
use plainsong::{
    CancellationToken, Handle, JoinHandle, Runtime, scope, spawn, spawn_anywhere, thread, time,
    yield_now,
};

use crate::util::{
    HOUR, alone, count_drop, counter, descriptors, kind, limit_descriptors, load, mappings,
    on_another, panic_of, resident, run_on, runtime, threads, until, watch,
};

#[test]
fn no_workers_and_too_many_are_errors() {
    for workers in [0, 1025, usize::MAX] {
        let error = Runtime::builder().workers(workers).build().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&workers.to_string()), "{error}");
        assert!(error.to_string().contains("1024"), "{error}");
    }
    assert_eq!(
        kind(Runtime::builder().stack_size(1).build().map(drop)),
        io::ErrorKind::InvalidInput
    );
    Runtime::builder().workers(1024).build().unwrap();
}

/// `main` shows the error that it returns with `Debug`.
#[test]
fn errors_of_the_runtime_are_shown_as_their_texts() {
    let errors = [
        Runtime::builder().workers(0).build().unwrap_err(),
        Runtime::builder().stack_size(1).build().unwrap_err(),
        plainsong::Builder::new().spawn(|| ()).map(drop).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(format!("{error:?}").ends_with(&format!("error: {text} }}")), "{error:?}");
    }
}

#[test]
fn the_caller_is_the_first_and_the_others_have_names() {
    watch(|| {
        let caller = std::thread::current().id();
        let names = runtime(3).run(move || {
            assert_eq!(std::thread::current().id(), caller);
            let barrier = Arc::new(Barrier::new(3));
            let name = |barrier: Arc<Barrier>| {
                move || {
                    barrier.wait();
                    std::thread::current().name().map(str::to_owned)
                }
            };
            let others = [0, 1].map(|_| spawn_anywhere(name(barrier.clone())));
            barrier.wait();
            others.map(|other| other.join().unwrap().unwrap())
        });
        let names: HashSet<_> = names.into_iter().collect();
        assert!(names.contains("plainsong-worker-1") && names.contains("plainsong-worker-2"));
    });
}

#[test]
fn what_is_left_on_every_worker_is_unwound() {
    for workers in [1, 2, 4] {
        for _ in 0..30 {
            let (made, gone) = (counter(), counter());
            let (ours, theirs) = (made.clone(), gone.clone());
            run_on(workers, move || {
                let barrier = Arc::new(Barrier::new(workers));
                let fill = |barrier: Arc<Barrier>| {
                    let (made, gone) = (ours.clone(), theirs.clone());
                    move || {
                        let one = |f: Box<dyn FnOnce()>| {
                            made.fetch_add(1, Ordering::SeqCst);
                            let guard = count_drop(&gone);
                            spawn(move || {
                                let _guard = guard;
                                f();
                            });
                        };
                        barrier.wait();
                        one(Box::new(|| sleep(HOUR)));
                        one(Box::new(thread::park));
                        one(Box::new(|| until(|| false)));
                        one(Box::new(|| CancellationToken::new().cancelled()));
                        one(Box::new(|| {
                            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                            let _ = listener.accept();
                        }));
                        one(Box::new(|| drop(spawn(|| sleep(HOUR)).join())));
                        one(Box::new(|| drop(spawn_anywhere(|| sleep(HOUR)).join())));
                        one(Box::new(|| scope(|s| drop(s.spawn_anywhere(|| sleep(HOUR))))));
                        one(Box::new(|| {
                            loop {
                                spawn_anywhere(|| ()).join().unwrap();
                            }
                        }));
                        made.fetch_add(1, Ordering::SeqCst);
                        let call = count_drop(&gone);
                        time::after(HOUR, move || drop(call));
                        yield_now();
                    }
                };
                let others: Vec<_> =
                    (1..workers).map(|_| spawn_anywhere(fill(barrier.clone()))).collect();
                fill(barrier)();
                // Some are still spawning.
                drop(others);
            });
            assert_eq!(load(&made), load(&gone));
            assert!(load(&made) >= 10);
        }
    }
}

#[test]
fn a_panic_of_the_first_ends_all() {
    let gone = counter();
    let theirs = gone.clone();
    let message = watch(move || {
        panic_of(|| {
            runtime(3).run(|| {
                for _ in 0..2 {
                    let guard = count_drop(&theirs);
                    drop(on_another(move || {
                        let _guard = guard;
                        sleep(HOUR);
                    }));
                }
                panic!("the first");
            });
        })
    });
    assert_eq!((message.as_str(), load(&gone)), ("the first", 2));
}

#[test]
fn run_all_waits_for_what_comes_of_what_comes() {
    fn grow(depth: usize, done: &Arc<AtomicUsize>) {
        for _ in 0..3 {
            let done = done.clone();
            let body = move || {
                if depth > 0 {
                    grow(depth - 1, &done);
                }
                done.fetch_add(1, Ordering::SeqCst);
            };
            match depth % 3 {
                0 => drop(spawn_anywhere(body)),
                1 => drop(Handle::current().spawn(body)),
                _ => drop(time::after(Duration::from_micros(50), body)),
            }
        }
    }
    for workers in [1, 2, 4] {
        for _ in 0..20 {
            let done = counter();
            let theirs = done.clone();
            watch(move || runtime(workers).run_all(|| grow(4, &theirs)));
            assert_eq!(load(&done), 3 + 9 + 27 + 81 + 243);
        }
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn runs_leave_no_descriptors_threads_or_memory() {
    alone(runs_leave_no_descriptors_threads_or_memory, || {
        let runtime = runtime(4);
        let once = || {
            let all: Vec<_> = runtime.run(|| (0..20).map(|n| spawn_anywhere(move || n)).collect());
            all.into_iter().for_each(|one: JoinHandle<i32>| drop(one.join()));
        };
        (0..50).for_each(|_| once());
        let (files, maps, memory) = (descriptors(), mappings(), resident());
        let threads_before = threads();
        for _ in 0..300 {
            once();
            assert_eq!(descriptors(), files);
        }
        // The kernel may list a joined thread a little longer.
        until(|| threads() <= threads_before);
        assert!(mappings() <= maps + 20, "{maps} mappings became {}", mappings());
        assert!(resident() <= memory + 4096, "{memory} KiB became {}", resident());
    });
}

#[test]
fn several_runs_of_one_runtime_at_once() {
    watch(|| {
        for round in 0..50 {
            let runtime = runtime(1 + round % 3);
            let sum = counter();
            std::thread::scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| {
                        let handles: Vec<_> = runtime.run_all(|| {
                            (0..20)
                                .map(|n| {
                                    let sum = sum.clone();
                                    spawn_anywhere(move || {
                                        yield_now();
                                        sum.fetch_add(n, Ordering::SeqCst);
                                    })
                                })
                                .collect()
                        });
                        handles.into_iter().for_each(|handle| handle.join().unwrap());
                    });
                }
            });
            assert_eq!(load(&sum), 3 * 190);
        }
    });
}

#[test]
fn a_runtime_on_a_thread_of_another() {
    run_on(2, || {
        let inner = on_another(|| {
            let inner = std::thread::spawn(|| {
                runtime(2).run(|| {
                    let one = on_another(|| std::thread::current().name().map(str::to_owned));
                    one.join().unwrap()
                })
            });
            until(|| inner.is_finished());
            inner.join().unwrap()
        });
        assert_eq!(inner.join().unwrap().as_deref(), Some("plainsong-worker-1"));
        // On the thread of a worker no other runtime can run.
        let message = on_another(|| panic_of(|| runtime(2).run(|| ()))).join().unwrap();
        assert!(message.contains("already"), "{message}");
    });
}

#[test]
fn a_thread_ends_while_a_worker_waits_for_what_it_ran() {
    run_on(2, || {
        for _ in 0..100 {
            let (give, given) = mpsc::channel();
            let plain = std::thread::spawn(move || {
                plainsong::run_all(|| {
                    let short = spawn(|| {
                        sleep(Duration::from_micros(100));
                        5
                    });
                    give.send(short).unwrap();
                });
            });
            let theirs = on_another(move || given.recv().unwrap().join().unwrap());
            assert_eq!(theirs.join().unwrap(), 5);
            plain.join().unwrap();
        }
    });
}

#[test]
fn a_run_whose_workers_lack_descriptors_says_so_and_ends() {
    alone(a_run_whose_workers_lack_descriptors_says_so_and_ends, || {
        watch(|| {
            let runtime = runtime(8);
            let mut kept = Some(runtime.handle().spawn(|| 1));
            // From none to one less than needed, which depends on the reactor.
            let open = descriptors() as u64;
            let mut room = 0;
            loop {
                limit_descriptors(open + room);
                let join = || kept.take().map(|kept| kept.join().unwrap());
                let outcome = panic::catch_unwind(AssertUnwindSafe(|| runtime.run(join)));
                limit_descriptors(500);
                // This thread may still have its own reactor.
                assert!(descriptors() as u64 <= open + 4);
                let payload = match outcome {
                    Ok(result) => break assert_eq!(result, Some(1)),
                    Err(payload) => payload,
                };
                assert!(kept.as_ref().is_some_and(|kept| !kept.is_finished()));
                let message = payload.downcast::<String>().unwrap();
                assert!(message.contains("cannot run coroutines"), "{message}");
                assert!(message.contains("ulimit -n"), "{message}");
                if room == 0 {
                    plainsong::run(|| ());
                }
                room += 1;
            }
            assert!(room >= 8, "{room}");
        });
    });
}

#[test]
fn thousands_of_short_runs_end() {
    for workers in [1, 2, 3, 8] {
        watch(move || {
            let runtime = runtime(workers);
            for _ in 0..1000 {
                let done = counter();
                runtime.run_all(|| {
                    for _ in 0..workers {
                        let done = done.clone();
                        spawn_anywhere(move || {
                            spawn_anywhere(move || done.fetch_add(1, Ordering::SeqCst))
                        });
                    }
                });
                assert_eq!(load(&done), workers);
                let left = runtime.run(|| spawn_anywhere(|| sleep(HOUR)));
                assert!(left.join().unwrap_err().is_cancelled());
            }
        });
    }
}
