//! `select!` and `Select` do what crossbeam's do.

use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake};
use std::time::{Duration, Instant};
use std::{hint, thread as system};

use plainsong::sync::Event;
use plainsong::sync::channel::{
    RecvError, RecvTimeoutError, SendError, after, bounded, never, tick, unbounded,
};
use plainsong::sync::select::{Select, SelectTimeoutError, TryReadyError, TrySelectError};
use plainsong::time::sleep;
use plainsong::{block_on, select, select_biased, spawn, yield_now};

use crate::util::{HOUR, MOMENT, both, panic_of, run, until, until_parked, watch};

#[test]
fn what_is_ready_is_chosen() {
    both(|| {
        let (one, first) = unbounded();
        let (_two, second) = unbounded::<String>();
        one.send(7).unwrap();
        let item = select! {
            recv(first) -> item => item.unwrap(),
            recv(second) -> _ => panic!(),
        };
        assert_eq!(item, 7);
        select! {
            recv(first) -> _ => panic!(),
            default => {}
        }
        select! {
            recv(first) -> _ => panic!(),
            recv(&second) -> _ => panic!(),
            default(MOMENT) => {}
        }
    });
}

#[test]
fn ends_that_have_gone_are_ready() {
    both(|| {
        let (sender, receiver) = unbounded::<u8>();
        drop(sender);
        select! { recv(receiver) -> item => assert_eq!(item, Err(RecvError)) }
        let (sender, receiver) = bounded::<u8>(0);
        drop(receiver);
        select! { send(sender, 3) -> sent => assert_eq!(sent, Err(SendError(3))) }
    });
}

#[test]
fn a_waiter_is_woken_by_each_kind_of_operation() {
    run(|| {
        for which in 0..4 {
            let (items, item) = bounded::<u8>(0);
            let (rooms, room) = bounded::<u8>(0);
            let (gone, left) = unbounded::<()>();
            let (ends, end) = bounded::<()>(0);
            let waiting = spawn(move || {
                let worker = spawn(move || end.recv());
                select! {
                    recv(item) -> item => item.map(u32::from).unwrap(),
                    send(rooms, 9) -> sent => sent.map(|()| 1).unwrap(),
                    recv(left) -> gone => gone.map_or(2, |()| 99),
                    join(worker) -> result => result.unwrap().map_or(3, |()| 99),
                }
            });
            until_parked(&waiting);
            let expected = match which {
                0 => items.send(42).map(|()| 42).unwrap(),
                1 => room.recv().map(|item| u32::from(item == 9)).unwrap(),
                2 => {
                    drop(gone);
                    2
                }
                _ => {
                    drop(ends);
                    3
                }
            };
            assert_eq!(waiting.join().unwrap(), expected);
        }
    });
}

#[test]
fn two_that_select_meet_without_a_buffer() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let (_other, idle) = unbounded::<()>();
        for first in [true, false] {
            let send = {
                let (sender, idle) = (sender.clone(), idle.clone());
                move || {
                    select! {
                        send(sender, { yield_now(); 5 }) -> sent => sent.unwrap(),
                        recv(idle) -> _ => panic!(),
                    }
                }
            };
            let receive = {
                let (receiver, idle) = (receiver.clone(), idle.clone());
                move || {
                    select! {
                        recv(idle) -> _ => panic!(),
                        recv(receiver) -> item => assert_eq!(item, Ok(5)),
                    }
                }
            };
            if first {
                let one = spawn(send);
                until_parked(&one);
                receive();
                one.join().unwrap();
            } else {
                let one = spawn(receive);
                until_parked(&one);
                send();
                one.join().unwrap();
            }
        }
    });
}

#[test]
fn one_that_selects_meets_one_that_does_not() {
    both(|| {
        let (sender, receiver) = bounded(0);
        let peer = system::spawn(move || (0..100).map(|n| sender.send(n).unwrap()).count());
        for n in 0..100 {
            select! { recv(receiver) -> item => assert_eq!(item, Ok(n)) }
        }
        peer.join().unwrap();
        let (sender, receiver) = bounded(0);
        let peer = system::spawn(move || receiver.iter().count());
        for n in 0..100 {
            select! { send(sender, n) -> sent => sent.unwrap() }
        }
        drop(sender);
        assert_eq!(peer.join().unwrap(), 100);
    });
}

