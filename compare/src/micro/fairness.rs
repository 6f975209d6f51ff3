//! `fairness`: how long coroutines and tasks of tokio on the same thread keep each other waiting
//! while the others are always ready.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use plainsong_tokio::block_on;

use super::{Bench, Peer, Sample, no_arm};

/// The work of each turn of a coroutine and of each poll of a task.
const TURN: Duration = Duration::from_micros(10);

/// The longest that one coroutine waits for its turn while `busy` tasks are always ready, and the
/// longest that a task waits while as many coroutines are, in `work` milliseconds each.
pub(super) fn sample(peer: Peer, busy: usize, work: usize) -> Result<Sample> {
    if peer != Peer::Guest {
        return Err(no_arm(Bench::Fairness, peer));
    }
    let window = Duration::from_millis(work as u64);
    Ok(plainsong_tokio::run(|| {
        let over = Rc::new(Cell::new(false));
        for _ in 0..busy {
            let over = over.clone();
            tokio::task::spawn_local(async move {
                while !over.get() {
                    spin();
                    tokio::task::yield_now().await;
                }
            });
        }
        let mut gaps = Gaps::start(window);
        while gaps.turn() {
            plainsong::yield_now();
        }
        over.set(true);
        let coroutine = gaps.longest_us();

        // Another flag: the tasks have not seen theirs yet.
        let over = Rc::new(Cell::new(false));
        for _ in 0..busy {
            let over = over.clone();
            plainsong::spawn(move || {
                while !over.get() {
                    spin();
                    plainsong::yield_now();
                }
            });
        }
        let task = tokio::task::spawn_local(async move {
            let mut gaps = Gaps::start(window);
            while gaps.turn() {
                tokio::task::yield_now().await;
            }
            gaps.longest_us()
        });
        let task = block_on(task).ok();
        over.set(true);
        vec![Some(coroutine), task]
    })?)
}

fn spin() {
    let began = Instant::now();
    while began.elapsed() < TURN {}
}

struct Gaps {
    end: Instant,
    last: Instant,
    longest: Duration,
}

impl Gaps {
    fn start(window: Duration) -> Gaps {
        let now = Instant::now();
        Gaps { end: now + window, last: now, longest: Duration::ZERO }
    }

    /// Notes a turn. Returns false when the window is over.
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        now < self.end
    }

    fn longest_us(&self) -> f64 {
        self.longest.as_nanos() as f64 / 1e3
    }
}
