//! The bridge to `async`, with crates of that world.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::{future, thread as system};

use futures::executor::{LocalPool, ThreadPool};
use futures::future::{Either, FutureExt, join_all};
use futures::task::{LocalSpawnExt, SpawnExt};
use plainsong::sync::channel::{RecvError, TryRecvError, after, bounded, oneshot, unbounded};
use plainsong::sync::select::Select;
use plainsong::time::{sleep, timeout};
use plainsong::{block_on, select, spawn};

use crate::util::{HOUR, MOMENT, OnDrop, both, panic_of, run, until_parked, watch};

/// Pending this many times, and wakes itself each time.
fn pending_times(mut times: u32) -> impl Future<Output = &'static str> {
    future::poll_fn(move |cx| {
        if times == 0 {
            return Poll::Ready("done");
        }
        times -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn a_future_gives_its_output() {
    both(|| {
        assert_eq!(block_on(async { 6 * 7 }), 42);
        assert_eq!(block_on(pending_times(1000)), "done");
        assert_eq!(block_on(future::ready(block_on(pending_times(2)))), "done");
    });
}

#[test]
fn others_run_while_a_future_is_pending() {
    run(|| {
        let (sender, receiver) = futures::channel::oneshot::channel();
        let other = spawn(move || sender.send(7).unwrap());
        assert_eq!(block_on(receiver), Ok(7));
        other.join().unwrap();
        // Also beside a coroutine that is always ready.
        let stop = Rc::new(Cell::new(false));
        spawn({
            let stop = stop.clone();
            move || stop.set(true)
        });
        block_on(future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if stop.get() { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
}

#[test]
fn a_wake_of_another_thread_is_not_lost() {
    both(|| {
        for _ in 0..500 {
            let (sender, receiver) = futures::channel::oneshot::channel();
            let thread = system::spawn(move || sender.send(1).unwrap());
            assert_eq!(block_on(receiver), Ok(1));
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_cancelled_wait_drops_its_future() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let waiting = spawn({
            let dropped = dropped.clone();
            move || {
                let on = OnDrop(move || dropped.set(true));
                block_on(async {
                    let _on = on;
                    future::pending::<()>().await;
                });
            }
        });
        until_parked(&waiting);
        assert!(format!("{waiting:?}").contains("waits for a future"));
        waiting.cancel();
        assert!(waiting.join().unwrap_err().is_cancelled());
        assert!(dropped.get());
        assert!(timeout(MOMENT, || block_on(future::pending::<()>())).is_err());
    });
}

#[test]
fn a_panic_in_a_future_is_the_callers() {
    both(|| assert_eq!(panic_of(|| block_on(async { panic!("inside") })), "inside"));
}

#[test]
fn the_crates_of_async_work_in_coroutines() {
    run(|| {
        let (sender, receiver) = async_channel::bounded(1);
        let producer = spawn(move || {
            for n in 0..100 {
                block_on(sender.send(n)).unwrap();
            }
        });
        let mut sum = 0;
        while let Ok(n) = block_on(receiver.recv()) {
            sum += n;
        }
        assert_eq!(sum, 4950);
        producer.join().unwrap();

        let (one, two) = (spawn(|| 1), spawn(|| 2));
        let both = block_on(async { futures::join!(one.into_future(), two.into_future()) });
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (1, 2));

        let pool = ThreadPool::builder().pool_size(1).create().unwrap();
        let handle = pool.spawn_with_handle(async { 5 }).unwrap();
        assert_eq!(block_on(handle), 5);

        let mut quick = spawn(|| 3).into_future().fuse();
        let mut never = future::pending::<()>().fuse();
        let first = block_on(async {
            futures::select! {
                result = quick => result.unwrap(),
                () = never => unreachable!(),
            }
        });
        assert_eq!(first, 3);
    });
}

#[test]
fn async_code_waits_for_coroutines() {
    watch(|| {
        let pool = ThreadPool::builder().pool_size(2).create().unwrap();
        let (sender, receiver) = bounded(1);
        let total = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (receiver, total) = (receiver.clone(), total.clone());
                pool.spawn_with_handle(async move {
                    while let Ok(item) = (&receiver).await {
                        total.fetch_add(item, Ordering::Relaxed);
                    }
                })
                .unwrap()
            })
            .collect();
        drop(receiver);
        let (answer, question) = oneshot::channel();
        let asked = pool.spawn_with_handle(question).unwrap();
        plainsong::run(move || {
            for n in 0..1000 {
                sender.send(n).unwrap();
            }
            answer.send("all").unwrap();
        });
        futures::executor::block_on(join_all(tasks));
        assert_eq!(total.load(Ordering::Relaxed), 499_500);
        assert_eq!(futures::executor::block_on(asked), Ok("all"));
    });
}

#[test]
fn a_handle_is_awaited_on_another_thread() {
    watch(|| {
        let (handles, handle) = std::sync::mpsc::channel();
        let (go, gone) = unbounded::<()>();
        let thread = system::spawn(move || {
            plainsong::run_all(|| {
                let waiting = spawn(move || {
                    let _ = gone.recv();
                    9
                });
                handles.send(waiting).unwrap();
            });
        });
        let future = handle.recv().unwrap().into_future();
        let pool = ThreadPool::builder().pool_size(1).create().unwrap();
        let task = pool.spawn_with_handle(future).unwrap();
        drop(go);
        assert_eq!(futures::executor::block_on(task).unwrap(), 9);
        thread.join().unwrap();
    });
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<F: Future + Unpin>(future: &mut F, count: &Arc<Count>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(count.clone())))
}

#[test]
fn a_dropped_receive_has_taken_nothing() {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let (sender, receiver) = unbounded();
    let mut one = (&receiver).into_future();
    assert!(poll(&mut one, &count).is_pending());
    let mut two = (&receiver).into_future();
    assert!(poll(&mut two, &count).is_pending());
    sender.send(1).unwrap();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    // The item was handed to the first future, which is dropped: the second gets it.
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    drop(one);
    assert_eq!(count.0.load(Ordering::Relaxed), 2);
    assert_eq!(poll(&mut two, &count), Poll::Ready(Ok(1)));
    // A future that does not wait any more is skipped.
    let mut three = (&receiver).into_future();
    assert!(poll(&mut three, &count).is_pending());
    drop(three);
    sender.send(2).unwrap();
    assert_eq!(receiver.try_recv(), Ok(2));
    drop(sender);
    assert_eq!(poll(&mut (&receiver).into_future(), &count), Poll::Ready(Err(RecvError)));
}

#[test]
fn a_forgotten_receive_is_no_danger() {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let (sender, receiver) = unbounded();
    let mut forgotten = (&receiver).into_future();
    assert!(poll(&mut forgotten, &count).is_pending());
    std::mem::forget(forgotten);
    let mut next = (&receiver).into_future();
    assert!(poll(&mut next, &count).is_pending());
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    assert_eq!(poll(&mut next, &count), Poll::Ready(Ok(2)));
}

#[test]
fn the_last_waker_is_the_one_that_is_called() {
    let (first, second) = (Count(AtomicUsize::new(0)).into(), Count(AtomicUsize::new(0)).into());
    let (sender, mut receiver) = oneshot::channel();
    assert!(poll(&mut receiver, &first).is_pending());
    assert!(poll(&mut receiver, &second).is_pending());
    sender.send(4).unwrap();
    assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
    // An item that a poll has waited for can be received without a poll.
    assert_eq!(receiver.try_recv(), Ok(4));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn a_sender_that_selects_meets_async_code() {
    watch(|| {
        let (sender, receiver) = bounded(0);
        let thread = system::spawn(move || {
            plainsong::run(|| select! { send(sender, 8) -> sent => sent.unwrap() });
        });
        let mut pool = LocalPool::new();
        pool.spawner()
            .spawn_local(async move {
                let clock = after(HOUR);
                let item =
                    futures::future::select((&receiver).into_future(), (&clock).into_future());
                match item.await {
                    Either::Left((item, _)) => assert_eq!(item, Ok(8)),
                    Either::Right(_) => panic!("not after an hour"),
                }
                let clock = after(MOMENT);
                assert!((&clock).await.is_ok());
            })
            .unwrap();
        pool.run();
        thread.join().unwrap();
    });
}

#[test]
fn futures_may_be_sent_when_their_items_may() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let (sender, receiver) = unbounded::<u8>();
    sender.send(1).unwrap();
    let future = sent(async move { (&receiver).await });
    assert_eq!(block_on(future), Ok(1));
    let mut pinned = pin!(sent(oneshot::channel::<u8>().1));
    assert_eq!(block_on(pinned.as_mut()), Err(RecvError));
    run(|| {
        let sleeper = spawn(|| sleep(HOUR));
        drop(sent(sleeper.into_future()));
    });
}

#[test]
fn a_dropped_receive_gives_back_what_a_select_has_sent() {
    for polls in 1..3 {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (sender, receiver) = bounded(0);
        let mut future = (&receiver).into_future();
        assert!(poll(&mut future, &count).is_pending());
        let mut select = Select::new();
        select.send(&sender);
        let chosen = select.select();
        // The next poll finds that its item is being made.
        (1..polls).for_each(|_| assert!(poll(&mut future, &count).is_pending()));
        assert_eq!(chosen.send(&sender, 7), Ok(()));
        drop(future);
        assert_eq!(receiver.try_recv(), Ok(7));
    }
}

#[test]
fn closing_ends_the_wait_of_a_task() {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let (sender, mut receiver) = oneshot::channel();
    assert!(poll(&mut receiver, &count).is_pending());
    receiver.close();
    assert_eq!(poll(&mut receiver, &count), Poll::Ready(Err(RecvError)));
    assert_eq!(sender.send(1), Err(1));

    // An item from before the close is still there.
    let (sender, mut receiver) = oneshot::channel();
    assert!(poll(&mut receiver, &count).is_pending());
    assert_eq!(sender.send(2), Ok(()));
    receiver.close();
    assert_eq!(poll(&mut receiver, &count), Poll::Ready(Ok(2)));
}

#[test]
fn a_try_in_between_does_not_end_the_wait_of_a_task() {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let (sender, mut receiver) = oneshot::channel();
    assert!(poll(&mut receiver, &count).is_pending());
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(poll(&mut receiver, &count), Poll::Ready(Ok(1)));
}

#[test]
fn what_a_dropped_receive_gives_back_is_found_after_the_last_sender_has_gone() {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let (sender, receiver) = unbounded();
    let (mut one, mut two) = ((&receiver).into_future(), (&receiver).into_future());
    assert!(poll(&mut one, &count).is_pending() && poll(&mut two, &count).is_pending());
    sender.send(1).unwrap();
    drop(sender);
    drop(one);
    assert_eq!(poll(&mut two, &count), Poll::Ready(Ok(1)));
    assert_eq!(poll(&mut (&receiver).into_future(), &count), Poll::Ready(Err(RecvError)));

    // A coroutine that waits finds it as well.
    run(|| {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (sender, receiver) = unbounded();
        let mut one = (&receiver).into_future();
        assert!(poll(&mut one, &count).is_pending());
        let theirs = receiver.clone();
        let two = spawn(move || theirs.recv());
        let theirs = receiver.clone();
        let three = spawn(move || select! { recv(theirs) -> item => item });
        until_parked(&two);
        until_parked(&three);
        sender.send(1).unwrap();
        drop(sender);
        drop(one);
        assert_eq!((two.join().unwrap(), three.join().unwrap()), (Ok(1), Err(RecvError)));
    });
}
