//! `spawn`: empty tasks, spawned and joined.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use corosensei::Coroutine;
use corosensei::stack::DefaultStack;

use super::line::ns_each;
use super::runtimes::{Async, May, Plainsong, Smol, Stackful, Threads, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// Batches before the measurement.
const WARM_UP: usize = 10;
/// Threads take a hundred times as long, so they do that much less.
const LESS_FOR_THREADS: usize = 30;

/// Spawns and joins `work` tasks in all, `alive` at a time.
pub(super) fn sample(peer: Peer, alive: usize, work: usize) -> Result<Sample> {
    let batches = (work / alive).max(1);
    let ns = match peer {
        Peer::Bare => bare(alive, batches)?,
        Peer::Plainsong => with_stacks::<Plainsong>(alive, batches)?,
        Peer::Tokio => with_await::<Tokio>(alive, batches)?,
        Peer::Smol => with_await::<Smol>(alive, batches)?,
        Peer::May => with_stacks::<May>(alive, batches)?,
        Peer::Threads => with_stacks::<Threads>(alive, (batches / LESS_FOR_THREADS).max(1))?,
        Peer::Go | Peer::Guest => return Err(no_arm(Bench::Spawn, peer)),
    };
    Ok(vec![Some(ns)])
}

fn with_stacks<R: Stackful>(alive: usize, batches: usize) -> Result<f64> {
    R::run(move || in_batches(alive, batches, || R::spawn(|| black_box(1)), R::join))?
}

/// The same for all runtimes where a join is an ordinary call.
fn in_batches<T>(
    alive: usize,
    batches: usize,
    spawn: impl Fn() -> Result<T>,
    join: impl Fn(T) -> Result<i32>,
) -> Result<f64> {
    let mut tasks = Vec::with_capacity(alive);
    let mut began = Instant::now();
    for batch in 0..WARM_UP + batches {
        if batch == WARM_UP {
            began = Instant::now();
        }
        for _ in 0..alive {
            tasks.push(spawn()?);
        }
        for task in tasks.drain(..) {
            join(task)?;
        }
    }
    Ok(ns_each(began.elapsed(), alive * batches))
}

fn with_await<R: Async>(alive: usize, batches: usize) -> Result<f64> {
    R::run(async {
        let mut tasks = Vec::with_capacity(alive);
        let mut began = Instant::now();
        for batch in 0..WARM_UP + batches {
            if batch == WARM_UP {
                began = Instant::now();
            }
            tasks.extend((0..alive).map(|_| R::spawn(async { black_box(1) })));
            for task in tasks.drain(..) {
                R::join(task).await?;
            }
        }
        Ok(ns_each(began.elapsed(), alive * batches))
    })?
}

/// No stack is allocated during the measurement: the coroutines reuse a pool of stacks.
fn bare(alive: usize, batches: usize) -> Result<f64> {
    let stacks = (0..alive).map(|_| DefaultStack::default()).collect::<Vec<_>>();
    let stacks = std::cell::RefCell::new(stacks);
    let spawn = || {
        let stack = stacks.borrow_mut().pop().context("more are alive than was said")?;
        Ok(Coroutine::<(), (), i32, _>::with_stack(stack, |_, ()| black_box(1)))
    };
    in_batches(alive, batches, spawn, |mut coroutine| {
        let result = coroutine.resume(()).as_return();
        stacks.borrow_mut().push(coroutine.into_stack());
        result.context("the coroutine did not end")
    })
}
