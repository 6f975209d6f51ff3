//! `lock`: one task that locks and unlocks a mutex without contention.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;

use super::line::ns_each;
use super::runtimes::{Async, May, Plainsong, Smol, Stackful, Threads, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// No task panics while it holds the lock.
const SOUND: &str = "the lock is not poisoned";

/// Locks and unlocks `work` times.
pub(super) fn sample(peer: Peer, work: usize) -> Result<Sample> {
    let ns = match peer {
        Peer::Threads => Threads::run(move || {
            let lock = std::sync::Mutex::new(0);
            time(work, || *black_box(&lock).lock().expect(SOUND) += 1)
        }),
        Peer::Plainsong => Plainsong::run(move || {
            let lock = plainsong::sync::Mutex::new(0);
            time(work, || *black_box(&lock).lock().expect(SOUND) += 1)
        }),
        Peer::May => May::run(move || {
            let lock = may::sync::Mutex::new(0);
            time(work, || *black_box(&lock).lock().expect(SOUND) += 1)
        }),
        Peer::Tokio => Tokio::run(async {
            let lock = tokio::sync::Mutex::new(0);
            time_async(work, async || *black_box(&lock).lock().await += 1).await
        }),
        Peer::Smol => Smol::run(async {
            let lock = smol::lock::Mutex::new(0);
            time_async(work, async || *black_box(&lock).lock().await += 1).await
        }),
        Peer::Bare | Peer::Go | Peer::Guest => Err(no_arm(Bench::Lock, peer)),
    }?;
    Ok(vec![Some(ns)])
}

fn time(work: usize, mut turn: impl FnMut()) -> f64 {
    (0..work / 10).for_each(|_| turn());
    let began = Instant::now();
    (0..work).for_each(|_| turn());
    ns_each(began.elapsed(), work)
}

async fn time_async(work: usize, mut turn: impl AsyncFnMut()) -> f64 {
    for _ in 0..work / 10 {
        turn().await;
    }
    let began = Instant::now();
    for _ in 0..work {
        turn().await;
    }
    ns_each(began.elapsed(), work)
}
