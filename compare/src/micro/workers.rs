//! `skynet` and `cross`: benchmarks for several workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use super::channels::{AsyncChannels, Kind, StackfulChannels};
use super::line::ns_each;
use super::runtimes::{May, Plainsong, Smol, Threads, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// The children of each inner task of the tree.
const CHILDREN: u64 = 10;
/// Round trips or items before the measurement.
const WARM_UP: u64 = 100;
/// Items of the stream for each round trip.
const STREAM: u64 = 20;

/// The time of a tree with `leaves` leaves on this many workers. The first tree warms up the
/// stacks, and the second one is timed.
pub(super) fn skynet(peer: Peer, workers: usize, leaves: usize) -> Result<Sample> {
    let leaves = leaves as u64;
    let check = |sum| {
        ensure!(sum == leaves * (leaves - 1) / 2, "the sum is wrong: {sum}");
        Ok(())
    };
    let elapsed = match peer {
        Peer::Plainsong => {
            let runtime = plainsong::Runtime::builder().workers(workers).build()?;
            runtime.run(|| {
                check(tree(0, leaves))?;
                let began = Instant::now();
                check(tree(0, leaves))?;
                anyhow::Ok(began.elapsed())
            })?
        }
        Peer::Tokio => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(workers).build()?;
            let tree = || runtime.block_on(async { tokio::spawn(tree_async(0, leaves)).await });
            check(tree()?)?;
            let began = Instant::now();
            check(tree()?)?;
            began.elapsed()
        }
        _ => return Err(no_arm(Bench::Skynet, peer)),
    };
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

/// A recursive future must be boxed, and its type named.
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

/// Measures `work` round trips between two threads, then a stream from one to the other.
pub(super) fn cross(peer: Peer, work: usize) -> Result<Sample> {
    let (trips, items) = (work as u64, work as u64 * STREAM);
    let (trip, item) = match peer {
        Peer::Plainsong => (
            on_two_workers(ping_pong::<Plainsong>(trips))?,
            on_two_workers(stream::<Plainsong>(items))?,
        ),
        Peer::Tokio => (
            on_two_runtimes::<Tokio, _, _>(ping_pong_async::<Tokio>(trips))?,
            on_two_runtimes::<Tokio, _, _>(stream_async::<Tokio>(items))?,
        ),
        Peer::Smol => (
            on_two_runtimes::<Smol, _, _>(ping_pong_async::<Smol>(trips))?,
            on_two_runtimes::<Smol, _, _>(stream_async::<Smol>(items))?,
        ),
        Peer::May => {
            // This bench gives all others one worker.
            may::config().set_workers(2);
            (
                as_two_tasks::<May>(ping_pong::<May>(trips))?,
                as_two_tasks::<May>(stream::<May>(items))?,
            )
        }
        Peer::Threads => (
            as_two_tasks::<Threads>(ping_pong::<Threads>(trips))?,
            as_two_tasks::<Threads>(stream::<Threads>(items))?,
        ),
        Peer::Bare | Peer::Go | Peer::Guest => return Err(no_arm(Bench::Cross, peer)),
    };
    Ok(vec![Some(trip), Some(item)])
}

/// Runs the two ends on two workers.
fn on_two_workers(
    (one, other): (impl FnOnce() -> f64, impl FnOnce() + Send + 'static),
) -> Result<f64> {
    let runtime = plainsong::Runtime::builder().workers(2).build()?;
    runtime.run(|| {
        let has_started = Arc::new(AtomicBool::new(false));
        let other = {
            let has_started = Arc::clone(&has_started);
            plainsong::spawn_anywhere(move || {
                has_started.store(true, Relaxed);
                other();
            })
        };
        // This worker is busy, so the other one starts the coroutine.
        while !has_started.load(Relaxed) {
            std::hint::spin_loop();
        }
        let ns = one();
        other.join().map_err(|error| anyhow!("{error}"))?;
        Ok(ns)
    })
}

fn as_two_tasks<R: StackfulChannels>(
    (one, other): (impl FnOnce() -> f64 + Send + 'static, impl FnOnce() + Send + 'static),
) -> Result<f64> {
    let other = R::spawn(other)?;
    let one = R::spawn(one)?;
    let ns = R::join(one)?;
    R::join(other)?;
    Ok(ns)
}

fn on_two_runtimes<R: AsyncChannels, A, B>((one, other): (A, B)) -> Result<f64>
where
    A: Future<Output = f64> + Send + 'static,
    B: Future<Output = ()> + Send + 'static,
{
    let other = thread::spawn(|| R::run(other));
    let ns = R::run(one)?;
    other.join().map_err(|_| anyhow!("a thread has panicked"))??;
    Ok(ns)
}

/// Ping-pong. The first end returns the time of a round trip in nanoseconds.
fn ping_pong<R: StackfulChannels>(
    trips: u64,
) -> (impl FnOnce() -> f64 + Send + 'static, impl FnOnce() + Send + 'static) {
    let (ping, mut pinged) = R::channel(Kind::Rendezvous);
    let (pong, mut ponged) = R::channel(Kind::Rendezvous);
    let ask = move || {
        let mut began = Instant::now();
        for n in 0..WARM_UP + trips {
            if n == WARM_UP {
                began = Instant::now();
            }
            R::send(&ping, n);
            assert_eq!(R::recv(&mut ponged), n);
        }
        ns_each(began.elapsed(), trips as usize)
    };
    let answer = move || (0..WARM_UP + trips).for_each(|_| R::send(&pong, R::recv(&mut pinged)));
    (ask, answer)
}

/// A stream. The receiving end returns the time of an item in nanoseconds.
fn stream<R: StackfulChannels>(
    items: u64,
) -> (impl FnOnce() -> f64 + Send + 'static, impl FnOnce() + Send + 'static) {
    let (sender, mut receiver) = R::channel(Kind::Unbounded);
    let receive = move || {
        let mut began = Instant::now();
        for n in 0..WARM_UP + items {
            if n == WARM_UP {
                began = Instant::now();
            }
            assert_eq!(R::recv(&mut receiver), n);
        }
        ns_each(began.elapsed(), items as usize)
    };
    (receive, move || (0..WARM_UP + items).for_each(|n| R::send(&sender, n)))
}

/// As [`ping_pong`].
fn ping_pong_async<R: AsyncChannels>(
    trips: u64,
) -> (impl Future<Output = f64> + Send, impl Future<Output = ()> + Send) {
    let (ping, mut pinged) = R::channel(Kind::Rendezvous);
    let (pong, mut ponged) = R::channel(Kind::Rendezvous);
    let ask = async move {
        let mut began = Instant::now();
        for n in 0..WARM_UP + trips {
            if n == WARM_UP {
                began = Instant::now();
            }
            R::send(&ping, n).await;
            assert_eq!(R::recv(&mut ponged).await, n);
        }
        ns_each(began.elapsed(), trips as usize)
    };
    let answer = async move {
        for _ in 0..WARM_UP + trips {
            R::send(&pong, R::recv(&mut pinged).await).await;
        }
    };
    (ask, answer)
}

/// As [`stream`].
fn stream_async<R: AsyncChannels>(
    items: u64,
) -> (impl Future<Output = f64> + Send, impl Future<Output = ()> + Send) {
    let (sender, mut receiver) = R::channel(Kind::Unbounded);
    let receive = async move {
        let mut began = Instant::now();
        for n in 0..WARM_UP + items {
            if n == WARM_UP {
                began = Instant::now();
            }
            assert_eq!(R::recv(&mut receiver).await, n);
        }
        ns_each(began.elapsed(), items as usize)
    };
    let send = async move {
        for n in 0..WARM_UP + items {
            R::send(&sender, n).await;
        }
    };
    (receive, send)
}