#[test]
fn a_try_meets_one_that_selects() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let peer = spawn(move || select! { send(sender, 4) -> sent => sent.unwrap() });
        until_parked(&peer);
        assert_eq!(receiver.try_recv(), Ok(4));
        peer.join().unwrap();
        let (sender, receiver) = bounded(0);
        let peer = spawn(move || select! { recv(receiver) -> item => item.unwrap() });
        until_parked(&peer);
        assert_eq!(sender.try_send(4), Ok(()));
        assert_eq!(peer.join().unwrap(), 4);
    });
}

#[test]
fn nobody_meets_itself() {
    both(|| {
        let (sender, receiver) = bounded(0);
        select! {
            send(sender, 1) -> _ => panic!(),
            recv(receiver) -> _ => panic!(),
            default(MOMENT) => {}
        }
    });
}

#[test]
fn both_ways_at_once_on_two_threads() {
    watch(|| {
        const EACH: u32 = 3000;
        let (one, two) = (bounded(0), bounded(0));
        let swap = |(sender, receiver): (_, _)| {
            move || {
                let (mut sent, mut got) = (0, 0);
                while sent < EACH || got < EACH {
                    let never_sender = bounded(0);
                    let sender = if sent < EACH { &sender } else { &never_sender.0 };
                    let silent = never();
                    let receiver = if got < EACH { &receiver } else { &silent };
                    select! {
                        send(sender, sent) -> done => { done.unwrap(); sent += 1 }
                        recv(receiver) -> item => { assert_eq!(item, Ok(got)); got += 1 }
                    }
                }
            }
        };
        let left = swap((one.0, two.1));
        let right = swap((two.0, one.1));
        let thread = system::spawn(left);
        plainsong::run(right);
        thread.join().unwrap();
    });
}

#[test]
fn many_that_select_lose_and_double_nothing() {
    watch(|| {
        const EACH: u64 = 2000;
        let channels: Vec<_> = [bounded(0), bounded(1), unbounded()].into();
        let total = || {
            let channels = channels.clone();
            move || {
                let mut select = Select::new();
                for (_, receiver) in &channels {
                    select.recv(receiver);
                }
                let mut sum = 0;
                for _ in 0..EACH {
                    let chosen = select.select();
                    let index = chosen.index();
                    sum += chosen.recv(&channels[index].1).unwrap();
                }
                sum
            }
        };
        let send = || {
            let channels = channels.clone();
            move || {
                for n in 0..EACH {
                    select! {
                        send(channels[0].0, n) -> sent => sent.unwrap(),
                        send(channels[1].0, n) -> sent => sent.unwrap(),
                        send(channels[2].0, n) -> sent => sent.unwrap(),
                    }
                }
            }
        };
        let threads = [system::spawn(total()), system::spawn(total())];
        let sender = system::spawn(send());
        plainsong::run_all({
            let send = send();
            || spawn(send).join().unwrap()
        });
        sender.join().unwrap();
        let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 2 * (0..EACH).sum::<u64>());
    });
}

#[test]
fn an_unbiased_choice_takes_each_and_a_biased_one_the_first() {
    both(|| {
        let (one, first) = unbounded();
        let (two, second) = unbounded();
        let mut counts = [0; 2];
        for _ in 0..1000 {
            one.send(()).unwrap();
            two.send(()).unwrap();
            select! {
                recv(first) -> _ => { counts[0] += 1; second.recv().unwrap() }
                recv(second) -> _ => { counts[1] += 1; first.recv().unwrap() }
            }
        }
        assert!(counts.iter().all(|&count| count > 300), "{counts:?}");
        for _ in 0..100 {
            one.send(()).unwrap();
            two.send(()).unwrap();
            select_biased! {
                recv(first) -> _ => second.recv().unwrap(),
                recv(second) -> _ => panic!(),
            }
        }
    });
}

