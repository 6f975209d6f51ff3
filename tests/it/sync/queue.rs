//! `Queue`: orders, bounds, `task_done` and `join`, shutdown.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread as system;
use std::time::Duration;

use plainsong::no_wait;
use plainsong::pool::Pool;
use plainsong::sync::{Event, PutError, Queue, TryGetError, TryPutError};
use plainsong::time::{sleep, timeout};

use crate::util::{HOUR, MOMENT, OnDrop, alone, both, panic_of, run, until, until_parked, watch};

/// An item in the order of its number. A comparison calls the closures of both.
struct Item {
    number: u8,
    compare: Box<dyn Fn()>,
}

fn item(number: u8, compare: impl Fn() + 'static) -> Item {
    Item { number, compare: Box::new(compare) }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.compare)();
        (other.compare)();
        self.number.cmp(&other.number)
    }
}

/// Puts numbers, and returns them in the order of `get`.
fn out(queue: &Queue<i32>, put: &[i32]) -> Vec<i32> {
    put.iter().for_each(|n| queue.put(*n).unwrap());
    std::iter::from_fn(|| queue.try_get().ok()).collect()
}

#[test]
fn three_orders() {
    both(|| {
        assert_eq!(out(&Queue::fifo(None), &[2, 3, 1]), [2, 3, 1]);
        assert_eq!(out(&Queue::lifo(None), &[2, 3, 1]), [1, 3, 2]);
        assert_eq!(out(&Queue::priority(None), &[2, 3, 1]), [1, 2, 3]);
        // Equal items come in the order in which they were put.
        #[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
        struct Job(u32);
        let queue = Queue::priority(Some(10));
        for (n, name) in [(1, "d"), (0, "b"), (1, "c")] {
            queue.put((Job(n), name)).unwrap();
        }
        assert_eq!(queue.get().unwrap(), (Job(0), "b"));
        assert_eq!(queue.get().unwrap(), (Job(1), "c"));
    });
}

#[test]
fn a_queue_with_room_for_two() {
    both(|| {
        let queue = Queue::fifo(Some(2));
        assert!(queue.is_empty() && !queue.is_full() && queue.capacity() == Some(2));
        assert_eq!(queue.try_get(), Err(TryGetError::Empty));
        assert_eq!(queue.get_timeout(MOMENT), Err(TryGetError::Empty));
        queue.put(1).unwrap();
        assert!(queue.try_put(2).is_ok());
        assert!(queue.is_full() && queue.len() == 2);
        assert!(queue.try_put(3) == Err(TryPutError::Full(3)));
        assert!(queue.put_timeout(3, MOMENT) == Err(TryPutError::Full(3)));
        assert_eq!((queue.get(), queue.get_timeout(HOUR)), (Ok(1), Ok(2)));
        assert!(!queue.is_full());
        assert!(panic_of(|| Queue::<i32>::fifo(Some(0))).contains("room"));
        assert_eq!(
            format!("{queue:?}"),
            "Queue { len: 0, unfinished: 2, shut_down: false, capacity: Some(2), .. }"
        );
    });
}

#[test]
fn join_waits_until_all_is_done() {
    run(|| {
        let queue = Rc::new(Queue::fifo(None));
        queue.join();
        (0..3).for_each(|n| queue.put(n).unwrap());
        let theirs = Rc::clone(&queue);
        let joins = plainsong::spawn(move || theirs.join());
        until_parked(&joins);
        for _ in 0..3 {
            assert!(!joins.is_finished());
            queue.get().unwrap();
            plainsong::yield_now();
            queue.task_done();
        }
        joins.join().unwrap();
        assert!(panic_of(|| queue.task_done()).contains("task_done"));
        queue.put(1).unwrap();
        assert!(timeout(MOMENT, || queue.join()).is_err());
    });
}

#[test]
fn shutting_down() {
    both(|| {
        let queue = Queue::fifo(Some(1));
        queue.put(1).unwrap();
        plainsong::scope(|s| {
            let puts = s.spawn(|| queue.put(2));
            let joins = s.spawn(|| queue.join());
            plainsong::yield_now();
            queue.shutdown(false);
            assert!(puts.join().unwrap() == Err(PutError(2)));
            assert!(queue.try_put(3) == Err(TryPutError::ShutDown(3)));
            assert_eq!(queue.get(), Ok(1));
            assert!(queue.get().is_err());
            assert_eq!(queue.try_get(), Err(TryGetError::ShutDown));
            assert_eq!(queue.get_timeout(HOUR), Err(TryGetError::ShutDown));
            queue.task_done();
            joins.join().unwrap();
        });
        let queue = Queue::lifo(None);
        (0..3).for_each(|n| queue.put(n).unwrap());
        queue.get().unwrap();
        queue.shutdown(true);
        assert!(queue.is_empty() && queue.get().is_err());
        queue.task_done();
        queue.join();
        let empty = Queue::<i32>::default();
        plainsong::scope(|s| {
            let gets: Vec<_> = (0..3).map(|_| s.spawn(|| empty.get().is_err())).collect();
            plainsong::yield_now();
            empty.shutdown(false);
            assert!(gets.into_iter().all(|get| get.join().unwrap()));
        });
    });
}

