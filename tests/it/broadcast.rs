//! What tokio promises of `broadcast`, `watch` and `oneshot`, and std of `mpsc`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread as system;
use std::time::Duration;

use plainsong::sync::broadcast::{self, RecvError as BroadcastError, TryRecvError as TryBroadcast};
use plainsong::sync::channel::{RecvError, RecvTimeoutError, TryRecvError};
use plainsong::sync::mpsc::{self, TrySendError};
use plainsong::sync::{oneshot, watch};
use plainsong::time::timeout;
use plainsong::{spawn, yield_now};

use crate::util::{self, OnDrop, both, panic_of, run, until_parked};

const MOMENT: Duration = Duration::from_millis(1);

#[test]
fn each_receiver_gets_each_item() {
    both(|| {
        let (sender, mut one) = broadcast::channel(16);
        let mut two = sender.subscribe();
        let thread = system::spawn({
            let mut three = two.resubscribe();
            move || std::iter::from_fn(|| three.recv().ok()).sum::<u32>()
        });
        assert_eq!((sender.send(1), sender.send(2)), (Ok(3), Ok(3)));
        assert_eq!((one.len(), sender.receiver_count()), (2, 3));
        assert_eq!((one.recv(), one.recv()), (Ok(1), Ok(2)));
        let mut late = sender.subscribe();
        sender.send(3).unwrap();
        drop(sender);
        assert_eq!((late.recv(), late.recv()), (Ok(3), Err(BroadcastError::Closed)));
        assert_eq!([two.recv(), two.recv(), two.recv()], [Ok(1), Ok(2), Ok(3)]);
        assert_eq!(two.try_recv(), Err(TryBroadcast::Closed));
        assert_eq!(thread.join().unwrap(), 6);
    });
}

#[test]
fn who_is_too_slow_is_told_how_many_it_has_lost() {
    both(|| {
        let (sender, mut slow) = broadcast::channel(2);
        let mut quick = sender.subscribe();
        for n in 0..5 {
            sender.send(n).unwrap();
            assert_eq!(quick.recv(), Ok(n));
        }
        assert_eq!((slow.len(), sender.len()), (5, 2));
        assert_eq!(slow.recv(), Err(BroadcastError::Lagged(3)));
        assert_eq!((slow.recv(), slow.recv()), (Ok(3), Ok(4)));
        assert_eq!(slow.try_recv(), Err(TryBroadcast::Empty));
        assert!(sender.is_empty());
        assert_eq!(BroadcastError::Lagged(3).to_string(), "received too slowly: 3 items are lost");
    });
}

#[test]
fn an_item_is_dropped_when_all_have_received_it() {
    run(|| {
        let item = Arc::new(());
        let (sender, mut one) = broadcast::channel(8);
        let (mut two, three) = (sender.subscribe(), sender.subscribe());
        sender.send(item.clone()).unwrap();
        drop(one.recv().unwrap());
        drop(two.recv().unwrap());
        assert_eq!(Arc::strong_count(&item), 2);
        drop(three);
        assert_eq!(Arc::strong_count(&item), 1);
        drop((one, two));
        assert!(sender.send(item.clone()).is_err());
        assert_eq!(Arc::strong_count(&item), 1);
        // And it may come back.
        let mut again = sender.subscribe();
        sender.send(item).unwrap();
        assert!(again.recv().is_ok());
    });
}

#[test]
fn clones_and_drops_of_broadcast_items_may_use_the_channel() {
    struct Item(broadcast::Sender<Item>, bool);
    impl Clone for Item {
        fn clone(&self) -> Self {
            assert!(self.0.receiver_count() > 0);
            Self(self.0.clone(), false)
        }
    }
    impl Drop for Item {
        fn drop(&mut self) {
            if self.1 {
                let _ = self.0.send(Self(self.0.clone(), false));
            }
        }
    }
    run(|| {
        let (sender, mut one) = broadcast::channel(1);
        let mut two = sender.subscribe();
        for _ in 0..3 {
            assert!(sender.send(Item(sender.clone(), true)).is_ok());
        }
        while one.try_recv().is_ok_and(|_| true) {}
        drop(two.try_recv());
        drop((one, two));
    });
}

