//! Calls that block, beside coroutines.

use std::cell::Cell;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{io, panic};

use plainsong::generator::Generator;
use plainsong::sync::Event;
use plainsong::sync::channel::{never, unbounded};
use plainsong::time::{sleep, timeout};
use plainsong::{
    CancellationToken, JoinHandle, blocking, offload, run, scope, select, shield, spawn, yield_now,
};
use rustix::process::{Resource, getrlimit};

use crate::util;
use crate::util::{
    MOMENT, OnDrop, alone, both, limit_descriptors, limit_memory, panic_of, status, until,
    until_others_sleep, until_parked, watch,
};

/// The bound of the pool.
const THREADS: usize = 512;

/// A gate at which threads block, until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

/// A gate that lives as long as the program, so that coroutines can share it.
fn gate() -> &'static Gate {
    Box::leak(Box::default())
}

/// Makes every thread of the pool wait at `gate`.
fn fill_the_pool(gate: &'static Gate) -> Vec<JoinHandle<()>> {
    let calls = (0..THREADS).map(|_| spawn(|| blocking(|| gate.pass()))).collect();
    until(|| gate.waiting() == THREADS);
    calls
}

#[test]
fn a_call_borrows_from_its_caller() {
    both(|| {
        let words = ["plain".to_owned(), "song".to_owned()];
        let mut count = 0;
        let longest = blocking(|| {
            count += words.len();
            words.iter().max_by_key(|word| word.len()).unwrap()
        });
        assert_eq!((longest.as_str(), count), ("plain", 2));
    });
}

#[test]
fn others_run_meanwhile() {
    util::run(|| {
        let gate = gate();
        let call = spawn(|| blocking(|| gate.pass()));
        until(|| gate.waiting() == 1);
        // This thread is not blocked, so it can open the gate.
        gate.open();
        call.join().unwrap();
    });
}

#[test]
fn a_thousand_at_once() {
    util::run(|| {
        let calls: Vec<_> = (0..1000).map(|n| spawn(move || blocking(|| n * 2))).collect();
        let sum: i32 = calls.into_iter().map(|call| call.join().unwrap()).sum();
        assert_eq!(sum, 999_000);
    });
}

#[test]
fn no_more_than_the_bound_work_at_a_time() {
    alone(no_more_than_the_bound_work_at_a_time, || {
        run(|| {
            let gate = gate();
            let mut calls = fill_the_pool(gate);
            let late = spawn(|| blocking(|| gate.pass()));
            util::until_parked(&late);
            let threads = util::threads();
            assert!(threads < THREADS + 10, "{threads} threads");
            assert_eq!(gate.waiting(), THREADS);
            gate.open();
            calls.push(late);
            calls.into_iter().for_each(|call| call.join().unwrap());
            assert_eq!(gate.waiting(), THREADS + 1);
        });
    });
}

/// Makes more calls than the pool has threads. Each calls `wait`, which returns when the last call
/// has begun: its argument tells whether that has happened.
fn wait_for_each_other(wait: impl Fn(&dyn Fn() -> bool) + Sync, open: impl FnOnce()) {
    const CALLS: usize = 560;
    let arrived = AtomicUsize::new(0);
    let all = || arrived.load(Ordering::SeqCst) == CALLS;
    let call = || {
        arrived.fetch_add(1, Ordering::SeqCst);
        wait(&all);
    };
    scope(|s| {
        for _ in 0..CALLS {
            s.spawn(|| blocking(call));
        }
        until(all);
        open();
    });
    // Threads that were waiting count again, and the pool still works.
    assert_eq!(blocking(|| 1), 1);
}

