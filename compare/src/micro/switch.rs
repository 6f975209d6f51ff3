//! `switch`: tasks that only yield, in turns.
//!
//! They yield in a called function, because programs wait in functions and not in the loop of a
//! task's body. There the processor mispredicts the return after each switch. A switch that is
//! inlined into the loop costs a tenth, in the floor as in plainsong (`cargo bench --bench
//! scheduler` measures both).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};

use super::line::{Line, ns_each};
use super::runtimes::{Async, May, Plainsong, Smol, Stackful, Threads, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// Yields of each task before the measurement. They touch the stacks and let queues grow.
const WARM_UP: usize = 10;
/// The size of plainsong's stacks.
const STACK_BYTES: usize = 256 * 1024;
/// Threads take ten times as long, so they do that much less.
const LESS_FOR_THREADS: usize = 10;

/// Yields `work` times in all.
pub(super) fn sample(peer: Peer, tasks: usize, work: usize) -> Result<Sample> {
    match peer {
        Peer::Bare => bare(tasks, work),
        Peer::Plainsong => with_stacks::<Plainsong>(tasks, work),
        Peer::Tokio => with_await::<Tokio>(tasks, work),
        Peer::Smol => with_await::<Smol>(tasks, work),
        Peer::May => with_stacks::<May>(tasks, work),
        Peer::Threads => with_stacks::<Threads>(tasks, work / LESS_FOR_THREADS),
        Peer::Go | Peer::Guest => Err(no_arm(Bench::Switch, peer)),
    }
}

/// The time from the last task's first turn to the last task's last turn.
struct Race {
    tasks: usize,
    turns: usize,
    warm: Line,
    done: Line,
}

impl Race {
    fn new(tasks: usize, work: usize) -> Arc<Race> {
        let (warm, done) = (Line::new(tasks), Line::new(tasks));
        Arc::new(Race { tasks, turns: (work / tasks).max(1), warm, done })
    }

    fn sample(&self) -> Sample {
        vec![Some(ns_each(self.done.last() - self.warm.last(), self.tasks * self.turns))]
    }
}

/// A function that takes a turn.
#[inline(never)]
fn call(turn: impl Fn()) {
    turn();
    // Without this the call might become a jump, and nothing would return.
    black_box(());
}

fn with_stacks<R: Stackful>(tasks: usize, work: usize) -> Result<Sample> {
    let race = Race::new(tasks, work);
    let body = |race: Arc<Race>| {
        move || {
            (0..WARM_UP).for_each(|_| call(R::yield_now));
            race.warm.cross();
            (0..race.turns).for_each(|_| call(R::yield_now));
            race.done.cross();
        }
    };
    R::run(move || {
        let tasks = (0..tasks).map(|_| R::spawn(body(Arc::clone(&race))));
        for task in tasks.collect::<Result<Vec<_>>>()? {
            R::join(task)?;
        }
        Ok(race.sample())
    })?
}

fn with_await<R: Async>(tasks: usize, work: usize) -> Result<Sample> {
    async fn call<R: Async>() {
        R::yield_now().await;
        black_box(());
    }
    async fn body<R: Async>(race: Arc<Race>) {
        for _ in 0..WARM_UP {
            call::<R>().await;
        }
        race.warm.cross();
        for _ in 0..race.turns {
            call::<R>().await;
        }
        race.done.cross();
    }
    let race = Race::new(tasks, work);
    R::run(async {
        let tasks = (0..tasks).map(|_| R::spawn(body::<R>(Arc::clone(&race))));
        for task in tasks.collect::<Vec<_>>() {
            R::join(task).await?;
        }
        Ok(race.sample())
    })?
}

/// Resumes one coroutine after the other, which is the least that a scheduler must do.
fn bare(tasks: usize, work: usize) -> Result<Sample> {
    let turns = (work / tasks).max(1);
    let mut coroutines = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        let stack = DefaultStack::new(STACK_BYTES)?;
        coroutines.push(Coroutine::<(), (), (), _>::with_stack(stack, move |yielder, ()| {
            (0..WARM_UP + turns).for_each(|_| call(|| yielder.suspend(())));
        }));
    }
    let mut turn = || {
        for coroutine in &mut coroutines {
            assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        }
    };
    (0..WARM_UP).for_each(|_| turn());
    let began = Instant::now();
    (0..turns).for_each(|_| turn());
    let elapsed = began.elapsed();
    // Dropping a suspended coroutine would unwind it, so let each end by itself.
    for coroutine in &mut coroutines {
        assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
    }
    Ok(vec![Some(ns_each(elapsed, tasks * turns))])
}