#[test]
fn clocks_are_arms() {
    both(|| {
        let (_sender, receiver) = unbounded::<()>();
        let start = Instant::now();
        select! {
            recv(receiver) -> _ => panic!(),
            recv(after(MOMENT)) -> due => assert!(due.unwrap() >= start + MOMENT),
            recv(after(HOUR)) -> _ => panic!(),
        }
        let ticks = tick(MOMENT);
        for _ in 0..3 {
            select! {
                recv(ticks) -> time => { time.unwrap(); }
                recv(never::<u8>()) -> _ => panic!(),
            }
        }
    });
}

#[test]
fn joins_are_arms() {
    run(|| {
        let (sender, receiver) = unbounded::<()>();
        let mut worker = spawn(|| 5);
        select! {
            recv(receiver) -> _ => panic!(),
            join(&mut worker) -> () => {}
        }
        assert_eq!(worker.join().unwrap(), 5);
        let mut sleeper = spawn(|| sleep(HOUR));
        sender.send(()).unwrap();
        select! {
            join(&mut sleeper) -> _ => panic!(),
            recv(receiver) -> item => item.unwrap(),
        }
        // The wait for it has left nothing behind.
        sleeper.cancel();
        assert!(sleeper.join().unwrap_err().is_cancelled());
        // A coroutine of another thread.
        let (handles, handle) = std::sync::mpsc::channel();
        let (go, gone) = unbounded::<()>();
        let thread = system::spawn(move || {
            plainsong::run_all(|| handles.send(spawn(move || gone.recv().is_err())).unwrap());
        });
        let elsewhere = handle.recv().unwrap();
        spawn(move || drop(go));
        select! {
            join(elsewhere) -> result => assert!(result.unwrap()),
            default(HOUR) => panic!(),
        }
        thread.join().unwrap();
    });
}

#[test]
fn events_are_arms() {
    both(|| {
        let event = Arc::new(Event::new());
        let (_sender, receiver) = unbounded::<u8>();
        let wait = |timeout| {
            select! {
                recv(receiver) -> _ => panic!(),
                wait(event) => true,
                default(timeout) => false,
            }
        };
        assert!(!wait(MOMENT));
        let setter = system::spawn({
            let event = Arc::clone(&event);
            move || event.set()
        });
        assert!(wait(HOUR));
        setter.join().unwrap();
        // The event stays set.
        assert!(wait(Duration::ZERO) && event.is_set());
        event.clear();
        assert!(!wait(Duration::ZERO));
        let mut select = Select::new();
        let index = select.wait(&event);
        assert_eq!(select.try_ready(), Err(TryReadyError));
        event.set();
        assert_eq!(select.ready(), index);
        select.select().done();
    });
}

#[test]
fn a_waiter_that_an_event_has_released_stays_released() {
    run(|| {
        let event = Rc::new(Event::new());
        let (sender, receiver) = bounded(0);
        let wait = || {
            let (event, receiver) = (event.clone(), receiver.clone());
            let waiting = spawn(move || {
                select! {
                    recv(receiver) -> item => item.unwrap(),
                    wait(event) => 0,
                }
            });
            until_parked(&waiting);
            waiting
        };
        // The event is cleared and the waiter is cancelled before it runs: it still returns, and
        // the other arm was not chosen.
        let waiting = wait();
        event.set();
        event.clear();
        waiting.cancel();
        assert!(sender.try_send(1).is_err());
        assert_eq!(waiting.join().unwrap(), 0);
        // If the other arm was chosen, the event releases the next waiter.
        let waiting = wait();
        let behind = spawn({
            let event = event.clone();
            move || event.wait()
        });
        until_parked(&behind);
        sender.send(1).unwrap();
        event.set();
        behind.join().unwrap();
        assert_eq!(waiting.join().unwrap(), 1);
        event.clear();
        let waiting = wait();
        waiting.cancel();
        assert!(waiting.join().unwrap_err().is_cancelled());
        assert!(sender.try_send(2).is_err());
        event.set();
    });
}