#[test]
fn more_than_the_pool_holds_wait_for_each_other() {
    alone(more_than_the_pool_holds_wait_for_each_other, || {
        limit_descriptors(getrlimit(Resource::Nofile).maximum.unwrap_or(65_536));
        run(|| {
            // Waits for a descriptor.
            let (reader, writer) = io::pipe().unwrap();
            wait_for_each_other(
                |_| plainsong::io::wait_readable(&reader).unwrap(),
                || drop(writer),
            );
            // Sleeps.
            let nap = Duration::from_millis(20);
            let sleep_until = |all: &dyn Fn() -> bool| {
                while !all() {
                    sleep(nap);
                }
            };
            wait_for_each_other(sleep_until, || ());
            // Parks.
            let parked = Mutex::new(Vec::new());
            let park_until = |all: &dyn Fn() -> bool| {
                parked.lock().unwrap().push(plainsong::thread::current());
                while !all() {
                    plainsong::thread::park();
                }
            };
            wait_for_each_other(park_until, || {
                parked.lock().unwrap().iter().for_each(plainsong::thread::Thread::unpark);
            });
            // Waits for a lock.
            let lock = plainsong::sync::Mutex::new(());
            let locked = lock.lock().unwrap();
            wait_for_each_other(|_| drop(lock.lock().unwrap()), || drop(locked));
            // Joins a coroutine.
            let joined = Mutex::new((0..560).map(|_| spawn(plainsong::thread::park)).collect());
            let sleepers: Vec<_> = {
                let handles: &Vec<JoinHandle<()>> = &joined.lock().unwrap();
                handles.iter().map(|handle| handle.thread().clone()).collect()
            };
            let join = |_: &dyn Fn() -> bool| {
                let handle = joined.lock().unwrap().pop().unwrap();
                handle.join().unwrap();
            };
            wait_for_each_other(join, || {
                sleepers.iter().for_each(plainsong::thread::Thread::unpark);
            });
            // Sleeps in a runtime of its own.
            let nested = |all: &dyn Fn() -> bool| {
                timeout(Duration::MAX, || sleep_until(all)).unwrap();
            };
            wait_for_each_other(nested, || ());
        });
    });
}

#[test]
fn a_thread_too_many_leaves_the_call_to_an_idle_one() {
    alone(a_thread_too_many_leaves_the_call_to_an_idle_one, || {
        run(|| {
            let (first, second) = (gate(), gate());
            let event = Arc::new(Event::new());
            let theirs = Arc::clone(&event);
            // A thread that waits does not count.
            let waits = spawn(move || {
                blocking(|| {
                    theirs.wait();
                    second.pass();
                });
            });
            until_parked(&waits);
            let all = fill_the_pool(first);
            first.open();
            all.into_iter().for_each(|call| call.join().unwrap());
            // All threads of the pool are idle.
            until_others_sleep();
            event.set();
            until(|| second.waiting() == 1);
            // One idle thread is woken for this call, and is one too many.
            timeout(Duration::from_secs(5), || blocking(|| ())).unwrap();
            second.open();
            waits.join().unwrap();
        });
    });
}

#[test]
fn calls_wait_for_coroutines_of_the_thread_that_made_them() {
    util::run(|| {
        let slow = spawn(|| {
            sleep(Duration::from_millis(5));
            7
        });
        assert_eq!(blocking(|| slow.join().unwrap()), 7);
    });
}

#[test]
fn a_panic_is_that_of_the_call() {
    both(|| {
        let message = panic_of(|| blocking(|| panic!("no {}", "luck")));
        assert_eq!(message, "no luck");
        let payload = panic::catch_unwind(|| blocking(|| panic::panic_any(7u8))).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&7u8));
        assert_eq!(blocking(|| 1), 1);
    });
}

#[test]
fn one_that_was_cancelled_before_makes_no_call() {
    util::run(|| {
        let called = Rc::new(Cell::new(false));
        let child = spawn({
            let called = Rc::clone(&called);
            move || {
                let began = AtomicBool::new(false);
                let _look = OnDrop(|| called.set(began.load(Ordering::SeqCst)));
                shield(yield_now);
                blocking(|| began.store(true, Ordering::SeqCst));
            }
        });
        yield_now();
        child.cancel();
        assert!(child.join().unwrap_err().is_cancelled());
        assert!(!called.get());
    });
}

