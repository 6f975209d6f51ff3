//! `RawMutex`: the lock without a value that others are made of.

use std::time::Instant;

use super::lock::Lock;
use super::wait::{WaitQueue, wait};
use crate::engine::mailbox::ThreadId;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::task::Wait;

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

// The rest of the word is the number of the holder's thread.
const _: () = assert!(1 << ThreadId::FREE_BITS > LOCKED | CONTENDED);

pub(super) const WAIT_HERE: Wait = Wait::for_run("a lock that a coroutine of the same run holds");
pub(super) const WAIT_ELSEWHERE: Wait = Wait::for_any_thread("a lock that is held elsewhere");

impl RawMutex {
    pub(super) const fn new() -> Self {
        let waiting = Waiting { queue: WaitQueue::new(), elsewhere: false };
        Self { state: AtomicUsize::new(FREE), waiting: Lock::new(waiting) }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        let locked = ThreadId::current().number() | LOCKED;
        self.state.compare_exchange(FREE, locked, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    pub(super) fn lock(&self) {
        park::spend();
        if !self.try_lock() {
            self.lock_slowly(None);
        }
    }

    /// Returns whether the lock was got before `deadline`.
    pub(super) fn lock_until(&self, deadline: Option<Instant>) -> bool {
        park::spend();
        self.try_lock() || self.lock_slowly(deadline)
    }

    #[cold]
    fn lock_slowly(&self, deadline: Option<Instant>) -> bool {
        let mut waiting = self.waiting.lock();
        // From here on who unlocks comes to the queue, whose lock we have.
        let before = self.state.fetch_or(CONTENDED, Ordering::Acquire);
        if before == FREE {
            // Who unlocks with somebody in the queue hands over, so it is empty.
            self.state.store(ThreadId::current().number() | LOCKED, Ordering::Relaxed);
            return true;
        }
        let holder = ThreadId::from_number(before & !(LOCKED | CONTENDED));
        let same = park::shares_run_with(holder);
        // Those behind do not count: they get the lock later.
        waiting.elsewhere = !same || waiting.elsewhere && !waiting.queue.is_empty();
        let why = if waiting.elsewhere { WAIT_ELSEWHERE } else { WAIT_HERE };
        wait(&self.waiting, waiting, |w| &mut w.queue, (), why, deadline).is_ok()
    }

    /// The caller must hold the lock.
    #[inline]
    pub(super) fn unlock(&self) {
        // The word is not read first: the exchange would wait for that. It has another number if the lock was
        // handed on to another thread, or got by one that had none then.
        let locked = ThreadId::current().number() | LOCKED;
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
        self.state.store(next.thread().number() | LOCKED | contended, Ordering::Relaxed);
        drop(waiting);
        park::wake(next);
    }
}