#[test]
fn getters_are_served_in_order() {
    run(|| {
        let (queue, got) = (Queue::fifo(Some(1)), RefCell::new(Vec::new()));
        plainsong::scope(|s| {
            for n in 0..5 {
                let (queue, got) = (&queue, &got);
                s.spawn(move || {
                    let item = queue.get().unwrap();
                    got.borrow_mut().push((n, item));
                });
            }
            plainsong::yield_now();
            (0..5).for_each(|n| queue.put(n).unwrap());
        });
        assert_eq!(got.into_inner(), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
    });
}

#[test]
fn nothing_is_lost_to_cancelled_waiters() {
    for seed in 1..=8_u64 {
        watch(move || {
            const ITEMS: usize = 400;
            let queue = match seed % 3 {
                0 => Queue::fifo(Some(3)),
                1 => Queue::lifo(Some(2)),
                _ => Queue::priority(None),
            };
            let seen = Mutex::new(BTreeSet::new());
            system::scope(|threads| {
                threads.spawn(|| {
                    for n in 0..ITEMS / 2 {
                        queue.put(n).unwrap();
                    }
                });
                plainsong::run(|| {
                    plainsong::scope(|s| {
                        s.spawn(|| {
                            for n in ITEMS / 2..ITEMS {
                                // If it was cancelled or timed out, the item has not been put.
                                let put = || queue.put_timeout(n, 30 * MOMENT / 1000).is_ok();
                                while timeout(20 * MOMENT / 1000, put) != Ok(true) {}
                            }
                        });
                        for worker in 0..3 {
                            let (queue, seen) = (&queue, &seen);
                            s.spawn(move || {
                                let time = Duration::from_micros(seed + 7 * worker);
                                loop {
                                    // The item stays here even if the time-out expires afterwards.
                                    let mut got = None;
                                    let result = timeout(time, || got = queue.get().ok());
                                    match got {
                                        Some(n) => {
                                            assert!(seen.lock().unwrap().insert(n));
                                            queue.task_done();
                                        }
                                        None if result.is_ok() => break,
                                        None => {}
                                    }
                                }
                            });
                        }
                        until(|| {
                            sleep(MOMENT);
                            seen.lock().unwrap().len() == ITEMS
                        });
                        queue.join();
                        queue.shutdown(false);
                    });
                });
            });
            assert_eq!(seen.into_inner().unwrap().len(), ITEMS);
        });
    }
}

#[test]
fn an_order_that_panics_leaves_the_count_right() {
    let item = |number, panics: bool| item(number, move || assert!(!panics, "no order"));
    run(move || {
        let queue = Queue::priority(Some(2));
        assert!(queue.put(item(1, false)).is_ok());
        assert!(catch_unwind(AssertUnwindSafe(|| queue.put(item(2, true)))).is_err());
        assert_eq!((queue.len(), queue.is_full()), (2, true));
        // In any order, and with a panic or without: two items come out, and then there is room for
        // two.
        for _ in 0..2 {
            let _ = catch_unwind(AssertUnwindSafe(|| queue.try_get().is_ok()));
        }
        assert_eq!(queue.len(), 0);
        assert!(queue.try_get().is_err());
        assert!(queue.try_put(item(3, false)).is_ok());
        assert!(queue.try_put(item(4, false)).is_ok());
        assert!(queue.try_put(item(5, false)).is_err());
    });
}

/// The item that is being taken out is dropped by the unwind.
#[test]
fn an_item_whose_drop_uses_the_queue_may_be_dropped_by_a_panic_of_the_order() {
    thread_local! { static PANICS: Cell<bool> = const { Cell::new(false) }; }
    alone(an_item_whose_drop_uses_the_queue_may_be_dropped_by_a_panic_of_the_order, || {
        let queue = Rc::new(Queue::priority(None));
        for n in 0..5 {
            let theirs = Rc::downgrade(&queue);
            let uses = OnDrop(move || {
                if let Some(queue) = theirs.upgrade() {
                    assert!(queue.len() < 5);
                }
            });
            let panics = move || {
                let _captured = &uses;
                assert!(!PANICS.take(), "no order");
            };
            assert!(queue.put(item(n, panics)).is_ok());
        }
        PANICS.set(true);
        assert_eq!(panic_of(|| drop(queue.get())), "no order");
        let mut left: Vec<_> =
            std::iter::from_fn(|| queue.try_get().ok().map(|n| n.number)).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 2, 3, 4]);
    });
}

