//! Corners of the sync layer: code of users in odd places, limits, and types.

use std::cmp::Ordering;
use std::fs;
use std::future::{Future, IntoFuture};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Memory};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use plainsong::io::duplex;
use plainsong::sync::channel::{RecvFuture, after, bounded, never, tick, unbounded};
use plainsong::sync::{Condvar, Mutex, Queue, ReentrantMutex, RwLock, RwLockReadGuard};
use plainsong::time::timeout;

use crate::util::{alone, both, panic_of, run, until};

const HOUR: Duration = Duration::from_secs(3600);

/// Counts its calls, and may panic at each.
struct Counting {
    calls: AtomicUsize,
    panics: bool,
}

impl Counting {
    fn new(panics: bool) -> Arc<Self> {
        Arc::new(Self { calls: AtomicUsize::new(0), panics })
    }

    fn calls(&self) -> usize {
        self.calls.load(Memory::SeqCst)
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.calls.fetch_add(1, Memory::SeqCst);
        assert!(!self.panics, "scripted");
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>, waker: &Arc<Counting>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

#[test]
fn a_waker_that_panics_when_the_last_sender_is_dropped_leaves_nobody_asleep() {
    both(|| {
        let (sender, receiver) = unbounded::<()>();
        let wakers = [true, false, true, false].map(Counting::new);
        let mut futures = [(); 4].map(|()| Box::pin((&receiver).into_future()));
        for (future, waker) in futures.iter_mut().zip(&wakers) {
            assert!(poll(future.as_mut(), waker).is_pending());
        }
        assert_eq!(panic_of(|| drop(sender)), "scripted");
        assert_eq!(wakers.map(|waker| waker.calls()), [1; 4]);
    });
}

/// An item whose order asks the queue that it is in.
struct Nosy(&'static Queue<Nosy>, fn(&Queue<Nosy>));

impl Ord for Nosy {
    fn cmp(&self, _: &Self) -> Ordering {
        self.1(self.0);
        Ordering::Equal
    }
}

impl PartialOrd for Nosy {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Nosy {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Nosy {}

#[test]
fn an_order_that_uses_its_own_queue_is_reported() {
    both(|| {
        let uses: [fn(&Queue<Nosy>); 4] = [
            |queue| _ = queue.len(),
            |queue| drop(queue.try_get()),
            |queue| queue.shutdown(true),
            |queue| drop(queue.try_put(Nosy(Box::leak(Box::default()), |_| ()))),
        ];
        for asks in uses {
            let queue: &'static Queue<Nosy> = Box::leak(Box::new(Queue::priority(None)));
            queue.put(Nosy(queue, asks)).ok().unwrap();
            let message = panic_of(|| queue.put(Nosy(queue, asks)).is_ok());
            assert!(message.contains("must not use the queue"), "{message}");
            // It goes on: both are in the queue.
            assert_eq!(queue.len(), 2);
            let taken = (0..2).filter(|_| {
                catch_unwind(AssertUnwindSafe(|| queue.try_get().is_ok())).is_ok_and(|taken| taken)
            });
            assert!(taken.count() > 0);
        }
    });
}

#[test]
fn any_capacity_that_is_asked_for_is_one() {
    both(|| {
        let queue = Queue::fifo(Some(usize::MAX));
        queue.put(1).unwrap();
        assert_eq!(
            (queue.capacity(), queue.is_full(), queue.get()),
            (Some(usize::MAX), false, Ok(1))
        );
        let (sender, receiver) = bounded(usize::MAX);
        sender.send(1).unwrap();
        assert_eq!((sender.capacity(), receiver.recv()), (Some(usize::MAX), Ok(1)));
        assert_eq!(unbounded::<()>().0.capacity(), None);
    });
}

#[test]
fn all_that_never_send_are_one_channel() {
    assert!(never::<()>().same_channel(&never()));
    let (one, two) = (after(HOUR), after(HOUR));
    assert!(one.same_channel(&one.clone()) && !one.same_channel(&two));
}

#[test]
fn a_read_guard_may_be_taken_for_one_of_a_shorter_life() {
    fn first<'a>(guard: RwLockReadGuard<'a, &'static str>, _other: &'a str) -> usize {
        let shorter: RwLockReadGuard<'a, &'a str> = guard;
        shorter.len()
    }
    let lock = RwLock::new("four");
    assert_eq!(first(lock.read().unwrap(), &String::from("x")), 4);
    assert_eq!(format!("{:?} {}", lock.read().unwrap(), lock.read().unwrap()), "\"four\" four");
    assert!(lock.try_write().is_ok());
}

#[test]
fn a_stream_in_memory_takes_all_slices() {
    both(|| {
        let (mut one, mut two) = duplex(7);
        let slices = [&b""[..], b"abc", b"", b"defgh"].map(IoSlice::new);
        assert_eq!(one.write_vectored(&slices).unwrap(), 7);
        let (mut first, mut second) = ([0; 2], [0; 9]);
        let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(two.read_vectored(&mut bufs).unwrap(), 7);
        assert_eq!((&first, &second[..5]), (b"ab", &b"cdefg"[..]));
        // Around the end of its buffer.
        assert_eq!(one.write(b"123456").unwrap(), 6);
        assert_eq!(two.read(&mut second).unwrap(), 6);
        assert_eq!(&second[..6], b"123456");
        assert_eq!(one.write_vectored(&[]).unwrap(), 0);
        assert_eq!(two.read_vectored(&mut []).unwrap(), 0);
    });
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn one_thread_wakes_all_futures_that_wait_for_the_clock() {
    alone(one_thread_wakes_all_futures_that_wait_for_the_clock, || {
        fn sent<T: Send>(value: T) -> T {
            value
        }
        let before = threads();
        let (late, soon) = (after(HOUR), after(Duration::from_millis(5)));
        let waker = Counting::new(false);
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin((&late).into_future())).collect();
        for future in &mut waiting {
            assert!(poll(future.as_mut(), &waker).is_pending());
            // A second poll registers nothing new.
            assert!(poll(future.as_mut(), &waker).is_pending());
        }
        let mut due: std::pin::Pin<&mut RecvFuture<'_, Instant>> =
            pin!(sent((&soon).into_future()));
        let other = Counting::new(false);
        while poll(due.as_mut(), &other).is_pending() {
            std::thread::yield_now();
        }
        assert_eq!(threads(), before + 1);
        assert_eq!(waker.calls(), 0);
        // Dropped ones are not woken, and a wake that panics does not end the thread.
        drop(waiting);
        let (bad, good) = (Counting::new(true), Counting::new(false));
        // Long enough for both to be polled before they are due.
        let ticks = [(); 2].map(|()| tick(Duration::from_millis(100)));
        let mut first = pin!((&ticks[0]).into_future());
        let mut second = pin!((&ticks[1]).into_future());
        assert!(poll(first.as_mut(), &bad).is_pending());
        assert!(poll(second.as_mut(), &good).is_pending());
        while bad.calls() == 0 || good.calls() == 0 {
            std::thread::yield_now();
        }
        plainsong::run(|| {
            let clock = after(Duration::from_millis(1));
            assert!(plainsong::block_on(&clock).is_ok());
        });
    });
}

#[test]
fn waits_that_need_not_wait_let_others_run_and_can_be_cancelled() {
    run(|| {
        let reentrant = ReentrantMutex::new(());
        let _outer = reentrant.lock();
        let (mutex, changed) = (Mutex::new(()), Condvar::new());
        let mut held = Some(mutex.lock().unwrap());
        let mut waits: [&mut dyn FnMut(); 2] = [&mut || drop(reentrant.lock()), &mut || {
            held = changed.wait_while(held.take().unwrap(), |()| false).ok();
        }];
        for wait in &mut waits {
            let ran = std::cell::Cell::new(false);
            plainsong::scope(|s| {
                s.spawn(|| ran.set(true));
                until_ran(&ran, wait);
            });
            let ended = timeout(Duration::ZERO, || (0..1_000_000).for_each(|_| wait()));
            assert!(ended.is_err());
            // The guard of the mutex went with the unwind.
        }
    });
}

fn until_ran(ran: &std::cell::Cell<bool>, wait: &mut dyn FnMut()) {
    for _ in 0..1_000_000 {
        if ran.get() {
            return;
        }
        wait();
    }
    until(|| panic!("the others have not run"));
}
