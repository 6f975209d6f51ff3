//! Runtimes with many workers: how a run begins and ends, and who may come in from outside.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use plainsong::net::{TcpListener, TcpStream};
use plainsong::time::{self, sleep, timeout};
use plainsong::{
    CancellationToken, Handle, JoinHandle, Runtime, scope, spawn, spawn_anywhere, thread, yield_now,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::anywhere::{on_another, run_on};
use crate::util::{
    OnDrop, alone, descriptors, kind, limit_descriptors, mappings, panic_of, resident, until, watch,
};

const HOUR: Duration = Duration::from_secs(3600);

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

fn counter() -> Arc<AtomicUsize> {
    Arc::default()
}

fn read(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

/// Adds one when it is dropped.
fn count(counter: &Arc<AtomicUsize>) -> OnDrop<impl FnMut() + Send + 'static> {
    let counter = counter.clone();
    OnDrop(move || _ = counter.fetch_add(1, Ordering::SeqCst))
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

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

// ---- the end of a run ----

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
                            let guard = count(&gone);
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
                        let call = count(&gone);
                        time::after(HOUR, move || drop(call));
                        yield_now();
                    }
                };
                let others: Vec<_> =
                    (1..workers).map(|_| spawn_anywhere(fill(barrier.clone()))).collect();
                fill(barrier)();
                // Some are still at it.
                drop(others);
            });
            assert_eq!(read(&made), read(&gone));
            assert!(read(&made) >= 10);
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
                    let guard = count(&theirs);
                    drop(on_another(move || {
                        let _guard = guard;
                        sleep(HOUR);
                    }));
                }
                panic!("the first");
            });
        })
    });
    assert_eq!((message.as_str(), read(&gone)), ("the first", 2));
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
            assert_eq!(read(&done), 3 + 9 + 27 + 81 + 243);
        }
    }
}

#[test]
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
        // A thread that was joined may be listed for a moment.
        until(|| threads() <= threads_before);
        assert!(mappings() <= maps + 20, "{maps} mappings became {}", mappings());
        assert!(resident() <= memory + 4096, "{memory} KiB became {}", resident());
    });
}

// ---- what comes from outside ----

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
    let guard = count(&gone);
    let kept = handle.spawn(move || drop(guard));
    let guard = count(&gone);
    let also = std::thread::spawn(move || handle.spawn(move || drop(guard))).join().unwrap();
    drop(runtime);
    assert_eq!(read(&gone), 2);
    assert!(kept.join().unwrap_err().is_cancelled());
    assert!(also.join().unwrap_err().is_cancelled());
}

#[test]
fn a_handle_of_a_runtime_that_has_gone() {
    let handle = run_on(2, Handle::current);
    let gone = counter();
    let guard = count(&gone);
    let late = handle.spawn(move || drop(guard));
    assert_eq!(read(&gone), 1);
    assert!(late.join().unwrap_err().is_cancelled());
}

