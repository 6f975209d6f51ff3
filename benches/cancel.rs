//! The cost of a timeout that does not expire, and of a cancellation.
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

/// How many cancellations are timed together.
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

fn timeouts(c: &mut Criterion) {
    // A byte that was written can be read at once.
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

/// Measures `end` for coroutines that have had a first turn of `body`.
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
        "cancel and join a sleeping coroutine",
        || sleep(MINUTE),
        |child| {
            child.cancel();
            assert!(child.join().is_err());
        },
    );
    // The same without the unwinding: the switch and the join are left.
    ends(c, "unpark and join a parked coroutine", plainsong::thread::park, |child| {
        child.thread().unpark();
        child.join().unwrap();
    });
    within(c, "scope with one child", || scope(|s| drop(s.spawn(|| ()))));
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    timeouts(&mut c);
    cancellations(&mut c);
    c.final_summary();
}