#[test]
fn one_that_queues_is_taken_back() {
    alone(one_that_queues_is_taken_back, || {
        run(|| {
            let gate = gate();
            let calls = fill_the_pool(gate);
            let (ran, dropped) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            let child = spawn({
                let (ran, dropped) = (Rc::clone(&ran), Rc::clone(&dropped));
                move || {
                    let (began, mut gone) = (AtomicBool::new(false), false);
                    let _look = OnDrop(|| ran.set(began.load(Ordering::SeqCst)));
                    let result = panic::catch_unwind(AssertUnwindSafe(|| {
                        let captured = OnDrop(|| gone = true);
                        blocking(|| {
                            let _captured = captured;
                            began.store(true, Ordering::SeqCst);
                        });
                    }));
                    dropped.set(gone);
                    panic::resume_unwind(result.unwrap_err());
                }
            });
            util::until_parked(&child);
            child.cancel();
            // It ends at once, without a free thread of the pool.
            assert!(child.join().unwrap_err().is_cancelled());
            assert_eq!(gate.waiting(), THREADS);
            assert!(dropped.get());
            // The same for a call that is timed out.
            assert!(timeout(MOMENT, || blocking(|| gate.pass())).is_err());
            gate.open();
            calls.into_iter().for_each(|call| call.join().unwrap());
            assert!(!ran.get());
            assert_eq!(gate.waiting(), THREADS);
        });
    });
}

#[test]
fn one_that_runs_is_waited_for_and_its_value_returned() {
    util::run(|| {
        let (gate, value) = (gate(), Rc::new(Cell::new(0)));
        let child = spawn({
            let value = Rc::clone(&value);
            move || {
                let mut lent = 0;
                let returned = blocking(|| {
                    gate.pass();
                    lent = 1;
                    2
                });
                value.set(lent + returned);
                yield_now();
                value.set(0);
            }
        });
        until(|| gate.waiting() == 1);
        child.cancel();
        for _ in 0..100 {
            yield_now();
        }
        assert!(!child.is_finished());
        gate.open();
        assert!(child.join().unwrap_err().is_cancelled());
        assert_eq!(value.get(), 3);
    });
}

#[test]
fn one_that_runs_and_panics_while_cancelled_panics() {
    util::run(|| {
        let gate = gate();
        let child = spawn(|| {
            blocking(|| {
                gate.pass();
                panic!("after all");
            })
        });
        until(|| gate.waiting() == 1);
        child.cancel();
        yield_now();
        gate.open();
        assert!(child.join().unwrap_err().is_panic());
    });
}

#[test]
fn a_scope_that_is_cancelled_is_late_and_loses_nothing() {
    util::run(|| {
        let (gate, stop) = (gate(), CancellationToken::new());
        spawn({
            let stop = stop.clone();
            move || {
                until(|| gate.waiting() == 1);
                stop.cancel();
                yield_now();
                gate.open();
            }
        });
        let call = || {
            blocking(|| {
                gate.pass();
                5
            })
        };
        assert_eq!(stop.run_until_cancelled(call), Some(5));
        // Nothing of the cancellation is left for the next wait.
        yield_now();
    });
}

#[test]
fn a_runtime_ends_when_its_calls_have() {
    watch(|| {
        let (gate, ended) = (gate(), Rc::new(Cell::new(0)));
        run(|| {
            for _ in 0..20 {
                let ended = Rc::clone(&ended);
                spawn(move || {
                    let text = String::from("lent");
                    let len = blocking(|| {
                        gate.pass();
                        text.len()
                    });
                    ended.set(ended.get() + len);
                    yield_now();
                    ended.set(0);
                });
            }
            until(|| gate.waiting() == 20);
            spawn(|| {
                let _open = OnDrop(|| gate.open());
                plainsong::thread::park();
            });
            yield_now();
        });
        assert_eq!(ended.get(), 80);
    });
}

#[test]
fn a_panic_in_a_scope_waits_for_the_calls_of_the_others() {
    util::run(|| {
        let (gate, lent) = (gate(), Mutex::new(0));
        let message = panic_of(|| {
            scope(|s| {
                s.spawn(|| {
                    blocking(|| {
                        gate.pass();
                        *lent.lock().unwrap() += 1;
                    });
                });
                until(|| gate.waiting() == 1);
                plainsong::time::after(Duration::from_millis(5), || gate.open());
                panic!("the body");
            })
        });
        assert_eq!((message.as_str(), lent.into_inner().unwrap()), ("the body", 1));
    });
}

#[test]
fn a_generator_may_call() {
    util::run(|| {
        let numbers = Generator::new(|yielder| {
            for n in 0..3 {
                yielder.yield_(blocking(|| n * n));
            }
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 4]);
    });
}

#[test]
fn calls_nest() {
    util::run(|| {
        let sum = blocking(|| {
            let one = blocking(|| 1);
            let two = run(|| spawn(|| blocking(|| 2)).join().unwrap());
            one + two
        });
        assert_eq!(sum, 3);
    });
}

