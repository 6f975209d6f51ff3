//! A waiter is handed something at the very moment when it is cancelled or timed out. It uses it or
//! passes it to the next waiter, and never loses it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread as system;
use std::time::Duration;

use plainsong::sync::{
    Barrier, Condvar, Event, Mutex, OnceLock, ReentrantMutex, RwLock, Semaphore, WaitGroup,
};
use plainsong::time::{sleep, timeout};
use plainsong::{CancellationToken, yield_now};

use crate::util::{below, run, seeded, until_parked, watch};

type Wait = Rc<dyn Fn()>;
type Give = Box<dyn FnOnce()>;

/// A wait, which gives back what it was given, and the action that ends it.
struct Case {
    name: &'static str,
    make: fn() -> (Wait, Give),
}

/// Waits that are handed one thing, and hand it on afterwards.
const HANDED: &[Case] = &[
    Case {
        name: "mutex",
        make: || {
            let mutex = Arc::new(Mutex::new(()));
            let guard = Arc::clone(&mutex).lock_owned();
            (Rc::new(move || drop(mutex.lock())), Box::new(|| drop(guard)))
        },
    },
    Case {
        name: "reentrant mutex",
        make: || {
            let mutex: &'static _ = Box::leak(Box::new(ReentrantMutex::new(())));
            let guard = mutex.lock();
            (Rc::new(move || drop(mutex.lock())), Box::new(|| drop(guard)))
        },
    },
    Case {
        name: "write lock",
        make: || {
            let lock = Arc::new(RwLock::new(()));
            let guard = Arc::clone(&lock).write_owned();
            (Rc::new(move || drop(lock.write())), Box::new(|| drop(guard)))
        },
    },
    Case {
        name: "read lock",
        make: || {
            let lock = Arc::new(RwLock::new(()));
            let guard = Arc::clone(&lock).write_owned();
            (Rc::new(move || drop(lock.read())), Box::new(|| drop(guard)))
        },
    },
    Case {
        name: "semaphore",
        make: || {
            let permits = Arc::new(Semaphore::new(0));
            let theirs = Arc::clone(&permits);
            (Rc::new(move || drop(permits.acquire())), Box::new(move || theirs.add_permits(1)))
        },
    },
    Case {
        name: "condition variable",
        make: || {
            let pair = Arc::new((Mutex::new(()), Condvar::new()));
            let theirs = Arc::clone(&pair);
            let wait = move || {
                drop(pair.1.wait(pair.0.lock().unwrap()));
                pair.1.notify_one();
            };
            (Rc::new(wait), Box::new(move || theirs.1.notify_one()))
        },
    },
    Case {
        name: "event",
        make: || {
            let event = Arc::new(Event::new());
            let theirs = Arc::clone(&event);
            (Rc::new(move || event.wait()), Box::new(move || theirs.set()))
        },
    },
    Case {
        name: "once",
        make: || {
            let once = Arc::new(OnceLock::new());
            let theirs = Arc::clone(&once);
            (Rc::new(move || _ = once.wait()), Box::new(move || theirs.set(1).unwrap()))
        },
    },
];

/// Waits that can be ended only once.
const ONCE: &[Case] = &[
    Case {
        name: "barrier",
        make: || {
            let barrier = Arc::new(Barrier::new(2));
            let theirs = Arc::clone(&barrier);
            let give = move || assert!(theirs.wait().is_leader());
            (Rc::new(move || _ = barrier.wait()), Box::new(give))
        },
    },
    Case {
        name: "wait group",
        make: || {
            let group = WaitGroup::new();
            let share = group.clone();
            let group = Cell::new(Some(group));
            (Rc::new(move || group.take().unwrap().wait()), Box::new(|| drop(share)))
        },
    },
];

#[test]
fn what_was_given_before_the_cancellation_is_returned() {
    run(|| {
        for Case { name, make } in HANDED.iter().chain(ONCE) {
            let (wait, give) = make();
            let got = Rc::new(Cell::new(false));
            let theirs = Rc::clone(&got);
            let waits = plainsong::spawn(move || {
                wait();
                theirs.set(true);
                yield_now();
                panic!("should have unwound");
            });
            until_parked(&waits);
            give();
            waits.cancel();
            assert!(waits.join().unwrap_err().is_cancelled(), "{name}");
            assert!(got.get(), "{name}: what was given is lost");
        }
    });
}

#[test]
fn what_is_given_after_the_cancellation_goes_to_the_next() {
    run(|| {
        for Case { name, make } in HANDED {
            let (wait, give) = make();
            let (first, second) = (Rc::clone(&wait), wait);
            let first = plainsong::spawn(move || {
                first();
                panic!("was given something after its cancellation");
            });
            let second = plainsong::spawn(move || second());
            until_parked(&second);
            first.cancel();
            give();
            assert!(first.join().unwrap_err().is_cancelled(), "{name}");
            second.join().unwrap();
        }
    });
}

