//! Locks: what std promises of its own, and what is more: order, cancellation, coroutines.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread as system;
use std::time::Duration;

use plainsong::sync::{
    Condvar, LazyLock, Mutex, OnceLock, ReentrantMutex, RwLock, RwLockWriteGuard, Semaphore,
    TryLockError, WaitGroup,
};
use plainsong::time::{after, sleep, timeout};

use crate::util::{both, panic_of, run, until, until_parked, watch};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

/// Cannot be copied, as std's tests have it.
#[derive(PartialEq, Eq, Debug)]
struct NonCopy(i32);

/// Panics with a guard in the hand.
fn panic_with<G>(guard: impl FnOnce() -> G) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _guard = guard();
        std::panic::resume_unwind(Box::new("scripted"));
    }));
    assert!(result.is_err());
}

/// Is cancelled with a guard in the hand.
fn cancelled_with<G>(guard: impl FnOnce() -> G) {
    let result = timeout(Duration::ZERO, || {
        let _guard = plainsong::shield(guard);
        sleep(HOUR);
    });
    assert!(result.is_err());
}

fn would_block<G, T>(result: Result<G, TryLockError<T>>) -> bool {
    matches!(result, Err(TryLockError::WouldBlock))
}

#[test]
fn a_mutex_is_what_it_is_in_std() {
    both(|| {
        let mut mutex = Mutex::new(NonCopy(1));
        mutex.lock().unwrap().0 += 1;
        assert_eq!(*mutex.try_lock().unwrap(), NonCopy(2));
        assert!(mutex.lock_timeout(MOMENT).is_ok());
        let guard = mutex.lock().unwrap();
        assert!(would_block(mutex.try_lock()));
        assert!(would_block(mutex.lock_timeout(MOMENT)));
        assert_eq!(format!("{mutex:?}"), "Mutex { data: <locked>, poisoned: false, .. }");
        assert_eq!(format!("{guard:?}"), "NonCopy(2)");
        drop(guard);
        let text = "Mutex { data: NonCopy(2), poisoned: false, .. }";
        assert_eq!(format!("{mutex:?}"), text);
        mutex.get_mut().unwrap().0 = 7;
        assert_eq!(mutex.into_inner().unwrap(), NonCopy(7));
        let unsized_one: &Mutex<[i32]> = &Mutex::new([1, 2, 3]);
        unsized_one.lock().unwrap()[0] = 4;
        assert_eq!(&*unsized_one.lock().unwrap(), &[4, 2, 3]);
        assert_eq!(*Mutex::from(5).lock().unwrap() + *Mutex::<i32>::default().lock().unwrap(), 5);
    });
}

#[test]
fn a_panic_poisons_a_mutex_and_a_cancellation_does_not() {
    both(|| {
        let mut mutex = Mutex::new(1);
        cancelled_with(|| mutex.lock().unwrap());
        assert!(!mutex.is_poisoned());
        panic_with(|| mutex.lock().unwrap());
        assert!(mutex.is_poisoned());
        assert_eq!(format!("{mutex:?}"), "Mutex { data: 1, poisoned: true, .. }");
        assert_eq!(**mutex.lock().unwrap_err().get_ref(), 1);
        assert!(matches!(mutex.try_lock(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(mutex.lock_timeout(MOMENT), Err(TryLockError::Poisoned(_))));
        assert_eq!(**mutex.get_mut().unwrap_err().get_ref(), 1);
        mutex.clear_poison();
        assert!(mutex.lock().is_ok());
        let shared = Arc::new(mutex);
        panic_with(|| Arc::clone(&shared).lock_owned().unwrap());
        assert!(Arc::clone(&shared).try_lock_owned().is_err());
        assert_eq!(Arc::into_inner(shared).unwrap().into_inner().unwrap_err().into_inner(), 1);
    });
}

#[test]
fn a_guard_taken_in_a_panic_does_not_poison() {
    struct Locks<'a>(&'a Mutex<i32>);
    impl Drop for Locks<'_> {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    both(|| {
        let mutex = Mutex::new(0);
        panic_with(|| Locks(&mutex));
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}

#[test]
fn an_rwlock_is_what_it_is_in_std() {
    both(|| {
        let mut lock = RwLock::new(NonCopy(1));
        let (one, two) = (lock.read().unwrap(), lock.try_read().unwrap());
        assert_eq!(one.0 + two.0, 2);
        assert!(would_block(lock.try_write()));
        assert!(would_block(lock.write_timeout(MOMENT)));
        let three = lock.read_timeout(MOMENT);
        assert!(three.is_ok());
        drop((one, two, three));
        let mut writer = lock.try_write().unwrap();
        writer.0 = 2;
        assert!(would_block(lock.try_read()) && would_block(lock.try_write()));
        assert!(would_block(lock.read_timeout(MOMENT)));
        assert_eq!(format!("{lock:?}"), "RwLock { data: <locked>, poisoned: false, .. }");
        assert_eq!(format!("{writer:?}"), "NonCopy(2)");
        let reader = RwLockWriteGuard::downgrade(writer);
        assert!(lock.try_read().is_ok() && would_block(lock.try_write()));
        assert_eq!(*reader, NonCopy(2));
        drop(reader);
        assert_eq!(format!("{lock:?}"), "RwLock { data: NonCopy(2), poisoned: false, .. }");
        lock.get_mut().unwrap().0 = 7;
        assert_eq!(lock.into_inner().unwrap(), NonCopy(7));
    });
}

#[test]
fn only_a_writer_that_panics_poisons_an_rwlock() {
    both(|| {
        let lock = RwLock::new(1);
        panic_with(|| lock.read().unwrap());
        panic_with(|| RwLockWriteGuard::downgrade(lock.write().unwrap()));
        cancelled_with(|| lock.write().unwrap());
        assert!(!lock.is_poisoned());
        panic_with(|| lock.write().unwrap());
        assert!(lock.is_poisoned());
        assert!(lock.read().is_err() && lock.write().is_err());
        assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(_))));
        lock.clear_poison();
        assert!(lock.read().is_ok() && lock.write().is_ok());
        let shared = Arc::new(lock);
        panic_with(|| Arc::clone(&shared).write_owned().unwrap());
        assert_eq!(*shared.clone().read_owned().unwrap_err().into_inner(), 1);
    });
}

