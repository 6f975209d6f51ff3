//! `oneshot` in tokio's shape.

use std::cell::Cell;
use std::rc::Rc;

use plainsong::spawn;
use plainsong::sync::channel::{RecvError, RecvTimeoutError, TryRecvError};
use plainsong::sync::oneshot;

use crate::util::{MOMENT, OnDrop, both, run, until_parked};

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