#[test]
fn an_item_is_made_only_when_its_send_is_chosen_and_may_be_moved_in_each_arm() {
    both(|| {
        let (one, first) = bounded(1);
        let (two, _second) = bounded(0);
        let text = String::from("moved");
        select! {
            send(one, text) -> sent => sent.unwrap(),
            send(two, text) -> _ => panic!(),
        }
        assert_eq!(first.recv().unwrap(), "moved");
    });
}

#[test]
fn arms_may_leave_loops_and_functions() {
    fn first() -> Result<u8, RecvError> {
        let (sender, receiver) = unbounded();
        sender.send(1).unwrap();
        loop {
            select! {
                recv(receiver) -> item => {
                    if item? == 1 {
                        sender.send(2).unwrap();
                        continue;
                    }
                    break;
                }
            }
        }
        if receiver.is_empty() {
            select! {
                recv(receiver) -> _ => panic!(),
                default => return Ok(7),
            }
        }
        Err(RecvError)
    }
    assert_eq!(first(), Ok(7));
}

#[test]
fn an_item_that_cannot_be_made_releases_its_room() {
    run(|| {
        for capacity in [0, 1] {
            let (sender, receiver) = bounded::<u8>(capacity);
            let peer = spawn({
                let receiver = receiver.clone();
                move || receiver.recv().unwrap()
            });
            until_parked(&peer);
            let no_item = || -> u8 { panic!("no item") };
            let message = panic_of(|| {
                select! {
                    send(sender, no_item()) -> _ => {}
                }
            });
            assert_eq!(message, "no item");
            sender.send(3).unwrap();
            assert_eq!(peer.join().unwrap(), 3);
        }
    });
}

#[test]
fn a_receiver_that_is_cancelled_between_choice_and_item_is_not_waited_for() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let peer = spawn({
            let receiver = receiver.clone();
            move || receiver.recv()
        });
        until_parked(&peer);
        let send = spawn(move || {
            select! {
                send(sender, { peer.cancel(); drop(peer.join()); 8 }) -> sent => sent.unwrap(),
            }
        });
        until_parked(&send);
        assert_eq!(receiver.recv(), Ok(8));
        send.join().unwrap();
    });
}

#[test]
fn a_cancelled_select_has_done_nothing() {
    run(|| {
        let (one, first) = bounded::<u8>(0);
        let (two, second) = bounded::<u8>(0);
        let waiting = spawn({
            let (first, two) = (first.clone(), two.clone());
            move || {
                select! {
                    recv(first) -> _ => panic!(),
                    send(two, 1) -> _ => panic!(),
                }
            }
        });
        until_parked(&waiting);
        waiting.cancel();
        assert!(waiting.join().unwrap_err().is_cancelled());
        assert!(one.try_send(1).is_err() && second.try_recv().is_err());
        // Served before it is cancelled: it returns, and the item is not lost.
        let waiting = spawn({
            let first = first.clone();
            move || select! { recv(first) -> item => item.unwrap() }
        });
        until_parked(&waiting);
        one.send(6).unwrap();
        waiting.cancel();
        assert_eq!(waiting.join().unwrap(), 6);
    });
}

#[test]
fn the_builder_waits_tries_and_times_out() {
    both(|| {
        let (sender, receiver) = bounded::<u8>(1);
        let mut select = Select::default();
        assert_eq!(select.try_select().map(drop), Err(TrySelectError));
        let recv = select.recv(&receiver);
        assert_eq!(select.try_select().map(drop), Err(TrySelectError));
        assert_eq!(select.try_ready(), Err(TryReadyError));
        assert_eq!(select.select_timeout(MOMENT).map(drop), Err(SelectTimeoutError));
        assert_eq!(select.select_deadline(Instant::now()).map(drop), Err(SelectTimeoutError));
        assert!(select.ready_timeout(MOMENT).is_err());
        let send = select.send(&sender);
        assert_eq!(select.ready(), send);
        let chosen = select.select();
        assert_eq!(chosen.index(), send);
        chosen.send(&sender, 3).unwrap();
        assert_eq!(select.ready_timeout(HOUR), Ok(recv));
        assert_eq!(select.select().recv(&receiver), Ok(3));
        select.remove(send);
        assert_eq!(select.try_ready(), Err(TryReadyError));
        assert!(panic_of(|| select.remove(send)).contains("there is no operation 1"));
        assert!(panic_of(|| Select::new().select().index()).contains("no operations"));
    });
}

