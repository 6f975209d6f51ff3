//! Every wait is a cancellation point and takes part in the budget, also when it need not wait.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use plainsong::net::UnixStream;
use plainsong::time::{MissedTickBehavior, interval, timeout, timeout_at};
use plainsong::{CancellationToken, JoinHandle, spawn};

use crate::util::run;

/// A coroutine that only takes turns, and how many it has had.
fn counts_its_turns() -> (JoinHandle<()>, Rc<Cell<u32>>) {
    let turns = Rc::new(Cell::new(0));
    let ours = Rc::clone(&turns);
    let counts = move || {
        loop {
            ours.set(ours.get() + 1);
            plainsong::yield_now();
        }
    };
    (spawn(counts), turns)
}

/// Calls `step`, which need not wait, until a time-out around it fires; another coroutine goes on.
fn ends_by_its_time_out(mut step: impl FnMut() + 'static) {
    let (other, others) = counts_its_turns();
    let ended = timeout(Duration::from_millis(5), move || {
        loop {
            step();
        }
    });
    assert!(ended.is_err());
    assert!(others.get() > 0);
    other.cancel();
}

fn busy(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

#[test]
fn an_interval_that_is_behind() {
    run(|| {
        let behaviors =
            [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip];
        for behavior in behaviors {
            let mut ticks = interval(Duration::from_micros(100));
            ticks.set_missed_tick_behavior(behavior);
            ends_by_its_time_out(move || {
                ticks.tick();
                busy(Duration::from_micros(200));
            });
        }
    });
}

#[test]
fn a_token_that_is_cancelled_already() {
    run(|| {
        let token = CancellationToken::new();
        token.cancel();
        ends_by_its_time_out(move || token.cancelled());
    });
}

/// Calls `step`, which gives up at once, until another coroutine has had three turns.
fn lets_others_run(mut step: impl FnMut()) {
    let (other, others) = counts_its_turns();
    while others.get() < 3 {
        step();
    }
    other.cancel();
}

#[test]
fn time_outs_that_have_passed_in_a_loop() {
    run(|| {
        let (one, two) = UnixStream::pair().unwrap();
        let read = || (&one).read(&mut [0]);
        let past = plainsong::time::now();
        lets_others_run(|| assert!(timeout(Duration::ZERO, read).is_err()));
        lets_others_run(|| assert!(timeout_at(past, read).is_err()));
        one.set_read_deadline(Some(past));
        lets_others_run(|| assert!(read().is_err()));
        two.set_write_deadline(Some(past));
        lets_others_run(|| assert!((&two).write(&[0]).is_err()));
    });
}

#[test]
fn joining_coroutines_that_have_ended() {
    run(|| {
        ends_by_its_time_out(|| {
            let ended = spawn(|| ());
            while !ended.is_finished() {
                plainsong::yield_now();
            }
            ended.join().unwrap();
        });
        let mut handle = Some(spawn(|| ()));
        ends_by_its_time_out(move || {
            let again = handle.take().unwrap();
            let (done, _) = plainsong::task::wait([again], None);
            handle = done.into_iter().next();
        });
    });
}

#[test]
fn a_sleep_until_a_time_that_has_passed() {
    run(|| {
        let past = plainsong::time::now();
        ends_by_its_time_out(move || plainsong::time::sleep_until(past));
        ends_by_its_time_out(|| plainsong::time::sleep(Duration::ZERO));
    });
}

#[test]
fn a_park_with_its_token() {
    run(|| {
        ends_by_its_time_out(|| {
            plainsong::current().unpark();
            plainsong::thread::park();
        });
    });
}