#[test]
fn what_a_runtime_has_not_started_ends_with_it_even_after_its_thread() {
    thread_local! {
        static LAST: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    watch(|| {
        let thread = std::thread::spawn(|| {
            // Made first, so dropped last: after what the library keeps for the thread.
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
                runtime.run(|| sleep(Duration::from_millis(1)));
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
            assert_eq!(read(&sum), 3 * 190);
        }
    });
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
            // The first run has the first claim on what comes through the handle.
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
                // Not before the other has its answers.
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
        // And on a worker's own thread there is none.
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

// ---- deadlocks ----

type Slot = Rc<RefCell<Option<JoinHandle<()>>>>;

/// Two coroutines of this worker that join each other.
fn join_each_other() {
    let [left, right] = [Slot::default(), Slot::default()];
    let (theirs, ours) = (Rc::clone(&right), Rc::clone(&left));
    let join = |slot: Slot| {
        move || {
            let other = slot.take();
            drop(other.map(JoinHandle::join));
        }
    };
    let (first, second) = (spawn(join(theirs)), spawn(join(ours)));
    *left.borrow_mut() = Some(first);
    *right.borrow_mut() = Some(second);
}

#[test]
fn coroutines_of_two_workers_that_join_each_other() {
    type Slot = Arc<Mutex<Option<JoinHandle<()>>>>;
    for workers in [1, 2, 3] {
        let report = watch(move || {
            panic_of(|| {
                runtime(workers).run_all(|| {
                    let slots: [Slot; 2] = Default::default();
                    let join = |slot: &Slot| {
                        let slot = slot.clone();
                        move || {
                            let mut other = None;
                            until(|| {
                                other = slot.lock().unwrap().take();
                                other.is_some()
                            });
                            drop(other.map(JoinHandle::join));
                        }
                    };
                    let first = spawn_anywhere(join(&slots[1]));
                    let second = spawn_anywhere(join(&slots[0]));
                    *slots[0].lock().unwrap() = Some(first);
                    *slots[1].lock().unwrap() = Some(second);
                    join_each_other();
                });
            })
        });
        assert!(report.starts_with("deadlock"), "{report}");
        assert_eq!(report.lines().count(), 5, "{report}");
        assert_eq!(report.matches("workers.rs:").count(), 4, "{report}");
    }
}

#[test]
fn what_another_worker_may_end_is_no_deadlock() {
    watch(|| {
        let runtime = Runtime::builder().workers(2).strict_deadlock(true).build().unwrap();
        for _ in 0..200 {
            runtime.run(|| {
                let me = thread::current();
                let other = on_another(move || {
                    for _ in 0..50 {
                        std::hint::spin_loop();
                    }
                    me.unpark();
                });
                thread::park();
                other.join().unwrap();
            });
        }
    });
}

#[test]
fn what_a_time_out_on_another_worker_ends_is_no_deadlock() {
    run_on(2, || {
        let ended = Arc::new(AtomicBool::new(false));
        let theirs = ended.clone();
        let outcome = timeout(Duration::from_millis(50), || {
            scope(|s| {
                let started = Arc::new(AtomicBool::new(false));
                let starts = started.clone();
                s.spawn_anywhere(move || {
                    let _end = OnDrop(|| theirs.store(true, Ordering::SeqCst));
                    starts.store(true, Ordering::SeqCst);
                    scope(|s| {
                        let slots: [RefCell<Option<plainsong::ScopedJoinHandle<'_, ()>>>; 2] =
                            Default::default();
                        let slots = Rc::new(slots);
                        let ours = slots.clone();
                        let join = |slots: Rc<[RefCell<Option<_>>; 2]>, n: usize| {
                            move || {
                                let other: Option<plainsong::ScopedJoinHandle<'_, ()>> =
                                    slots[n].take();
                                drop(other.map(plainsong::ScopedJoinHandle::join));
                            }
                        };
                        let first = s.spawn(join(slots.clone(), 1));
                        let second = s.spawn(join(slots, 0));
                        *ours[0].borrow_mut() = Some(first);
                        *ours[1].borrow_mut() = Some(second);
                    });
                });
                while !started.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            });
        });
        assert!(outcome.is_err());
        assert!(ended.load(Ordering::SeqCst));
    });
}

#[test]
fn a_wake_that_crosses_with_falling_asleep_is_no_deadlock() {
    // All that anybody waits for is of the run, so each moment at which all seem to sleep counts.
    for workers in [2, 3] {
        run_on(workers, || {
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                on_another(|| ()).join().unwrap();
                let there_and_back = on_another(|| spawn_anywhere(|| ()).join());
                there_and_back.join().unwrap().unwrap();
            }
        });
    }
}

// ---- sockets ----

#[test]
fn connections_are_served_on_all_workers() {
    run_on(3, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..30)
            .map(|n: u8| {
                std::thread::spawn(move || {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    for round in 0..20 {
                        stream.write_all(&[n, round]).unwrap();
                        let mut back = [0; 2];
                        stream.read_exact(&mut back).unwrap();
                        assert_eq!(back, [n, round]);
                    }
                })
            })
            .collect();
        let serve = |mut stream: TcpStream| {
            let mut bytes = [0; 2];
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes).unwrap();
            }
        };
        let serving: Vec<_> = (0..30)
            .map(|_| {
                let (stream, _) = listener.accept().unwrap();
                spawn_anywhere(move || serve(stream))
            })
            .collect();
        serving.into_iter().for_each(|one| one.join().unwrap());
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn a_stream_goes_from_worker_to_worker() {
    run_on(2, || {
        let (mut ours, mut theirs) = crate::util::pair();
        for round in 0..200u32 {
            let expected = round.to_be_bytes();
            let read = move |mut stream: TcpStream| {
                let mut bytes = [0; 64];
                // A short read, which leaves its mark at the worker that has done it.
                let n = stream.read(&mut bytes).unwrap();
                assert_eq!(bytes[..n], expected);
                stream
            };
            if round % 2 == 0 {
                let moved = on_another(move || read(ours));
                theirs.write_all(&expected).unwrap();
                ours = moved.join().unwrap();
            } else {
                let local = spawn(move || read(ours));
                yield_now();
                theirs.write_all(&expected).unwrap();
                ours = local.join().unwrap();
            }
        }
    });
}

#[test]
fn a_socket_that_outlives_runs_keeps_none_of_their_descriptors() {
    alone(a_socket_that_outlives_runs_keeps_none_of_their_descriptors, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let runtime = runtime(2);
        let once = || {
            let listener = listener.clone();
            runtime.run(|| {
                let waits = on_another(move || {
                    timeout(Duration::from_millis(1), || drop(listener.accept())).is_err()
                });
                assert!(waits.join().unwrap());
            });
        };
        once();
        once();
        let before = descriptors();
        (0..50).for_each(|_| once());
        let after = descriptors();
        assert!(after <= before + 4, "{before} descriptors became {after}");
    });
}

// ---- what the system gives and refuses ----

fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

#[test]
fn pinned_workers_have_a_processor_each_until_the_run_ends() {
    watch(|| {
        let before = allowed();
        for workers in [1, 2, 3] {
            let runtime = Runtime::builder().workers(workers).pin_workers(true).build().unwrap();
            let body = || {
                let barrier = Arc::new(Barrier::new(workers));
                let look = |barrier: Arc<Barrier>| {
                    move || {
                        barrier.wait();
                        allowed()
                    }
                };
                let others: Vec<_> =
                    (1..workers).map(|_| spawn_anywhere(look(barrier.clone()))).collect();
                let mut all = vec![look(barrier)()];
                all.extend(others.into_iter().map(|other| other.join().unwrap()));
                all
            };
            let all = runtime.run(body);
            assert!(all.iter().all(|one| one.len() == 1 && before.contains(&one[0])), "{all:?}");
            let distinct: HashSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), workers.min(before.len()));
            assert_eq!(allowed(), before);
            assert_eq!(panic_of(|| runtime.run(|| panic!("pinned"))), "pinned");
            assert_eq!(allowed(), before);
            let free = self::runtime(workers).run(|| on_another_if(workers > 1, allowed));
            assert_eq!(free, before);
        }
    });
}