#[test]
fn waiting_for_readiness_takes_nothing() {
    run(|| {
        for capacity in [0, 1] {
            let (sender, receiver) = bounded(capacity);
            let look = spawn({
                let receiver = receiver.clone();
                move || {
                    let mut select = Select::new();
                    select.recv(&receiver);
                    select.ready()
                }
            });
            until_parked(&look);
            let send = spawn(move || sender.send(1).unwrap());
            assert_eq!(look.join().unwrap(), 0);
            assert_eq!(receiver.recv(), Ok(1));
            send.join().unwrap();
        }
        let (sender, receiver) = bounded(0);
        let look = spawn(move || {
            let mut select = Select::new();
            select.send(&sender);
            select.ready();
            sender.try_send(2)
        });
        until_parked(&look);
        assert_eq!(receiver.recv(), Ok(2));
        assert_eq!(look.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_choice_must_be_completed() {
    let (sender, receiver) = bounded(1);
    sender.send(1).unwrap();
    let message = panic_of(|| {
        let mut select = Select::new();
        select.recv(&receiver);
        drop(select.select());
    });
    assert!(message.contains("not completed"), "{message}");
    // The item is still in the channel.
    let other = receiver.clone();
    let message = panic_of(|| {
        let mut select = Select::new();
        select.recv(&receiver);
        select.select().recv(&other)
    });
    assert!(message.contains("not what was chosen"), "{message}");
    assert_eq!(receiver.try_recv(), Ok(1));
    // The room is given back.
    let message = panic_of(|| {
        let mut select = Select::new();
        select.send(&sender);
        drop(select.select());
    });
    assert!(message.contains("not completed"), "{message}");
    assert_eq!(sender.try_send(2), Ok(()));
}

#[test]
fn many_arms() {
    let (sender, receiver) = unbounded::<u8>();
    let other = never::<u8>();
    sender.send(1).unwrap();
    select! {
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(other) -> _ => panic!(),
        recv(receiver) -> item => assert_eq!(item, Ok(1)),
    }
}

#[test]
fn ten_thousand_select() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let (done, end) = bounded::<()>(0);
        let served = Rc::new(Cell::new(0));
        let all: Vec<_> = (0..10_000)
            .map(|_| {
                let (receiver, end, served) = (receiver.clone(), end.clone(), served.clone());
                spawn(move || {
                    select! {
                        recv(receiver) -> item => served.set(served.get() + item.unwrap()),
                        recv(end) -> _ => {}
                    }
                })
            })
            .collect();
        all.iter().for_each(until_parked);
        (0..3000).for_each(|_| sender.send(1).unwrap());
        drop(done);
        all.into_iter().for_each(|one| one.join().unwrap());
        assert_eq!(served.get(), 3000);
    });
}

#[test]
fn a_choice_that_is_dropped_gives_back_what_was_sent_to_it() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let theirs = receiver.clone();
        let other = spawn(move || {
            let mut select = Select::new();
            select.recv(&theirs);
            let chosen = select.select();
            panic_of(|| drop(chosen));
        });
        until_parked(&other);
        let mut select = Select::new();
        select.send(&sender);
        assert_eq!(select.select().send(&sender, 7), Ok(()));
        other.join().unwrap();
        assert_eq!(receiver.try_recv(), Ok(7));
    });
}

#[test]
fn a_time_out_beside_a_select_that_sends_loses_nothing() {
    const ITEMS: u64 = 20_000;
    watch(|| {
        let (sender, receiver) = bounded(0);
        let peer = system::spawn(move || {
            for n in 0..ITEMS {
                let mut select = Select::new();
                select.send(&sender);
                let chosen = select.select();
                (0..n % 400).for_each(|_| hint::spin_loop());
                assert_eq!(chosen.send(&sender, n), Ok(()));
            }
        });
        for n in 0..ITEMS {
            let received = loop {
                // So short that it often ends while the item is being handed over.
                match receiver.recv_timeout(Duration::from_nanos(n % 7000)) {
                    Err(error) if error.is_timeout() => {}
                    received => break received,
                }
            };
            assert_eq!(received, Ok(n));
        }
        peer.join().unwrap();
    });
}

