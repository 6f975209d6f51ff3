//! `gather`, `race`, `join_all`, `wait`, `as_completed`.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plainsong::task::{as_completed, gather, join_all, race, wait};
use plainsong::time::{sleep, timeout};
use plainsong::{JoinError, JoinHandle, thread};

use crate::util::{HOUR, MOMENT, OnDrop, alone, both, panic_of, run, until_parked, watch};

type Work<'a, T> = Box<dyn FnOnce() -> T + 'a>;

#[test]
fn gather_keeps_the_order() {
    both(|| {
        let factor = 10;
        let results = gather((0..20u32).map(|n| {
            move || {
                for _ in n..20 {
                    plainsong::yield_now();
                }
                n * factor
            }
        }));
        assert!(results.into_iter().eq((0..20).map(|n| n * 10)));
        assert_eq!(gather(Vec::<fn()>::new()).len(), 0);
    });
}

#[test]
fn gather_with_a_panic_cancels_the_others() {
    run(|| {
        let dropped = Cell::new(0);
        let message = panic_of(|| {
            gather((0..10).map(|n| {
                let dropped = &dropped;
                move || {
                    let _guard = OnDrop(|| dropped.set(dropped.get() + 1));
                    if n == 7 {
                        plainsong::yield_now();
                        resume_unwind(Box::new("the seventh"));
                    }
                    sleep(HOUR);
                }
            }))
        });
        assert_eq!((message.as_str(), dropped.get()), ("the seventh", 10));
    });
}

