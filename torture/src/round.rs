//! A round: one run of a random program, in a world of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use plainsong::{Runtime, spawn, yield_now};

use crate::Mixed;
use crate::process::Held;
use crate::script::{Actor, start_thread};
use crate::traffic;
use crate::watch::{self, Scripted};
use crate::world::World;

/// The rounds after which pools and caches are as full as they will be.
const WARM_UP: u64 = 20;

pub(crate) fn play(options: &Mixed) {
    let first = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    println!("torture: --seed {first} --steps {}", options.steps);
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let rounds = options.rounds.unwrap_or(u64::MAX);
    let (mut before, mut done, mut told) = (None, 0, Instant::now());
    while done < rounds && (done == 0 || Instant::now() < end) {
        let seed = first.wrapping_add(done);
        watch::set_seed(seed);
        round(seed, options.steps);
        done += 1;
        if done == WARM_UP {
            before = Some(Held::now());
        }
        if let Some(before) = before.filter(|_| done % 64 == 0) {
            Held::now().check(&before);
        }
        if told.elapsed() > Duration::from_secs(60) {
            println!("torture: {done} rounds, {}", Held::now());
            told = Instant::now();
        }
    }
    let now = Held::now();
    if let Some(before) = before {
        println!("torture: after {WARM_UP} rounds {before}");
        now.check(&before);
    }
    println!("torture: {done} rounds, {now}; all well");
}

fn round(seed: u64, steps: u64) {
    let mut rng = Rng::with_seed(seed);
    let workers = [1, 1, 2, 3, 4][rng.usize(..5)];
    let threads = rng.usize(..3);
    let world = World::new(steps, threads > 0);
    // Without threads outside, a wait that nothing in the run can end is reported.
    let runtime = Runtime::builder().workers(workers).strict_deadlock(!world.threads_wake);
    let runtime = runtime.build().expect("a runtime");
    assert!(world.run.set(runtime.handle()).is_ok());
    let threads: Vec<_> = (0..threads).map(|_| start_thread(&world, rng.fork())).collect();
    let hanging = Arc::downgrade(&world);
    watch::on_hang(move || {
        if let Some(world) = hanging.upgrade() {
            world.show();
        }
    });
    let waits_for_all = rng.bool();
    let first = Actor::new(&world, rng.fork(), world.number(), true);
    let body = || {
        let server = traffic::serve(&world);
        for _ in 0..20 {
            let (number, body) = first.offspring();
            world.keep_handle(number, spawn(body));
        }
        while world.steps.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            if world.lives() < 10 {
                let (number, body) = first.offspring();
                world.keep_handle(number, spawn(body));
            }
            yield_now();
        }
        server.cancel();
        if rng.bool() {
            for (_, handle) in world.take_handles() {
                // Results are checked where actors join each other.
                let _ = handle.join();
            }
        }
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        if waits_for_all { runtime.run_all(body) } else { runtime.run(body) }
    }));
    if let Err(payload) = result {
        assert!(payload.is::<Scripted>(), "the run has panicked");
    }
    // Cancels the jobs that came after the end of the run, and those that are still to come.
    drop(runtime);
    for thread in threads {
        assert!(thread.join().is_ok(), "a thread has panicked");
    }
    drop(first);
    world.check();
}
