//! A coroutine that is cancelled while it waits acquires, receives and sends nothing after that, in
//! whatever way it is cancelled and on whatever thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread as system;
use std::time::Duration;

use plainsong::sync::channel::{self, bounded};
use plainsong::sync::{
    Barrier, Condvar, Event, Mutex, OnceLock, Promise, Queue, ReentrantMutex, RwLock, Semaphore,
    WaitGroup, broadcast, oneshot, watch,
};
use plainsong::time::sleep;
use plainsong::{CancellationToken, JoinHandle, Runtime, select, spawn, spawn_anywhere};

use crate::util::{OnDrop, run, until_parked, watch as watched};

type Wait = Arc<dyn Fn() + Send + Sync>;
/// Ends a wait on the thread on which it was made.
type Give = Box<dyn FnOnce()>;
/// Makes what is to be given, on the thread that will give it.
type Prepare = Box<dyn FnOnce() -> Give + Send>;

struct Case {
    name: &'static str,
    /// A wait that returns only if it is served, and what serves it. The wait begins when the
    /// second has been prepared.
    make: fn() -> (Wait, Prepare),
}

/// A `give` without preparation: all it needs has been there since the case was made.
fn at_hand(give: impl FnOnce() + Send + 'static) -> Prepare {
    Box::new(|| Box::new(give))
}

/// A lock whose guard is dropped on the thread that took it.
fn held<L: Sync + 'static, G: 'static>(lock: &'static L, take: fn(&'static L) -> G) -> Prepare {
    Box::new(move || {
        let guard = take(lock);
        Box::new(move || drop(guard))
    })
}

fn ignore<T>(_: T) {}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

