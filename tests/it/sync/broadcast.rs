//! `broadcast` in tokio's shape.

use std::sync::Arc;
use std::thread as system;

use plainsong::spawn;
use plainsong::sync::broadcast::{RecvError as BroadcastError, TryRecvError as TryBroadcast};
use plainsong::sync::{broadcast, oneshot, watch};
use plainsong::time::timeout;

use crate::util;
use crate::util::{MOMENT, both, panic_of, run, until_parked};

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
fn a_receiver_that_is_too_slow_learns_how_many_items_it_has_lost() {
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
        // A receiver can subscribe again.
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
fn a_broadcast_needs_room() {
    assert!(panic_of(|| broadcast::channel::<()>(0)).contains("give it a capacity"));
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
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
fn a_sender_learns_that_the_last_receiver_has_gone() {
    both(|| {
        let sender = broadcast::Sender::new(4);
        sender.closed();
        assert!(sender.send(0).is_err());
        let (one, two) = (sender.subscribe(), sender.subscribe());
        let weak = sender.downgrade();
        plainsong::scope(|s| {
            let waits = s.spawn(|| sender.closed());
            plainsong::yield_now();
            drop(one);
            plainsong::yield_now();
            assert!(!waits.is_finished());
            drop(two);
            waits.join().unwrap();
        });
        let again = weak.upgrade().unwrap();
        drop(sender);
        let mut receiver = again.subscribe();
        assert_eq!(again.send(5), Ok(1));
        drop(again);
        assert!(weak.clone().upgrade().is_none());
        assert_eq!(receiver.recv(), Ok(5));
        assert_eq!(receiver.recv(), Err(BroadcastError::Closed));
        assert_eq!(*watch::Sender::new(3).borrow(), 3);
    });
}