#[test]
fn a_time_that_is_chosen_and_dropped_has_been_sent() {
    run(|| {
        let once = after(Duration::ZERO);
        let mut select = Select::new();
        select.recv(&once);
        let chosen = select.select();
        let theirs = once.clone();
        let other = spawn(move || theirs.recv_timeout(MOMENT));
        until_parked(&other);
        panic_of(|| drop(chosen));
        assert!(other.join().unwrap().is_err());
        assert!(once.try_recv().is_err());
    });
}

#[test]
fn a_send_whose_receiver_gives_up_does_not_wait_for_another() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let waiting = receiver.clone();
        let waits = plainsong::spawn(move || waiting.recv_timeout(MOMENT));
        until_parked(&waits);
        // The receiver's time is up before the item has been made.
        let make = || {
            until(|| waits.is_finished());
            7
        };
        select! {
            send(sender, make()) -> result => assert_eq!(result, Ok(())),
            default(MOMENT) => unreachable!("a receiver waits"),
        }
        assert_eq!(waits.join().unwrap(), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.try_recv(), Ok(7));
    });
}

#[test]
fn a_receive_whose_sender_makes_no_item_looks_for_another_operation() {
    run(|| {
        let (sender, receiver) = bounded::<u8>(0);
        // It is chosen, and gives up after the receiver has met it.
        let fails = || {
            let sender = sender.clone();
            let no_item = || -> u8 {
                plainsong::yield_now();
                panic!("no item")
            };
            let peer = spawn(move || {
                panic_of(|| select! { send(sender, no_item()) -> _ => {} });
            });
            until_parked(&peer);
            peer
        };
        let peer = fails();
        select! {
            recv(receiver) -> item => panic!("received {item:?}"),
            default => {}
        }
        peer.join().unwrap();
        let peer = fails();
        select! {
            recv(receiver) -> item => panic!("received {item:?}"),
            default(MOMENT) => {}
        }
        peer.join().unwrap();
        let (other, second) = unbounded();
        let peer = fails();
        let both = spawn(move || {
            select! {
                recv(receiver) -> item => panic!("received {item:?}"),
                recv(second) -> item => assert_eq!(item, Ok(2)),
            }
        });
        peer.join().unwrap();
        until_parked(&both);
        other.send(2).unwrap();
        both.join().unwrap();
    });
}

#[test]
fn a_limited_receive_does_not_wait_for_an_item_that_comes_later() {
    run(|| {
        let (sender, receiver) = bounded(0);
        let (finish, finished) = bounded::<()>(0);
        let peer = spawn(move || {
            let make = || {
                assert!(finished.recv().is_err());
                7
            };
            select! { send(sender, make()) -> sent => assert_eq!(sent, Ok(())) }
        });
        until_parked(&peer);
        select! {
            recv(receiver) -> item => panic!("received {item:?}"),
            default(MOMENT) => {}
        }
        drop(finish);
        peer.join().unwrap();
        assert_eq!(receiver.try_recv(), Ok(7));
    });
}

/// The outcome of an operation was kept for good when the waker of the other side panicked.
#[test]
fn a_send_that_meets_a_waker_that_panics_gives_its_receiver_back() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            resume_unwind(Box::new("scripted"));
        }
    }
    run(|| {
        let (sender, receiver) = bounded(0);
        let mut receives = (&receiver).into_future();
        let waker = Arc::new(Panics).into();
        assert!(pin!(&mut receives).poll(&mut Context::from_waker(&waker)).is_pending());
        let send = || select! { send(sender, 1) -> sent => sent.unwrap() };
        assert!(catch_unwind(AssertUnwindSafe(send)).is_err());
        let sends = spawn(move || sender.send(2));
        assert_eq!(block_on(receives), Ok(2));
        sends.join().unwrap().unwrap();
    });
}