#[test]
fn gather_with_a_panic_says_nothing_of_the_cancelled() {
    alone(gather_with_a_panic_says_nothing_of_the_cancelled, || {
        static HOOKS: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| {
            HOOKS.fetch_add(1, Ordering::Relaxed);
        }));
        plainsong::run(|| {
            // The first ends, the last panics, and the second is cancelled and ends before the
            // caller of `gather` has a turn.
            let second = Cell::new(None);
            let works: [Work<'_, ()>; 3] = [
                Box::new(plainsong::yield_now),
                Box::new(|| {
                    second.set(Some(thread::current()));
                    thread::park();
                    plainsong::yield_now();
                }),
                Box::new(|| {
                    plainsong::yield_now();
                    resume_unwind(Box::new("the third"));
                }),
            ];
            let unparker = plainsong::spawn(|| ());
            let message = panic_of(|| {
                gather(works.into_iter().chain([Box::new(|| {
                    second.take().unwrap().unpark();
                }) as Work<'_, ()>]))
            });
            assert_eq!(message, "the third");
            unparker.join().unwrap();
        });
        assert_eq!(HOOKS.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn race_has_one_winner_and_no_losers_left() {
    both(|| {
        let ended = Cell::new(0);
        let winner = race((0..5u64).map(|n| {
            let ended = &ended;
            move || {
                let _guard = OnDrop(|| {
                    sleep(Duration::from_micros(10));
                    ended.set(ended.get() + 1);
                });
                sleep(if n == 3 { MOMENT } else { HOUR });
                n
            }
        }));
        assert_eq!((winner, ended.get()), (3, 5));
    });
}

#[test]
fn race_with_ties() {
    run(|| {
        for _ in 0..50 {
            assert_eq!(race([1, 2, 3].map(|n| move || n)), 1, "the first that has its turn");
        }
        let dropped = Rc::new(Cell::new(0));
        let results = || {
            (0..4).map(|_| {
                let dropped = Rc::clone(&dropped);
                move || {
                    plainsong::yield_now();
                    let guard = OnDrop(move || dropped.set(dropped.get() + 1));
                    Box::new(guard)
                }
            })
        };
        let winner = race(results());
        let losers = dropped.get();
        drop(winner);
        assert_eq!(dropped.get(), losers + 1, "one is left, and drops once");
        // A coroutine that ends in spite of its cancellation loses.
        let first = race([0, 1].map(|n| {
            move || {
                plainsong::shield(|| {
                    for _ in 0..=n {
                        plainsong::yield_now();
                    }
                });
                n
            }
        }));
        assert_eq!(first, 0);
    });
}

#[test]
fn race_with_panics() {
    run(|| {
        let ended = Cell::new(false);
        let slow = || {
            let _guard = OnDrop(|| ended.set(true));
            sleep(HOUR);
        };
        let works: [Work<'_, ()>; 2] =
            [Box::new(slow), Box::new(|| resume_unwind(Box::new("the second")))];
        assert_eq!(panic_of(|| race(works)), "the second");
        assert!(ended.get());

        // A loser panics while it is cancelled.
        let works: [Work<'_, ()>; 2] = [
            Box::new(|| {
                if catch_unwind(|| sleep(HOUR)).is_err() {
                    resume_unwind(Box::new("the loser"));
                }
            }),
            Box::new(plainsong::yield_now),
        ];
        assert_eq!(panic_of(|| race(works)), "the loser");
        assert!(panic_of(|| race(Vec::<fn()>::new())).contains("race"));
    });
}

#[test]
fn race_in_a_shield_at_the_end_of_the_run() {
    watch(|| {
        let outcome = Rc::new(Cell::new(None));
        let theirs = Rc::clone(&outcome);
        plainsong::run(move || {
            plainsong::spawn(move || {
                let both = || race([HOUR, HOUR].map(|time| move || sleep(time)));
                theirs.set(Some(catch_unwind(|| plainsong::shield(both))));
            });
            plainsong::yield_now();
        });
        let payload = outcome.take().unwrap().unwrap_err();
        assert!(payload.downcast::<JoinError>().unwrap().is_cancelled());
    });
}

#[test]
fn race_that_is_cancelled() {
    run(|| {
        let ended = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&ended);
        let racing = plainsong::spawn(move || {
            race((0..3).map(|_| {
                || {
                    let _guard = OnDrop(|| theirs.set(theirs.get() + 1));
                    sleep(HOUR);
                }
            }));
        });
        until_parked(&racing);
        plainsong::yield_now();
        racing.cancel();
        assert!(racing.join().unwrap_err().is_cancelled());
        assert_eq!(ended.get(), 3);
    });
}

#[test]
fn join_all_gives_each_its_own() {
    run(|| {
        let cancelled = plainsong::spawn(|| sleep(HOUR));
        cancelled.cancel();
        let handles = [
            plainsong::spawn(|| sleep(MOMENT)),
            cancelled,
            plainsong::spawn(|| resume_unwind(Box::new(1))),
        ];
        let results = join_all(handles);
        assert!(results[0].is_ok());
        assert!(results[1].as_ref().unwrap_err().is_cancelled());
        assert!(results[2].as_ref().unwrap_err().is_panic());
        assert!(join_all(Vec::<JoinHandle<()>>::new()).is_empty());
    });
}

#[test]
fn wait_sorts_and_takes_a_time() {
    run(|| {
        let handles = || (0..6u64).map(|n| plainsong::spawn(move || sleep(HOUR * (n as u32 % 2))));
        let (done, pending) = wait(handles(), Some(MOMENT));
        assert_eq!((done.len(), pending.len()), (3, 3));
        pending.iter().for_each(JoinHandle::cancel);
        let (ended, left) = wait(pending, None);
        assert_eq!((ended.len(), left.len()), (3, 0));
        assert!(ended.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));

        let (done, pending) = wait(handles(), Some(Duration::ZERO));
        assert!(done.len() <= 3 && pending.len() >= 3);
        let long = wait([plainsong::spawn(|| sleep(MOMENT))], Some(Duration::MAX));
        assert_eq!((long.0.len(), long.1.len()), (1, 0));
        assert_eq!(wait(Vec::<JoinHandle<()>>::new(), None).0.len(), 0);
    });
}

#[test]
fn as_completed_by_the_time_of_the_end() {
    run(|| {
        let turns = [5, 2, 9, 0, 7];
        let handles = turns.map(|n| {
            plainsong::spawn(move || {
                for _ in 0..n {
                    plainsong::yield_now();
                }
                n
            })
        });
        let mut completed = as_completed(handles);
        assert_eq!(completed.len(), 5);
        assert_eq!(completed.next().unwrap().unwrap(), 0);
        // All others end before the next call.
        for _ in 0..20 {
            plainsong::yield_now();
        }
        let order: Vec<_> = completed.map(Result::unwrap).collect();
        assert_eq!(order, [2, 5, 7, 9]);
    });
}

#[test]
fn as_completed_with_failures_and_a_time_out() {
    run(|| {
        let cancelled = plainsong::spawn(|| sleep(HOUR));
        let slow = plainsong::spawn(thread::park);
        let unparked = slow.thread().clone();
        cancelled.cancel();
        let mut completed = as_completed([slow, cancelled]);
        assert!(completed.next().unwrap().unwrap_err().is_cancelled());
        for _ in 0..5 {
            assert!(timeout(Duration::from_micros(10), || completed.next()).is_err());
        }
        assert_eq!(completed.len(), 1);
        unparked.unpark();
        assert!(completed.next().unwrap().is_ok());
        assert!(completed.next().is_none() && completed.next().is_none());
    });
}

#[test]
fn handles_of_another_thread() {
    watch(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            plainsong::run(|| {
                let handles: Vec<_> = (0..3)
                    .map(|n| {
                        plainsong::spawn(move || {
                            thread::park();
                            n
                        })
                    })
                    .collect();
                sender.send(handles).unwrap();
                while stopped.try_recv().is_err() {
                    plainsong::yield_now();
                }
            });
        });
        plainsong::run(|| {
            let handles = receiver.recv().unwrap();
            let threads: Vec<_> = handles.iter().map(|handle| handle.thread().clone()).collect();
            let mut completed = as_completed(handles);
            let order = RefCell::new(Vec::new());
            for n in [1, 0, 2] {
                assert!(timeout(Duration::from_micros(50), || completed.next()).is_err());
                threads[n].unpark();
                order.borrow_mut().push(completed.next().unwrap().unwrap());
            }
            assert_eq!(*order.borrow(), [1, 0, 2]);
        });
        stop.send(()).unwrap();
        other.join().unwrap();
    });
}
