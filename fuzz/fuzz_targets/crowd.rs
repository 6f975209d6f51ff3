//! Coroutines of two workers and a plain thread at shared channels and locks: every item that was
//! sent is received or left, exclusive sections exclude, and nothing is held at the end.

#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plainsong::sync::channel::{Receiver, Sender, bounded};
use plainsong::sync::{Mutex, Semaphore};
use plainsong::time::timeout;
use plainsong::{Runtime, select, spawn, spawn_anywhere, yield_now};

#[derive(Arbitrary, Debug)]
struct Program {
    capacity: u8,
    thread: Vec<Step>,
    coroutines: [Vec<Step>; 3],
    // The coroutine that is cancelled on the way.
    cancelled: Option<u8>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Send,
    SendLimited,
    Receive,
    ReceiveLimited,
    Choose,
    Lock,
    Permits(u8),
    Yield,
}

struct Shared {
    sender: Sender<i64>,
    receiver: Receiver<i64>,
    // Sent less received.
    balance: AtomicI64,
    mutex: Mutex<()>,
    semaphore: Semaphore,
    inside: AtomicUsize,
    taken: AtomicUsize,
}

const SOON: Duration = Duration::from_micros(30);
const PERMITS: u8 = 3;

fn play(shared: &Shared, steps: &[Step], is_coroutine: bool) {
    let Shared { sender, receiver, balance, .. } = shared;
    let sent = |ok: bool| _ = balance.fetch_add(i64::from(ok), SeqCst);
    let got = |ok: bool| _ = balance.fetch_sub(i64::from(ok), SeqCst);
    for step in steps.iter().take(16) {
        match *step {
            Step::Send => sent(sender.try_send(1).is_ok()),
            Step::SendLimited if is_coroutine => {
                _ = timeout(SOON, || sent(sender.send(1).is_ok()));
            }
            Step::SendLimited => sent(sender.send_timeout(1, SOON).is_ok()),
            Step::Receive => got(receiver.try_recv().is_ok()),
            Step::ReceiveLimited if is_coroutine => {
                _ = timeout(SOON, || got(receiver.recv().is_ok()));
            }
            Step::ReceiveLimited => got(receiver.recv_timeout(SOON).is_ok()),
            Step::Choose => select! {
                send(sender, 1) -> result => sent(result.is_ok()),
                recv(receiver) -> item => got(item.is_ok()),
                default(SOON) => {}
            },
            Step::Lock => {
                let guard = shared.mutex.lock();
                assert_eq!(shared.inside.fetch_add(1, SeqCst), 0);
                if is_coroutine {
                    // Nobody is cancelled here, so that the counter stays right.
                    plainsong::shield(yield_now);
                }
                shared.inside.fetch_sub(1, SeqCst);
                drop(guard);
            }
            Step::Permits(count) => {
                let count = count % (PERMITS + 1);
                let permit = shared.semaphore.acquire_many(count.into());
                let taken = shared.taken.fetch_add(count.into(), SeqCst) + usize::from(count);
                assert!(taken <= PERMITS.into());
                if is_coroutine {
                    plainsong::shield(yield_now);
                }
                shared.taken.fetch_sub(count.into(), SeqCst);
                drop(permit);
            }
            Step::Yield if is_coroutine => yield_now(),
            Step::Yield => std::thread::yield_now(),
        }
    }
}

fuzz_target!(|program: Program| {
    let (sender, receiver) = bounded((program.capacity % 4).into());
    let shared = Arc::new(Shared {
        sender,
        receiver,
        balance: AtomicI64::new(0),
        mutex: Mutex::new(()),
        semaphore: Semaphore::new(PERMITS.into()),
        inside: AtomicUsize::new(0),
        taken: AtomicUsize::new(0),
    });
    let theirs = Arc::clone(&shared);
    let thread = std::thread::spawn(move || play(&theirs, &program.thread, false));
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        let handles: Vec<_> = program
            .coroutines
            .into_iter()
            .enumerate()
            .map(|(at, steps)| {
                let theirs = Arc::clone(&shared);
                let body = move || play(&theirs, &steps, true);
                if at == 0 { spawn(body) } else { spawn_anywhere(body) }
            })
            .collect();
        if let Some(at) = program.cancelled {
            handles[usize::from(at) % 3].cancel();
        }
        for handle in handles {
            assert!(handle.join().is_ok_and(|()| true) || program.cancelled.is_some());
        }
    });
    thread.join().unwrap();
    let left = std::iter::from_fn(|| shared.receiver.try_recv().ok()).sum::<i64>();
    assert_eq!(shared.balance.load(SeqCst), left, "sent less received, and what is left");
    assert!(shared.mutex.try_lock().is_ok());
    assert_eq!(shared.semaphore.available_permits(), PERMITS.into());
});
