//! The cost of sending an item through a channel.
//!
//! ```text
//! cargo bench --bench channel
//! ```

use std::hint::black_box;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use plainsong::sync::channel;

/// Items that warm up a channel and its coroutines.
const WARM: u64 = 1000;

/// Times `iterations` calls of `step` in a coroutine that runs beside `peer`.
fn beside(iterations: u64, peer: impl FnOnce() + 'static, mut step: impl FnMut()) -> Duration {
    plainsong::run(|| {
        let peer = plainsong::spawn(peer);
        (0..WARM).for_each(|_| step());
        let start = Instant::now();
        (0..iterations).for_each(|_| step());
        let elapsed = start.elapsed();
        drop(step);
        peer.join().unwrap();
        elapsed
    })
}

/// Round trips between two coroutines.
fn ping_pong(c: &mut Criterion) {
    let mut group = c.benchmark_group("ping_pong");
    for (name, capacity) in [("rendezvous", Some(0)), ("bounded(1)", Some(1)), ("unbounded", None)]
    {
        let new = move || capacity.map_or_else(channel::unbounded, channel::bounded::<u64>);
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let ((there, out), (back, home)) = (new(), new());
                beside(
                    iterations,
                    move || out.iter().for_each(|item| back.send(item).unwrap()),
                    move || {
                        there.send(1).unwrap();
                        black_box(home.recv().unwrap());
                    },
                )
            });
        });
    }
    group.finish();
}

/// A stream of items from one coroutine to another.
fn stream(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Elements(1));
    for (name, capacity) in
        [("rendezvous", Some(0)), ("bounded(100)", Some(100)), ("unbounded", None)]
    {
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let (sender, receiver) =
                    capacity.map_or_else(channel::unbounded, channel::bounded::<u64>);
                beside(
                    iterations,
                    move || receiver.iter().for_each(|item| assert_eq!(black_box(item), 1)),
                    move || sender.send(1).unwrap(),
                )
            });
        });
    }
    group.finish();
}

/// A send and a receive in one coroutine: the cost of the channel itself, beside other channels.
fn one_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("send_and_receive");
    group.throughput(Throughput::Elements(1));
    group.bench_function("plainsong", |b| {
        let (sender, receiver) = channel::unbounded();
        plainsong::run(|| {
            b.iter(|| {
                sender.send(1_u64).unwrap();
                receiver.recv().unwrap()
            });
        });
    });
    group.bench_function("crossbeam-channel", |b| {
        let (sender, receiver) = crossbeam_channel::unbounded();
        b.iter(|| {
            sender.send(1_u64).unwrap();
            receiver.recv().unwrap()
        });
    });
    group.bench_function("std::sync::mpsc", |b| {
        let (sender, receiver) = mpsc::channel();
        b.iter(|| {
            sender.send(1_u64).unwrap();
            receiver.recv().unwrap()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    ping_pong(&mut criterion);
    stream(&mut criterion);
    one_thread(&mut criterion);
    criterion.final_summary();
}