const CASES: &[Case] = &[
    Case {
        name: "mutex",
        make: || {
            let mutex = leak(Mutex::new(()));
            (Arc::new(|| drop(mutex.lock())), held(mutex, |mutex| mutex.lock().unwrap()))
        },
    },
    Case {
        name: "mutex with a time-out",
        make: || {
            let mutex = leak(Mutex::new(()));
            let wait = || drop(mutex.lock_timeout(Duration::from_secs(3600)));
            (Arc::new(wait), held(mutex, |mutex| mutex.lock().unwrap()))
        },
    },
    Case {
        name: "reentrant mutex",
        make: || {
            let mutex = leak(ReentrantMutex::new(()));
            (Arc::new(|| drop(mutex.lock())), held(mutex, |mutex| mutex.lock()))
        },
    },
    Case {
        name: "write lock",
        make: || {
            let lock = leak(RwLock::new(()));
            (Arc::new(|| drop(lock.write())), held(lock, |lock| lock.read().unwrap()))
        },
    },
    Case {
        name: "read lock",
        make: || {
            let lock = leak(RwLock::new(()));
            (Arc::new(|| drop(lock.read())), held(lock, |lock| lock.write().unwrap()))
        },
    },
    Case {
        name: "semaphore",
        make: || {
            let permits = leak(Semaphore::new(1));
            (Arc::new(|| drop(permits.acquire())), held(permits, |permits| permits.acquire()))
        },
    },
    Case {
        name: "one notification",
        make: || {
            let shared = leak((Mutex::new(()), Condvar::new()));
            let wait = || drop(shared.1.wait(shared.0.lock().unwrap()));
            (Arc::new(wait), at_hand(|| shared.1.notify_one()))
        },
    },
    Case {
        name: "a notification of all",
        make: || {
            let shared = leak((Mutex::new(()), Condvar::new()));
            let wait = || drop(shared.1.wait(shared.0.lock().unwrap()));
            (Arc::new(wait), at_hand(|| shared.1.notify_all()))
        },
    },
    Case {
        name: "event",
        make: || {
            let event = leak(Event::new());
            (Arc::new(|| event.wait()), at_hand(|| event.set()))
        },
    },
    Case {
        name: "barrier",
        make: || {
            let barrier = leak(Barrier::new(4));
            let wait = || ignore(barrier.wait());
            let arrive = || {
                let early = barrier.wait_timeout(Duration::ZERO);
                assert!(early.is_none(), "a party was counted that has been cancelled");
            };
            (Arc::new(wait), at_hand(arrive))
        },
    },
    Case {
        name: "receive, without room",
        make: || {
            let (sender, receiver) = bounded(0);
            let sends = move || assert!(sender.try_send(1).is_err());
            (Arc::new(move || ignore(receiver.recv())), at_hand(sends))
        },
    },
    Case {
        name: "receive",
        make: || {
            let (sender, receiver) = channel::unbounded();
            // At the end of a run, the other receivers may be gone by then.
            let open = receiver.clone();
            let sends = move || {
                sender.send(1).unwrap();
                assert_eq!(open.len(), 1);
            };
            (Arc::new(move || ignore(receiver.recv())), at_hand(sends))
        },
    },
    Case {
        name: "receive from senders that are dropped",
        make: || {
            let (sender, receiver) = channel::unbounded::<()>();
            (Arc::new(move || ignore(receiver.recv())), at_hand(move || drop(sender)))
        },
    },
    Case {
        name: "send, without room",
        make: || {
            let (sender, receiver) = bounded(0);
            let receives = move || assert!(receiver.try_recv().is_err());
            (Arc::new(move || ignore(sender.send(1))), at_hand(receives))
        },
    },
    Case {
        name: "send",
        make: || {
            let (sender, receiver) = bounded(1);
            sender.send(0).unwrap();
            let receives = move || {
                assert_eq!(receiver.try_recv(), Ok(0));
                assert!(receiver.is_empty());
            };
            (Arc::new(move || ignore(sender.send(1))), at_hand(receives))
        },
    },
    Case {
        name: "select that receives",
        make: || {
            let ((sender, receiver), event) = (bounded(0), Event::new());
            let wait = move || {
                select! {
                    recv(receiver) -> item => ignore(item),
                    wait(event) => {}
                }
            };
            (Arc::new(wait), at_hand(move || assert!(sender.try_send(1).is_err())))
        },
    },
    Case {
        name: "select that sends",
        make: || {
            let ((sender, receiver), (_other, never)) = (bounded(0), bounded::<()>(0));
            let wait = move || {
                let _open = &_other;
                select! {
                    recv(never) -> item => ignore(item),
                    send(sender, 1) -> sent => ignore(sent),
                }
            };
            (Arc::new(wait), at_hand(move || assert!(receiver.try_recv().is_err())))
        },
    },
    Case {
        name: "oneshot",
        make: || {
            let (sender, receiver) = oneshot::channel();
            let receiver = std::sync::Mutex::new(Some(receiver));
            let wait = move || {
                let receiver = receiver.lock().unwrap().take();
                match receiver {
                    Some(receiver) => ignore(receiver.recv()),
                    None => sleep(Duration::MAX),
                }
            };
            (Arc::new(wait), at_hand(move || ignore(sender.send(1))))
        },
    },
    Case {
        name: "broadcast",
        make: || {
            let (sender, _) = broadcast::channel(1);
            let theirs = sender.clone();
            (
                Arc::new(move || ignore(theirs.subscribe().recv())),
                at_hand(move || ignore(sender.send(1))),
            )
        },
    },
    Case {
        name: "watch",
        make: || {
            let (sender, receiver) = watch::channel(0);
            let wait = move || ignore(receiver.clone().changed());
            (Arc::new(wait), at_hand(move || ignore(sender.send_replace(1))))
        },
    },
    Case {
        name: "get",
        make: || {
            let queue = leak(Queue::fifo(None));
            let puts = || {
                queue.put(1).unwrap();
                assert_eq!(queue.len(), 1);
            };
            (Arc::new(|| ignore(queue.get())), at_hand(puts))
        },
    },
    Case {
        name: "put",
        make: || {
            let queue = leak(Queue::fifo(Some(1)));
            queue.put(0).unwrap();
            let gets = || {
                assert_eq!(queue.try_get(), Ok(0));
                assert!(queue.is_empty());
            };
            (Arc::new(|| ignore(queue.put(1))), at_hand(gets))
        },
    },
    Case {
        name: "once",
        make: || {
            let once = leak(OnceLock::new());
            (Arc::new(|| _ = once.wait()), at_hand(|| once.set(1).unwrap()))
        },
    },
    Case {
        name: "promise",
        make: || {
            let promise = Promise::new();
            let theirs = promise.clone();
            (Arc::new(move || _ = theirs.wait()), at_hand(move || promise.set(1).unwrap()))
        },
    },
    Case {
        name: "wait group",
        make: || {
            let share = WaitGroup::new();
            let theirs = std::sync::Mutex::new(vec![share.clone(), share.clone(), share.clone()]);
            let wait = move || {
                let group = theirs.lock().unwrap().pop().unwrap();
                group.wait();
            };
            (Arc::new(wait), at_hand(move || drop(share)))
        },
    },
];

/// Three coroutines that wait, and how many of the waits have returned.
struct Waiters {
    handles: Vec<JoinHandle<()>>,
    served: Arc<AtomicUsize>,
}

