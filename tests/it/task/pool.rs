//! `Pool`: jobs on coroutines and on threads.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plainsong::no_wait;
use plainsong::pool::{MapError, Pool};
use plainsong::sync::{Event, Promise};
use plainsong::time::{sleep, timeout};

use crate::util::{HOUR, MOMENT, OnDrop, alone, run, watch};

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
                // Runs while `shutdown` waits.
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
        // The worker is still busy. The end of the run cancels it, and this job with it.
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
fn a_pool_that_is_dropped_by_a_cancelled_coroutine_ends() {
    watch(|| {
        // At any point of its budget.
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
fn a_map_that_unwinds_while_it_submits_cancels_the_jobs_that_have_not_begun() {
    let pool = Pool::threads(1).unwrap();
    let go = Arc::new(Event::new());
    let theirs = Arc::clone(&go);
    pool.submit(move || theirs.wait());
    let begun = Arc::new(AtomicUsize::new(0));
    let jobs = Arc::clone(&begun);
    let unwinds = || {
        let items = (0..3).inspect(|n| assert!(*n < 2, "the items end here"));
        drop(pool.map(items, move |_| jobs.fetch_add(1, Ordering::Relaxed)));
    };
    assert!(catch_unwind(AssertUnwindSafe(unwinds)).is_err());
    go.set();
    pool.shutdown();
    assert_eq!(begun.load(Ordering::Relaxed), 0);
}

#[test]
fn a_worker_outlives_a_job_whose_payload_and_whose_call_panic() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("of a payload");
        }
    }
    let pool = Pool::threads(1).unwrap();
    let (begin, begun) = std::sync::mpsc::channel();
    let job = pool.submit(move || {
        begun.recv().unwrap();
        std::panic::panic_any(Panics)
    });
    job.on_done(|_| panic!("of a call"));
    begin.send(()).unwrap();
    assert!(job.wait().is_err());
    assert_eq!(pool.submit(|| 7).wait().ok(), Some(&7));
}

#[test]
fn a_result_that_panics_when_it_is_dropped_costs_one_job() {
    for make in [Pool::coroutines, Pool::threads] {
        run(move || {
            let pool = make(1).unwrap();
            let (go_on, waits) = std::sync::mpsc::channel::<()>();
            let blocks = move || waits.recv().is_err();
            // No promise is left when the job is done.
            drop(pool.submit(move || {
                plainsong::blocking(blocks);
                crate::util::OnDrop(|| panic!("scripted"))
            }));
            let next = pool.submit(|| 7);
            drop(go_on);
            assert_eq!(next.wait().unwrap(), &7);
            pool.shutdown();
        });
    }
}

#[test]
fn a_panic_of_a_job_is_none_of_the_next() {
    run(|| {
        let released = Arc::new(Event::new());
        let release = Arc::clone(&released);
        let other = plainsong::spawn(move || {
            let _guard = crate::util::OnDrop(|| released.wait());
            resume_unwind(Box::new("scripted"));
        });
        crate::util::until(std::thread::panicking);
        let pool = Pool::coroutines(1).unwrap();
        pool.submit(|| panic!("scripted")).wait().unwrap_err();
        assert_eq!(pool.submit(plainsong::thread::panicking).wait().unwrap(), &false);
        release.set();
        other.join().unwrap_err();
    });
}

/// Its workers are in the queue all the time.
#[test]
fn a_pool_never_waits_for_its_workers_but_in_a_shutdown() {
    run(|| {
        for _ in 0..100 {
            let pool = Pool::threads(2).unwrap();
            let last = no_wait(|| {
                (0..100).for_each(|n| drop(pool.submit(move || n)));
                pool.submit(|| 7)
            });
            assert_eq!(last.wait().unwrap(), &7);
        }
    });
}

/// They were dropped as a list: two panics at once ended the process.
#[test]
fn the_captures_of_cancelled_jobs_may_panic_when_they_are_dropped() {
    alone(the_captures_of_cancelled_jobs_may_panic_when_they_are_dropped, || {
        plainsong::run(|| {
            let pool = Pool::coroutines(1).unwrap();
            let submit = |_| {
                let capture = OnDrop(|| panic!("scripted"));
                pool.submit(move || drop(capture))
            };
            let promises = [(); 3].map(submit);
            pool.cancel_pending();
            assert!(promises.iter().all(Promise::is_cancelled));
        });
    });
}

#[test]
fn a_pool_that_is_dropped_where_waits_are_refused_ends_its_workers() {
    run(|| {
        for cancels in [false, true] {
            for _ in 0..100 {
                let pool = Pool::threads(2).unwrap();
                let alive = Arc::new(());
                let jobs = (0..200).map(|_| {
                    let alive = Arc::clone(&alive);
                    pool.submit(move || drop(alive))
                });
                let jobs: Vec<_> = jobs.collect();
                no_wait(move || {
                    if cancels {
                        pool.cancel_pending();
                    }
                    drop(pool);
                });
                assert!(cancels || jobs.iter().all(|job| job.wait().is_ok()));
                crate::util::until(|| Arc::strong_count(&alive) == 1);
            }
        }
    });
}
