//! Whole runs: the real workers, schedulers and coroutines.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use super::check;
use crate::sync::channel::{bounded, unbounded};
use crate::{CancellationToken, Runtime, select_biased, spawn, spawn_anywhere, yield_now};

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).stack_size(1 << 17).build().unwrap()
}

/// Counts calls on any worker.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_run_ends_when_all_jobs_have_run() {
    check(|| {
        let count = Count::default();
        runtime(3).run_all(|| {
            for _ in 0..3 {
                let count = count.clone();
                spawn_anywhere(move || {
                    let inner = count.clone();
                    spawn_anywhere(move || inner.add());
                    yield_now();
                    count.add();
                });
            }
        });
        assert_eq!(count.get(), 6);
    });
}

#[test]
fn a_join_on_another_worker_is_woken() {
    check(|| {
        let sum = runtime(2).run(|| {
            let one = spawn_anywhere(|| 1);
            let two = spawn_anywhere(|| spawn_anywhere(|| 2).join().unwrap());
            one.join().unwrap() + two.join().unwrap()
        });
        assert_eq!(sum, 3);
    });
}

#[test]
fn coroutines_on_several_workers_meet() {
    check(|| {
        let (sender, receiver) = bounded(0);
        let sum = runtime(2).run(|| {
            let senders = [1, 2].map(|item| {
                let sender = sender.clone();
                spawn_anywhere(move || sender.send(item).unwrap())
            });
            let sum = receiver.recv().unwrap() + receiver.recv().unwrap();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            sum
        });
        assert_eq!(sum, 3);
    });
}

#[test]
fn a_plain_thread_hands_over_jobs_before_during_and_after_a_run() {
    check(|| {
        let runtime = runtime(2);
        let handle = runtime.handle();
        let count = Count::default();
        let hands = thread::spawn({
            let count = count.clone();
            move || {
                [(); 2].map(|()| {
                    handle.spawn({
                        let count = count.clone();
                        move || count.add()
                    })
                })
            }
        });
        runtime.run_all(yield_now);
        let handles = hands.join().unwrap();
        // Those that came after its end.
        runtime.run_all(|| ());
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        assert_eq!(count.get(), 2);
    });
}

#[test]
fn the_end_of_a_run_cancels_on_all_workers() {
    check(|| {
        let (count, dropped) = (Count::default(), Count::default());
        struct OnDrop(Count);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.add();
            }
        }
        let (_sender, receiver) = unbounded::<()>();
        runtime(2).run(|| {
            for _ in 0..2 {
                let (guard, receiver) = (OnDrop(dropped.clone()), receiver.clone());
                let count = count.clone();
                spawn_anywhere(move || {
                    let _guard = guard;
                    let _ = receiver.recv();
                    count.add();
                })
                .id();
            }
            yield_now();
        });
        assert_eq!((count.get(), dropped.get()), (0, 2));
    });
}

#[test]
fn a_deadlock_of_several_workers_is_found() {
    check(|| {
        let builder = Runtime::builder().workers(2).strict_deadlock(true);
        let runtime = builder.build().unwrap();
        let (_sender, receiver) = unbounded::<()>();
        let run = AssertUnwindSafe(|| {
            runtime.run(|| {
                let other = receiver.clone();
                let child = spawn_anywhere(move || other.recv());
                let _ = receiver.recv();
                let _ = child.join();
            });
        });
        let payload = catch_unwind(run).unwrap_err();
        let report = payload.downcast_ref::<String>().unwrap();
        assert!(report.contains("deadlock"), "{report}");
        assert_eq!(report.matches("has waited").count(), 2, "{report}");
    });
}

#[test]
fn a_token_ends_the_waits_of_all_workers_and_threads() {
    check(|| {
        let token = CancellationToken::new();
        let theirs = token.clone();
        let waits = thread::spawn(move || theirs.cancelled());
        runtime(2).run(|| {
            let children = [(); 2].map(|()| {
                let token = token.child_token();
                spawn_anywhere(move || token.cancelled())
            });
            spawn_anywhere(move || token.cancel());
            children.into_iter().for_each(|child| child.join().unwrap());
        });
        waits.join().unwrap();
    });
}

#[test]
fn a_token_unwinds_what_it_covers_once() {
    check(|| {
        let token = CancellationToken::new();
        runtime(2).run(|| {
            let (_sender, receiver) = unbounded::<()>();
            let covered = token.clone();
            let child =
                spawn_anywhere(move || covered.run_until_cancelled(|| receiver.recv()).is_none());
            let cancels = spawn_anywhere(move || token.cancel());
            assert!(child.join().unwrap());
            cancels.join().unwrap();
        });
    });
}

#[test]
fn an_item_for_a_cancelled_receiver_goes_to_the_next() {
    check(|| {
        let (sender, receiver) = bounded(0);
        runtime(2).run(|| {
            let receivers = [(); 2].map(|()| {
                let receiver = receiver.clone();
                spawn_anywhere(move || receiver.recv())
            });
            let sends = spawn_anywhere(move || sender.send(7));
            receivers[0].cancel();
            let results = receivers.map(|receiver| receiver.join());
            // The first may have had it before the request.
            let taken = results.iter().filter(|result| matches!(result, Ok(Ok(7)))).count();
            drop(receiver);
            let sent = sends.join().unwrap().is_ok();
            assert_eq!(taken, usize::from(sent));
        });
    });
}

#[test]
fn a_select_that_does_not_wait_finds_what_another_worker_has_sent() {
    check(|| {
        let channels = [(); 2].map(|()| bounded::<usize>(1));
        runtime(2).run(|| {
            let both = [0, 1].map(|own| {
                let sender = channels[own].0.clone();
                let receivers = [channels[1 - own].1.clone(), channels[own].1.clone()];
                spawn_anywhere(move || {
                    let [first, second] = &receivers;
                    sender.send(own).unwrap();
                    select_biased! {
                        recv(first) -> item => assert!(item.is_ok()),
                        recv(second) -> item => assert!(item.is_ok()),
                        default => unreachable!("an item was there at every moment"),
                    }
                })
            });
            both.into_iter().for_each(|one| one.join().unwrap());
        });
    });
}

#[test]
fn a_coroutine_stays_where_it_has_started() {
    check(|| {
        runtime(2).run(|| {
            let child = spawn_anywhere(|| {
                let shared = Rc::new(Cell::new(0));
                let theirs = Rc::clone(&shared);
                let inner = spawn(move || theirs.set(1));
                inner.join().unwrap();
                shared.get()
            });
            assert_eq!(child.join().unwrap(), 1);
        });
    });
}