#[test]
fn many_threads_and_coroutines_add_up() {
    watch(|| {
        const EACH: u64 = 300;
        let (mutex, lock) = (Mutex::new(0), RwLock::new((0, 0)));
        let reentrant = ReentrantMutex::new(Cell::new(0));
        let work = || {
            for n in 0..EACH {
                *mutex.lock().unwrap() += 1;
                if n % 3 == 0 {
                    let (left, right) = *lock.read().unwrap();
                    assert_eq!(left, right);
                } else {
                    let mut both = lock.write().unwrap();
                    both.0 += 1;
                    if n % 16 == 1 {
                        plainsong::yield_now();
                    }
                    both.1 += 1;
                }
                let outer = reentrant.lock();
                let inner = reentrant.lock();
                inner.set(inner.get() + 1);
                if n % 16 == 2 {
                    plainsong::yield_now();
                }
                drop(outer);
            }
        };
        system::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(work);
                threads.spawn(|| {
                    plainsong::run(|| {
                        plainsong::scope(|s| {
                            for _ in 0..5 {
                                s.spawn(work);
                            }
                        });
                    });
                });
            }
        });
        assert_eq!(mutex.into_inner().unwrap(), 18 * EACH);
        assert_eq!(lock.into_inner().unwrap(), (18 * EACH * 2 / 3, 18 * EACH * 2 / 3));
        assert_eq!(reentrant.into_inner().get(), 18 * EACH);
    });
}

#[test]
fn locks_go_round_in_the_order_of_asking() {
    run(|| {
        let mutex = Mutex::new(Vec::new());
        plainsong::scope(|s| {
            let first = mutex.lock().unwrap();
            for n in 0..100 {
                let mutex = &mutex;
                s.spawn(move || mutex.lock().unwrap().push(n));
            }
            plainsong::yield_now();
            drop(first);
            // One that comes after them does not get in between.
            mutex.lock().unwrap().push(100);
        });
        assert_eq!(mutex.into_inner().unwrap(), (0..=100).collect::<Vec<_>>());
    });
}

/// The order in which ways to ask for a lock, given as letters, were served.
fn phases(asked: &'static str) -> String {
    run(move || {
        let (lock, log) = (RwLock::new(()), RefCell::new(String::new()));
        plainsong::scope(|s| {
            let first = lock.write().unwrap();
            let (lock, log) = (&lock, &log);
            for letter in asked.chars() {
                s.spawn(move || {
                    if letter == 'r' {
                        let _guard = lock.read().unwrap();
                        log.borrow_mut().push('<');
                        sleep(MOMENT);
                        log.borrow_mut().push('>');
                    } else {
                        let _guard = lock.write().unwrap();
                        log.borrow_mut().push('(');
                        sleep(MOMENT);
                        log.borrow_mut().push(')');
                    }
                });
            }
            plainsong::yield_now();
            drop(first);
        });
        log.into_inner()
    })
}

