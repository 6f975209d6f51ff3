//! `names`: coroutines with a name and without one, spawned and joined.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use plainsong::{Builder, JoinHandle};

use super::line::ns_each;
use super::{Bench, Peer, Sample, no_arm};

/// Batches before the measurement.
const WARM_UP: usize = 10;
/// Tasks in a batch, at least. The clock is read twice for each.
const BATCH: usize = 1_000;

/// Spawns and joins `work` tasks in all of each kind, `alive` at a time. The kinds take turns, so
/// that a slow moment of the machine affects all of them.
pub(super) fn sample(peer: Peer, alive: usize, work: usize) -> Result<Sample> {
    if peer != Peer::Plainsong {
        return Err(no_arm(Bench::Names, peer));
    }
    let repeats = BATCH.div_ceil(alive);
    let batches = (work / (alive * repeats)).max(1);
    let shared = Builder::new().name("a connection");
    let mut times = [Duration::ZERO; 3];
    plainsong::run(|| -> Result<()> {
        for batch in 0..WARM_UP + batches {
            let mut number = 0;
            let of_its_own = || {
                number += 1;
                Builder::new().name(format!("connection {number}")).spawn(task)
            };
            let taken = [
                time(alive, repeats, || Builder::new().spawn(task))?,
                time(alive, repeats, || shared.clone().spawn(task))?,
                time(alive, repeats, of_its_own)?,
            ];
            if batch >= WARM_UP {
                times.iter_mut().zip(taken).for_each(|(time, taken)| *time += taken);
            }
        }
        Ok(())
    })?;
    let [without, shared, own] = times.map(|time| ns_each(time, alive * repeats * batches));
    Ok(vec![Some(without), Some(shared - without), Some(own - without)])
}

fn task() -> i32 {
    black_box(1)
}

fn time(
    alive: usize,
    repeats: usize,
    mut spawn: impl FnMut() -> io::Result<JoinHandle<i32>>,
) -> Result<Duration> {
    let mut tasks = Vec::with_capacity(alive);
    let began = Instant::now();
    for _ in 0..repeats {
        for _ in 0..alive {
            tasks.push(spawn()?);
        }
        for task in tasks.drain(..) {
            task.join().map_err(|error| anyhow!("{error}"))?;
        }
    }
    Ok(began.elapsed())
}
