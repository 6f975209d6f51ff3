//! `Barrier`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread as system;

use plainsong::sync::Barrier;
use plainsong::time::timeout;

use crate::util::{MOMENT, run, watch};

#[test]
fn a_barrier_has_one_leader_each_time() {
    watch(|| {
        let (barrier, leaders) = (Barrier::new(6), AtomicUsize::new(0));
        let work = || {
            for _ in 0..50 {
                if barrier.wait().is_leader() {
                    leaders.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        system::scope(|s| {
            (0..2).for_each(|_| drop(s.spawn(work)));
            for _ in 0..2 {
                s.spawn(|| plainsong::run(|| plainsong::task::gather([work, work])));
            }
        });
        assert_eq!(leaders.into_inner(), 50);
        for lonely in [0, 1] {
            assert!(Barrier::new(lonely).wait().is_leader());
        }
    });
}

#[test]
fn a_waiter_that_gives_up_at_a_barrier_does_not_count() {
    run(|| {
        let barrier = Barrier::new(3);
        plainsong::scope(|s| {
            let waits = s.spawn(|| barrier.wait().is_leader());
            assert!(timeout(MOMENT, || barrier.wait()).is_err());
            assert!(barrier.wait_timeout(MOMENT).is_none());
            assert!(!waits.is_finished());
            let second = s.spawn(|| barrier.wait().is_leader());
            plainsong::yield_now();
            assert!(barrier.wait().is_leader());
            assert!(!waits.join().unwrap() && !second.join().unwrap());
        });
    });
}
