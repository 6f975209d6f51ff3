//! `mpsc` in std's shape.

use std::thread as system;

use plainsong::sync::mpsc;
use plainsong::sync::mpsc::TrySendError;

use crate::util::{MOMENT, both};

#[test]
fn mpsc_is_what_it_is_in_std() {
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
