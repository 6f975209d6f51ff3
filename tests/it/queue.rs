//! Queues and what is made of them: jobs and their promises, and connections in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread as system;
use std::time::Duration;

use plainsong::io::duplex;
use plainsong::pool::{MapError, Pool};
use plainsong::sync::{Event, Promise, PromiseError, PutError, Queue, TryGetError, TryPutError};
use plainsong::time::{sleep, timeout};

use crate::util::{both, kind, panic_of, run, until, until_parked, watch};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

/// What a queue gives back of what was put.
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
        // Equal ones come in the order in which they were put.
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
fn those_who_get_are_served_in_order() {
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
fn nothing_is_lost_to_those_who_are_cancelled() {
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
                                // Cancelled or too late: it has not been put.
                                let put = || queue.put_timeout(n, 30 * MOMENT / 1000).is_ok();
                                while timeout(20 * MOMENT / 1000, put) != Ok(true) {}
                            }
                        });
                        for worker in 0..3 {
                            let (queue, seen) = (&queue, &seen);
                            s.spawn(move || {
                                let time = Duration::from_micros(seed + 7 * worker);
                                loop {
                                    // What was got is kept, however late.
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
fn a_promise_is_kept_once() {
    both(|| {
        let promise = Promise::new();
        assert!(!promise.is_done() && promise.get().is_none());
        assert!(promise.wait_timeout(MOMENT).is_none());
        assert_eq!(format!("{promise:?}"), "Promise(<pending>)");
        let theirs = promise.clone();
        let thread = system::spawn(move || theirs.set(5));
        assert_eq!(promise.wait().unwrap(), &5);
        assert_eq!(thread.join().unwrap(), Ok(()));
        assert_eq!(promise.set(6), Err(6));
        assert!(!promise.set_error("late") && !promise.cancel() && !promise.is_cancelled());
        assert_eq!(promise.wait_timeout(HOUR).unwrap().unwrap(), &5);
        assert_eq!(format!("{promise:?}"), "Promise(Ok(5))");

        let failed = Promise::<()>::new();
        assert!(failed.set_error("no luck"));
        let error = failed.wait().unwrap_err();
        assert!(matches!(error, PromiseError::Failed(_)) && error.to_string() == "no luck");
        let cancelled = Promise::<()>::default();
        assert!(cancelled.cancel() && cancelled.is_cancelled() && cancelled.set(()).is_err());
        assert!(matches!(cancelled.wait(), Err(PromiseError::Cancelled)));
    });
}

#[test]
fn calls_are_made_in_order_and_at_once_when_it_is_done() {
    both(|| {
        let (promise, log) = (Promise::new(), Arc::new(Mutex::new(Vec::new())));
        let note = |n: i32| {
            let log = Arc::clone(&log);
            move |promise: &Promise<i32>| {
                log.lock().unwrap().push(n + promise.get().unwrap().unwrap())
            }
        };
        promise.on_done(note(1));
        promise.on_done(|_| resume_unwind(Box::new("scripted")));
        promise.on_done(note(2));
        let set = catch_unwind(AssertUnwindSafe(|| promise.set(10)));
        assert!(set.is_err());
        assert_eq!(*log.lock().unwrap(), [11, 12]);
        promise.on_done(note(3));
        assert_eq!(*log.lock().unwrap(), [11, 12, 13]);
    });
}

#[test]
fn a_pool_of_each_kind() {
    for make in [Pool::coroutines, Pool::threads] {
        run(move || {
            let pool = make(3).unwrap();
            assert_eq!(pool.workers(), 3);
            let jobs: Vec<_> = (0..20).map(|n| pool.submit(move || n * n)).collect();
            let bad = pool.submit(|| -> i32 { resume_unwind(Box::new("scripted")) });
            for (n, job) in jobs.iter().enumerate() {
                assert_eq!(job.wait().unwrap(), &(n * n));
            }
            let error = bad.wait().unwrap_err();
            assert_eq!(error.to_string(), "the job panicked: scripted");
            let slow_first = pool.map([3, 2, 1], |n| {
                sleep(n * MOMENT);
                n
            });
            assert_eq!(slow_first.collect::<Vec<_>>(), [Ok(3), Ok(2), Ok(1)]);
            pool.shutdown();
        });
    }
}

#[test]
fn five_at_once_and_no_more() {
    run(|| {
        let pool = Pool::coroutines(5).unwrap();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (inside, peak) = (Arc::clone(&now), Arc::clone(&most));
        let work = move |_| {
            peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(MOMENT);
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        assert_eq!(pool.map(0..20, work).filter(Result::is_ok).count(), 20);
        assert_eq!(most.load(Ordering::SeqCst), 5);
    });
}

#[test]
fn a_pool_is_shut_down_with_or_without_what_is_pending() {
    for make in [Pool::coroutines, Pool::threads] {
        run(move || {
            for cancel_pending in [false, true] {
                let pool = make(1).unwrap();
                let (begun, go) = (Arc::new(Event::new()), Arc::new(Event::new()));
                let (theirs, signal) = (Arc::clone(&begun), Arc::clone(&go));
                let first = pool.submit(move || {
                    theirs.set();
                    signal.wait();
                });
                let second = pool.submit(|| 2);
                let skipped = pool.submit(|| 3);
                skipped.cancel();
                begun.wait();
                let late = pool.map([1], |n| n);
                // Runs when the pool is shut down, and waited for.
                plainsong::spawn(move || go.set());
                if cancel_pending {
                    pool.cancel_pending();
                }
                pool.shutdown();
                assert!(first.wait().is_ok());
                assert_eq!(second.is_cancelled(), cancel_pending);
                assert!(skipped.is_cancelled());
                let expected = if cancel_pending { Err(MapError::Cancelled) } else { Ok(1) };
                assert_eq!(late.collect::<Vec<_>>(), [expected]);
            }
        });
    }
}

#[test]
fn a_map_with_a_time_out() {
    run(|| {
        let pool = Pool::coroutines(1).unwrap();
        let slow = pool.map([0, 3600, 0], |n| sleep(Duration::from_secs(n))).timeout(5 * MOMENT);
        assert_eq!(slow.collect::<Vec<_>>(), [Ok(()), Err(MapError::TimedOut)]);
        // The worker is still at it; at the end of the run it is cancelled, and this with it.
        let never = pool.submit(|| ());
        assert!(never.wait_timeout(MOMENT).is_none());
        never
    });
}

#[test]
fn the_end_of_a_run_cancels_the_jobs_of_its_coroutines() {
    watch(|| {
        let (working, pending) = plainsong::run(|| {
            let pool = Pool::coroutines(1).unwrap();
            let working = pool.submit(|| sleep(HOUR));
            let pending = pool.submit(|| ());
            plainsong::yield_now();
            std::mem::forget(pool);
            (working, pending)
        });
        assert!(working.is_cancelled() && pending.is_cancelled());
    });
}

#[test]
fn a_duplex_is_a_connection() {
    both(|| {
        let (mut one, mut two) = duplex(4);
        one.write_all(b"1234").unwrap();
        let mut some = [0; 3];
        assert_eq!(two.read(&mut some).unwrap(), 3);
        assert_eq!(one.write(b"5678").unwrap(), 3);
        assert_eq!((one.write(&[]).unwrap(), two.read(&mut []).unwrap()), (0, 0));
        two.write_all(b"ok").unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(kind(one.write(b"x")), ErrorKind::BrokenPipe);
        let mut rest = String::new();
        assert_eq!(two.read_to_string(&mut rest).unwrap(), 4);
        assert_eq!(rest, "4567");
        // The other direction is still open.
        drop(two);
        assert_eq!(one.read_to_string(&mut rest).unwrap(), 2);
        let (mut one, two) = duplex(4);
        one.write_all(b"1234").unwrap();
        drop(two);
        assert_eq!(kind(one.write(b"5")), ErrorKind::BrokenPipe);
        assert!(panic_of(|| duplex(0)).contains("capacity"));
    });
}

#[test]
fn a_duplex_between_threads_and_coroutines() {
    watch(|| {
        let (one, two) = duplex(7);
        let data: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        let theirs = data.clone();
        let thread = system::spawn(move || {
            (&one).write_all(&theirs).unwrap();
            one.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            (&one).read_to_end(&mut back).unwrap();
            back
        });
        plainsong::run(|| {
            plainsong::scope(|s| {
                let (pipe, doubled) = duplex(3);
                s.spawn(move || std::io::copy(&mut &two, &mut &pipe).unwrap());
                let mut all = Vec::new();
                (&doubled).read_to_end(&mut all).unwrap();
                assert_eq!(all, data);
            });
        });
        assert_eq!(thread.join().unwrap(), b"");
    });
}

#[test]
fn a_read_that_is_cancelled_leaves_the_bytes_to_the_next() {
    run(|| {
        let (one, two) = duplex(16);
        let (one, two) = (Rc::new(one), Rc::new(two));
        let theirs = Rc::clone(&two);
        let first = plainsong::spawn(move || (&*theirs).read(&mut [0; 4]).unwrap());
        let theirs = Rc::clone(&two);
        let second = plainsong::spawn(move || (&*theirs).read(&mut [0; 4]).unwrap());
        until_parked(&second);
        first.cancel();
        assert!(first.join().unwrap_err().is_cancelled());
        (&*one).write_all(b"ab").unwrap();
        assert_eq!(second.join().unwrap(), 2);
        let unwound = Rc::new(Cell::new(None));
        struct Reads(Rc<plainsong::io::DuplexStream>, Rc<Cell<Option<ErrorKind>>>);
        impl Drop for Reads {
            fn drop(&mut self) {
                self.1.set((&*self.0).read(&mut [0]).err().map(|error| error.kind()));
            }
        }
        let reads = Reads(two, Rc::clone(&unwound));
        let result = timeout(MOMENT, || {
            let _reads = reads;
            sleep(HOUR);
        });
        assert!(result.is_err() && unwound.get() == Some(ErrorKind::Other));
    });
}

#[test]
fn an_order_that_panics_leaves_the_count_right() {
    #[derive(PartialEq, Eq)]
    struct Item(u8, bool);
    impl PartialOrd for Item {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Item {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            assert!(!self.1 && !other.1, "no order");
            self.0.cmp(&other.0)
        }
    }
    run(|| {
        let queue = Queue::priority(Some(2));
        assert!(queue.put(Item(1, false)).is_ok());
        assert!(catch_unwind(AssertUnwindSafe(|| queue.put(Item(2, true)))).is_err());
        assert_eq!((queue.len(), queue.is_full()), (2, true));
        // Whichever comes, and however: there are two, and then there is room for two.
        for _ in 0..2 {
            let _ = catch_unwind(AssertUnwindSafe(|| queue.try_get().is_ok()));
        }
        assert_eq!(queue.len(), 0);
        assert!(queue.try_get().is_err());
        assert!(queue.try_put(Item(3, false)).is_ok());
        assert!(queue.try_put(Item(4, false)).is_ok());
        assert!(queue.try_put(Item(5, false)).is_err());
    });
}

#[test]
fn a_pool_that_is_dropped_by_a_cancelled_coroutine_ends() {
    watch(|| {
        // Whenever in its turn.
        for operations in 0..130 {
            plainsong::run_all(|| {
                let set = Event::new();
                set.set();
                let pool = Pool::coroutines(1).unwrap();
                plainsong::yield_now();
                let _ = timeout(Duration::ZERO, || {
                    (0..operations).for_each(|_| set.wait());
                    drop(pool);
                });
            });
        }
    });
}

#[test]
fn what_a_queue_is_told_it_knows_though_its_caller_is_cancelled() {
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
            // Begun is done.
            assert!(told.get().0 == told.get().1, "after {operations} operations");
        }
    });
}

#[test]
fn a_job_whose_captures_panic_in_their_drop_harms_no_other() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            resume_unwind(Box::new("scripted"));
        }
    }
    for make in [Pool::coroutines, Pool::threads] {
        run(move || {
            let pool = make(1).unwrap();
            let go = Arc::new(Event::new());
            let (theirs, bad) = (Arc::clone(&go), Bad);
            let first = pool.submit(move || theirs.wait());
            let skipped = pool.submit(move || {
                let _bad = &bad;
            });
            let payload = pool.submit(|| std::panic::panic_any(Bad));
            let next = pool.submit(|| 1);
            skipped.cancel();
            go.set();
            assert!(first.wait().is_ok());
            assert!(payload.wait().is_err());
            assert_eq!(next.wait().unwrap(), &1);
            let told = pool.submit(|| sleep(MOMENT));
            told.on_done(|_| std::panic::panic_any(Bad));
            assert!(told.wait().is_ok());
            assert_eq!(pool.submit(|| 2).wait().unwrap(), &2);
            pool.shutdown();
        });
    }
}

