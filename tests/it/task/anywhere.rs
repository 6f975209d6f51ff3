//! Coroutines that any worker may start: their handles, their scopes, and where they run.

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;
use std::{io, panic};

use plainsong::sync::channel::{Receiver, bounded};
use plainsong::task::{as_completed, join_all, wait};
use plainsong::time::{sleep, timeout};
use plainsong::{
    Builder, JoinHandle, Runtime, coroutine_local, no_unwind, scope, spawn, spawn_anywhere, thread,
    yield_now,
};

use crate::util::{
    HOUR, MOMENT, OnDrop, address_space, alone, dying, kind, limit_memory, on_another, panic_of,
    resident, run_on, runtime, until, watch,
};

/// Runs `body` where there is room for one stack of the run's size.
fn with_one_stack(workers: usize, body: impl FnOnce() + Send + 'static) {
    const LARGE: usize = 512 << 20;
    watch(move || {
        let runtime = Runtime::builder().workers(workers).stack_size(LARGE).build().unwrap();
        limit_memory(Some(address_space() + LARGE as u64 / 2 * 3));
        runtime.run(body);
        limit_memory(None);
    });
}

const REFUSED: &str = "cannot start a coroutine that was spawned anywhere: cannot make";

/// Blocks this thread until `done` returns true.
fn hog_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::yield_now();
    }
}

fn here() -> std::thread::ThreadId {
    std::thread::current().id()
}

#[test]
fn they_run_on_all_workers_and_stay_there() {
    run_on(4, || {
        let barrier = Arc::new(Barrier::new(4));
        let stays = |barrier: Arc<Barrier>| {
            move || {
                barrier.wait();
                let first = here();
                for _ in 0..10 {
                    yield_now();
                    sleep(Duration::from_micros(10));
                    assert_eq!(here(), first);
                    assert_eq!(spawn(here).join().unwrap(), first);
                }
                first
            }
        };
        let others: Vec<_> = (0..3).map(|_| spawn_anywhere(stays(barrier.clone()))).collect();
        let ours = stays(barrier)();
        let mut all: HashSet<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
        all.insert(ours);
        assert_eq!(all.len(), 4);
    });
}

#[test]
fn with_one_worker_the_newest_starts_first() {
    run_on(1, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |n| {
            let order = order.clone();
            spawn_anywhere(move || order.lock().unwrap().push(n))
        };
        join_all((0..3).map(note)).into_iter().for_each(Result::unwrap);
        assert_eq!(*order.lock().unwrap(), [2, 1, 0]);
    });
}

#[test]
fn the_oldest_does_not_wait_for_ever() {
    for workers in [1, 2] {
        run_on(workers, || {
            let done = Arc::new(AtomicBool::new(false));
            let theirs = done.clone();
            let _oldest = spawn_anywhere(move || theirs.store(true, Ordering::SeqCst));
            fn chain(done: Arc<AtomicBool>, ended: Arc<AtomicBool>) {
                if done.load(Ordering::SeqCst) {
                    ended.store(true, Ordering::SeqCst);
                } else {
                    spawn_anywhere(move || chain(done, ended));
                }
            }
            let ended = Arc::new(AtomicBool::new(false));
            chain(done, ended.clone());
            // With yields, so that the scheduler is never idle.
            until(|| ended.load(Ordering::SeqCst));
        });
    }
}

#[test]
fn a_worker_that_computes_loses_what_it_has_not_started() {
    run_on(2, || {
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..200 {
            let ran = ran.clone();
            spawn_anywhere(move || ran.fetch_add(1, Ordering::SeqCst));
        }
        hog_until(|| ran.load(Ordering::SeqCst) == 200);
    });
}

#[test]
fn what_a_thief_takes_along_is_not_kept_by_its_first() {
    for _ in 0..200 {
        run_on(4, || {
            // Three jobs, each of which blocks a thread until all have started.
            let barrier = Arc::new(Barrier::new(4));
            for _ in 0..3 {
                let barrier = barrier.clone();
                spawn_anywhere(move || barrier.wait());
            }
            barrier.wait();
        });
    }
}

#[test]
fn a_panic_ends_in_the_handle_on_any_worker() {
    for workers in [1, 3] {
        run_on(workers, || {
            let handles: Vec<_> =
                (0..1000).map(|n| spawn_anywhere(move || assert!(n % 2 == 0, "odd"))).collect();
            for (n, result) in join_all(handles).into_iter().enumerate() {
                assert_eq!(result.is_err(), n % 2 == 1);
                if let Err(error) = result {
                    assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "odd");
                }
            }
        });
    }
}

