//! Wakes that come early, late, twice, from other threads, or for a waiter that has left.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use plainsong::thread::{park, park_timeout};
use plainsong::time::sleep;

use crate::util::{pair, run, until_parked, until_waits_for, watch};

/// A coroutine that sleeps for ever: only the end of the run may end it.
fn must_not_wake() -> plainsong::JoinHandle<()> {
    let handle = plainsong::spawn(|| sleep(Duration::MAX));
    until_parked(&handle);
    handle
}

fn many_turns() {
    for _ in 0..200 {
        plainsong::yield_now();
    }
}

#[test]
fn a_token_given_before_is_taken_once() {
    run(|| {
        let me = plainsong::current();
        me.unpark();
        me.unpark();
        park();
        // The second park waits: two unparks are one token.
        park_timeout(Duration::from_nanos(1));
        let me = plainsong::current();
        plainsong::spawn(move || me.unpark());
        park();
    });
}

#[test]
fn a_token_does_not_end_other_waits() {
    run(|| {
        let child = plainsong::spawn(|| {
            sleep(Duration::MAX);
            unreachable!("an endless sleep ended");
        });
        until_parked(&child);
        child.thread().unpark();
        many_turns();
        assert!(!child.is_finished());
        let joiner = plainsong::spawn(move || child.join().is_ok());
        until_parked(&joiner);
        joiner.thread().unpark();
        many_turns();
        assert!(!joiner.is_finished());
    });
}

#[test]
fn unpark_races_with_park_ten_thousand_times() {
    run(|| {
        let me = plainsong::current();
        let turns = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&turns);
        let (turn, next) = mpsc::channel();
        let waker = thread::spawn(move || {
            for () in next {
                theirs.fetch_add(1, Ordering::SeqCst);
                me.unpark();
            }
        });
        for round in 1..=10_000 {
            turn.send(()).unwrap();
            while turns.load(Ordering::SeqCst) < round {
                park();
            }
        }
        drop(turn);
        waker.join().unwrap();
    });
}

#[test]
fn threads_unpark_each_other_across_runtimes() {
    watch(|| {
        const ROUNDS: usize = 5000;
        let turn = Arc::new(AtomicUsize::new(0));
        let (give, take) = mpsc::channel::<plainsong::thread::Thread>();
        let (give_back, take_back) = mpsc::channel::<plainsong::thread::Thread>();
        let player = |parity: usize,
                      give: mpsc::Sender<_>,
                      take: mpsc::Receiver<plainsong::thread::Thread>| {
            let turn = Arc::clone(&turn);
            move || {
                give.send(plainsong::current()).unwrap();
                let peer = take.recv().unwrap();
                for round in (0..ROUNDS).filter(|round| round % 2 == parity) {
                    while turn.load(Ordering::SeqCst) != round {
                        park();
                    }
                    turn.store(round + 1, Ordering::SeqCst);
                    peer.unpark();
                }
            }
        };
        // A coroutine against a plain thread: the same names on both sides.
        let coroutine = player(0, give, take_back);
        let plain = player(1, give_back, take);
        let coroutine = thread::spawn(move || plainsong::run(coroutine));
        let plain = thread::spawn(plain);
        coroutine.join().unwrap();
        plain.join().unwrap();
        assert_eq!(turn.load(Ordering::SeqCst), ROUNDS);
    });
}

#[test]
fn a_late_unpark_does_not_reach_the_next_in_the_slot() {
    run(|| {
        let first = plainsong::spawn(|| ());
        let gone = first.thread().clone();
        first.join().unwrap();
        let parked = plainsong::spawn(park);
        until_parked(&parked);
        gone.unpark();
        let gone_too = gone.clone();
        thread::spawn(move || gone_too.unpark()).join().unwrap();
        many_turns();
        assert!(!parked.is_finished());
        parked.thread().unpark();
        parked.join().unwrap();
    });
}

#[test]
fn a_coroutine_that_ends_does_not_wake_a_joiner_that_gave_up() {
    run(|| {
        let slow = plainsong::spawn(park);
        let slow_thread = slow.thread().clone();
        let child = plainsong::spawn(move || {
            let slow = slow.join_timeout(Duration::from_nanos(1)).unwrap_err();
            sleep(Duration::MAX);
            drop(slow);
        });
        // Past the time-out, in the sleep.
        until_waits_for(&child, "a timer");
        slow_thread.unpark();
        many_turns();
        assert!(!child.is_finished());
    });
}

#[test]
fn data_does_not_wake_a_reader_that_gave_up() {
    run(|| {
        let (ours, mut theirs) = pair();
        ours.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
        let child = plainsong::spawn(move || {
            assert!((&ours).read(&mut [0; 8]).is_err());
            sleep(Duration::MAX);
            drop(ours);
        });
        until_waits_for(&child, "a timer");
        theirs.write_all(b"late").unwrap();
        many_turns();
        assert!(!child.is_finished());
    });
}

#[test]
fn a_time_out_does_not_end_the_next_wait() {
    run(|| {
        for _ in 0..50 {
            // Woken and timed out at nearly the same time: the time-out must end with its wait.
            let child = plainsong::spawn(|| {
                park_timeout(Duration::from_micros(200));
                sleep(Duration::MAX);
            });
            until_parked(&child);
            child.thread().unpark();
            let guard = must_not_wake();
            sleep(Duration::from_micros(300));
            many_turns();
            assert!(!child.is_finished() && !guard.is_finished());
        }
    });
}

#[test]
fn slots_used_again_never_share_a_wake() {
    run(|| {
        let woken = Rc::new(Cell::new(0));
        for _ in 0..200 {
            // Many coroutines end early and could leave time-outs behind; then sleepers take their
            // slots.
            let short: Vec<_> = (0..20)
                .map(|n| plainsong::spawn(move || park_timeout(Duration::from_micros(n))))
                .collect();
            for child in &short {
                child.thread().unpark();
            }
            for child in short {
                child.join().unwrap();
            }
            let count = Rc::clone(&woken);
            plainsong::spawn(move || {
                sleep(Duration::MAX);
                count.set(count.get() + 1);
            });
        }
        many_turns();
        assert_eq!(woken.get(), 0);
    });
}

#[test]
fn all_waiters_are_woken_in_order() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let children: Vec<_> = (0..10)
            .map(|n| {
                let log = Rc::clone(&log);
                plainsong::spawn(move || {
                    park();
                    log.borrow_mut().push(n);
                })
            })
            .collect();
        children.iter().for_each(until_parked);
        for child in &children {
            child.thread().unpark();
        }
        for child in children {
            child.join().unwrap();
        }
        assert_eq!(*log.borrow(), (0..10).collect::<Vec<_>>());
    });
}

/// It had left the channel's watchers, and its wake was left in the frame of the sender.
#[test]
fn a_select_that_watches_is_woken_when_the_sender_is_given_up() {
    run(|| {
        let (sender, receiver) = plainsong::sync::channel::bounded::<i32>(0);
        let other = sender.clone();
        let watches = plainsong::spawn(move || {
            let mut select = plainsong::sync::select::Select::new();
            select.recv(&receiver);
            select.ready();
            receiver.recv().unwrap()
        });
        until_parked(&watches);
        let given_up = plainsong::spawn(move || {
            plainsong::shield(plainsong::yield_now);
            plainsong::no_unwind(|| other.send(1))
        });
        plainsong::yield_now();
        given_up.cancel();
        given_up.join().unwrap_err();
        sender.send(2).unwrap();
        assert_eq!(watches.join().unwrap(), 2);
    });
}
