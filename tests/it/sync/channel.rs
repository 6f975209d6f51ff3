//! Channels do what crossbeam's do, and lose nothing to a cancellation.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread as system;
use std::time::{Duration, Instant};

use plainsong::sync::channel::{
    Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError, after, at, bounded, never, tick, unbounded,
};
use plainsong::time::{sleep, timeout};
use plainsong::{JoinHandle, spawn, yield_now};

use crate::util::{HOUR, MOMENT, OnDrop, asleep, below, both, run, seeded, until_parked, watch};

/// A channel of each kind.
fn kinds<T>() -> [(Sender<T>, Receiver<T>); 4] {
    [bounded(0), bounded(1), bounded(7), unbounded()]
}

#[test]
fn items_come_in_the_order_in_which_they_were_sent() {
    both(|| {
        for (sender, receiver) in kinds() {
            let peer = system::spawn(move || (0..1000).for_each(|n| sender.send(n).unwrap()));
            assert!((0..1000).all(|n| receiver.recv() == Ok(n)));
            assert_eq!(receiver.recv(), Err(RecvError));
            peer.join().unwrap();
        }
    });
    run(|| {
        for (sender, receiver) in kinds() {
            let peer = spawn(move || (0..1000).for_each(|n| sender.send(n).unwrap()));
            assert!((0..1000).all(|n| receiver.recv() == Ok(n)));
            assert_eq!(receiver.recv(), Err(RecvError));
            peer.join().unwrap();
        }
    });
}

#[test]
fn what_does_not_wait_says_what_is_the_matter() {
    both(|| {
        let (sender, receiver) = bounded(2);
        assert_eq!((receiver.capacity(), receiver.len()), (Some(2), 0));
        assert!(receiver.is_empty() && !receiver.is_full());
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!((sender.try_send(1), sender.try_send(2)), (Ok(()), Ok(())));
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert!(sender.is_full() && sender.len() == 2);
        assert_eq!(sender.send_timeout(4, MOMENT), Err(SendTimeoutError::Timeout(4)));
        assert_eq!(sender.send_deadline(5, Instant::now()), Err(SendTimeoutError::Timeout(5)));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.recv_deadline(Instant::now()), Err(RecvTimeoutError::Timeout));
        drop(sender);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(HOUR), Err(RecvTimeoutError::Disconnected));

        let (sender, receiver) = bounded(0);
        assert_eq!((sender.capacity(), sender.len()), (Some(0), 0));
        assert!(sender.is_full() && sender.is_empty());
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        drop(receiver);
        assert_eq!(sender.try_send(1), Err(TrySendError::Disconnected(1)));
        assert_eq!(sender.send_timeout(1, HOUR), Err(SendTimeoutError::Disconnected(1)));
        assert_eq!(sender.send(1), Err(SendError(1)));
        assert_eq!(unbounded::<()>().0.capacity(), None);
    });
}

#[test]
fn what_was_sent_is_received_after_the_senders_have_gone() {
    both(|| {
        let (sender, receiver) = unbounded();
        for n in 0..3 {
            sender.clone().send(n).unwrap();
        }
        drop(sender);
        assert_eq!(receiver.len(), 3);
        assert_eq!(receiver.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    });
}

#[test]
fn a_waiter_learns_that_the_other_end_has_been_dropped() {
    fn receive(receiver: Receiver<u8>) -> impl FnOnce() + Send {
        move || assert_eq!(receiver.recv(), Err(RecvError))
    }
    fn send(sender: Sender<u8>) -> impl FnOnce() + Send {
        move || assert_eq!(sender.send(9), Err(SendError(9)))
    }
    fn full() -> [(Sender<u8>, Receiver<u8>); 3] {
        let [rendezvous, one, seven, _] = kinds();
        one.0.send(0).unwrap();
        (0..7).for_each(|_| seven.0.send(0).unwrap());
        [rendezvous, one, seven]
    }
    // A thread waits, and a coroutine or another thread drops the other end.
    both(|| {
        for (sender, receiver) in kinds() {
            let waiting = asleep(receive(receiver));
            drop(sender);
            waiting.join().unwrap();
        }
        for (sender, receiver) in full() {
            let waiting = asleep(send(sender));
            drop(receiver);
            waiting.join().unwrap();
        }
    });
    run(|| {
        for (sender, receiver) in kinds() {
            let waiting = spawn(receive(receiver));
            until_parked(&waiting);
            drop(sender);
            waiting.join().unwrap();
        }
        for (sender, receiver) in full() {
            let waiting = spawn(send(sender));
            until_parked(&waiting);
            drop(receiver);
            waiting.join().unwrap();
        }
    });
}

#[test]
fn a_rendezvous_returns_when_the_item_has_been_taken() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let taken = Rc::new(Cell::new(false));
        let peer = spawn({
            let taken = taken.clone();
            move || {
                sender.send(()).unwrap();
                assert!(taken.get());
            }
        });
        until_parked(&peer);
        taken.set(true);
        receiver.recv().unwrap();
        peer.join().unwrap();
    });
}

