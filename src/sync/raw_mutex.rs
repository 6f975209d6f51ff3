//! `RawMutex`: the lock without a value that others are made of.
//!
//! The word has a lock bit, a contended bit and the holder's thread.
//!
//! ```text
//! FREE                          not locked, and no waiter that could be served is queued
//! thread | LOCKED               locked by a coroutine of this thread, or by the thread itself
//! thread | LOCKED | CONTENDED   as above, and there may be waiters: unlocking takes the slow path
//! ```
//!
//! Locking:
//!
//! 1. Exchange `FREE` for `thread | LOCKED`. Done, if that succeeds.
//! 2. Take the lock of the queue, then set `CONTENDED`. If the word was `FREE` before, the mutex
//!    has just been unlocked: store `thread | LOCKED`. Done.
//! 3. Queue, release the lock of the queue, and wait to be served.
//!
//! Unlocking:
//!
//! 1. Exchange `thread | LOCKED` for `FREE`. Done, if that succeeds.
//! 2. Take the lock of the queue. Serve the first waiter, and store its thread and `LOCKED` for it,
//!    with `CONTENDED` if others are left. If there is none, store `FREE`.
//!
//! Why no waiter is missed: from step 2 of locking on, the word is not what step 1 of unlocking
//! expects, so the holder takes the slow path, and there it waits for the lock of the queue until
//! the waiter is queued. Why no one gets in between: a mutex that is handed over is never `FREE`.
//! A waiter that gave up may leave `CONTENDED` behind: the next unlock clears it.

use std::time::Instant;

use super::lock::Lock;
use super::wait::{WaitQueue, wait};
use crate::engine::mailbox::ThreadId;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::task::Wait;

pub(super) const WAIT_HERE: Wait =
    Wait::new(&Wait::for_run("a lock that a coroutine of the same run holds"));
pub(super) const WAIT_ELSEWHERE: Wait =
    Wait::new(&Wait::for_any_thread("a lock that is held elsewhere"));

/// Mutual exclusion without a value. Unlocking hands it to the first waiter.
#[derive(Debug)]
pub(super) struct RawMutex {
    // Lock bit, contended bit and holder share one word, so that the deadlock detector sees a
    // consistent state.
    state: AtomicUsize,
    waiting: Lock<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    queue: WaitQueue<()>,
    // The holder, or a waiter in the queue, is not a coroutine of the first waiter's run.
    elsewhere: bool,
}

const FREE: usize = 0;
const LOCKED: usize = 1;
/// There may be waiters, so unlocking must look.
const CONTENDED: usize = 2;

// The rest of the word is the number of the holder's thread.
const _: () = assert!(1 << ThreadId::FREE_BITS > LOCKED | CONTENDED);

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

    /// Returns whether the lock was acquired before `deadline`.
    pub(super) fn lock_until(&self, deadline: Option<Instant>) -> bool {
        park::spend();
        self.try_lock() || self.lock_slowly(deadline)
    }

    #[cold]
    fn lock_slowly(&self, deadline: Option<Instant>) -> bool {
        let mut waiting = self.waiting.lock();
        // From here on an unlock comes to the queue, whose lock we have.
        let before = self.state.fetch_or(CONTENDED, Ordering::Acquire);
        if before == FREE {
            // An unlock hands over if there is a waiter, so there is none.
            self.state.store(ThreadId::current().number() | LOCKED, Ordering::Relaxed);
            return true;
        }
        let holder = ThreadId::from_number(before & !(LOCKED | CONTENDED));
        let same = park::shares_run_with(holder);
        // The waiters behind do not count: they get the lock later.
        waiting.elsewhere = !same || waiting.elsewhere && !waiting.queue.is_empty();
        let why = if waiting.elsewhere { WAIT_ELSEWHERE } else { WAIT_HERE };
        wait(&self.waiting, waiting, |w| &mut w.queue, (), why, deadline).is_ok()
    }

    /// The caller must hold the lock.
    #[inline]
    pub(super) fn unlock(&self) {
        // The word is not read first: the exchange would wait for that. It has another number if
        // the lock was handed on to another thread, or acquired by a thread that had no number
        // then.
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
            // All waiters have given up.
            self.state.store(FREE, Ordering::Release);
            return;
        };
        let contended = if waiting.queue.is_empty() { 0 } else { CONTENDED };
        self.state.store(next.thread().number() | LOCKED | contended, Ordering::Relaxed);
        drop(waiting);
        park::wake(next);
    }
}