#[test]
fn a_cancelled_broadcast_receive_has_taken_nothing() {
    run(|| {
        let (sender, mut receiver) = broadcast::channel(4);
        assert!(timeout(MOMENT, || receiver.recv()).is_err());
        sender.send(1).unwrap();
        assert_eq!(receiver.recv(), Ok(1));
        let waiting = spawn(move || receiver.recv());
        until_parked(&waiting);
        sender.send(2).unwrap();
        waiting.cancel();
        assert_eq!(waiting.join().unwrap(), Ok(2));
    });
}

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
fn one_item_once() {
    both(|| {
        let (sender, receiver) = oneshot::channel();
        assert!(!sender.is_closed());
        sender.send(1).unwrap();
        assert_eq!(receiver.recv(), Ok(1));
        let (sender, receiver) = oneshot::channel::<u8>();
        drop(sender);
        assert_eq!(receiver.recv(), Err(RecvError));
        let (mut sender, receiver) = oneshot::channel();
        drop(receiver);
        sender.closed();
        assert_eq!(sender.send(1), Err(1));
        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout));
        sender.send(2).unwrap();
        receiver.close();
        assert_eq!(receiver.try_recv(), Ok(2));
        assert_eq!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Disconnected));
    });
}

#[test]
fn an_item_that_nobody_took_is_dropped_with_its_receiver() {
    run(|| {
        let dropped = Rc::new(Cell::new(0));
        let item = {
            let dropped = dropped.clone();
            OnDrop(move || dropped.set(dropped.get() + 1))
        };
        let (sender, receiver) = oneshot::channel();
        assert!(sender.send(item).is_ok());
        drop(receiver);
        assert_eq!(dropped.get(), 1);
        let (mut sender, receiver) = oneshot::channel::<()>();
        let waiting = spawn(move || sender.closed());
        until_parked(&waiting);
        drop(receiver);
        waiting.join().unwrap();
    });
}

#[test]
fn mpsc_is_std_s() {
    both(|| {
        let (sender, receiver) = mpsc::channel();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let sender = sender.clone();
                system::spawn(move || (0..100).for_each(|_| sender.send(n).unwrap()))
            })
            .collect();
        drop(sender);
        assert_eq!(receiver.iter().sum::<i32>(), 300);
        assert_eq!(receiver.recv(), Err(mpsc::RecvError));
        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        threads.into_iter().for_each(|thread| thread.join().unwrap());

        let (sender, receiver) = mpsc::sync_channel(1);
        sender.send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(receiver.recv_timeout(MOMENT), Err(mpsc::RecvTimeoutError::Timeout));
        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(receiver);
        assert_eq!(sender.try_send(2), Err(TrySendError::Disconnected(2)));
        assert_eq!(sender.send(3), Err(mpsc::SendError(3)));

        let (sender, receiver) = mpsc::sync_channel(0);
        let thread = system::spawn(move || receiver.into_iter().count());
        (0..10).for_each(|n| sender.send(n).unwrap());
        drop(sender);
        assert_eq!(thread.join().unwrap(), 10);
    });
}

#[test]
fn a_broadcast_needs_room() {
    assert!(panic_of(|| broadcast::channel::<()>(0)).contains("give it a capacity"));
}

#[test]
fn broadcasts_keep_memory_flat() {
    util::alone(broadcasts_keep_memory_flat, || {
        plainsong::run(|| {
            let (sender, mut receiver) = broadcast::channel(64);
            let (setter, mut watcher) = watch::channel([0_u64; 64]);
            let mut round = || {
                for n in 0..20_000 {
                    sender.send([n; 64]).unwrap();
                    setter.send([n; 64]).unwrap();
                    watcher.changed().unwrap();
                    if n % 3 == 0 {
                        let _ = receiver.try_recv();
                    }
                    drop(sender.subscribe());
                    let (one, two) = oneshot::channel();
                    one.send(n).unwrap();
                    assert_eq!(two.recv(), Ok(n));
                }
            };
            round();
            let before = util::resident();
            (0..5).for_each(|_| round());
            let more = util::resident().saturating_sub(before);
            assert!(more < 2048, "{more} KiB more");
        });
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