#[test]
fn waiters_are_served_in_order() {
    run(|| {
        let (sender, receiver) = unbounded();
        let got = Rc::new(RefCell::new(Vec::new()));
        let all: Vec<_> = (0..100)
            .map(|n| {
                let (receiver, got) = (receiver.clone(), got.clone());
                spawn(move || {
                    let item = receiver.recv().unwrap();
                    got.borrow_mut().push((n, item));
                })
            })
            .collect();
        all.iter().for_each(until_parked);
        (0..100).for_each(|n| sender.send(n).unwrap());
        all.into_iter().for_each(|one| one.join().unwrap());
        assert!(got.borrow().iter().copied().eq((0..100).map(|n| (n, n))));

        let (sender, receiver) = bounded(0);
        let all: Vec<_> = (0..100)
            .map(|n| {
                let sender = sender.clone();
                let one = spawn(move || sender.send(n).unwrap());
                until_parked(&one);
                one
            })
            .collect();
        assert!((0..100).all(|n| receiver.recv() == Ok(n)));
        all.into_iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn an_item_that_is_handed_over_cannot_be_snatched() {
    run(|| {
        let (sender, receiver) = bounded(1);
        let waiting = spawn({
            let receiver = receiver.clone();
            move || receiver.recv().unwrap()
        });
        until_parked(&waiting);
        sender.send(7).unwrap();
        // The receiver has not run yet, but already owns the item.
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(waiting.join().unwrap(), 7);
    });
}

#[test]
fn many_at_both_ends_lose_and_double_nothing() {
    for capacity in [Some(0), Some(1), Some(5), None] {
        watch(move || {
            const EACH: usize = 5000;
            let (sender, receiver) = capacity.map_or_else(unbounded, bounded);
            let seen: Arc<Vec<AtomicUsize>> =
                Arc::new((0..4 * EACH).map(|_| AtomicUsize::new(0)).collect());
            let send = |from: usize, sender: Sender<usize>| {
                move || (0..EACH).for_each(|n| sender.send(from * EACH + n).unwrap())
            };
            let receive = |receiver: Receiver<usize>, seen: Arc<Vec<AtomicUsize>>| {
                move || {
                    let mut last = [0; 4];
                    for item in receiver {
                        seen[item].fetch_add(1, Ordering::Relaxed);
                        // Each receiver gets the items of one sender in order.
                        assert!(item + 1 > last[item / EACH]);
                        last[item / EACH] = item + 1;
                    }
                }
            };
            let threads = [
                system::spawn(send(0, sender.clone())),
                system::spawn(receive(receiver.clone(), seen.clone())),
                system::spawn({
                    let (two, three) = (send(1, sender.clone()), send(2, sender.clone()));
                    let receive = receive(receiver.clone(), seen.clone());
                    || {
                        plainsong::run_all(|| {
                            spawn(two);
                            spawn(three);
                            spawn(receive);
                        });
                    }
                }),
            ];
            plainsong::run_all(|| {
                spawn(send(3, sender));
                spawn(receive(receiver, seen.clone()));
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(seen.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        });
    }
}

#[test]
fn an_always_ready_channel_does_not_starve_the_others() {
    run(|| {
        let (sender, receiver) = unbounded();
        let stop = Rc::new(Cell::new(false));
        let other = spawn({
            let stop = stop.clone();
            move || stop.set(true)
        });
        while !stop.get() {
            sender.send(()).unwrap();
            receiver.recv().unwrap();
        }
        other.join().unwrap();
    });
}

#[test]
fn items_left_are_dropped_when_the_last_receiver_goes() {
    run(|| {
        let dropped = Rc::new(Cell::new(0));
        let item = || {
            let dropped = dropped.clone();
            OnDrop(move || dropped.set(dropped.get() + 1))
        };
        let (sender, receiver) = unbounded();
        (0..3).for_each(|_| assert!(sender.send(item()).is_ok()));
        let second = receiver.clone();
        drop(receiver);
        assert_eq!(dropped.get(), 0);
        drop(second);
        assert_eq!(dropped.get(), 3);
        assert!(sender.send(item()).is_err());
        assert_eq!(dropped.get(), 4);
    });
}

#[test]
fn the_drop_of_an_item_may_use_its_channel() {
    struct Echo(Option<Sender<Echo>>, Receiver<Echo>);
    impl Drop for Echo {
        fn drop(&mut self) {
            assert_eq!(self.1.len(), 0);
            if let Some(sender) = self.0.take() {
                let again = Echo(None, self.1.clone());
                // The only receivers left are inside the items.
                let _ = sender.try_send(again);
            }
        }
    }
    both(|| {
        let (sender, receiver) = unbounded();
        let (_keep, other) = unbounded();
        for _ in 0..2 {
            let item = Echo(Some(sender.clone()), other.clone());
            assert!(sender.send(item).is_ok());
        }
        drop(receiver);
        drop(sender);
    });
}

#[test]
fn a_cancelled_send_has_not_delivered() {
    run(|| {
        for (sender, receiver) in kinds().into_iter().take(3) {
            let full = receiver.capacity().unwrap();
            (0..full).for_each(|_| sender.send(0).unwrap());
            let dropped = Rc::new(Cell::new(false));
            let waiting = spawn({
                let (sender, dropped) = (sender.clone(), dropped.clone());
                move || {
                    let _on = OnDrop(move || dropped.set(true));
                    sender.send(1)
                }
            });
            until_parked(&waiting);
            waiting.cancel();
            assert!(waiting.join().unwrap_err().is_cancelled());
            assert!(dropped.get());
            drop(sender);
            assert!(receiver.iter().all(|item| item == 0));
        }
    });
}

#[test]
fn a_cancelled_receive_has_not_taken() {
    run(|| {
        for (sender, receiver) in kinds() {
            let waiting = spawn({
                let receiver = receiver.clone();
                move || receiver.recv()
            });
            until_parked(&waiting);
            waiting.cancel();
            assert!(waiting.join().unwrap_err().is_cancelled());
            let peer = spawn(move || sender.send(1));
            assert_eq!(receiver.recv(), Ok(1));
            peer.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_waiter_that_was_served_returns_though_cancelled_before_its_turn() {
    run(|| {
        for (sender, receiver) in kinds() {
            let waiting = spawn({
                let receiver = receiver.clone();
                move || receiver.recv()
            });
            until_parked(&waiting);
            sender.send(1).unwrap();
            waiting.cancel();
            assert_eq!(waiting.join().unwrap(), Ok(1));
        }
        let (sender, receiver) = bounded(0);
        let waiting = spawn(move || sender.send(1));
        until_parked(&waiting);
        assert_eq!(receiver.recv(), Ok(1));
        waiting.cancel();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_receiver_gets_nothing_that_is_sent_after_its_cancellation() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let waiting = spawn({
            let receiver = receiver.clone();
            move || receiver.recv()
        });
        until_parked(&waiting);
        waiting.cancel();
        // It has not run since.
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        assert!(waiting.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_time_out_and_an_item_at_once_lose_nothing() {
    watch(|| {
        let (sender, receiver) = bounded(0);
        let thread = system::spawn(move || {
            let mut sent = 0;
            for _ in 0..2000 {
                match sender.send_timeout(sent, Duration::from_micros(20)) {
                    Ok(()) => sent += 1,
                    Err(error) => assert!(error.is_timeout()),
                }
            }
            sent
        });
        let got = plainsong::run(|| {
            let mut got = 0;
            loop {
                match receiver.recv_timeout(Duration::from_micros(20)) {
                    Ok(item) => {
                        assert_eq!(item, got);
                        got += 1;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return got,
                }
            }
        });
        assert_eq!(thread.join().unwrap(), got);
    });
}

/// Random sends, receives, time-outs and cancellations on one thread.
fn random_program(seed: u64, capacity: Option<usize>) {
    run(move || {
        let random = seeded(seed);
        let (sender, receiver) = capacity.map_or_else(unbounded, bounded);
        let sent = Rc::new(RefCell::new(VecDeque::new()));
        let got = Rc::new(RefCell::new(Vec::new()));
        let mut running = VecDeque::new();
        for item in 0..400_u64 {
            let (sender, receiver) = (sender.clone(), receiver.clone());
            let (sent, got) = (sent.clone(), got.clone());
            let limit = [None, Some(Duration::ZERO), Some(HOUR)][below(&random, 3)];
            let handle = if below(&random, 2) == 0 {
                spawn(move || {
                    let done = match limit {
                        None => sender.send(item).is_ok(),
                        Some(limit) => sender.send_timeout(item, limit).is_ok(),
                    };
                    if done {
                        sent.borrow_mut().push_back(item);
                    }
                })
            } else {
                spawn(move || {
                    let item = match limit {
                        None => receiver.recv().ok(),
                        Some(limit) => timeout(limit, || receiver.recv().ok()).ok().flatten(),
                    };
                    got.borrow_mut().extend(item);
                })
            };
            running.push_back(handle);
            if below(&random, 3) == 0 {
                yield_now();
            }
            if below(&random, 4) == 0 {
                let which = below(&random, running.len());
                running[which].cancel();
            }
        }
        running.iter().for_each(|handle| handle.cancel());
        running.into_iter().for_each(|handle| drop(handle.join()));
        got.borrow_mut().extend(receiver.try_iter());
        // Each item that was sent was received once.
        let mut sent: Vec<_> = sent.borrow().iter().copied().collect();
        let mut got = got.take();
        sent.sort_unstable();
        got.sort_unstable();
        assert_eq!(sent, got, "seed {seed}, capacity {capacity:?}");
    });
}

#[test]
fn random_programs_lose_and_double_nothing() {
    for seed in 0..40 {
        for capacity in [Some(0), Some(1), Some(3), None] {
            random_program(seed, capacity);
        }
    }
}

#[test]
fn ten_thousand_wait_at_one_channel() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let all: Vec<_> = (0..10_000)
            .map(|_| {
                let receiver = receiver.clone();
                spawn(move || receiver.recv().unwrap())
            })
            .collect();
        all.iter().for_each(until_parked);
        // Those in the middle give up, one after the other.
        all[2500..7500].iter().for_each(JoinHandle::cancel);
        (0..5000).for_each(|n| sender.send(n).unwrap());
        let got: Vec<_> = all.into_iter().filter_map(|one| one.join().ok()).collect();
        assert!(got.into_iter().eq(0..5000));
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn memory_stays_flat() {
    crate::util::alone(memory_stays_flat, || {
        plainsong::run(|| {
            let (sender, receiver) = unbounded::<[u64; 4]>();
            let round = || {
                (0..200_000).for_each(|n| sender.send([n; 4]).unwrap());
                assert_eq!(receiver.try_iter().count(), 200_000);
                for _ in 0..1000 {
                    assert!(receiver.recv_timeout(Duration::ZERO).is_err());
                }
            };
            round();
            let before = crate::util::resident();
            (0..10).for_each(|_| round());
            let more = crate::util::resident().saturating_sub(before);
            assert!(more < 8192, "{more} KiB more");
        });
    });
}

#[test]
fn clocks_send_when_it_is_time() {
    both(|| {
        let distant = after(HOUR);
        assert_eq!((distant.len(), distant.capacity(), distant.is_full()), (0, Some(1), false));
        assert_eq!(distant.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(distant.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        let start = Instant::now();
        let once = after(Duration::from_millis(5));
        let due = once.recv().unwrap();
        assert!(due >= start + Duration::from_millis(5) && due <= Instant::now());
        assert_eq!(once.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout));
        assert_eq!(at(start).recv(), Ok(start));
        assert_eq!(at(start).len(), 1);

        let ticks = tick(MOMENT);
        let other = ticks.clone();
        assert!(ticks.same_channel(&other) && !ticks.same_channel(&once));
        let times = [ticks.recv().unwrap(), other.recv().unwrap(), ticks.recv().unwrap()];
        assert!(times.is_sorted() && times[2] - times[0] >= 2 * MOMENT);
        // Ticks that are not received are skipped.
        sleep(10 * MOMENT);
        let before = Instant::now();
        assert!(ticks.try_recv().unwrap() < before);
        assert!(ticks.recv().unwrap() >= before + MOMENT);

        let silent = never::<String>();
        assert_eq!(silent.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout));
        assert_eq!((silent.len(), silent.capacity(), silent.is_full()), (0, Some(0), true));
    });
}

#[test]
fn a_panic_at_one_end_is_a_disconnection_at_the_other() {
    run(|| {
        let (sender, receiver) = bounded::<()>(0);
        let peer = spawn(move || {
            let _sender = sender;
            panic!("expected");
        });
        assert_eq!(receiver.recv(), Err(RecvError));
        assert!(peer.join().unwrap_err().is_panic());
    });
}

#[test]
fn ends_are_what_threads_can_share() {
    fn shared<T: Send + Sync>() {}
    shared::<Sender<Cell<u8>>>();
    shared::<Receiver<Cell<u8>>>();
    let (sender, receiver) = unbounded::<Box<dyn Any + Send>>();
    let caught = catch_unwind(AssertUnwindSafe(|| sender.send(Box::new(1))));
    assert!(caught.unwrap().is_ok() && receiver.recv().is_ok());
    assert!(sender.same_channel(&sender.clone()));
    assert_eq!(format!("{sender:?}"), "Sender { len: 0, .. }");
}

#[test]
fn errors_say_what_happened() {
    assert_eq!(SendError(1).to_string(), "sending on a channel without receivers");
    assert_eq!(TrySendError::Full(1).to_string(), "sending on a full channel");
    assert_eq!(format!("{:?}", TrySendError::Full(1)), "Full(..)");
    assert_eq!(SendError(7).into_inner(), 7);
    assert!(TryRecvError::from(RecvError).is_disconnected());
}

#[test]
fn the_item_of_a_cancelled_send_is_dropped_by_the_unwind() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let dropped = Rc::new(Cell::new(false));
        let seen = dropped.clone();
        let sending = spawn(move || {
            let item = OnDrop(move || {
                // Destructors may wait while a coroutine unwinds.
                sleep(MOMENT);
                dropped.set(true);
            });
            let _ = sender.send(item);
        });
        until_parked(&sending);
        sending.cancel();
        assert!(sending.join().unwrap_err().is_cancelled());
        assert!(seen.get());
        drop(receiver);
    });
}

#[test]
fn ticks_that_are_received_in_time_are_a_period_apart() {
    run(|| {
        let period = 5 * MOMENT;
        let times: Vec<_> = tick(period).iter().take(20).collect();
        assert!(times.windows(2).all(|two| two[1] - two[0] >= period));
        // On a busy machine some ticks are late.
        assert!(times.windows(2).any(|two| two[1] - two[0] == period));
    });
}
