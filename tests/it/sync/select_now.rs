//! The forms of `select!` that do not wait: they say that nothing is ready only if that was so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread as system;
use std::time::{Duration, Instant};

use plainsong::select;
use plainsong::sync::Event;
use plainsong::sync::channel::{Receiver, Sender, bounded, never, tick, unbounded};
use plainsong::sync::select::Select;

use crate::util::{both, watch};

type Channel = (Sender<usize>, Receiver<usize>);

/// Takes an item from either channel, by one of the forms. Returns whether there was one.
fn takes_one(form: usize, one: &Receiver<usize>, two: &Receiver<usize>) -> bool {
    let mut both = Select::new();
    both.recv(one);
    both.recv(two);
    match form {
        0 => select! {
            recv(one) -> item => item.is_ok(),
            recv(two) -> item => item.is_ok(),
            default => false,
        },
        1 => select! {
            recv(one) -> item => item.is_ok(),
            recv(two) -> item => item.is_ok(),
            default(Duration::ZERO) => false,
        },
        2 => both.try_select().is_ok_and(|chosen| {
            let receiver = if chosen.index() == 0 { one } else { two };
            chosen.recv(receiver).is_ok()
        }),
        _ => unreachable!(),
    }
}

/// Waits until both threads have come here, for the `count`-th arrival of all. It spins, so that
/// they go on at the same moment.
fn meet(arrived: &AtomicUsize, count: usize) {
    arrived.fetch_add(1, Ordering::SeqCst);
    for spins in 0.. {
        if arrived.load(Ordering::SeqCst) >= count {
            return;
        }
        if spins % 1000 == 999 {
            system::yield_now();
        }
    }
}

/// Two threads send an item each, on channels of their own, and then take one from either channel.
/// As long as a thread has not taken an item, there is one.
///
/// Where the two do not run at once, on a busy machine or under an emulator, a round takes time
/// slices of the system and tries little. So some seconds are the limit.
fn in_lock_step(form: usize, rounds: usize) {
    let limit = Instant::now() + Duration::from_secs(15);
    let last = Arc::new(AtomicBool::new(false));
    let channels: Arc<[Channel; 2]> = Arc::new([unbounded(), unbounded()]);
    let arrived = Arc::new(AtomicUsize::new(0));
    let threads = [0, 1].map(|own| {
        let (channels, arrived) = (Arc::clone(&channels), Arc::clone(&arrived));
        let last = Arc::clone(&last);
        system::spawn(move || {
            let (mine, other) = (&channels[own], &channels[1 - own]);
            for round in 0..rounds {
                if own == 0 && Instant::now() >= limit {
                    last.store(true, Ordering::SeqCst);
                }
                meet(&arrived, 4 * round + 2);
                // Both threads see the same: the next store follows the next two meetings.
                if last.load(Ordering::SeqCst) {
                    break;
                }
                mine.0.send(round).unwrap();
                assert!(takes_one(form, &mine.1, &other.1), "nothing was ready in round {round}");
                meet(&arrived, 4 * round + 4);
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_default_is_chosen_only_if_nothing_was_ready() {
    watch(|| (0..3).for_each(|form| in_lock_step(form, 20_000)));
}

#[test]
fn an_item_is_always_in_one_of_two_channels() {
    watch(|| {
        // It moves from the one to the other, and is in both for a moment.
        let channels: Arc<[Channel; 2]> = Arc::new([unbounded(), unbounded()]);
        let theirs = Arc::clone(&channels);
        let done = Arc::new(Event::new());
        let stop = Arc::clone(&done);
        channels[0].0.send(0).unwrap();
        let mover = system::spawn(move || {
            for round in 0.. {
                theirs[(round + 1) % 2].0.send(round).unwrap();
                theirs[round % 2].1.recv().unwrap();
                if stop.is_set() {
                    break;
                }
            }
        });
        for _ in 0..20_000 {
            let mut both = Select::new();
            both.recv(&channels[0].1);
            both.recv(&channels[1].1);
            assert!(both.try_ready().is_ok(), "an item was there at every moment");
            assert!(both.ready_timeout(Duration::ZERO).is_ok());
        }
        done.set();
        mover.join().unwrap();
    });
}

#[test]
fn a_default_after_nothing_leaves_nothing_behind() {
    both(|| {
        let ((one, first), (two, second)) = (bounded::<i32>(0), bounded::<i32>(1));
        for _ in 0..3 {
            select! {
                recv(first) -> _ => unreachable!(),
                recv(second) -> _ => unreachable!(),
                recv(tick(Duration::MAX)) -> _ => unreachable!(),
                default => {}
            }
            // No receiver is registered any more.
            assert!(one.try_send(1).is_err());
        }
        two.send(2).unwrap();
        select! {
            recv(first) -> _ => unreachable!(),
            recv(second) -> item => assert_eq!(item, Ok(2)),
            default => unreachable!(),
        }
    });
}

#[test]
fn a_default_takes_a_trailing_comma() {
    both(|| {
        let receiver = never::<()>();
        select! {
            recv(receiver) -> _ => unreachable!(),
            default(Duration::from_millis(1),) => {}
        }
    });
}