#[test]
fn a_map_loses_nothing_to_a_time_out_or_a_cancellation() {
    run(|| {
        let pool = Pool::coroutines(1).unwrap();
        let go = Arc::new(Event::new());
        let theirs = Arc::clone(&go);
        let mut map = pool.map([5, 0], move |n| {
            theirs.wait();
            n
        });
        assert!(timeout(MOMENT, || map.next()).is_err());
        go.set();
        assert_eq!((map.next(), map.next(), map.next()), (Some(Ok(5)), Some(Ok(0)), None));
    });
}

#[test]
fn calls_of_a_promise_are_made_in_the_order_in_which_they_were_asked_for() {
    both(|| {
        let (promise, log) = (Promise::new(), Arc::new(Mutex::new(Vec::new())));
        let note = |n: i32| {
            let log = Arc::clone(&log);
            move |_: &Promise<i32>| log.lock().unwrap().push(n)
        };
        let (first, last) = (note(1), note(3));
        promise.on_done(move |promise| {
            first(promise);
            promise.on_done(last);
        });
        promise.on_done(note(2));
        promise.set(0).unwrap();
        promise.on_done(note(4));
        assert_eq!(*log.lock().unwrap(), [1, 2, 3, 4]);
    });
}

#[test]
fn who_puts_without_end_is_cancelled() {
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
