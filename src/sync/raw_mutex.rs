//! `RawMutex`: the lock without a value that others are made of.

use std::time::Instant;

use super::lock::Lock;
use super::wait::{WaitQueue, wait};
use crate::engine::context;
use crate::engine::remote::Door;
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::task::{Given, Wait};

/// Mutual exclusion without a value. It is handed from one who unlocks to the first who waits.
#[derive(Debug)]
pub(super) struct RawMutex {
    // Whether it is locked, by which thread, and whether somebody may wait: in one word, so that a
    // deadlock is told from a wait for another thread by what is true.
    state: AtomicUsize,
    waiting: Lock<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    queue: WaitQueue<()>,
    // Who has the lock, or somebody in the queue, is not a coroutine of the first waiter's run.
    elsewhere: bool,
}

const FREE: usize = 0;
const LOCKED: usize = 1;
/// Somebody may wait: who unlocks must look.
const CONTENDED: usize = 2;

// The rest of the word is the holder's thread, which is the address of its door.
const _: () = assert!(align_of::<Door>() > LOCKED | CONTENDED);

impl RawMutex {
    pub(super) const fn new() -> Self {
        let waiting = Waiting { queue: WaitQueue::new(), elsewhere: false };
        Self { state: AtomicUsize::new(FREE), waiting: Lock::new(waiting) }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        let locked = context::here() | LOCKED;
        self.state.compare_exchange(FREE, locked, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    pub(super) fn lock(&self) {
        context::spend();
        if !self.try_lock() {
            self.lock_slowly(None);
        }
    }

    /// Returns whether the lock was got before `deadline`.
    pub(super) fn lock_until(&self, deadline: Option<Instant>) -> bool {
        context::spend();
        self.try_lock() || self.lock_slowly(deadline)
    }

    #[cold]
    fn lock_slowly(&self, deadline: Option<Instant>) -> bool {
        let mut waiting = self.waiting.lock();
        // From here on who unlocks comes to the queue, whose lock we have.
        let before = self.state.fetch_or(CONTENDED, Ordering::Acquire);
        if before == FREE {
            // Who unlocks with somebody in the queue hands over, so it is empty.
            self.state.store(context::here() | LOCKED, Ordering::Relaxed);
            return true;
        }
        let holder = before & !(LOCKED | CONTENDED);
        let same = context::shares_run_with(holder);
        // Those behind do not count: they get the lock later.
        waiting.elsewhere = !same || waiting.elsewhere && !waiting.queue.is_empty();
        let why = if waiting.elsewhere { Wait::Sync(Given::Lock) } else { Wait::Lock };
        wait(&self.waiting, waiting, |w| &mut w.queue, (), why, deadline).is_ok()
    }

    /// The caller must hold the lock.
    #[inline]
    pub(super) fn unlock(&self) {
        // The word is not read first: the exchange would wait for that. It has another number if the lock was
        // handed on to another thread, or got by one that had none then.
        let locked = context::here() | LOCKED;
        if self.state.compare_exchange(locked, FREE, Ordering::Release, Ordering::Relaxed).is_err()
        {
            self.unlock_slowly();
        }
    }

    #[cold]
    fn unlock_slowly(&self) {
        let mut waiting = self.waiting.lock();
        let Some(((), next)) = waiting.queue.serve(|()| ()) else {
            // They have all given up.
            self.state.store(FREE, Ordering::Release);
            return;
        };
        let contended = if waiting.queue.is_empty() { 0 } else { CONTENDED };
        self.state.store(next.thread_number() | LOCKED | contended, Ordering::Relaxed);
        drop(waiting);
        context::wake(next);
    }
}