#[test]
fn readers_and_writers_take_turns_in_phases() {
    assert_eq!(phases("rrwrww"), "<<>>()<>()()");
    assert_eq!(phases("wrrr"), "()<<<>>>");
    assert_eq!(phases("rwr"), "<>()<>");
}

#[test]
fn a_writer_is_not_starved_by_readers() {
    run(|| {
        let lock = RwLock::new(0);
        let stop = Cell::new(false);
        plainsong::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    while !stop.get() {
                        let _guard = lock.read().unwrap();
                        plainsong::yield_now();
                    }
                });
            }
            plainsong::yield_now();
            for n in 0..10 {
                assert_eq!(*lock.read().unwrap(), n);
                *lock.write().unwrap() += 1;
            }
            stop.set(true);
        });
    });
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    watch(|| {
        let lock = RwLock::new(());
        let _reader = lock.read().unwrap();
        system::scope(|s| {
            let writer = s.spawn(|| would_block(lock.write_timeout(20 * MOMENT)));
            while lock.try_read().is_ok() && !writer.is_finished() {
                system::yield_now();
            }
            // As a rule the writer waits now; it gives up while we have the lock.
            drop(lock.read().unwrap());
            assert!(writer.join().unwrap());
        });
        assert!(lock.try_read().is_ok());
    });
    run(|| {
        let lock = RwLock::new(());
        plainsong::scope(|s| {
            let _reader = lock.read().unwrap();
            let writer = s.spawn(|| timeout(MOMENT, || drop(lock.write())));
            plainsong::yield_now();
            let behind = s.spawn(|| drop(lock.read().unwrap()));
            plainsong::yield_now();
            assert!(lock.try_read().is_err() && !behind.is_finished());
            assert!(writer.join().unwrap().is_err());
            behind.join().unwrap();
            assert!(lock.try_read().is_ok());
        });
    });
}

#[test]
fn a_downgrade_lets_the_readers_in_that_wait() {
    run(|| {
        let lock = RwLock::new(1);
        plainsong::scope(|s| {
            let mut writer = lock.write().unwrap();
            let readers: Vec<_> = (0..3).map(|_| s.spawn(|| *lock.read().unwrap())).collect();
            let next = s.spawn(|| *lock.write().unwrap() += 1);
            plainsong::yield_now();
            *writer = 5;
            let reader = RwLockWriteGuard::downgrade(writer);
            for one in readers {
                assert_eq!(one.join().unwrap(), 5);
            }
            assert!(!next.is_finished());
            drop(reader);
        });
        assert_eq!(lock.into_inner().unwrap(), 6);
    });
}

#[test]
fn a_reentrant_lock_belongs_to_one_coroutine() {
    both(|| {
        let mut lock = ReentrantMutex::new(Cell::new(1));
        let (one, two) = (lock.lock(), lock.try_lock().unwrap());
        let three = lock.lock_timeout(MOMENT).unwrap();
        three.set(one.get() + two.get());
        let foreign = || lock.try_lock().is_none() && lock.lock_timeout(MOMENT).is_none();
        assert!(plainsong::task::gather([foreign])[0]);
        let elsewhere = || format!("{lock:?}");
        let there = system::scope(|s| s.spawn(elsewhere).join().unwrap());
        assert_eq!(there, "ReentrantMutex { data: <locked>, .. }");
        assert_eq!(elsewhere(), "ReentrantMutex { data: Cell { value: 2 }, .. }");
        drop((one, three));
        assert!(plainsong::task::gather([foreign])[0]);
        drop(two);
        assert!(!plainsong::task::gather([foreign])[0]);
        panic_with(|| (lock.lock(), lock.lock()));
        assert_eq!(lock.get_mut().get(), 2);
        assert_eq!(lock.into_inner().get(), 2);
    });
}

#[test]
fn an_owned_guard_unlocks_from_a_timer() {
    run(|| {
        let mutex = Arc::new(Mutex::new(1));
        let guard = Arc::clone(&mutex).lock_owned().unwrap();
        after(MOMENT, move || drop(guard));
        assert_eq!(*mutex.lock().unwrap(), 1);
        let lock = Arc::new(RwLock::new(2));
        let guard = Arc::clone(&lock).write_owned().unwrap();
        after(MOMENT, move || drop(guard));
        let reader = Arc::clone(&lock).read_owned().unwrap();
        assert_eq!(*reader, 2);
        after(MOMENT, move || drop(reader));
        *lock.write().unwrap() += 1;
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).acquire_owned().unwrap();
        after(MOMENT, move || drop(permit));
        drop(permits.acquire().unwrap());
    });
}