#[test]
fn a_call_in_a_destructor_while_its_coroutine_unwinds() {
    util::run(|| {
        let done = Rc::new(Cell::new(0));
        let child = spawn({
            let done = Rc::clone(&done);
            move || {
                let _call = OnDrop(|| done.set(blocking(|| 3)));
                plainsong::thread::park();
            }
        });
        util::until_parked(&child);
        child.cancel();
        assert!(child.join().unwrap_err().is_cancelled());
        assert_eq!(done.get(), 3);
    });
}

#[test]
fn no_call_is_made_where_no_wait_may_be() {
    util::run(|| {
        let called = AtomicBool::new(false);
        let call = || blocking(|| called.store(true, Ordering::SeqCst));
        assert!(panic_of(|| plainsong::no_wait(call)).contains("no_wait"));
        assert!(!called.load(Ordering::SeqCst));
    });
}

#[test]
fn one_that_swallows_its_cancellation_and_calls_again_is_given_up() {
    // In a process of its own, because of its output.
    alone(one_that_swallows_its_cancellation_and_calls_again_is_given_up, || {
        run(|| {
            let child = spawn(|| {
                loop {
                    let _ = panic::catch_unwind(|| blocking(|| ()));
                }
            });
            util::until_parked(&child);
            child.cancel();
            assert!(child.join().unwrap_err().is_cancelled());
        });
    });
}

#[test]
fn one_that_has_swallowed_too_much_is_not_given_up_while_it_lends() {
    // In a process of its own, because of its output.
    alone(one_that_has_swallowed_too_much_is_not_given_up_while_it_lends, || {
        run(|| {
            let (gate, stop) = (gate(), CancellationToken::new());
            let sum = Rc::new(Cell::new(0));
            let child = spawn({
                let (sum, stop) = (Rc::clone(&sum), stop.clone());
                move || {
                    shield(yield_now);
                    // One more would be too many.
                    for _ in 0..1001 {
                        let _ = panic::catch_unwind(yield_now);
                    }
                    shield(|| {
                        stop.run_until_cancelled(|| {
                            let mut lent = [0u8; 100];
                            blocking(|| {
                                gate.pass();
                                lent.fill(1);
                            });
                            sum.set(lent.iter().map(|n| u32::from(*n)).sum());
                        })
                    });
                    loop {
                        let _ = panic::catch_unwind(yield_now);
                    }
                }
            });
            yield_now();
            child.cancel();
            until(|| gate.waiting() == 1);
            stop.cancel();
            for _ in 0..100 {
                yield_now();
            }
            assert!(!child.is_finished());
            gate.open();
            assert!(child.join().unwrap_err().is_cancelled());
            assert_eq!(sum.get(), 100);
        });
    });
}

#[test]
fn without_threads_a_call_fails() {
    alone(without_threads_a_call_fails, || {
        run(|| {
            let before = getrlimit(Resource::As).current;
            limit_memory(Some((status("VmSize") as u64 + 1024) << 10));
            let error = plainsong::fs::metadata("/").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Other);
            assert!(error.to_string().contains("no thread can be started"), "{error}");
            assert!(panic_of(|| blocking(|| ())).contains("no thread can be started"));
            limit_memory(before);
            assert_eq!(blocking(|| 1), 1);
        });
    });
}

/// A thread that waits is replaced, and cannot see by itself that there is memory again.
#[test]
fn a_call_whose_thread_could_not_be_started_is_made_when_it_can_be() {
    alone(a_call_whose_thread_could_not_be_started_is_made_when_it_can_be, || {
        util::run(|| {
            let (gate, event) = (gate(), Arc::new(Event::new()));
            let passed = Arc::new(AtomicBool::new(false));
            let first = spawn({
                let (event, passed) = (Arc::clone(&event), Arc::clone(&passed));
                move || {
                    blocking(|| {
                        gate.pass();
                        passed.store(true, Ordering::SeqCst);
                        event.wait();
                    });
                }
            });
            until(|| gate.waiting() == 1);
            let given_up = spawn(|| blocking(|| ()));
            let last = spawn(move || blocking(|| event.set()));
            let before = getrlimit(Resource::As).current;
            limit_memory(Some((status("VmSize") as u64 + 1024) << 10));
            // Both calls queue for the thread that is at the gate.
            until_parked(&given_up);
            until_parked(&last);
            gate.open();
            until(|| passed.load(Ordering::SeqCst));
            until_others_sleep();
            // Now all threads wait. The caller of the first call in the queue tries, and then not.
            given_up.cancel();
            assert!(given_up.join().unwrap_err().is_cancelled());
            limit_memory(before);
            last.join().unwrap();
            first.join().unwrap();
        });
    });
}

