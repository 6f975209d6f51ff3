//! `pin_workers`: a processor for each worker, and no limits for other threads.

use std::collections::HashSet;
use std::panic;
use std::sync::{Arc, Barrier};

use plainsong::{Runtime, spawn_anywhere};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::util::{alone, on_another, panic_of, watch};

fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

#[test]
fn pinned_workers_have_a_processor_each_until_the_run_ends() {
    watch(|| {
        let before = allowed();
        for workers in [1, 2, 3] {
            let runtime = Runtime::builder().workers(workers).pin_workers(true).build().unwrap();
            let body = || {
                let barrier = Arc::new(Barrier::new(workers));
                let look = |barrier: Arc<Barrier>| {
                    move || {
                        barrier.wait();
                        allowed()
                    }
                };
                let others: Vec<_> =
                    (1..workers).map(|_| spawn_anywhere(look(barrier.clone()))).collect();
                let mut all = vec![look(barrier)()];
                all.extend(others.into_iter().map(|other| other.join().unwrap()));
                all
            };
            let all = runtime.run(body);
            assert!(all.iter().all(|one| one.len() == 1 && before.contains(&one[0])), "{all:?}");
            let distinct: HashSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), workers.min(before.len()));
            assert_eq!(allowed(), before);
            assert_eq!(panic_of(|| runtime.run(|| panic!("pinned"))), "pinned");
            assert_eq!(allowed(), before);
            let free = crate::util::runtime(workers).run(|| on_another_if(workers > 1, allowed));
            assert_eq!(free, before);
        }
    });
}

fn on_another_if<T: Send + 'static>(another: bool, f: impl FnOnce() -> T + Send + 'static) -> T {
    if another { on_another(f).join().unwrap() } else { f() }
}

#[test]
fn a_blocking_call_of_a_pinned_worker_may_run_anywhere() {
    alone(a_blocking_call_of_a_pinned_worker_may_run_anywhere, || {
        let before = sched_getaffinity(None).unwrap().count();
        let runtime = Runtime::builder().pin_workers(true).build().unwrap();
        runtime.run(|| {
            assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
            let theirs = plainsong::blocking(|| sched_getaffinity(None).unwrap().count());
            assert_eq!(theirs, before);
        });
    });
}

#[test]
fn when_a_pinned_run_has_ended_blocking_calls_run_where_their_thread_may() {
    alone(when_a_pinned_run_has_ended_blocking_calls_run_where_their_thread_may, || {
        let runtime = Runtime::builder().pin_workers(true).build().unwrap();
        runtime.run(|| ());
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        // The program confines itself to one processor.
        sched_setaffinity(None, &one).unwrap();
        let theirs = plainsong::run(|| plainsong::blocking(|| sched_getaffinity(None).unwrap()));
        assert_eq!(theirs, one);
    });
}