#[test]
fn two_locks_in_two_orders_are_a_deadlock_that_is_told() {
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
    assert!(report.contains("'left'") && report.contains("'right'"), "{report}");
    assert_eq!(report.matches("a lock that a coroutine of the same run").count(), 2, "{report}");
}

#[test]
fn a_deadlock_between_two_workers_is_told() {
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
                        // This keeps the worker, so that the other one takes the other.
                        while held.load(Ordering::SeqCst) < 2 {
                            system::yield_now();
                        }
                        let _other = locks[1 - first].lock().unwrap();
                    });
                }
            });
        })
    });
    assert_eq!(report.matches("a lock that a coroutine of the same run").count(), 2, "{report}");
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

#[test]
fn a_lock_that_another_thread_holds_is_no_deadlock() {
    watch(|| {
        let (mutex, lock) = (Mutex::new(0), RwLock::new(0));
        let reentrant = ReentrantMutex::new(());
        let held = AtomicBool::new(false);
        system::scope(|s| {
            s.spawn(|| {
                let guards = (mutex.lock().unwrap(), lock.write().unwrap(), reentrant.lock());
                held.store(true, Ordering::SeqCst);
                system::sleep(20 * MOMENT);
                drop(guards);
            });
            plainsong::run(|| {
                until(|| held.load(Ordering::SeqCst));
                *mutex.lock().unwrap() += 1;
                *lock.write().unwrap() += 1;
                drop(reentrant.lock());
            });
        });
    });
}