fn waiter(wait: Wait, served: &Arc<AtomicUsize>) -> impl FnOnce() + Send + use<> {
    let served = Arc::clone(served);
    move || {
        wait();
        served.fetch_add(1, Ordering::SeqCst);
    }
}

impl Waiters {
    fn new(wait: &Wait) -> Self {
        let served = Arc::default();
        let handles: Vec<_> = (0..3).map(|_| spawn(waiter(Arc::clone(wait), &served))).collect();
        handles.iter().for_each(until_parked);
        Self { handles, served }
    }

    #[track_caller]
    fn end(self, name: &str) {
        for handle in self.handles {
            assert!(handle.join().is_err_and(|error| error.is_cancelled()), "{name}");
        }
        assert_eq!(self.served.load(Ordering::SeqCst), 0, "{name}: served though cancelled");
    }
}

#[test]
fn waiters_that_are_cancelled_by_their_handles() {
    run(|| {
        for Case { name, make } in CASES {
            let (wait, prepare) = make();
            let give = prepare();
            let waiters = Waiters::new(&wait);
            waiters.handles.iter().for_each(JoinHandle::cancel);
            give();
            waiters.end(name);
        }
    });
}

#[test]
fn waiters_that_are_cancelled_by_a_token() {
    run(|| {
        for Case { name, make } in CASES {
            let (wait, prepare) = make();
            let (give, token) = (prepare(), CancellationToken::new());
            let theirs = token.clone();
            let served = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&served);
            let wait: Wait = Arc::new(move || {
                if theirs.run_until_cancelled(|| wait()).is_some() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
            let waiters = Waiters::new(&wait);
            token.cancel();
            give();
            waiters.handles.into_iter().for_each(|handle| handle.join().unwrap());
            assert_eq!(served.load(Ordering::SeqCst), 0, "{name}: served though cancelled");
        }
    });
}

#[test]
fn waiters_that_are_cancelled_by_their_scope() {
    run(|| {
        for Case { name, make } in CASES {
            let (wait, prepare) = make();
            let (give, served) = (prepare(), Arc::new(AtomicUsize::new(0)));
            let ready = Event::new();
            plainsong::scope(|s| {
                for _ in 0..3 {
                    s.spawn(waiter(Arc::clone(&wait), &served));
                }
                // Its turn comes when all of them wait.
                s.spawn(|| ready.set());
                ready.wait();
                s.cancel();
                give();
            });
            assert_eq!(served.load(Ordering::SeqCst), 0, "{name}: served though cancelled");
        }
    });
}

#[test]
fn waiters_that_are_cancelled_from_a_thread_before_their_own_learns_of_it() {
    run(|| {
        for Case { name, make } in CASES {
            let (wait, prepare) = make();
            let (prepared, is_prepared) = mpsc::channel();
            let (cancel, cancelled) = mpsc::channel::<Vec<JoinHandle<()>>>();
            let giver = system::spawn(move || {
                let give = prepare();
                prepared.send(()).unwrap();
                let handles = cancelled.recv().unwrap();
                handles.iter().for_each(JoinHandle::cancel);
                give();
                handles
            });
            is_prepared.recv().unwrap();
            let Waiters { handles, served } = Waiters::new(&wait);
            cancel.send(handles).unwrap();
            // Blocks this whole thread, so that its waiters do not learn of the requests before
            // `give` has run.
            let handles = giver.join().unwrap();
            Waiters { handles, served }.end(name);
        }
    });
}

#[test]
fn waiters_on_another_worker() {
    watched(|| {
        Runtime::builder().workers(2).build().unwrap().run(|| {
            for Case { name, make } in CASES {
                for _ in 0..20 {
                    let (wait, prepare) = make();
                    let give = prepare();
                    let (sent, received) = mpsc::channel();
                    let host = spawn_anywhere(move || sent.send(Waiters::new(&wait)).unwrap());
                    // Keeps this thread, so that the other worker makes the waiters.
                    let waiters = received.recv().unwrap();
                    waiters.handles.iter().for_each(JoinHandle::cancel);
                    give();
                    waiters.end(name);
                    host.join().unwrap();
                }
            }
        });
    });
}

#[test]
fn waiters_that_are_cancelled_by_the_end_of_their_run() {
    watched(|| {
        for Case { name, make } in CASES {
            for workers in [1, 2] {
                let (wait, prepare) = make();
                let served = Arc::new(AtomicUsize::new(0));
                let theirs = Arc::clone(&served);
                Runtime::builder().workers(workers).build().unwrap().run(move || {
                    let prepared = Arc::new(Event::new());
                    let signal = Arc::clone(&prepared);
                    let begin = move || {
                        let mut give = Some(prepare());
                        let _give = OnDrop(move || {
                            if let Some(give) = give.take() {
                                plainsong::shield(give);
                            }
                        });
                        signal.set();
                        sleep(Duration::MAX);
                    };
                    if workers == 1 {
                        drop(spawn(begin))
                    } else {
                        drop(spawn_anywhere(begin))
                    }
                    prepared.wait();
                    let waits = || waiter(Arc::clone(&wait), &theirs);
                    let handles = [(); 3].map(|()| spawn(waits()));
                    handles.iter().for_each(until_parked);
                });
                assert_eq!(served.load(Ordering::SeqCst), 0, "{name}: served though cancelled");
            }
        }
    });
}

#[test]
fn a_lock_is_handed_to_the_next_waiter_that_is_not_cancelled() {
    run(|| {
        let mutex = leak(Mutex::new(Vec::new()));
        let guard = mutex.lock().unwrap();
        let handles = [0, 1, 2, 3].map(|n| spawn(move || mutex.lock().unwrap().push(n)));
        handles.iter().for_each(until_parked);
        handles[0].cancel();
        handles[2].cancel();
        drop(guard);
        let ends = handles.map(|handle| handle.join().is_ok());
        assert_eq!(ends, [false, true, false, true]);
        assert_eq!(*mutex.lock().unwrap(), [1, 3]);
    });
}

#[test]
fn a_waiter_behind_one_that_is_cancelled_is_not_held_up() {
    run(|| {
        // The first wants more than there is, and then gives up.
        let permits = leak(Semaphore::new(1));
        let many = spawn(|| drop(permits.acquire_many(2)));
        until_parked(&many);
        let one = spawn(|| permits.acquire().is_ok());
        until_parked(&one);
        many.cancel();
        assert!(one.join().unwrap());
        // A writer that gives up lets the readers behind it in.
        let lock = leak(RwLock::new(()));
        let reads = lock.read().unwrap();
        let writer = spawn(|| drop(lock.write()));
        until_parked(&writer);
        let reader = spawn(|| drop(lock.read()));
        until_parked(&reader);
        writer.cancel();
        reader.join().unwrap();
        assert!(lock.try_read().is_ok());
        drop(reads);
    });
}

/// Waiters of one mutex on two workers. A thread holds it, cancels some waiters, and then unlocks
/// it, while others come and go. The mutex holds the list of the waiters that had been cancelled
/// when it was last unlocked: none of those may be the next to lock it.
#[test]
fn nobody_that_is_cancelled_locks_a_mutex_in_a_crowd() {
    const WAITERS: usize = 6;
    watched(|| {
        Runtime::builder().workers(2).build().unwrap().run(|| {
            let random = std::cell::Cell::new(0x9E37_79B9_7F4A_7C15);
            for round in 0..300 {
                let mutex = Arc::new(Mutex::new([false; WAITERS]));
                let cancelled = Arc::new([(); WAITERS].map(|()| AtomicBool::new(false)));
                let violations = Arc::new(AtomicUsize::new(0));
                let guard = Arc::clone(&mutex).lock_owned().unwrap();
                let waiter = |number: usize| {
                    let (mutex, cancelled) = (Arc::clone(&mutex), Arc::clone(&cancelled));
                    let violations = Arc::clone(&violations);
                    move || {
                        let mut seen = mutex.lock().unwrap();
                        violations.fetch_add(usize::from(seen[number]), Ordering::SeqCst);
                        *seen = [0, 1, 2, 3, 4, 5].map(|n| cancelled[n].load(Ordering::SeqCst));
                    }
                };
                let handles: Vec<_> = (0..WAITERS).map(|n| spawn(waiter(n))).collect();
                handles.iter().for_each(until_parked);
                let picked = crate::util::below(&random, 1 << WAITERS);
                let flags = Arc::clone(&cancelled);
                let canceller = system::spawn(move || {
                    for (number, handle) in handles.iter().enumerate() {
                        if picked & 1 << number != 0 {
                            handle.cancel();
                            flags[number].store(true, Ordering::SeqCst);
                        }
                    }
                    handles
                });
                let mut guard = guard;
                *guard = [0, 1, 2, 3, 4, 5].map(|n| cancelled[n].load(Ordering::SeqCst));
                drop(guard);
                let handles = canceller.join().unwrap();
                for handle in handles {
                    match handle.join() {
                        Ok(()) => {}
                        Err(error) => assert!(error.is_cancelled()),
                    }
                }
                assert_eq!(violations.load(Ordering::SeqCst), 0, "round {round}");
                assert!(mutex.try_lock().is_ok());
            }
        });
    });
}
