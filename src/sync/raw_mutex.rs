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

use super::holder::Holder;
use super::lock::Lock;
use super::wait::{About, Unserved, WaitQueue, wait_unless_cancelled};
use crate::engine::mailbox::ThreadId;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::task::{Reason, Wait};

/// The reasons to wait for a mutex: that a coroutine of the same run holds it, or that it is held
/// elsewhere.
pub(super) type Whys = [Wait; 2];

pub(super) const HELD_HERE: Reason = Wait::for_run("a lock that a coroutine of the same run holds");
pub(super) const HELD_ELSEWHERE: Reason = Wait::for_any_thread("a lock that is held elsewhere");

const MUTEX: Whys =
    [Wait::new(&HELD_HERE.of("lock", "Mutex")), Wait::new(&HELD_ELSEWHERE.of("lock", "Mutex"))];

/// Mutual exclusion without a value. Unlocking hands it to the first waiter.
#[derive(Debug)]
pub(super) struct RawMutex {
    // Lock bit, contended bit and holder share one word, so that the deadlock detector sees a
    // consistent state.
    state: AtomicUsize,
    waiting: Lock<Waiting>,
    holder: Holder,
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
const _: () = assert!(ThreadId::FREE >= LOCKED | CONTENDED);

impl RawMutex {
    #[track_caller]
    pub(super) const fn new() -> Self {
        let waiting = Waiting { queue: WaitQueue::new(), elsewhere: false };
        Self { state: AtomicUsize::new(FREE), waiting: Lock::new(waiting), holder: Holder::new() }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        let locked = ThreadId::current().number() | LOCKED;
        let free =
            self.state.compare_exchange(FREE, locked, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if free {
            self.holder.set();
        }
        free
    }

    #[inline]
    #[track_caller]
    pub(super) fn lock(&self) {
        park::spend();
        if !self.try_lock() {
            self.lock_slowly(&MUTEX, None).unwrap_or_else(Unserved::into_slot);
        }
    }

    /// [`lock`](Self::lock), for a caller that owes something to others when its wait ends.
    #[track_caller]
    pub(super) fn lock_unless_cancelled(&self) -> Result<(), Unserved<()>> {
        if self.try_lock() { Ok(()) } else { self.lock_slowly(&MUTEX, None) }
    }

    /// Returns whether the lock was acquired before `deadline`.
    #[track_caller]
    pub(super) fn lock_until(&self, deadline: Option<Instant>) -> bool {
        self.lock_for(&MUTEX, deadline)
    }

    /// [`lock_until`](Self::lock_until), for other reasons.
    #[track_caller]
    pub(super) fn lock_for(&self, whys: &'static Whys, deadline: Option<Instant>) -> bool {
        park::spend();
        self.try_lock() || self.lock_slowly(whys, deadline).map_err(Unserved::into_slot).is_ok()
    }

    #[cold]
    #[track_caller]
    fn lock_slowly(
        &self,
        whys: &'static Whys,
        deadline: Option<Instant>,
    ) -> Result<(), Unserved<()>> {
        let mut waiting = self.waiting.lock();
        // From here on an unlock comes to the queue, whose lock we have.
        let before = self.state.fetch_or(CONTENDED, Ordering::Acquire);
        if before == FREE {
            // An unlock hands over if there is a waiter, so there is none.
            self.state.store(ThreadId::current().number() | LOCKED, Ordering::Relaxed);
            self.holder.set();
            return Ok(());
        }
        let holder = ThreadId::from_number(before & !ThreadId::FREE);
        let same = park::shares_run_with(holder);
        // The waiters behind do not count: they get the lock later.
        waiting.elsewhere = !same || waiting.elsewhere && !waiting.queue.is_empty();
        let why = whys[usize::from(waiting.elsewhere)];
        let about = |_: &Waiting| About::holder(self.holder.get());
        let lock = &self.waiting;
        wait_unless_cancelled(lock, waiting, |w| &mut w.queue, (), why, deadline, (), about)?;
        self.holder.set();
        Ok(())
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
        self.holder.clear();
        let contended = if waiting.queue.is_empty() { 0 } else { CONTENDED };
        self.state.store(next.thread().number() | LOCKED | contended, Ordering::Relaxed);
        drop(waiting);
        park::wake(next);
    }
}