#[test]
fn what_is_given_when_the_time_is_up_goes_to_somebody() {
    run(|| {
        for Case { name, make } in HANDED {
            for micros in [0, 1, 20, 50] {
                let (wait, give) = make();
                let (first, second) = (Rc::clone(&wait), wait);
                let time = Duration::from_micros(micros);
                let first = plainsong::spawn(move || _ = timeout(time, || first()));
                let second = plainsong::spawn(move || second());
                until_parked(&second);
                sleep(Duration::from_micros(20));
                give();
                first.join().unwrap_or_else(|error| panic!("{name}: {error}"));
                second.join().unwrap();
            }
        }
    });
}

/// Calls `f`, and may cut it short by a time-out or a token.
fn perhaps<T>(random: &Cell<u64>, f: impl FnOnce() -> T) -> Option<T> {
    let time = Duration::from_micros(below(random, 40) as u64);
    match below(random, 4) {
        0 => timeout(time, f).ok(),
        1 => {
            let token = CancellationToken::new();
            let theirs = token.clone();
            plainsong::time::after(time, move || theirs.cancel());
            token.run_until_cancelled(f)
        }
        _ => Some(f()),
    }
}

fn pause(random: &Cell<u64>) {
    match below(random, 3) {
        0 => {}
        1 => yield_now(),
        _ => sleep(Duration::from_micros(below(random, 30) as u64)),
    }
}

/// Permits are given in the order of asking, to all waiters that have not given up, and none is
/// lost.
#[test]
fn permits_in_order_with_random_ends() {
    for seed in 1..=20 {
        watch(move || {
            // Without time-outs and cancellations the order is strict.
            let (random, calm) = (seeded(seed), seed % 4 == 0);
            let (permits, taken) = (Semaphore::new(4), Cell::new(0));
            let (asked, turns) = (Cell::new(0), Cell::new(0));
            let waiting = RefCell::new(BTreeSet::new());
            plainsong::run(|| {
                plainsong::scope(|s| {
                    for _ in 0..8 {
                        s.spawn(|| {
                            for _ in 0..60 {
                                let (n, number) = (1 + below(&random, 3), asked.get());
                                asked.set(number + 1);
                                turns.set(turns.get() + 1);
                                waiting.borrow_mut().insert(number);
                                let acquire = || {
                                    let turn = turns.get();
                                    let time = Duration::from_micros(below(&random, 60) as u64);
                                    let permit = if !calm && below(&random, 3) == 0 {
                                        permits.acquire_many_timeout(n as u32, time).ok()
                                    } else {
                                        Some(permits.acquire_many(n as u32).unwrap())
                                    };
                                    waiting.borrow_mut().remove(&number);
                                    if permit.is_some() {
                                        let before = waiting.borrow().first().copied();
                                        // A coroutine that need not wait may run before others that
                                        // already have their permits, and so may a waiter that was
                                        // timed out first and given permits then.
                                        let waited = calm && turns.get() != turn;
                                        assert!(!waited || before.is_none_or(|it| it > number));
                                        taken.set(taken.get() + n);
                                        assert!(taken.get() <= 4);
                                    }
                                    permit
                                };
                                let permit = if calm {
                                    acquire()
                                } else {
                                    perhaps(&random, acquire).flatten()
                                };
                                waiting.borrow_mut().remove(&number);
                                if permit.is_some_and(|permit| {
                                    pause(&random);
                                    taken.set(taken.get() - permit.num_permits());
                                    true
                                }) {
                                    pause(&random);
                                }
                            }
                        });
                    }
                });
            });
            assert_eq!((permits.available_permits(), taken.get()), (4, 0), "seed {seed}");
        });
    }
}

/// Counts the readers and writers inside a lock.
#[derive(Default)]
struct Inside {
    readers: AtomicI64,
    writers: AtomicI64,
}

impl Inside {
    fn read(&self) -> impl Drop + '_ {
        self.readers.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.writers.load(Ordering::SeqCst), 0);
        crate::util::OnDrop(|| {
            self.readers.fetch_sub(1, Ordering::SeqCst);
        })
    }

    fn write(&self) -> impl Drop + '_ {
        assert_eq!(self.writers.fetch_add(1, Ordering::SeqCst), 0);
        assert_eq!(self.readers.load(Ordering::SeqCst), 0);
        crate::util::OnDrop(|| {
            self.writers.fetch_sub(1, Ordering::SeqCst);
        })
    }
}

/// Everything at once: on three threads, two of which run coroutines.
#[derive(Default)]
struct Shared {
    mutex: Mutex<()>,
    in_mutex: Inside,
    reentrant: ReentrantMutex<()>,
    in_reentrant: Inside,
    lock: RwLock<()>,
    in_lock: Inside,
    items: Mutex<i64>,
    changed: Condvar,
    put: AtomicUsize,
    got: AtomicUsize,
}

