//! `watch` in tokio's shape.

use std::thread as system;

use plainsong::sync::watch;
use plainsong::{spawn, yield_now};

use crate::util::{both, run, until_parked};

#[test]
fn a_watch_shows_the_last_value() {
    both(|| {
        let (sender, mut receiver) = watch::channel(0);
        assert!(!receiver.has_changed().unwrap());
        for n in 1..=3 {
            sender.send(n).unwrap();
        }
        assert!(receiver.has_changed().unwrap());
        assert!(receiver.borrow().has_changed());
        receiver.changed().unwrap();
        assert_eq!(*receiver.borrow_and_update(), 3);
        assert!(!sender.send_if_modified(|_| false));
        assert!(!receiver.has_changed().unwrap());
        sender.send_modify(|value| *value *= 2);
        assert_eq!(sender.send_replace(8), 6);
        assert_eq!(*receiver.wait_for(|value| *value == 8).unwrap(), 8);
        let seen = receiver.clone();
        assert!(!seen.has_changed().unwrap());
        receiver.mark_changed();
        receiver.changed().unwrap();
        let thread = system::spawn(move || *receiver.wait_for(|value| *value > 50).unwrap());
        (9..=60).for_each(|n| sender.send(n).unwrap());
        assert!(thread.join().unwrap() > 50);
        drop(seen);
        assert!(sender.is_closed());
        assert_eq!(sender.send(1).unwrap_err().0, 1);
        sender.closed();
        let mut late = sender.subscribe();
        drop(sender);
        assert!(late.changed().is_err() && late.has_changed().is_err());
        assert_eq!(*late.borrow(), 60);
    });
}

#[test]
fn a_watched_value_may_be_borrowed_across_a_wait() {
    run(|| {
        let (sender, receiver) = watch::channel(1);
        let borrowed = receiver.borrow();
        let sending = spawn(move || sender.send(2).unwrap());
        until_parked(&sending);
        assert_eq!(*borrowed, 1);
        drop(borrowed);
        sending.join().unwrap();
        assert_eq!(*receiver.borrow(), 2);
    });
}

#[test]
fn many_borrow_a_watched_value_at_once() {
    run(|| {
        let (sender, receiver) = watch::channel(1);
        let here = receiver.borrow();
        let other = receiver.clone();
        let there = system::spawn(move || *other.borrow());
        assert_eq!((*here, *sender.borrow(), there.join().unwrap()), (1, 1, 1));
        drop(here);
        sender.send_replace(2);
        assert_eq!(*receiver.borrow(), 2);
    });
}

#[test]
fn a_receiver_that_came_meanwhile_keeps_a_watch_open() {
    run(|| {
        let (sender, receiver) = watch::channel(1);
        let theirs = sender.clone();
        let waiting = spawn(move || theirs.closed());
        until_parked(&waiting);
        drop(receiver);
        let another = sender.subscribe();
        yield_now();
        until_parked(&waiting);
        drop(another);
        waiting.join().unwrap();
    });
}
