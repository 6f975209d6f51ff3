//! The report when all coroutines wait for each other, and waits that are no deadlock.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;
use std::{panic, thread as system};

use plainsong::sync::{Mutex, ReentrantMutex, RwLock};
use plainsong::time::{sleep, timeout};
use plainsong::{
    Builder, CancellationToken, JoinHandle, Runtime, Scope, ScopedJoinHandle, scope,
    spawn_anywhere, thread, yield_now,
};
use rustix::thread::gettid;

use crate::util::{
    HOUR, MOMENT, OnDrop, alone, dying, is_asleep, on_another, once_asleep, panic_of, run, run_on,
    runtime, until, until_asleep, until_parked, watch,
};

type Slot = Rc<RefCell<Option<JoinHandle<()>>>>;

/// Two coroutines that join each other, and where they were spawned.
fn two_that_join_each_other() -> (String, u32, u32) {
    let [left, right] = [Slot::default(), Slot::default()];
    let (theirs, ours) = (Rc::clone(&right), Rc::clone(&left));
    let join = |slot: Slot| {
        move || {
            let other = slot.take().unwrap();
            other.join().unwrap();
        }
    };
    let first = Builder::new().name("left").spawn(join(theirs)).unwrap();
    let second = Builder::new().name("right").spawn(join(ours)).unwrap();
    let ids = format!("{} {}", first.id(), second.id());
    *left.borrow_mut() = Some(first);
    *right.borrow_mut() = Some(second);
    (ids, line!() - 5, line!() - 4)
}

#[test]
fn two_coroutines_that_join_each_other() {
    watch(|| {
        let ids = Rc::new(RefCell::new(None));
        let theirs = Rc::clone(&ids);
        let report = panic_of(|| {
            plainsong::run_all(move || *theirs.borrow_mut() = Some(two_that_join_each_other()));
        });
        let (ids, first_line, second_line) = ids.take().unwrap();
        let (first, second) = ids.split_once(' ').unwrap();
        let lines: Vec<&str> = report.lines().collect();
        assert_eq!(lines.len(), 3, "{report}");
        assert!(lines[0].contains("deadlock"), "{report}");
        for (name, id, other, line) in
            [("left", first, second, first_line), ("right", second, first, second_line)]
        {
            let begins = |line: &&&str| line.contains(&format!("'{name}' has waited"));
            let about: Vec<_> = lines.iter().filter(begins).collect();
            assert_eq!(about.len(), 1, "{report}");
            assert!(about[0].contains(id), "{report}");
            let partner = if name == "left" { "right" } else { "left" };
            assert!(
                about[0].contains(&format!("coroutine {other} '{partner}' to end")),
                "{report}"
            );
            assert!(about[0].contains(&format!("deadlock.rs:{line}:")), "{report}");
        }
    });
}