impl Shared {
    fn step(&self, random: &Cell<u64>, permits: &Semaphore) {
        let time = Duration::from_micros(below(random, 60) as u64);
        match below(random, 10) {
            0 => {
                let guard = self.mutex.lock().unwrap();
                let inside = self.in_mutex.write();
                pause(random);
                drop((inside, guard));
            }
            1 => {
                if let Ok(guard) = self.mutex.lock_timeout(time) {
                    drop((self.in_mutex.write(), guard));
                }
            }
            2 => {
                let (one, two) = (self.reentrant.lock(), self.reentrant.lock());
                let inside = self.in_reentrant.write();
                pause(random);
                drop((inside, one, two));
            }
            3 => {
                let guard = self.lock.read().unwrap();
                let inside = self.in_lock.read();
                pause(random);
                drop((inside, guard));
            }
            4 => {
                if let Ok(guard) = self.lock.write_timeout(time) {
                    drop((self.in_lock.write(), guard));
                }
            }
            5 => {
                let guard = self.lock.write().unwrap();
                let inside = self.in_lock.write();
                pause(random);
                drop(inside);
                let guard = plainsong::sync::RwLockWriteGuard::downgrade(guard);
                drop((self.in_lock.read(), guard));
            }
            6 => {
                let permit = permits.acquire_many(1 + below(random, 3) as u32).unwrap();
                pause(random);
                drop(permit);
            }
            7 => drop(permits.acquire_timeout(time)),
            8 => {
                *self.items.lock().unwrap() += 1;
                self.put.fetch_add(1, Ordering::SeqCst);
                self.changed.notify_one();
            }
            _ => {
                let guard = self.items.lock().unwrap();
                let none = |items: &mut i64| *items == 0;
                let (mut items, _) = self.changed.wait_timeout_while(guard, time, none).unwrap();
                if *items > 0 {
                    *items -= 1;
                    self.got.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}

#[test]
fn everything_at_once_on_several_threads() {
    for seed in 1..=10 {
        watch(move || {
            let (shared, permits) = (Shared::default(), Semaphore::new(3));
            system::scope(|threads| {
                for thread in 0..2 {
                    let (shared, permits) = (&shared, &permits);
                    threads.spawn(move || {
                        let random = seeded(seed * 10 + thread);
                        plainsong::run(|| {
                            plainsong::scope(|s| {
                                for _ in 0..6 {
                                    s.spawn(|| {
                                        for _ in 0..60 {
                                            perhaps(&random, || shared.step(&random, permits));
                                        }
                                    });
                                }
                            });
                        });
                    });
                }
                let random = seeded(seed * 10 + 9);
                for _ in 0..100 {
                    shared.step(&random, &permits);
                }
            });
            assert_eq!(permits.available_permits(), 3, "seed {seed}");
            assert!(shared.mutex.try_lock().is_ok() && shared.lock.try_write().is_ok());
            assert!(shared.reentrant.try_lock().is_some());
            let left = usize::try_from(*shared.items.lock().unwrap()).unwrap();
            assert_eq!(shared.got.into_inner() + left, shared.put.into_inner(), "seed {seed}");
        });
    }
}

/// A waiter that gives up never takes a notification with it: every item is taken as long as one
/// waiter is left.
#[test]
fn items_are_not_stuck_while_consumers_come_and_go() {
    for seed in 1..=10 {
        watch(move || {
            const ITEMS: usize = 300;
            let random = seeded(seed);
            let (items, changed, got) = (Mutex::new(0), Condvar::new(), AtomicUsize::new(0));
            system::scope(|threads| {
                threads.spawn(|| {
                    for n in 0..ITEMS {
                        *items.lock().unwrap() += 1;
                        changed.notify_one();
                        if n % 16 == 0 {
                            system::yield_now();
                        }
                    }
                });
                plainsong::run(|| {
                    let take = || {
                        let mut items =
                            changed.wait_while(items.lock().unwrap(), |items| *items == 0).unwrap();
                        *items -= 1;
                        got.fetch_add(1, Ordering::SeqCst);
                    };
                    plainsong::scope(|s| {
                        // This consumer stays, and the others come and go.
                        let steady = s.spawn(|| {
                            while got.load(Ordering::SeqCst) < ITEMS {
                                let _ = timeout(Duration::from_millis(500), take);
                            }
                        });
                        while !steady.is_finished() {
                            let time = Duration::from_micros(below(&random, 30) as u64);
                            let _ = timeout(time, take);
                        }
                    });
                });
            });
            assert_eq!(got.into_inner(), ITEMS, "seed {seed}");
        });
    }
}