#[test]
fn cancelled_before_it_has_started_it_never_begins() {
    for workers in [1, 2] {
        run_on(workers, move || {
            let (begun, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let mut ended = 0;
            for _ in 0..200 {
                let (begun, dropped) = (begun.clone(), dropped.clone());
                let guard = OnDrop(move || {
                    dropped.fetch_add(1, Ordering::SeqCst);
                });
                let handle = spawn_anywhere(move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    drop(guard);
                });
                handle.cancel();
                handle.cancel();
                match handle.join() {
                    Ok(()) => ended += 1,
                    Err(error) => assert!(error.is_cancelled()),
                }
            }
            assert_eq!(begun.load(Ordering::SeqCst), ended);
            assert_eq!(dropped.load(Ordering::SeqCst), 200);
            // There is no other worker to start it.
            assert!(workers > 1 || ended == 0);
        });
    }
}

#[test]
fn cancelled_while_it_starts_elsewhere_it_unwinds_or_never_begins() {
    run_on(2, || {
        for n in 0..2000 {
            let handle = spawn_anywhere(|| sleep(HOUR));
            for _ in 0..n % 50 {
                std::hint::spin_loop();
            }
            handle.cancel();
            assert!(handle.join().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn unparked_before_it_has_started_it_does_not_park() {
    for workers in [1, 2] {
        run_on(workers, || {
            for _ in 0..500 {
                let handle = spawn_anywhere(thread::park);
                handle.thread().unpark();
                handle.join().unwrap();
            }
        });
    }
}

#[test]
fn its_handle_shows_its_identity() {
    run_on(2, || {
        let handle = Builder::new().name("anywhere").stack_size(64 * 1024).spawn_anywhere(|| {
            let me = thread::current();
            (me.id(), me.name().map(str::to_owned), plainsong::current().name().map(str::to_owned))
        });
        let handle = handle.unwrap();
        let (id, number) = (handle.thread().id(), handle.id());
        assert_eq!((handle.name(), handle.thread().name()), (Some("anywhere"), Some("anywhere")));
        let said = format!("{handle:?}");
        assert!(said.contains("anywhere") && said.contains(&number.to_string()), "{said}");
        until(|| handle.is_finished());
        assert!(format!("{handle:?}").contains("finished"));
        let name = Some("anywhere".to_owned());
        assert_eq!(handle.join().unwrap(), (id, name.clone(), name));
    });
}

#[test]
fn errors_of_the_builder_and_outside_of_a_runtime() {
    let sized = |size| Builder::new().stack_size(size).spawn_anywhere(|| ());
    run_on(1, move || {
        assert_eq!(kind(sized(1)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(sized(usize::MAX)), io::ErrorKind::InvalidInput);
        sized(64 * 1024).unwrap().join().unwrap();
    });
    assert!(Builder::new().spawn_anywhere(|| ()).unwrap_err().to_string().contains("Handle"));
    assert!(panic_of(|| spawn_anywhere(|| ())).contains("no plainsong runtime"));
}

#[test]
fn join_with_a_time_out() {
    run_on(2, || {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = stop.clone();
        let handle = on_another(move || {
            until(|| theirs.load(Ordering::SeqCst));
            7
        });
        let handle = handle.join_timeout(MOMENT).unwrap_err();
        assert!(!handle.is_finished());
        stop.store(true, Ordering::SeqCst);
        assert_eq!(handle.join_timeout(HOUR).unwrap().unwrap(), 7);
    });
}

#[test]
fn they_are_waited_for_together_with_local_ones() {
    run_on(3, || {
        for _ in 0..100 {
            let spawn_one = |n: usize| {
                let pause = move || {
                    (0..n % 4).for_each(|_| yield_now());
                    n
                };
                if n % 2 == 0 { spawn(pause) } else { spawn_anywhere(pause) }
            };
            let handles = (0..20).map(spawn_one);
            assert!(join_all(handles).into_iter().map(Result::unwrap).eq(0..20));
            let mut all: Vec<_> =
                as_completed((0..20).map(spawn_one)).map(Result::unwrap).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..20));
            let (done, left) = wait((0..20).map(spawn_one), None);
            assert_eq!((done.len(), left.len()), (20, 0));
        }
        let asleep = spawn_anywhere(|| sleep(HOUR));
        let (done, left) = wait([spawn(|| ()), asleep, spawn_anywhere(|| ())], Some(MOMENT * 500));
        assert!(done.len() <= 2 && left.len() == 3 - done.len());
        left.iter().for_each(JoinHandle::cancel);
    });
}

#[test]
fn plain_threads_and_other_runtimes_join_them() {
    run_on(2, || {
        for n in 0..300 {
            let (ours, theirs) = (spawn_anywhere(move || n), spawn_anywhere(move || n + 1));
            let plain = std::thread::spawn(move || ours.join().unwrap());
            let run = std::thread::spawn(move || plainsong::run(|| theirs.join().unwrap()));
            until(|| plain.is_finished() && run.is_finished());
            assert_eq!((plain.join().unwrap(), run.join().unwrap()), (n, n + 1));
        }
    });
}

#[test]
fn locals_are_made_and_dropped_where_it_runs() {
    coroutine_local! { static LOCAL: Cell<Option<std::thread::ThreadId>> = Cell::new(None); }
    run_on(2, || {
        LOCAL.with(|local| local.set(Some(here())));
        let theirs = on_another(|| {
            let before = LOCAL.with(|local| local.replace(Some(here())));
            yield_now();
            (before, LOCAL.with(Cell::get) == Some(here()))
        });
        assert_eq!(theirs.join().unwrap(), (None, true));
        assert_eq!(LOCAL.with(Cell::get), Some(here()));
    });
}

#[test]
fn a_result_that_nobody_takes_is_dropped_once() {
    for workers in [1, 3] {
        run_on(workers, || {
            let dropped = Arc::new(AtomicUsize::new(0));
            for n in 0..1000 {
                let dropped = dropped.clone();
                let result = OnDrop(move || {
                    dropped.fetch_add(1, Ordering::SeqCst);
                });
                let handle = spawn_anywhere(move || result);
                match n % 4 {
                    0 => drop(handle),
                    1 => drop(handle.join()),
                    2 => {
                        handle.cancel();
                        drop(handle);
                    }
                    _ => until(|| handle.is_finished()),
                }
            }
            until(|| dropped.load(Ordering::SeqCst) == 1000);
        });
    }
}

#[test]
fn a_destructor_that_panics_harms_nobody_else() {
    run_on(2, || {
        for _ in 0..200 {
            let bad = OnDrop(|| panic!("in a destructor"));
            let handle = spawn_anywhere(move || drop(bad));
            handle.cancel();
            assert!(handle.join().is_err());
            let worse = OnDrop(|| panic!("in the destructor of a result"));
            // The last owner drops the result: this handle, if the coroutine has already ended.
            let handle = AssertUnwindSafe(spawn_anywhere(move || worse));
            let _ = catch_unwind(move || drop(handle));
        }
        assert_eq!(spawn_anywhere(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn an_overflow_on_a_worker_is_reported() {
    let output = dying(an_overflow_on_a_worker_is_reported, || {
        #[expect(unconditional_recursion, reason = "that is the point")]
        fn recurse(n: u64) -> u64 {
            std::hint::black_box(recurse(std::hint::black_box(n) + 1)) + 1
        }
        run_on(2, || {
            let (started, starts) = mpsc::channel();
            let deep = Builder::new().name("deep").spawn_anywhere(move || {
                started.send(()).unwrap();
                recurse(0)
            });
            starts.recv().unwrap();
            let _ = deep.unwrap().join();
        });
    });
    if let Some(output) = output {
        assert!(output.contains("has overflowed its stack"), "{output}");
        assert!(output.contains("'deep'") && output.contains("anywhere.rs:"), "{output}");
    }
}

#[test]
fn a_scope_lends_to_all_workers() {
    run_on(3, || {
        for _ in 0..200 {
            let words: Vec<String> = (0..20).map(|n| n.to_string()).collect();
            let mut lengths = vec![0; words.len()];
            let total = AtomicUsize::new(0);
            scope(|s| {
                for (word, length) in words.iter().zip(&mut lengths) {
                    let total = &total;
                    s.spawn_anywhere(move || {
                        yield_now();
                        *length = word.len();
                        total.fetch_add(word.len(), Ordering::Relaxed);
                    });
                }
                let first = s.spawn_anywhere(|| words[0].as_str());
                assert_eq!(first.join().unwrap(), "0");
                // Its result borrows as well, and is never taken.
                std::mem::forget(s.spawn_anywhere(|| words[1].as_str()));
                drop(s.spawn_anywhere(|| &words));
            });
            assert_eq!(total.into_inner(), 30);
            assert_eq!(lengths.iter().sum::<usize>(), 30);
        }
    });
}

#[test]
fn a_scope_is_told_of_the_last_to_leave() {
    for workers in [1, 2, 3] {
        run_on(workers, || {
            for n in 0..5_000 {
                scope(|s| {
                    let child = s.spawn_anywhere(|| ());
                    if n % 2 == 0 {
                        until(|| child.is_finished());
                    }
                    for _ in 0..n % 100 {
                        std::hint::spin_loop();
                    }
                });
            }
        });
    }
}

#[test]
fn the_first_panic_cancels_the_rest_of_a_scope() {
    for workers in [1, 2] {
        let message = watch(move || {
            panic_of(|| {
                runtime(workers).run(|| {
                    scope(|s| {
                        s.spawn(|| sleep(HOUR));
                        s.spawn_anywhere(|| sleep(HOUR));
                        s.spawn_anywhere(|| {
                            yield_now();
                            panic!("away");
                        });
                        sleep(HOUR);
                    });
                });
            })
        });
        assert_eq!(message, "away");
    }
}

#[test]
fn a_panic_of_one_that_a_child_has_spawned_cancels_the_rest() {
    for workers in [1, 2] {
        let message = watch(move || {
            panic_of(|| {
                runtime(workers).run(|| {
                    scope(|s| {
                        s.spawn(|| {
                            // Now the body waits.
                            yield_now();
                            s.spawn_anywhere(|| panic!("away"));
                            sleep(HOUR);
                        });
                    });
                });
            })
        });
        assert_eq!(message, "away");
    }
}

#[test]
fn a_scope_that_is_cancelled_cancels_those_elsewhere_and_waits() {
    for workers in [1, 2] {
        run_on(workers, || {
            let ended = AtomicUsize::new(0);
            for _ in 0..200 {
                let outcome = timeout(Duration::from_micros(200), || {
                    scope(|s| {
                        for _ in 0..5 {
                            s.spawn_anywhere(|| {
                                let _end = OnDrop(|| {
                                    yield_now();
                                    ended.fetch_add(1, Ordering::SeqCst);
                                });
                                sleep(HOUR);
                            });
                        }
                    });
                });
                assert!(outcome.is_err());
            }
            assert!(ended.into_inner() <= 1000);
            scope(|s| {
                let one = s.spawn_anywhere(|| sleep(HOUR));
                s.spawn_anywhere(|| sleep(HOUR));
                one.cancel();
                assert!(one.join().unwrap_err().is_cancelled());
                s.cancel();
                let late = s.spawn_anywhere(|| sleep(HOUR));
                assert!(late.join().unwrap_err().is_cancelled());
            });
        });
    }
}

#[test]
fn the_run_ends_in_the_midst_of_scopes_on_all_workers() {
    for _ in 0..50 {
        let ended = Arc::new(AtomicUsize::new(0));
        let theirs = ended.clone();
        run_on(3, move || {
            let (started, starts) = mpsc::channel();
            for _ in 0..3 {
                let (ended, started) = (theirs.clone(), started.clone());
                spawn_anywhere(move || {
                    let _end = OnDrop(|| _ = ended.fetch_add(1, Ordering::SeqCst));
                    let lent = [1, 2, 3];
                    scope(|s| {
                        for n in &lent {
                            s.spawn_anywhere(|| {
                                sleep(HOUR);
                                *n
                            });
                        }
                        started.send(()).unwrap();
                    });
                });
            }
            until(|| starts.try_recv().is_ok());
        });
        let ended = ended.load(Ordering::SeqCst);
        assert!((1..=3).contains(&ended), "{ended}");
    }
}

#[test]
fn scopes_in_scopes_over_workers() {
    fn sum(of: &[u64]) -> u64 {
        if of.len() <= 4 {
            return of.iter().sum();
        }
        let (left, right) = of.split_at(of.len() / 2);
        scope(|s| {
            let right = s.spawn_anywhere(|| sum(right));
            sum(left) + right.join().unwrap()
        })
    }
    for workers in [1, 2, 5] {
        run_on(workers, || {
            let numbers: Vec<u64> = (0..5000).collect();
            assert_eq!(sum(&numbers), 4999 * 2500);
        });
    }
}

#[test]
fn wakes_between_workers_race_with_parks_ten_thousand_times() {
    run_on(2, || {
        let turn = Arc::new(AtomicUsize::new(0));
        let me = thread::current();
        let theirs = turn.clone();
        let other = on_another(move || {
            for n in 0..10_000 {
                while theirs.load(Ordering::SeqCst) != 2 * n + 1 {
                    thread::park();
                }
                theirs.store(2 * n + 2, Ordering::SeqCst);
                me.unpark();
            }
        });
        for n in 0..10_000 {
            turn.store(2 * n + 1, Ordering::SeqCst);
            other.thread().unpark();
            while turn.load(Ordering::SeqCst) != 2 * n + 2 {
                thread::park();
            }
        }
        other.join().unwrap();
    });
}

#[test]
fn one_lock_for_many_on_all_workers() {
    run_on(3, || {
        let total = plainsong::sync::Mutex::new(0);
        scope(|s| {
            for _ in 0..30 {
                s.spawn_anywhere(|| {
                    for n in 0..100 {
                        let mut total = total.lock().unwrap();
                        let before = *total;
                        if n % 10 == 0 {
                            yield_now();
                        }
                        *total = before + 1;
                    }
                });
            }
        });
        assert_eq!(total.into_inner().unwrap(), 3000);
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_hundred_thousand_keep_memory_flat() {
    alone(a_hundred_thousand_keep_memory_flat, || {
        run_on(2, || {
            let batch = || drop(join_all((0..500).map(|n| spawn_anywhere(move || n))));
            (0..20).for_each(|_| batch());
            let before = resident();
            (0..200).for_each(|_| batch());
            let after = resident();
            assert!(after < before + 4096, "{before} KiB became {after}");
        });
    });
}

/// The expected outcome of one coroutine of the storm.
#[derive(Default)]
struct Record {
    cancelled: AtomicBool,
    panics: AtomicBool,
}

#[derive(Default)]
struct Storm {
    seed: AtomicUsize,
    made: AtomicUsize,
    gone: AtomicUsize,
    // Results that do not match the records of their coroutines.
    wrong: AtomicUsize,
}

impl Storm {
    fn below(&self, n: usize) -> usize {
        // A mixed Weyl sequence, which workers can share.
        let mut x = self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) as u64;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x >> 33) as usize % n
    }

    fn spawn(self: &Arc<Self>, depth: usize) -> (Arc<Record>, JoinHandle<()>) {
        let record = Arc::new(Record::default());
        self.made.fetch_add(1, Ordering::SeqCst);
        let (storm, theirs) = (self.clone(), record.clone());
        let gone = self.clone();
        let guard = OnDrop(move || _ = gone.gone.fetch_add(1, Ordering::SeqCst));
        let body = move || {
            let _guard = guard;
            storm.script(&theirs, depth);
        };
        let handle = if self.below(4) == 0 { spawn(body) } else { spawn_anywhere(body) };
        (record, handle)
    }

    fn script(self: &Arc<Self>, me: &Record, depth: usize) {
        let mut children = Vec::new();
        for _ in 0..self.below(5) {
            match self.below(8) {
                0 | 1 if depth > 0 => children.push(self.spawn(depth - 1)),
                2 if depth > 0 => {
                    let children: Vec<_> = (0..2).map(|_| self.spawn(depth - 1)).collect();
                    // A scope whose children join other coroutines from any worker.
                    scope(|s| {
                        for (record, handle) in children {
                            s.spawn_anywhere(move || self.check(record, handle));
                        }
                    });
                }
                3 => drop(timeout(Duration::from_micros(50), || sleep(HOUR))),
                4 => sleep(Duration::from_micros(self.below(100) as u64)),
                5 => {
                    if let Some((record, handle)) = children.last() {
                        record.cancelled.store(true, Ordering::SeqCst);
                        handle.cancel();
                    }
                }
                6 => drop(children.pop()),
                _ => yield_now(),
            }
        }
        if self.below(6) == 0 {
            me.panics.store(true, Ordering::SeqCst);
            panic::resume_unwind(Box::new("as the script says"));
        }
        children.into_iter().for_each(|(record, handle)| self.check(record, handle));
    }

    fn check(&self, record: Arc<Record>, handle: JoinHandle<()>) {
        let fits = match handle.join() {
            Ok(()) => !record.panics.load(Ordering::SeqCst),
            Err(error) if error.is_cancelled() => record.cancelled.load(Ordering::SeqCst),
            Err(_) => record.panics.load(Ordering::SeqCst),
        };
        self.wrong.fetch_add(usize::from(!fits), Ordering::SeqCst);
    }
}

#[test]
fn a_storm_of_them_loses_nobody() {
    for seed in 0..30 {
        for workers in [1, 2, 3, 8] {
            let storm = Arc::new(Storm { seed: AtomicUsize::new(seed * 1000), ..Storm::default() });
            let theirs = storm.clone();
            let whole = seed % 3 != 0;
            watch(move || {
                let runtime = runtime(workers);
                let main = || {
                    let roots: Vec<_> = (0..6).map(|_| theirs.spawn(4)).collect();
                    if whole {
                        roots.into_iter().for_each(|(record, handle)| theirs.check(record, handle));
                    } else {
                        (0..theirs.below(30)).for_each(|_| yield_now());
                    }
                };
                if whole { runtime.run_all(main) } else { runtime.run(main) }
            });
            let [made, gone, wrong] =
                [&storm.made, &storm.gone, &storm.wrong].map(|n| n.load(Ordering::SeqCst));
            assert_eq!(made, gone, "seed {seed}");
            // An early end of the run cancels all of them, and the records do not show that.
            assert!(!whole || wrong == 0, "seed {seed}");
        }
    }
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer needs address space")]
fn without_a_stack_it_ends_with_an_error() {
    alone(without_a_stack_it_ends_with_an_error, || {
        for workers in [1, 2] {
            with_one_stack(workers, || {
                let ended = Arc::new(AtomicBool::new(false));
                let theirs = ended.clone();
                // User code, which must not run in the loop.
                let end = OnDrop(move || {
                    sleep(MOMENT);
                    theirs.store(true, Ordering::SeqCst);
                });
                let error = spawn_anywhere(move || drop(end)).join().unwrap_err();
                assert!(ended.load(Ordering::SeqCst));
                assert!(error.to_string().contains(REFUSED), "{error}");
            });
        }
    });
}

/// The error was only in the handle, so a scope without handles never knew.
#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer needs address space")]
fn without_a_stack_a_scope_panics() {
    alone(without_a_stack_a_scope_panics, || {
        for workers in [1, 2] {
            with_one_stack(workers, || {
                let called = AtomicBool::new(false);
                let scoped = || {
                    scope(|s| {
                        s.spawn_anywhere(|| called.store(true, Ordering::SeqCst));
                        // The scope is cancelled.
                        sleep(HOUR);
                    })
                };
                let message = panic_of(scoped);
                assert!(message.contains(REFUSED), "{message}");
                assert!(!called.into_inner());
            });
        }
    });
}

/// They wait for one stack that each worker keeps for this, also when the run ends.
#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer needs address space")]
fn without_any_stack_they_end_one_after_the_other() {
    alone(without_any_stack_they_end_one_after_the_other, || {
        run_on(1, || {
            limit_memory(Some(1 << 20));
            let (_open, gate) = bounded::<()>(0);
            let wait = |gate: Receiver<()>| move || _ = gate.recv();
            while Builder::new().spawn(wait(gate.clone())).is_ok() {}
            let ended = Arc::new(AtomicUsize::new(0));
            let spawn = || {
                let ended = ended.clone();
                let end = OnDrop(move || {
                    ended.fetch_add(1, Ordering::SeqCst);
                    yield_now();
                });
                spawn_anywhere(move || drop(end))
            };
            let refused: Vec<_> = (0..3).map(|_| spawn()).collect();
            refused[2].cancel_with("not needed");
            for (n, one) in refused.into_iter().enumerate() {
                let error = one.join().unwrap_err();
                assert_eq!(error.is_cancelled(), n == 2);
                assert!(n == 2 || error.to_string().contains(REFUSED), "{error}");
            }
            assert_eq!(ended.load(Ordering::SeqCst), 3);
            scope(|s| {
                // It borrows, so a destructor of it is not given up.
                let end = OnDrop(|| no_unwind(|| sleep(MOMENT)));
                s.spawn_anywhere(move || drop(end));
                s.cancel();
            });
            // The run closes while these have not ended.
            (0..3).for_each(|_| drop(spawn()));
            limit_memory(None);
        });
    });
}