#[test]
fn an_order_that_waits_loses_no_item_to_a_cancellation() {
    run(|| {
        let queue = Queue::priority(None);
        (0..3).for_each(|n| assert!(queue.put(item(n, || sleep(MOMENT))).is_ok()));
        // The time is over while the items are compared. The call has its item by then.
        let got = Cell::new(None);
        let after = timeout(MOMENT / 2, || {
            got.set(queue.get().ok());
            plainsong::yield_now();
        });
        assert!(after.is_err());
        assert!(got.into_inner().is_some_and(|item| item.number == 0));
        assert_eq!(queue.len(), 2);
    });
}

#[test]
fn task_done_takes_effect_though_its_caller_is_cancelled() {
    run(|| {
        for operations in 0..130 {
            let (queue, set) = (Queue::fifo(None), Event::new());
            set.set();
            (1..4).for_each(|n| queue.put(n).unwrap());
            let told = Cell::new((false, false));
            plainsong::yield_now();
            let _ = timeout(Duration::ZERO, || {
                let mut left = operations;
                while left > 0 {
                    set.wait();
                    left -= 1;
                }
                told.set((true, false));
                queue.task_done();
                told.set((true, true));
            });
            // A call that has begun takes effect.
            assert!(told.get().0 == told.get().1, "after {operations} operations");
        }
    });
}

#[test]
fn putting_without_end_can_be_cancelled() {
    run(|| {
        let queue = Queue::fifo(None);
        let puts = timeout(Duration::ZERO, || (0..300).for_each(|n| queue.put(n).unwrap()));
        assert!(puts.is_err() && queue.len() < 300);
        let pool = Pool::coroutines(1).unwrap();
        let submits = timeout(Duration::ZERO, || (0..300).for_each(|_| drop(pool.submit(|| ()))));
        assert!(submits.is_err());
        pool.shutdown();
    });
}

/// Other threads are in the queue all the time.
#[test]
fn what_does_not_wait_never_does() {
    for make in [Queue::fifo, Queue::lifo] {
        run(move || {
            let (queue, rounds) = (make(None), AtomicUsize::new(0));
            let ended = AtomicBool::new(false);
            system::scope(|threads| {
                threads.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        let _ = (queue.try_put(0), queue.len(), queue.try_get());
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let _end = OnDrop(|| ended.store(true, Ordering::Relaxed));
                no_wait(|| {
                    while rounds.load(Ordering::Relaxed) == 0 {
                        system::yield_now();
                    }
                    for _ in 0..20_000 {
                        assert!(queue.try_put(1).is_ok());
                        queue.task_done();
                        let _ = (queue.try_get(), queue.is_full(), queue.is_empty());
                    }
                    queue.shutdown(false);
                    queue.shutdown(true);
                });
            });
            assert_eq!((queue.len(), queue.try_get()), (0, Err(TryGetError::ShutDown)));
        });
    }
}

#[test]
fn only_what_uses_the_items_waits_for_an_order() {
    run(|| {
        let (queue, go_on) = (Rc::new(Queue::priority(Some(3))), Arc::new(Event::new()));
        let waits = |number| {
            let go_on = Arc::clone(&go_on);
            item(number, move || go_on.wait())
        };
        assert!(queue.put(waits(2)).is_ok());
        let (theirs, first) = (Rc::clone(&queue), waits(1));
        let puts = plainsong::spawn(move || theirs.put(first).is_ok());
        until_parked(&puts);
        let third = waits(3);
        assert!(panic_of(|| no_wait(|| queue.try_put(third).is_ok())).contains("no_wait"));
        for uses in [
            |queue: &Queue<Item>| _ = queue.len(),
            |queue: &Queue<Item>| _ = queue.try_get(),
            |queue: &Queue<Item>| queue.shutdown(true),
        ] {
            assert!(panic_of(|| no_wait(|| uses(&queue))).contains("no_wait"));
        }
        no_wait(|| {
            queue.task_done();
            queue.task_done();
            queue.join();
            queue.shutdown(false);
        });
        go_on.set();
        // The refused calls have taken nothing with them.
        assert!(puts.join().unwrap());
        let out: Vec<_> = std::iter::from_fn(|| queue.get().ok().map(|item| item.number)).collect();
        assert_eq!(out, [1, 2]);
    });
}

#[test]
fn items_that_a_shutdown_drops_may_use_the_queue() {
    struct Item(Weak<Queue<Self>>);
    impl Drop for Item {
        fn drop(&mut self) {
            let queue = self.0.upgrade().unwrap();
            assert!(queue.is_empty() && queue.try_get().is_err());
            queue.join();
        }
    }
    for make in [Queue::fifo, Queue::lifo] {
        run(move || {
            let queue = Arc::new(make(None));
            for _ in 0..3 {
                assert!(queue.put(Item(Arc::downgrade(&queue))).is_ok());
            }
            queue.shutdown(true);
        });
    }
}