/// Two children of a scope that join each other.
fn ring<'scope>(s: &'scope Scope<'scope, '_>) {
    let slot = Rc::new(RefCell::new(None::<ScopedJoinHandle<'_, ()>>));
    let theirs = Rc::clone(&slot);
    let one = s.spawn(move || {
        let other = theirs.take().unwrap();
        let _ = other.join();
    });
    let other = s.spawn(move || {
        let _ = one.join();
    });
    *slot.borrow_mut() = Some(other);
}

#[test]
fn the_main_one_waits_too() {
    watch(|| {
        let unwound = Cell::new(0);
        let report = panic_of(|| {
            plainsong::run(|| {
                let _guard = OnDrop(|| unwound.set(unwound.get() + 1));
                plainsong::scope(|s| {
                    let unwound = &unwound;
                    s.spawn(move || {
                        let _guard = OnDrop(|| unwound.set(unwound.get() + 1));
                        plainsong::scope(ring);
                    });
                });
            });
        });
        assert!(report.contains("'main'") && report.contains("its scope"), "{report}");
        assert_eq!(report.lines().count(), 5, "{report}");
        assert_eq!(unwound.get(), 2);
        // The thread can be used again.
        assert_eq!(plainsong::run(|| plainsong::spawn(|| 5).join().unwrap()), 5);
    });
}

#[test]
fn one_that_joins_itself() {
    watch(|| {
        let report = panic_of(|| {
            plainsong::run_all(|| {
                let own = Slot::default();
                let theirs = Rc::clone(&own);
                let child = plainsong::spawn(move || {
                    let itself = theirs.take().unwrap();
                    let _ = itself.join();
                });
                *own.borrow_mut() = Some(child);
            });
        });
        assert_eq!(report.lines().count(), 2, "{report}");
    });
}

#[test]
fn many_ways_to_wait_for_each_other() {
    let waits: [fn(JoinHandle<()>); 5] = [
        |other| plainsong::select! { join(other) -> _ => {} },
        |other| drop(plainsong::task::join_all([other])),
        |other| drop(plainsong::task::wait([other], None)),
        |other| drop(plainsong::task::as_completed([other]).next()),
        |other| drop(other.join_timeout(Duration::MAX)),
    ];
    for wait in waits {
        watch(move || {
            let report = panic_of(|| {
                plainsong::run_all(|| {
                    let own = Slot::default();
                    let theirs = Rc::clone(&own);
                    let child = plainsong::spawn(move || {
                        let itself = theirs.take().unwrap();
                        wait(itself);
                    });
                    *own.borrow_mut() = Some(child);
                });
            });
            assert!(report.contains("deadlock"), "{report}");
        });
    }
}

#[test]
fn caught_as_a_cancellation() {
    watch(|| {
        let caught = Cell::new(false);
        let report = panic_of(|| {
            plainsong::run(|| {
                // Inside the run it is no panic but a cancellation.
                caught.set(catch_unwind(|| plainsong::scope(ring)).is_err());
                plainsong::yield_now();
                unreachable!("should have been cancelled");
            });
        });
        assert!(report.contains("deadlock") && caught.get(), "{report}");
    });
}

#[test]
fn strict_counts_what_threads_could_end() {
    watch(|| {
        let strict = Runtime::builder().strict_deadlock(true).build().unwrap();
        let waits: [(fn(), &str); 3] = [
            (thread::park, "unpark"),
            (|| CancellationToken::new().cancelled(), "token"),
            (|| plainsong::spawn(thread::park).join().unwrap(), "to end"),
        ];
        for (wait, what) in waits {
            let report = panic_of(|| strict.run(wait));
            assert!(report.contains(what) && report.contains("'main'"), "{report}");
        }
        // These also wait for a time or a descriptor.
        strict.run(|| thread::park_timeout(MOMENT));
        strict.run(|| assert!(timeout(MOMENT, thread::park).is_err()));
        strict.run(|| {
            let parked = plainsong::spawn(thread::park);
            sleep(MOMENT);
            parked.thread().unpark();
            parked.join().unwrap();
        });
        strict.run(|| {
            let listener = plainsong::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let parked = plainsong::spawn(thread::park);
            let client = once_asleep(move || std::net::TcpStream::connect(address).unwrap());
            drop(listener.accept().unwrap());
            parked.thread().unpark();
            parked.join().unwrap();
            client.join().unwrap();
        });
    });
}

#[test]
fn none_while_a_thread_may_unpark() {
    run(|| {
        let parked = thread::current();
        let unparker = once_asleep(move || parked.unpark());
        thread::park();
        unparker.join().unwrap();
        let token = CancellationToken::new();
        let theirs = token.clone();
        let child = plainsong::spawn(move || token.cancelled());
        let canceller = once_asleep(move || theirs.cancel());
        child.join().unwrap();
        canceller.join().unwrap();
    });
}

#[test]
fn none_while_a_time_out_will_end_it() {
    run(|| {
        for _ in 0..3 {
            assert!(timeout(MOMENT, || plainsong::scope(ring)).is_err());
        }
        // Or while another coroutine of the run still waits for a timer.
        let other = plainsong::spawn(|| sleep(Duration::from_millis(3)));
        let circle = plainsong::spawn(|| plainsong::scope(ring));
        other.join().unwrap();
        until_parked(&circle);
        circle.cancel();
        assert!(circle.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn none_while_a_call_is_to_come() {
    run(|| {
        let token = CancellationToken::new();
        let theirs = token.clone();
        plainsong::time::after(MOMENT, move || theirs.cancel());
        assert!(token.run_until_cancelled(|| plainsong::scope(ring)).is_none());
    });
}

#[test]
fn none_while_a_thread_may_cancel_a_token() {
    run(|| {
        let token = CancellationToken::new();
        let theirs = token.clone();
        let canceller = once_asleep(move || theirs.cancel());
        assert!(token.run_until_cancelled(|| plainsong::scope(ring)).is_none());
        canceller.join().unwrap();
    });
}

/// Its wait counted as one that a thread could end, for good.
#[test]
fn one_after_a_coroutine_was_given_up_that_a_token_could_cancel() {
    watch(|| {
        let report = panic_of(|| {
            plainsong::run_all(|| {
                let token = CancellationToken::new();
                let handle = plainsong::spawn(move || {
                    token.run_until_cancelled(|| plainsong::no_unwind(|| sleep(HOUR)));
                });
                yield_now();
                handle.cancel();
                handle.join().unwrap_err();
                two_that_join_each_other();
            });
        });
        assert!(report.contains("deadlock"), "{report}");
    });
}

#[test]
fn one_among_destructors_ends_the_process() {
    let output = dying(one_among_destructors_ends_the_process, || {
        plainsong::run(|| {
            let [left, right] = [Slot::default(), Slot::default()];
            let clean_up = |slot: &Slot| {
                let slot = Rc::clone(slot);
                Builder::new().name("cleans up").spawn(move || {
                    let _guard = OnDrop(|| {
                        let other = slot.take().unwrap();
                        let _ = other.join();
                    });
                    sleep(HOUR);
                })
            };
            let (one, other) = (clean_up(&left).unwrap(), clean_up(&right).unwrap());
            until_parked(&one);
            until_parked(&other);
            *left.borrow_mut() = Some(other);
            *right.borrow_mut() = Some(one);
        });
        std::process::exit(0);
    });
    if let Some(output) = output {
        assert!(output.contains("deadlock") && output.contains("cleans up"), "{output}");
    }
}

#[test]
fn one_in_a_destructor_that_can_be_undone() {
    watch(|| {
        let report = panic_of(|| {
            plainsong::run(|| {
                let child = plainsong::spawn(|| {
                    let _guard = OnDrop(|| plainsong::scope(ring));
                    sleep(HOUR);
                });
                until_parked(&child);
                child.cancel();
                let _ = child.join();
            });
        });
        assert_eq!(report.lines().count(), 5, "{report}");
    });
}

#[test]
fn one_behind_a_shield_ends_the_process() {
    let output = dying(one_behind_a_shield_ends_the_process, || {
        plainsong::run(|| {
            plainsong::shield(|| {
                let own = Slot::default();
                let theirs = Rc::clone(&own);
                let child = plainsong::spawn(move || {
                    plainsong::shield(|| {
                        let itself = theirs.take().unwrap();
                        let _ = itself.join();
                    });
                });
                *own.borrow_mut() = Some(child);
                plainsong::yield_now();
            });
        });
        std::process::exit(0);
    });
    if let Some(output) = output {
        assert!(output.contains("deadlock"), "{output}");
    }
}

#[test]
fn two_locks_in_two_orders_are_a_deadlock_that_is_reported() {
    let (created, waited) = (line!() + 4, line!() + 10);
    let report = watch(|| {
        panic_of(|| {
            plainsong::run_all(|| {
                let locks = Rc::new([Mutex::new(()), Mutex::new(())]);
                for (name, first) in [("left", 0), ("right", 1)] {
                    let locks = Rc::clone(&locks);
                    let body = move || {
                        let _one = locks[first].lock().unwrap();
                        plainsong::yield_now();
                        let _other = locks[1 - first].lock().unwrap();
                    };
                    plainsong::Builder::new().name(name).spawn(body).unwrap();
                }
            });
        })
    });
    assert_eq!(report.lines().count(), 4, "{report}");
    for (name, other) in [("left", "right"), ("right", "left")] {
        let line = report.lines().find(|line| line.contains(&format!(" '{name}' has waited for ")));
        let line = line.unwrap_or_else(|| panic!("{report}"));
        for part in [
            "lock Mutex at tests/it/traps/deadlock.rs:".to_owned() + &created.to_string(),
            format!(" '{other}', at tests/it/traps/deadlock.rs:{waited}:"),
        ] {
            assert!(line.contains(&part), "{part} in {line}");
        }
        assert!(line.contains("held by coroutine #") && !line.contains("0ns"), "{report}");
    }
    assert!(report.lines().last().unwrap().contains("a cycle: coroutine #"), "{report}");
}

#[test]
fn a_cycle_through_a_lock_for_reading_is_named() {
    let report = watch(|| {
        panic_of(|| {
            plainsong::run_all(|| {
                let (shared, mutex) = (Rc::new(RwLock::new(())), Rc::new(Mutex::new(())));
                let theirs = (Rc::clone(&shared), Rc::clone(&mutex));
                let reader = move || {
                    let _one = theirs.0.read().unwrap();
                    yield_now();
                    let _other = theirs.1.lock().unwrap();
                };
                let writer = move || {
                    let _one = mutex.lock().unwrap();
                    yield_now();
                    let _other = shared.write().unwrap();
                };
                Builder::new().name("reader").spawn(reader).unwrap();
                Builder::new().name("writer").spawn(writer).unwrap();
            });
        })
    });
    let cycle = report.lines().last().unwrap();
    for part in
        ["a cycle: ", "lock Mutex at tests/it", "write RwLock at tests/it", "held by coroutine"]
    {
        assert!(cycle.contains(part), "{part} in {report}");
    }
    assert_eq!(report.matches("a cycle").count(), 1, "{report}");
}

#[test]
fn a_deadlock_between_two_workers_is_reported() {
    let report = watch(|| {
        let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
        let held = Arc::new(AtomicUsize::new(0));
        panic_of(|| {
            plainsong::Runtime::builder().workers(2).build().unwrap().run_all(move || {
                for first in [0, 1] {
                    let (locks, held) = (Arc::clone(&locks), Arc::clone(&held));
                    plainsong::spawn_anywhere(move || {
                        let _one = locks[first].lock().unwrap();
                        held.fetch_add(1, Ordering::SeqCst);
                        // This blocks the worker, so that the other worker starts the other
                        // coroutine.
                        while held.load(Ordering::SeqCst) < 2 {
                            system::yield_now();
                        }
                        let _other = locks[1 - first].lock().unwrap();
                    });
                }
            });
        })
    });
    assert_eq!(report.matches("lock Mutex at tests/it/traps/deadlock.rs:").count(), 4, "{report}");
    assert_eq!(report.matches("a cycle: coroutine").count(), 1, "{report}");
}

#[test]
fn one_that_locks_twice_is_a_deadlock_and_with_a_reentrant_lock_is_none() {
    watch(|| {
        let report = panic_of(|| {
            plainsong::run(|| {
                let mutex = Mutex::new(());
                let _one = mutex.lock().unwrap();
                drop(mutex.lock());
            });
        });
        assert!(report.contains("'main'"), "{report}");
        let report = panic_of(|| {
            plainsong::run(|| {
                let lock = RwLock::new(());
                let _one = lock.read().unwrap();
                drop(lock.write());
            });
        });
        assert!(report.contains("'main'"), "{report}");
        plainsong::run(|| {
            let mutex = ReentrantMutex::new(());
            let _one = mutex.lock();
            drop(mutex.lock());
        });
    });
}

/// Runs `wait` in a runtime while another thread holds `guard`, until the runtime's thread sleeps.
fn while_another_holds<G>(guard: impl FnOnce() -> G + Send, wait: impl FnOnce()) {
    let (held, waits) = (Barrier::new(2), AtomicBool::new(false));
    let waiter = rustix::thread::gettid();
    system::scope(|s| {
        s.spawn(|| {
            let guard = guard();
            held.wait();
            until(|| waits.load(Ordering::SeqCst));
            until_asleep(waiter);
            drop(guard);
        });
        plainsong::run(|| {
            held.wait();
            waits.store(true, Ordering::SeqCst);
            wait();
        });
    });
}

#[test]
fn a_lock_that_another_thread_holds_is_no_deadlock() {
    watch(|| {
        let (mutex, lock) = (Mutex::new(0), RwLock::new(0));
        let reentrant = ReentrantMutex::new(());
        while_another_holds(|| mutex.lock().unwrap(), || *mutex.lock().unwrap() += 1);
        while_another_holds(|| lock.write().unwrap(), || *lock.write().unwrap() += 1);
        while_another_holds(|| lock.write().unwrap(), || drop(lock.read().unwrap()));
        while_another_holds(|| reentrant.lock(), || drop(reentrant.lock()));
        assert_eq!((mutex.into_inner().unwrap(), lock.into_inner().unwrap()), (1, 1));
    });
}

#[test]
fn deadlocks_are_reported_again_after_another_thread_has_held_the_mutex() {
    watch(|| {
        let mutex = Mutex::new(());
        while_another_holds(|| mutex.lock().unwrap(), || drop(mutex.lock()));
        let report = panic_of(|| {
            plainsong::run(|| {
                let _one = mutex.lock();
                drop(mutex.lock());
            });
        });
        assert!(report.contains("'main'"), "{report}");
    });
}

#[test]
fn a_lock_held_by_the_thread_around_a_run_is_a_deadlock() {
    watch(|| {
        plainsong::run(|| ());
        let mutex = Mutex::new(());
        let _guard = mutex.lock().unwrap();
        let report = panic_of(|| plainsong::run(|| drop(mutex.lock())));
        assert!(report.contains("'main'"), "{report}");
    });
}

#[test]
fn coroutines_of_two_workers_that_join_each_other() {
    type Slot = Arc<std::sync::Mutex<Option<JoinHandle<()>>>>;
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
                    drop(two_that_join_each_other());
                });
            })
        });
        assert!(report.starts_with("deadlock"), "{report}");
        assert_eq!(report.lines().count(), 5, "{report}");
        assert_eq!(report.matches("deadlock.rs:").count(), 4, "{report}");
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
    // All waits are for coroutines of this run, so each moment at which all workers seem to sleep
    // would count as a deadlock.
    for workers in [2, 3] {
        run_on(workers, || {
            for _ in 0..10_000 {
                on_another(|| ()).join().unwrap();
                let there_and_back = on_another(|| spawn_anywhere(|| ()).join());
                there_and_back.join().unwrap().unwrap();
            }
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
                        drop(two_that_join_each_other());
                    });
                    barrier.wait();
                    drop(two_that_join_each_other());
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

/// It was taken for the thread that waits, which has its mailbox by then.
#[test]
fn a_thread_that_has_nearly_ended_may_hold_a_lock() {
    static LOCK: Mutex<()> = Mutex::new(());
    static LOCKS: AtomicBool = AtomicBool::new(false);
    thread_local! {
        static LAST: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    alone(a_thread_that_has_nearly_ended_may_hold_a_lock, || {
        let (tell, told) = mpsc::channel();
        let waiting = system::spawn(move || {
            let go: mpsc::Sender<_> = told.recv().unwrap();
            go.send(gettid()).unwrap();
            plainsong::run(|| {
                LOCKS.store(true, Ordering::SeqCst);
                drop(LOCK.lock().unwrap());
            });
        });
        let ending = system::spawn(move || {
            // Registered before what the library has for this thread, so that it is dropped after.
            LAST.with(|_| ());
            plainsong::run(|| ());
            let held = LOCK.lock().unwrap();
            LAST.set(Some(Box::new(OnDrop(move || {
                let _held = &held;
                let (go, going) = mpsc::channel();
                tell.send(go).unwrap();
                let waiter = going.recv().unwrap();
                while !LOCKS.load(Ordering::SeqCst) || !is_asleep(waiter) {
                    system::yield_now();
                }
            }))));
        });
        ending.join().unwrap();
        waiting.join().unwrap();
    });
}