fn on_another_if<T: Send + 'static>(another: bool, f: impl FnOnce() -> T + Send + 'static) -> T {
    if another { on_another(f).join().unwrap() } else { f() }
}

#[test]
fn a_run_whose_workers_lack_descriptors_says_so_and_ends() {
    alone(a_run_whose_workers_lack_descriptors_says_so_and_ends, || {
        watch(|| {
            let runtime = runtime(8);
            let mut kept = Some(runtime.handle().spawn(|| 1));
            // From none to one less than it takes, which differs by reactor.
            let open = descriptors() as u64;
            let mut room = 0;
            loop {
                limit_descriptors(open + room);
                let join = || kept.take().map(|kept| kept.join().unwrap());
                let outcome = panic::catch_unwind(AssertUnwindSafe(|| runtime.run(join)));
                limit_descriptors(500);
                // This thread may keep its own reactor.
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
                            let (began, guard) = (began.clone(), count(gone));
                            made.fetch_add(1, Ordering::SeqCst);
                            handle.spawn(move || {
                                let _guard = guard;
                                began.fetch_add(1, Ordering::SeqCst);
                            });
                            std::thread::sleep(Duration::from_micros(30));
                        }
                    });
                }
                let end = Instant::now() + Duration::from_secs(1);
                while Instant::now() < end {
                    runtime.run_all(|| sleep(Duration::from_micros(200)));
                    runtime.run(yield_now);
                }
                stop.store(true, Ordering::Relaxed);
            });
            drop(runtime);
            assert_eq!(read(&made), read(&gone));
            assert!(read(&began) <= read(&made));
        });
    }
}

#[test]
fn a_deadlock_ends_one_run_only() {
    watch(|| {
        for _ in 0..300 {
            let ended = panic::catch_unwind(AssertUnwindSafe(|| {
                runtime(2).run_all(|| {
                    let barrier = Arc::new(Barrier::new(2));
                    let theirs = barrier.clone();
                    spawn_anywhere(move || {
                        theirs.wait();
                        join_each_other();
                    });
                    barrier.wait();
                    join_each_other();
                });
            }));
            assert!(ended.is_err());
            assert_eq!(
                plainsong::run(|| {
                    yield_now();
                    sleep(Duration::from_micros(1));
                    1
                }),
                1
            );
        }
    });
}

#[test]
fn thousands_of_short_runs_end() {
    for workers in [1, 2, 3, 8] {
        watch(move || {
            let runtime = runtime(workers);
            let end = Instant::now() + Duration::from_secs(1);
            while Instant::now() < end {
                let done = counter();
                runtime.run_all(|| {
                    for _ in 0..workers {
                        let done = done.clone();
                        spawn_anywhere(move || {
                            spawn_anywhere(move || done.fetch_add(1, Ordering::SeqCst))
                        });
                    }
                });
                assert_eq!(read(&done), workers);
                let left = runtime.run(|| spawn_anywhere(|| sleep(HOUR)));
                assert!(left.join().unwrap_err().is_cancelled());
            }
        });
    }
}

#[test]
fn a_blocking_call_of_a_pinned_worker_may_run_anywhere() {
    alone(a_blocking_call_of_a_pinned_worker_may_run_anywhere, || {
        let before = sched_getaffinity(None).unwrap().count();
        let runtime = Runtime::builder().pin_workers(true).build().unwrap();
        runtime.run(|| {
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
            let theirs = plainsong::blocking(|| sched_getaffinity(None).unwrap().count());
            assert_eq!(theirs, before);
        });
    });
}

#[test]
fn when_a_pinned_run_has_ended_blocking_calls_run_where_their_thread_may() {
    alone(when_a_pinned_run_has_ended_blocking_calls_run_where_their_thread_may, || {
        let runtime = Runtime::builder().pin_workers(true).build().unwrap();
        runtime.run(|| ());
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        // The program confines itself.
        sched_setaffinity(None, &one).unwrap();
        let theirs = plainsong::run(|| plainsong::blocking(|| sched_getaffinity(None).unwrap()));
        assert_eq!(theirs, one);
    });
}
