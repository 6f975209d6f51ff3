//! What a time-out costs that is not needed, and a cancellation that is.
//!
//! ```text
//! cargo bench --bench cancel
//! ```

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use criterion::Criterion;
use plainsong::io::Pollable;
use plainsong::time::{sleep, timeout};
use plainsong::{scope, spawn, yield_now};

const MINUTE: Duration = Duration::from_secs(60);

/// How many cancellations stand between two looks at the clock.
const BATCH: u64 = 100;

/// Measures `f` inside of a runtime.
fn within(c: &mut Criterion, name: &str, mut f: impl FnMut()) {
    c.bench_function(name, |b| {
        b.iter_custom(|times| {
            plainsong::run(|| {
                let start = Instant::now();
                (0..times).for_each(|_| f());
                start.elapsed()
            })
        });
    });
}

fn time_outs(c: &mut Criterion) {
    // A byte that is written is there at once.
    let (mut writer, reader) = UnixStream::pair().unwrap();
    let mut reader = Pollable::new(reader).unwrap();
    let mut byte = [0];
    within(c, "write and read, ready", || {
        writer.write_all(&[1]).unwrap();
        reader.read_exact(&mut byte).unwrap();
    });
    within(c, "write and read, ready, read in a timeout", || {
        writer.write_all(&[1]).unwrap();
        timeout(MINUTE, || reader.read_exact(&mut byte)).unwrap().unwrap();
    });
    within(c, "timeout around nothing", || {
        black_box(timeout(MINUTE, || black_box(1))).unwrap();
    });
}

/// Measures `spawn`, a first turn and what `end` does, for coroutines that do `body`.
fn ends(
    c: &mut Criterion,
    name: &str,
    body: impl Fn() + Copy + 'static,
    end: impl Fn(plainsong::JoinHandle<()>),
) {
    c.bench_function(name, |b| {
        b.iter_custom(|times| {
            plainsong::run(|| {
                let mut took = Duration::ZERO;
                for _ in 0..times.div_ceil(BATCH) {
                    let children: Vec<_> = (0..BATCH).map(|_| spawn(body)).collect();
                    yield_now();
                    let start = Instant::now();
                    children.into_iter().for_each(&end);
                    took += start.elapsed();
                }
                took.mul_f64(times as f64 / (times.div_ceil(BATCH) * BATCH) as f64)
            })
        });
    });
}

fn cancellations(c: &mut Criterion) {
    ends(
        c,
        "cancel and join one that sleeps",
        || sleep(MINUTE),
        |child| {
            child.cancel();
            assert!(child.join().is_err());
        },
    );
    // The same without the unwind: what is left is the switch and the join.
    ends(c, "unpark and join one that is parked", plainsong::thread::park, |child| {
        child.thread().unpark();
        child.join().unwrap();
    });
    within(c, "scope with one child", || scope(|s| drop(s.spawn(|| ()))));
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    time_outs(&mut c);
    cancellations(&mut c);
    c.final_summary();
}
