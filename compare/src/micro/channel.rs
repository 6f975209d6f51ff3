//! `channel`: ping-pong through two channels, and a stream through one.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::channels::{AsyncChannels, Kind, StackfulChannels};
use super::line::{Line, ns_each};
use super::runtimes::{May, Plainsong, Smol, Threads, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// Round trips of each pair before the measurement.
const WARM_UP: usize = 10;
/// Threads take a hundred times as long, so they do that much less.
const LESS_FOR_THREADS: usize = 30;
/// Items of the stream for each round trip.
const STREAM: usize = 3;

/// Measures `work` round trips in all of `pairs` pairs of tasks, then a stream.
pub(super) fn sample(peer: Peer, pairs: usize, work: usize) -> Result<Sample> {
    match peer {
        Peer::Plainsong => with_stacks::<Plainsong>(pairs, work),
        Peer::Tokio => with_await::<Tokio>(pairs, work),
        Peer::Smol => with_await::<Smol>(pairs, work),
        Peer::May => with_stacks::<May>(pairs, work),
        Peer::Threads => with_stacks::<Threads>(pairs, work / LESS_FOR_THREADS),
        Peer::Bare | Peer::Go | Peer::Guest => Err(no_arm(Bench::Channel, peer)),
    }
}

/// The time from when all pairs are warm to the last pair's last round trip. (A runtime may run one
/// pair to its end before the next begins. Then the last pair is warm when the others are done, so
/// all wait at a gate.)
struct Match {
    pairs: usize,
    trips: usize,
    done: Line,
}

impl Match {
    fn new(pairs: usize, work: usize) -> Arc<Match> {
        Arc::new(Match { pairs, trips: (work / pairs).max(1), done: Line::new(pairs) })
    }

    fn ns(&self, began: Instant) -> f64 {
        ns_each(self.done.last() - began, self.pairs * self.trips)
    }
}

fn with_stacks<R: StackfulChannels>(pairs: usize, work: usize) -> Result<Sample> {
    let game = Match::new(pairs, work);
    let stream = work * STREAM;
    R::run(move || {
        let mut tasks = Vec::with_capacity(2 * pairs);
        let mut gates = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            let (warm, is_warm) = R::channel(Kind::Unbounded);
            let (start, mut started) = R::channel(Kind::Unbounded);
            gates.push((is_warm, start));
            let (ping, mut pinged) = R::channel(Kind::Rendezvous);
            let (pong, mut ponged) = R::channel(Kind::Rendezvous);
            let trips = WARM_UP + game.trips;
            tasks.push(R::spawn(move || {
                (0..trips).for_each(|_| R::send(&pong, R::recv(&mut pinged)));
            })?);
            let game = Arc::clone(&game);
            tasks.push(R::spawn(move || {
                let mut trip = |n| {
                    R::send(&ping, n);
                    assert_eq!(R::recv(&mut ponged), n);
                };
                (0..WARM_UP as u64).for_each(&mut trip);
                R::send(&warm, 0);
                R::recv(&mut started);
                (0..game.trips as u64).for_each(&mut trip);
                game.done.cross();
            })?);
        }
        for (is_warm, _) in &mut gates {
            R::recv(is_warm);
        }
        let let_go = Instant::now();
        for (_, start) in &gates {
            R::send(start, 0);
        }
        for task in tasks {
            R::join(task)?;
        }
        let (sender, mut receiver) = R::channel(Kind::Unbounded);
        let began = Instant::now();
        let producer = R::spawn(move || (0..stream as u64).for_each(|n| R::send(&sender, n)))?;
        (0..stream as u64).for_each(|n| assert_eq!(R::recv(&mut receiver), n));
        let elapsed = began.elapsed();
        R::join(producer)?;
        Ok(vec![Some(game.ns(let_go)), Some(ns_each(elapsed, stream))])
    })?
}

fn with_await<R: AsyncChannels>(pairs: usize, work: usize) -> Result<Sample> {
    async fn pong<R: AsyncChannels>(trips: usize, pong: R::Sender, mut pinged: R::Receiver) {
        for _ in 0..trips {
            R::send(&pong, R::recv(&mut pinged).await).await;
        }
    }
    async fn ping<R: AsyncChannels>(
        game: Arc<Match>,
        (warm, mut started): (R::Sender, R::Receiver),
        (ping, mut ponged): (R::Sender, R::Receiver),
    ) {
        for n in 0..(WARM_UP + game.trips) as u64 {
            if n == WARM_UP as u64 {
                R::send(&warm, 0).await;
                R::recv(&mut started).await;
            }
            R::send(&ping, n).await;
            assert_eq!(R::recv(&mut ponged).await, n);
        }
        game.done.cross();
    }
    async fn produce<R: AsyncChannels>(stream: usize, sender: R::Sender) {
        for n in 0..stream as u64 {
            R::send(&sender, n).await;
        }
    }
    let game = Match::new(pairs, work);
    let stream = work * STREAM;
    R::run(async {
        let mut tasks = Vec::with_capacity(2 * pairs);
        let mut gates = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            let (warm, is_warm) = R::channel(Kind::Unbounded);
            let (start, started) = R::channel(Kind::Unbounded);
            gates.push((is_warm, start));
            let (ping_sender, pinged) = R::channel(Kind::Rendezvous);
            let (pong_sender, ponged) = R::channel(Kind::Rendezvous);
            tasks.push(R::spawn(pong::<R>(WARM_UP + game.trips, pong_sender, pinged)));
            let players = ((warm, started), (ping_sender, ponged));
            tasks.push(R::spawn(ping::<R>(Arc::clone(&game), players.0, players.1)));
        }
        for (is_warm, _) in &mut gates {
            R::recv(is_warm).await;
        }
        let let_go = Instant::now();
        for (_, start) in &gates {
            R::send(start, 0).await;
        }
        for task in tasks {
            R::join(task).await?;
        }
        let (sender, mut receiver) = R::channel(Kind::Unbounded);
        let began = Instant::now();
        let producer = R::spawn(produce::<R>(stream, sender));
        for n in 0..stream as u64 {
            assert_eq!(R::recv(&mut receiver).await, n);
        }
        let elapsed = began.elapsed();
        R::join(producer).await?;
        Ok(vec![Some(game.ns(let_go)), Some(ns_each(elapsed, stream))])
    })?
}
