//! Locks, channels and selects of plain threads.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use super::{check, threads};
use crate::select_biased;
use crate::sync::channel::{Receiver, bounded};
use crate::sync::select::Select;
use crate::sync::{
    Barrier, Condvar, Event, Mutex, OnceLock, ReentrantMutex, RwLock, RwLockWriteGuard, Semaphore,
};

/// The inside of a lock, which notices other threads in it.
#[derive(Default)]
struct Inside(AtomicUsize);

impl Inside {
    fn alone(&self) {
        assert_eq!(self.0.fetch_add(1, Ordering::SeqCst), 0);
        thread::yield_now();
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn at_most(&self, most: usize, count: usize) {
        assert!(self.0.fetch_add(count, Ordering::SeqCst) + count <= most);
        thread::yield_now();
        self.0.fetch_sub(count, Ordering::SeqCst);
    }
}

#[test]
fn a_mutex_excludes_and_loses_nobody() {
    check(|| {
        let all = threads((Mutex::new(0), Inside::default()), 3, |(mutex, inside), _| {
            for _ in 0..2 {
                let mut count = mutex.lock().unwrap();
                *count += 1;
                inside.alone();
            }
        });
        assert_eq!(*all.0.try_lock().unwrap(), 6);
    });
}

#[test]
fn a_reentrant_mutex_excludes_and_loses_nobody() {
    check(|| {
        let all = threads((ReentrantMutex::new(()), Inside::default()), 3, |(mutex, inside), _| {
            let (one, two) = (mutex.lock(), mutex.lock());
            inside.alone();
            drop((one, two));
        });
        assert!(all.0.try_lock().is_some());
    });
}

#[test]
fn a_rwlock_excludes_and_loses_nobody() {
    check(|| {
        let all =
            threads(
                (RwLock::new(0), Inside::default()),
                4,
                |(lock, inside), number| match number {
                    0 | 1 => {
                        let before = *lock.read().unwrap();
                        assert!(before <= 2);
                    }
                    2 => {
                        let mut count = lock.write().unwrap();
                        *count += 1;
                        inside.alone();
                    }
                    _ => {
                        let mut count = lock.write().unwrap();
                        *count += 1;
                        inside.alone();
                        let now = *count;
                        assert_eq!(*RwLockWriteGuard::downgrade(count), now);
                    }
                },
            );
        assert_eq!(*all.0.try_write().unwrap(), 2);
    });
}

#[test]
fn a_semaphore_gives_what_it_has_and_loses_no_permit() {
    check(|| {
        let all = threads((Semaphore::new(2), Inside::default()), 3, |(permits, inside), n| {
            let count = 1 + n % 2;
            for _ in 0..2 {
                let _permit = permits.acquire_many(count as u32).unwrap();
                inside.at_most(2, count);
            }
        });
        assert_eq!(all.0.available_permits(), 2);
    });
}

#[test]
fn a_notification_is_not_missed() {
    check(|| {
        threads((Mutex::new(0), Condvar::new()), 4, |(items, changed), number| {
            if number < 2 {
                *items.lock().unwrap() += 1;
                changed.notify_one();
            } else {
                *changed.wait_while(items.lock().unwrap(), |items| *items == 0).unwrap() -= 1;
            }
        });
    });
}

#[test]
fn an_event_lets_all_go() {
    check(|| {
        threads(Event::new(), 3, |event, number| {
            if number == 0 {
                event.set();
            } else {
                event.wait();
            }
        });
    });
}

#[test]
fn a_barrier_has_one_leader_each_time() {
    check(|| {
        let all = threads((Barrier::new(3), AtomicUsize::new(0)), 3, |(barrier, leaders), _| {
            for _ in 0..2 {
                leaders.fetch_add(usize::from(barrier.wait().is_leader()), Ordering::SeqCst);
            }
        });
        assert_eq!(all.1.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn one_of_many_initialises() {
    check(|| {
        let all = threads((OnceLock::new(), AtomicUsize::new(0)), 3, |(once, calls), number| {
            if number == 0 {
                assert_eq!(*once.wait(), 7);
            } else {
                once.get_or_init(|| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    7
                });
            }
        });
        assert_eq!(all.1.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_channel_delivers_each_item_once_and_in_order() {
    check(|| {
        for capacity in [0, 1, 3] {
            let (sender, receiver) = bounded(capacity);
            let senders = [0, 10].map(|first| {
                let sender = sender.clone();
                thread::spawn(move || {
                    (first..first + 2).for_each(|item| sender.send(item).unwrap());
                })
            });
            drop(sender);
            let other = receiver.clone();
            let other = thread::spawn(move || other.into_iter().collect::<Vec<i32>>());
            let here: Vec<i32> = receiver.into_iter().collect();
            let mut all = other.join().unwrap();
            assert!(is_in_order(&all) && is_in_order(&here));
            all.extend(here);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 10, 11]);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        }
    });
}

/// Whether the items of each sender are in the order in which it sent them.
fn is_in_order(items: &[i32]) -> bool {
    [0, 1].iter().all(|sender| items.iter().filter(|&item| item / 10 == *sender).is_sorted())
}

#[test]
fn senders_learn_that_the_receiver_has_gone_and_have_their_items_back() {
    check(|| {
        for capacity in [0, 1] {
            let (sender, receiver) = bounded(capacity);
            let item = Arc::new(());
            let senders = [(); 2].map(|()| {
                let (sender, item) = (sender.clone(), item.clone());
                thread::spawn(move || sender.send(item).is_ok())
            });
            drop(receiver.recv().unwrap());
            drop(receiver);
            let sent = senders.map(|sender| usize::from(sender.join().unwrap()));
            let sent: usize = sent.iter().sum();
            assert!((1..=1 + capacity).contains(&sent));
            assert_eq!(Arc::strong_count(&item), 1);
        }
    });
}

#[test]
fn of_selects_that_meet_one_sends_and_one_receives() {
    check(|| {
        // All use one channel, and none meets itself.
        let (sender, receiver) = bounded::<usize>(0);
        let all = threads((sender, receiver, AtomicUsize::new(0)), 4, |shared, number| {
            let (sender, receiver, sum) = shared;
            let item = 1 << number;
            let (sent, received) = match number {
                0 | 1 => select_biased! {
                    send(sender, item) -> sent => (sent.map(|()| item).unwrap(), 0),
                    recv(receiver) -> item => (0, item.unwrap()),
                },
                _ => select_biased! {
                    recv(receiver) -> item => (0, item.unwrap()),
                    send(sender, item) -> sent => (sent.map(|()| item).unwrap(), 0),
                },
            };
            sum.fetch_add(sent.wrapping_sub(received), Ordering::SeqCst);
        });
        assert_eq!(all.2.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_select_meets_waiters_for_one_thing() {
    check(|| {
        let ((one, first), (two, second)) = (bounded(0), bounded(0));
        let all = threads((one, first, two, second), 3, |(one, first, two, second), number| {
            match number {
                // Each select makes one of the two exchanges.
                0 => (0..2).for_each(|_| {
                    select_biased! {
                        send(one, 1) -> sent => sent.unwrap(),
                        recv(second) -> item => assert_eq!(item, Ok(2)),
                    }
                }),
                1 => assert_eq!(first.recv(), Ok(1)),
                _ => two.send(2).unwrap(),
            }
        });
        assert!(all.1.try_recv().is_err() && all.3.try_recv().is_err());
    });
}

#[test]
fn a_select_takes_an_item_or_sees_an_event_and_not_both() {
    check(|| {
        let (sender, receiver) = bounded(1);
        let shared = (sender, receiver, Event::new(), AtomicUsize::new(0));
        let all = threads(shared, 4, |(sender, receiver, event, taken), number| match number {
            0 => event.set(),
            1 => sender.send(()).unwrap(),
            _ => select_biased! {
                recv(receiver) -> item => {
                    item.unwrap();
                    taken.fetch_add(1, Ordering::SeqCst);
                }
                wait(event) => {}
            },
        });
        assert_eq!(all.3.load(Ordering::SeqCst) + all.1.len(), 1);
    });
}

#[test]
fn a_select_over_channels_ends_when_all_their_senders_have_gone() {
    check(|| {
        let channels = [0, 1].map(bounded::<usize>);
        let (senders, receivers): (Vec<_>, Vec<Receiver<usize>>) = channels.into_iter().unzip();
        let senders: Vec<_> = senders
            .into_iter()
            .map(|sender| thread::spawn(move || (0..2).for_each(|n| sender.send(n).unwrap())))
            .collect();
        let mut select = Select::new_biased();
        for receiver in &receivers {
            select.recv(receiver);
        }
        let (mut next, mut open) = ([0; 2], 2);
        while open > 0 {
            let chosen = select.select();
            let index = chosen.index();
            match chosen.recv(&receivers[index]) {
                Ok(item) => {
                    assert_eq!(item, next[index]);
                    next[index] += 1;
                }
                Err(_) => {
                    select.remove(index);
                    open -= 1;
                }
            }
        }
        assert_eq!(next, [2, 2]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_select_that_does_not_wait_finds_what_is_there_at_every_moment() {
    check(|| {
        let channels = [(); 2].map(|()| bounded::<usize>(1));
        threads(channels, 2, |channels, own| {
            let (first, second) = (&channels[1 - own].1, &channels[own].1);
            channels[own].0.send(own).unwrap();
            // Two items are sent and two are taken, so there is an item until this thread has
            // taken one.
            select_biased! {
                recv(first) -> item => assert!(item.is_ok()),
                recv(second) -> item => assert!(item.is_ok()),
                default => unreachable!("an item was there at every moment"),
            }
        });
    });
}

#[test]
fn a_select_that_only_looks_sees_an_item_that_moves() {
    check(|| {
        let channels = [(); 2].map(|()| bounded(1));
        channels[1].0.send(()).unwrap();
        threads(channels, 2, |channels, number| match number {
            0 => {
                // It is in both channels for a moment.
                channels[0].0.send(()).unwrap();
                channels[1].1.recv().unwrap();
            }
            _ => {
                let mut either = Select::new_biased();
                either.recv(&channels[0].1);
                either.recv(&channels[1].1);
                assert!(either.try_ready().is_ok());
            }
        });
    });
}

#[test]
fn no_item_is_left_in_a_channel_whose_receivers_have_gone() {
    check(|| {
        let (sender, receiver) = bounded(1);
        let item = Arc::new(());
        let mut select = Select::new();
        select.send(&sender);
        // The choice holds the room until it is dropped.
        let chosen = select.select();
        let sends = thread::spawn({
            let (sender, item) = (sender.clone(), Arc::clone(&item));
            move || sender.send(item).is_ok()
        });
        let leaves = thread::spawn(move || drop(receiver));
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            let _chosen = chosen;
            resume_unwind(Box::new("scripted"));
        }));
        assert!(dropped.is_err());
        leaves.join().unwrap();
        sends.join().unwrap();
        assert_eq!(Arc::strong_count(&item), 1);
    });
}