/// It was woken to try again, and then cancelled before it ran. Its next waits did not end.
#[test]
fn a_caller_that_tries_again_is_cancelled_while_it_is_ready() {
    alone(a_caller_that_tries_again_is_cancelled_while_it_is_ready, || {
        util::run(|| {
            let (gate, event) = (gate(), Arc::new(Event::new()));
            let set = Arc::clone(&event);
            let first = spawn(move || {
                blocking(|| {
                    gate.pass();
                    event.wait();
                });
            });
            until(|| gate.waiting() == 1);
            let trying = spawn(|| blocking(|| ()));
            let before = getrlimit(Resource::As).current;
            limit_memory(Some((status("VmSize") as u64 + 1024) << 10));
            until_parked(&trying);
            gate.open();
            // A pause of it is over.
            until(|| !format!("{trying:?}").contains("waits"));
            trying.cancel();
            assert!(trying.join().unwrap_err().is_cancelled());
            limit_memory(before);
            set.set();
            first.join().unwrap();
        });
    });
}

#[test]
fn a_plain_thread_sees_its_socket_while_all_threads_of_the_pool_block() {
    alone(a_plain_thread_sees_its_socket_while_all_threads_of_the_pool_block, || {
        util::run(|| {
            let gate = gate();
            let calls = fill_the_pool(gate);
            let (ours, mut theirs) = util::pair();
            let (tell, told) = unbounded();
            let selecting = util::asleep(move || {
                select! {
                    readable(ours) => tell.send(()).unwrap(),
                    recv(never::<()>()) -> _ => unreachable!("never"),
                }
            });
            theirs.write_all(b"x").unwrap();
            told.recv().unwrap();
            selecting.join().unwrap();
            gate.open();
            calls.into_iter().for_each(|call| call.join().unwrap());
        });
    });
}

#[test]
fn calls_and_cancellations_in_any_order() {
    util::run(|| {
        for round in 0..2000 {
            let child = spawn(move || {
                let mut lent = [0u64; 16];
                let sum: u64 = blocking(|| {
                    lent.fill(round);
                    lent.iter().sum()
                });
                assert_eq!((sum, lent), (16 * round, [round; 16]));
            });
            for _ in 0..round % 7 {
                yield_now();
            }
            child.cancel();
            if let Err(error) = child.join() {
                assert!(error.is_cancelled(), "{error}");
            }
        }
    });
}

#[test]
fn an_offloaded_call_returns_its_value_and_its_panic() {
    both(|| {
        assert_eq!(offload(|| 7), 7);
        assert_eq!(panic_of(|| offload(|| panic!("no luck"))), "no luck");
    });
}

#[test]
fn a_cancellation_leaves_an_offloaded_call_at_once_and_its_value_to_the_pool() {
    util::run(|| {
        let gate = gate();
        let dropped = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&dropped);
        let caller = spawn(move || {
            offload(move || {
                gate.pass();
                OnDrop(move || *theirs.lock().unwrap() = std::thread::current().id().into())
            })
        });
        until(|| gate.waiting() == 1);
        caller.cancel();
        assert!(caller.join().is_err_and(|error| error.is_cancelled()));
        assert_eq!(gate.waiting(), 1, "the call goes on");
        assert!(dropped.lock().unwrap().is_none());
        gate.open();
        until(|| dropped.lock().unwrap().is_some());
        assert_ne!(*dropped.lock().unwrap(), Some(std::thread::current().id()));
        assert_eq!(offload(|| 7), 7);
    });
}

#[test]
fn a_run_does_not_wait_for_a_call_that_was_left() {
    let gate = gate();
    util::run(move || {
        spawn(move || offload(move || gate.pass()));
        until(|| gate.waiting() == 1);
    });
    gate.open();
}