#[test]
fn deadlocks_are_told_again_after_another_thread_has_had_the_mutex() {
    watch(|| {
        let mutex = Mutex::new(());
        let held = AtomicBool::new(false);
        system::scope(|s| {
            s.spawn(|| {
                let _guard = mutex.lock().unwrap();
                held.store(true, Ordering::SeqCst);
                system::sleep(20 * MOMENT);
            });
            plainsong::run(|| {
                until(|| held.load(Ordering::SeqCst));
                drop(mutex.lock());
            });
        });
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
fn a_notification_comes_to_who_has_waited_longest() {
    run(|| {
        let (mutex, changed, log) = (Mutex::new(()), Condvar::new(), RefCell::new(Vec::new()));
        plainsong::scope(|s| {
            changed.notify_one();
            changed.notify_all();
            for n in 0..5 {
                let (mutex, changed, log) = (&mutex, &changed, &log);
                s.spawn(move || {
                    drop(changed.wait(mutex.lock().unwrap()).unwrap());
                    log.borrow_mut().push(n);
                });
            }
            plainsong::yield_now();
            for n in 1..=3 {
                changed.notify_one();
                until(|| log.borrow().len() == n);
            }
            plainsong::yield_now();
            assert_eq!(*log.borrow(), [0, 1, 2]);
            changed.notify_all();
        });
        assert_eq!(log.into_inner(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_condition_variable_with_time_outs() {
    both(|| {
        let (mutex, changed) = (Mutex::new(0), Condvar::new());
        let guard = mutex.lock().unwrap();
        let (guard, result) = changed.wait_timeout(guard, MOMENT).unwrap();
        assert!(result.timed_out());
        let (mut guard, result) = changed.wait_timeout_while(guard, MOMENT, |n| *n == 0).unwrap();
        assert!(result.timed_out());
        *guard = 1;
        let (guard, result) = changed.wait_timeout_while(guard, MOMENT, |n| *n == 0).unwrap();
        assert!(!result.timed_out());
        drop(guard);
        plainsong::scope(|s| {
            s.spawn(|| {
                *mutex.lock().unwrap() = 2;
                changed.notify_all();
            });
            let guard = mutex.lock().unwrap();
            let (guard, result) = changed.wait_timeout_while(guard, HOUR, |n| *n < 2).unwrap();
            assert!(*guard == 2 && !result.timed_out());
            drop(guard);
            s.spawn(|| {
                *mutex.lock().unwrap() = 3;
                changed.notify_one();
            });
            assert_eq!(*changed.wait_while(mutex.lock().unwrap(), |n| *n < 3).unwrap(), 3);
        });
    });
}

#[test]
fn a_condition_variable_tells_of_poison() {
    run(|| {
        let (mutex, changed) = (Mutex::new(1), Condvar::new());
        plainsong::scope(|s| {
            let waits = s.spawn(|| changed.wait(mutex.lock().unwrap()).is_err());
            plainsong::yield_now();
            panic_with(|| mutex.lock().unwrap());
            changed.notify_one();
            assert!(waits.join().unwrap());
            let guard = mutex.lock().unwrap_err().into_inner();
            let (guard, result) = changed.wait_timeout(guard, MOMENT).unwrap_err().into_inner();
            assert!(*guard == 1 && result.timed_out());
        });
    });
}

/// Waiters of which the first was notified and cancelled while it waited for the mutex.
#[test]
fn a_notification_of_one_who_is_cancelled_goes_to_the_next() {
    run(|| {
        let (mutex, changed) = (Arc::new(Mutex::new(())), Arc::new(Condvar::new()));
        let wait = || {
            let (mutex, changed) = (Arc::clone(&mutex), Arc::clone(&changed));
            plainsong::spawn(move || drop(changed.wait(mutex.lock().unwrap())))
        };
        let (first, second) = (wait(), wait());
        until_parked(&second);
        let guard = mutex.lock().unwrap();
        changed.notify_one();
        plainsong::yield_now();
        // It has been notified, and waits for the mutex.
        first.cancel();
        assert!(first.join().unwrap_err().is_cancelled());
        drop(guard);
        second.join().unwrap();
    });
}

#[test]
fn a_producer_on_a_thread_and_a_consumer_in_a_coroutine() {
    watch(|| {
        let (items, changed) = (Mutex::new(Vec::new()), Condvar::new());
        system::scope(|s| {
            s.spawn(|| {
                for n in 0..2000 {
                    items.lock().unwrap().push(n);
                    changed.notify_one();
                }
            });
            plainsong::run(|| {
                let mut seen = Vec::new();
                while seen.len() < 2000 {
                    let guard = items.lock().unwrap();
                    seen.append(&mut changed.wait_while(guard, |items| items.is_empty()).unwrap());
                }
                assert!(seen.is_sorted());
            });
        });
    });
}

#[test]
fn a_once_lock_is_what_it_is_in_std() {
    both(|| {
        let mut once = OnceLock::new();
        assert_eq!(once.get(), None);
        assert_eq!(once.get_mut(), None);
        assert_eq!(format!("{once:?}"), "OnceLock(<uninit>)");
        assert_eq!(once.get_or_init(|| 92), &92);
        assert_eq!(once.get_or_init(|| panic!("called twice")), &92);
        assert_eq!(once.set(5), Err(5));
        assert_eq!((once.get(), once.wait()), (Some(&92), &92));
        assert_eq!(format!("{once:?}"), "OnceLock(92)");
        assert_eq!(once.clone(), OnceLock::from(92));
        *once.get_mut().unwrap() += 1;
        assert_eq!(once.take(), Some(93));
        assert_eq!(once.set(1), Ok(()));
        assert_eq!(once.into_inner(), Some(1));
        assert_eq!(OnceLock::<i32>::default().into_inner(), None);
    });
}

#[test]
fn an_initialiser_that_panics_or_is_cancelled_leaves_it_to_the_next() {
    both(|| {
        let once = OnceLock::new();
        panic_with(|| once.get_or_init(|| std::panic::resume_unwind(Box::new("scripted"))));
        assert_eq!(once.get(), None);
        let first = timeout(MOMENT, || {
            *once.get_or_init(|| -> i32 {
                sleep(HOUR);
                1
            })
        });
        assert!(first.is_err() && once.get().is_none());
        assert_eq!(once.get_or_try_init(|| Err("no")), Err("no"));
        assert_eq!(once.get_or_init(|| 2), &2);
    });
}

#[test]
fn an_initialiser_may_wait_and_is_called_once() {
    run(|| {
        let (once, calls) = (OnceLock::new(), Cell::new(0));
        let init = || {
            calls.set(calls.get() + 1);
            sleep(MOMENT);
            42
        };
        plainsong::scope(|s| {
            let waits = s.spawn(|| *once.wait());
            let all: Vec<_> = (0..10).map(|_| s.spawn(|| *once.get_or_init(init))).collect();
            let sets = s.spawn(|| once.set(1));
            for one in all {
                assert_eq!(one.join().unwrap(), 42);
            }
            assert_eq!(waits.join().unwrap(), 42);
            assert_eq!(sets.join().unwrap(), Err(1));
        });
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn an_initialiser_that_needs_its_own_value_is_a_deadlock() {
    watch(|| {
        let report = panic_of(|| {
            plainsong::run(|| {
                let once = OnceLock::new();
                once.get_or_init(|| *once.get_or_init(|| 1));
            });
        });
        assert!(report.contains("'main'"), "{report}");
    });
}

#[test]
fn one_of_many_threads_initialises() {
    watch(|| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static ONCE: OnceLock<usize> = OnceLock::new();
        static LAZY: LazyLock<usize> = LazyLock::new(|| {
            system::sleep(MOMENT);
            CALLS.fetch_add(1, Ordering::SeqCst)
        });
        system::scope(|s| {
            for n in 0..8 {
                s.spawn(move || {
                    let once = plainsong::run(|| {
                        *ONCE.get_or_init(|| {
                            sleep(MOMENT);
                            n
                        })
                    });
                    assert_eq!(ONCE.get(), Some(&once));
                    assert_eq!(*LAZY, 0);
                });
            }
        });
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_lazy_lock_is_poisoned_by_a_panic_and_not_by_a_cancellation() {
    both(|| {
        let mut lazy = LazyLock::new(|| {
            sleep(5 * MOMENT);
            1
        });
        assert_eq!(format!("{lazy:?}"), "LazyLock(<uninit>)");
        assert_eq!(LazyLock::get(&lazy), None);
        // It is shielded; the cancellation comes at the next wait.
        let _ = timeout(Duration::ZERO, || (*lazy, plainsong::yield_now()));
        assert_eq!(format!("{lazy:?}"), "LazyLock(1)");
        *LazyLock::force_mut(&mut lazy) += 1;
        assert_eq!(LazyLock::get_mut(&mut lazy), Some(&mut 2));
        let lazy: LazyLock<i32> = LazyLock::new(|| std::panic::resume_unwind(Box::new("scripted")));
        panic_with(|| *lazy);
        assert!(panic_of(|| *lazy).contains("poisoned"));
        assert_eq!(*LazyLock::<i32>::default(), 0);
    });
}

#[test]
fn a_wait_group_waits_for_every_share() {
    both(|| {
        let group = WaitGroup::new();
        let count = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..5)
            .map(|_| {
                let (share, count) = (group.clone(), Arc::clone(&count));
                system::spawn(move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    drop(share);
                })
            })
            .collect();
        let (early, late) = (group.clone(), group.clone());
        assert!(!early.wait_timeout(MOMENT));
        drop(late);
        group.wait();
        assert_eq!(count.load(Ordering::SeqCst), 5);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(WaitGroup::default().wait_timeout(MOMENT));
    });
}

#[test]
fn what_threads_may_share_and_panics_may_cross() {
    fn shared<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    shared::<Mutex<Cell<i32>>>();
    shared::<RwLock<i32>>();
    shared::<ReentrantMutex<i32>>();
    shared::<Condvar>();
    shared::<Semaphore>();
    shared::<plainsong::sync::Barrier>();
    shared::<plainsong::sync::Event>();
    shared::<OnceLock<i32>>();
    shared::<LazyLock<i32>>();
    shared::<WaitGroup>();
    // A guard is shared if what it guards is, sent or not.
    fn lent<T: Sync>() {}
    lent::<plainsong::sync::OwnedMutexGuard<std::sync::MutexGuard<'static, i32>>>();
    lent::<plainsong::sync::OwnedRwLockWriteGuard<std::sync::MutexGuard<'static, i32>>>();
}

#[test]
fn a_reentrant_lock_that_a_thread_has_left_locked_is_not_the_next_thread_s() {
    let mutex = Arc::new(ReentrantMutex::new(1));
    let theirs = Arc::clone(&mutex);
    system::spawn(move || std::mem::forget(theirs.lock())).join().unwrap();
    for _ in 0..100 {
        // One of these has the memory of the first.
        let theirs = Arc::clone(&mutex);
        assert!(system::spawn(move || theirs.try_lock().is_none()).join().unwrap());
    }
}

#[test]
fn a_once_lock_that_is_made_of_a_value_waits_for_nothing() {
    run(|| {
        let made = timeout(Duration::ZERO, || {
            for n in 0..300 {
                let once = OnceLock::from(n);
                assert_eq!((once.get(), once.clone().into_inner()), (Some(&n), Some(n)));
            }
        });
        assert_eq!(made, Ok(()));
    });
}
