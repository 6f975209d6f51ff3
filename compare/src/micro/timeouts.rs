//! `timeouts`: the cost of a timeout around a read that need not wait, as most reads with a timeout
//! do not.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::line::ns_each;
use super::runtimes::{Async, May, Plainsong, Smol, Stackful, Threads, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// Longer than any sample takes.
const LONG: Duration = Duration::from_secs(60);
/// How many bytes are sent before they are read: fewer than the sockets' buffers hold.
const BATCH: usize = 30_000;

/// Reads `work` bytes one by one, without a timeout and with one.
pub(super) fn sample(peer: Peer, work: usize) -> Result<Sample> {
    let batches = work.div_ceil(BATCH);
    match peer {
        Peer::Threads => Threads::run(move || threads(batches))?,
        Peer::Plainsong => Plainsong::run(move || plainsong(batches))?,
        Peer::May => May::run(move || may(batches))?,
        Peer::Tokio => Tokio::run(tokio(batches))?,
        Peer::Smol => Smol::run(smol(batches))?,
        Peer::Bare | Peer::Go | Peer::Guest => Err(no_arm(Bench::Timeouts, peer)),
    }
}

/// The times of reads without a timeout and with one.
#[derive(Default)]
struct Reads {
    count: usize,
    elapsed: [Duration; 2],
}

impl Reads {
    /// The first batch of either kind is a warm-up.
    fn note(&mut self, batch: usize, elapsed: [Duration; 2]) {
        if batch > 0 {
            self.count += BATCH;
            self.elapsed.iter_mut().zip(elapsed).for_each(|(sum, elapsed)| *sum += elapsed);
        }
    }

    fn sample(&self) -> Sample {
        let [bare, guarded] = self.elapsed.map(|elapsed| ns_each(elapsed, self.count));
        vec![Some(guarded - bare), Some(bare), Some(guarded)]
    }
}

/// The sending ends of two connections, and the address that the reading ends connect to.
struct Feeders([TcpStream; 2]);

impl Feeders {
    /// `connect` opens the reading ends.
    fn of<T>(mut connect: impl FnMut(SocketAddr) -> io::Result<T>) -> Result<(Feeders, [T; 2])> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let readers = [connect(address)?, connect(address)?];
        Ok((Feeders([listener.accept()?.0, listener.accept()?.0]), readers))
    }

    fn feed(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|feeder| feeder.write_all(&[0; BATCH]))
    }
}

fn in_turn(
    batches: usize,
    mut feeders: Feeders,
    mut bare: impl FnMut() -> io::Result<usize>,
    mut guarded: impl FnMut() -> io::Result<usize>,
) -> Result<Sample> {
    fn time(mut read: impl FnMut() -> io::Result<usize>) -> Result<Duration> {
        let began = Instant::now();
        for _ in 0..BATCH {
            ensure!(read()? == 1, "the connection ended");
        }
        Ok(began.elapsed())
    }
    let mut reads = Reads::default();
    for batch in 0..=batches {
        feeders.feed()?;
        reads.note(batch, [time(&mut bare)?, time(&mut guarded)?]);
    }
    Ok(reads.sample())
}

async fn in_turn_async(
    batches: usize,
    mut feeders: Feeders,
    mut bare: impl AsyncFnMut() -> io::Result<usize>,
    mut guarded: impl AsyncFnMut() -> io::Result<usize>,
) -> Result<Sample> {
    async fn time(mut read: impl AsyncFnMut() -> io::Result<usize>) -> Result<Duration> {
        let began = Instant::now();
        for _ in 0..BATCH {
            ensure!(read().await? == 1, "the connection ended");
        }
        Ok(began.elapsed())
    }
    let mut reads = Reads::default();
    for batch in 0..=batches {
        feeders.feed()?;
        reads.note(batch, [time(&mut bare).await?, time(&mut guarded).await?]);
    }
    Ok(reads.sample())
}

fn threads(batches: usize) -> Result<Sample> {
    let (feeders, [bare, guarded]) = Feeders::of(TcpStream::connect)?;
    guarded.set_read_timeout(Some(LONG))?;
    in_turn(batches, feeders, || (&bare).read(&mut [0]), || (&guarded).read(&mut [0]))
}

fn may(batches: usize) -> Result<Sample> {
    let (feeders, [mut bare, mut guarded]) = Feeders::of(may::net::TcpStream::connect)?;
    guarded.set_read_timeout(Some(LONG))?;
    in_turn(batches, feeders, || bare.read(&mut [0]), || guarded.read(&mut [0]))
}

fn plainsong(batches: usize) -> Result<Sample> {
    let (feeders, [bare, guarded]) = Feeders::of(plainsong::net::TcpStream::connect)?;
    let read = || (&guarded).read(&mut [0]);
    in_turn(batches, feeders, || (&bare).read(&mut [0]), || plainsong::time::timeout(LONG, read)?)
}

async fn tokio(batches: usize) -> Result<Sample> {
    let connect = |address| {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    };
    let (feeders, [mut bare, mut guarded]) = Feeders::of(connect)?;
    let bare = async || tokio::io::AsyncReadExt::read(&mut bare, &mut [0]).await;
    let guarded = async || {
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut guarded, &mut byte);
        tokio::time::timeout(LONG, read).await?
    };
    in_turn_async(batches, feeders, bare, guarded).await
}

async fn smol(batches: usize) -> Result<Sample> {
    let connect = |address| {
        let stream = smol::Async::new(TcpStream::connect(address)?)?;
        io::Result::Ok(smol::net::TcpStream::from(stream))
    };
    let (feeders, [mut bare, mut guarded]) = Feeders::of(connect)?;
    let bare = async || smol::io::AsyncReadExt::read(&mut bare, &mut [0]).await;
    let guarded = async || {
        let mut byte = [0];
        let read = smol::io::AsyncReadExt::read(&mut guarded, &mut byte);
        let time_out = async {
            smol::Timer::after(LONG).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        smol::future::or(read, time_out).await
    };
    in_turn_async(batches, feeders, bare, guarded).await
}
