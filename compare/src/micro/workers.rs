//! `skynet` and `cross`: what takes several workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use super::channels::{AsyncChannels, Kind, StackfulChannels};
use super::line::ns_each;
use super::runtimes::{May, Plainsong, Smol, Threads, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// Children of each task that has any.
const CHILDREN: u64 = 10;
/// Round trips before the clock runs.
const WARM_UP: u64 = 100;

/// How long a tree with `leaves` leaves takes on that many workers.
pub(super) fn skynet(peer: Peer, workers: usize, leaves: usize) -> Result<Sample> {
    let leaves = leaves as u64;
    let began;
    let sum = match peer {
        Peer::Plainsong => {
            let runtime = plainsong::Runtime::builder().workers(workers).build()?;
            began = Instant::now();
            runtime.run(|| tree(0, leaves))
        }
        Peer::Tokio => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(workers).build()?;
            began = Instant::now();
            runtime.block_on(async move { tokio::spawn(tree_async(0, leaves)).await })?
        }
        _ => return Err(no_arm(Bench::Skynet, peer)),
    };
    let elapsed = began.elapsed();
    ensure!(sum == leaves * (leaves - 1) / 2, "the sum is wrong: {sum}");
    Ok(vec![Some(elapsed.as_secs_f64() * 1e3)])
}

/// The sum of `leaves` numbers from `first` on.
fn tree(first: u64, leaves: u64) -> u64 {
    if leaves == 1 {
        return first;
    }
    let each = leaves / CHILDREN;
    let child = |n| plainsong::spawn_anywhere(move || tree(first + n * each, each));
    let children: Vec<_> = (0..CHILDREN).map(child).collect();
    children.into_iter().map(|child| child.join().expect("a task has panicked")).sum()
}

/// A future that contains others of its kind has to be boxed, and named.
type Tree = std::pin::Pin<Box<dyn Future<Output = u64> + Send>>;

fn tree_async(first: u64, leaves: u64) -> Tree {
    Box::pin(async move {
        if leaves == 1 {
            return first;
        }
        let each = leaves / CHILDREN;
        let child = |n| tokio::spawn(tree_async(first + n * each, each));
        let children: Vec<_> = (0..CHILDREN).map(child).collect();
        let mut sum = 0;
        for child in children {
            sum += child.await.expect("a task has panicked");
        }
        sum
    })
}

/// `work` round trips between two threads.
pub(super) fn cross(peer: Peer, work: usize) -> Result<Sample> {
    let ns = match peer {
        Peer::Plainsong => between_workers(work as u64),
        Peer::Tokio => between_runtimes::<Tokio>(work as u64),
        Peer::Smol => between_runtimes::<Smol>(work as u64),
        Peer::May => {
            // It was asked for one worker only by the others.
            may::config().set_workers(2);
            between_tasks::<May>(work as u64)
        }
        Peer::Threads => between_tasks::<Threads>(work as u64),
        Peer::Bare | Peer::Go => Err(no_arm(Bench::Cross, peer)),
    }?;
    Ok(vec![Some(ns)])
}

/// Each end on a worker of its own.
fn between_workers(trips: u64) -> Result<f64> {
    let runtime = plainsong::Runtime::builder().workers(2).build()?;
    runtime.run(|| {
        let (ping, pinged) = Plainsong::channel(Kind::Rendezvous);
        let (pong, ponged) = Plainsong::channel(Kind::Rendezvous);
        let has_started = Arc::new(AtomicBool::new(false));
        let answerer = {
            let has_started = Arc::clone(&has_started);
            plainsong::spawn_anywhere(move || {
                has_started.store(true, Relaxed);
                answer::<Plainsong>(trips, &pong, pinged);
            })
        };
        // This worker does not give its turn away, so it is the other that starts the coroutine.
        while !has_started.load(Relaxed) {
            std::hint::spin_loop();
        }
        let ns = ask::<Plainsong>(trips, &ping, ponged);
        answerer.join().map_err(|error| anyhow!("{error}"))?;
        Ok(ns)
    })
}

fn between_tasks<R: StackfulChannels>(trips: u64) -> Result<f64> {
    let (ping, pinged) = R::channel(Kind::Rendezvous);
    let (pong, ponged) = R::channel(Kind::Rendezvous);
    let answerer = R::spawn(move || answer::<R>(trips, &pong, pinged))?;
    let asker = R::spawn(move || ask::<R>(trips, &ping, ponged))?;
    let ns = R::join(asker)?;
    R::join(answerer)?;
    Ok(ns)
}

fn answer<R: StackfulChannels>(trips: u64, pong: &R::Sender, mut pinged: R::Receiver) {
    (0..WARM_UP + trips).for_each(|_| R::send(pong, R::recv(&mut pinged)));
}

/// What a round trip takes, in nanoseconds.
fn ask<R: StackfulChannels>(trips: u64, ping: &R::Sender, mut ponged: R::Receiver) -> f64 {
    let mut trip = |n| {
        R::send(ping, n);
        assert_eq!(R::recv(&mut ponged), n);
    };
    (0..WARM_UP).for_each(&mut trip);
    let began = Instant::now();
    (0..trips).for_each(&mut trip);
    ns_each(began.elapsed(), trips as usize)
}

fn between_runtimes<R: AsyncChannels>(trips: u64) -> Result<f64> {
    let (ping, mut pinged) = R::channel(Kind::Rendezvous);
    let (pong, mut ponged) = R::channel(Kind::Rendezvous);
    let answerer = thread::spawn(move || {
        R::run(async {
            for _ in 0..WARM_UP + trips {
                R::send(&pong, R::recv(&mut pinged).await).await;
            }
        })
    });
    let ns = R::run(async {
        let mut began = Instant::now();
        for n in 0..WARM_UP + trips {
            if n == WARM_UP {
                began = Instant::now();
            }
            R::send(&ping, n).await;
            assert_eq!(R::recv(&mut ponged).await, n);
        }
        ns_each(began.elapsed(), trips as usize)
    })?;
    answerer.join().map_err(|_| anyhow!("a thread has panicked"))??;
    Ok(ns)
}
