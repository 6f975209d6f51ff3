//! `RawRwLock`: the lock without a value that `RwLock` is made of.
//!
//! The word counts the readers and has two bits.
//!
//! ```text
//! WRITER   a writer holds the lock; the count is zero
//! QUEUED   there may be waiters: arrivals must queue, and the last holder to leave must look
//! READER   times the number of readers
//! ```
//!
//! Locking:
//!
//! 1. If neither `WRITER` nor `QUEUED` is set (and, to write, there is no reader), add `READER` or
//!    `WRITER` in one exchange. Done, if that succeeds.
//! 2. Take the lock of the queue, then set `QUEUED`: from here on nobody gets in without this
//!    queue.
//! 3. If no waiter is queued and the lock is free for this access after all, enter and clear
//!    `QUEUED`. Done. (Others can only leave meanwhile, which makes it no less free.)
//! 4. Queue, release the lock of the queue, and wait to be served. A waiter that gives up grants
//!    again: it may have been the only one in the way of those behind it.
//!
//! Unlocking subtracts what was added. If that leaves exactly `QUEUED`, the last holder has left,
//! and it grants: under the lock of the queue, it enters for the first waiters as long as the lock
//! is free for their access, and clears `QUEUED` when no waiter is left. A downgrade exchanges
//! `WRITER` for `READER`, and grants if `QUEUED` is set.
//!
//! Why no waiter is missed: `QUEUED` is set under the lock of the queue before it is found that the
//! lock is not free. So a holder was there then, and the last to leave sees `QUEUED` and grants; if
//! it comes between steps 2 and 4, it waits for the lock of the queue until the waiter is queued.

use std::time::Instant;

use super::holder::Holder;
use super::lock::Lock;
use super::raw_mutex::{HELD_ELSEWHERE, HELD_HERE};
use super::wait::{About, WaitQueue, wait_unless_cancelled};
use crate::engine::defer::Defer;
use crate::engine::mailbox::ThreadId;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::subject::Held;
use crate::engine::task::Wait;
use crate::engine::waiter::Waiters;

const READ_HERE: Wait = Wait::new(&HELD_HERE.of("read", "RwLock"));
const WRITE_HERE: Wait = Wait::new(&HELD_HERE.of("write", "RwLock"));
const READ_ELSEWHERE: Wait = Wait::new(&HELD_ELSEWHERE.of("read", "RwLock"));
const WRITE_ELSEWHERE: Wait = Wait::new(&HELD_ELSEWHERE.of("write", "RwLock"));

/// The two ways to hold the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    Write,
}

/// One writer or any number of readers, in the order of arrival: while there is a waiter, all
/// arrivals wait behind it, so neither readers nor writers starve.
#[derive(Debug)]
pub(super) struct RawRwLock {
    state: AtomicUsize,
    home: Home,
    queue: Lock<WaitQueue<Access>>,
    // The writer, or the reader that came last if it has not left.
    holder: Holder,
}

const WRITER: usize = 1;
const QUEUED: usize = 2;
const READER: usize = 4;

impl RawRwLock {
    #[track_caller]
    pub(super) const fn new() -> Self {
        Self {
            state: AtomicUsize::new(0),
            home: Home::new(),
            queue: Lock::new(WaitQueue::new()),
            holder: Holder::new(),
        }
    }

    /// Takes the lock if it is free for that and there is no waiter.
    #[inline]
    pub(super) fn try_lock(&self, access: Access) -> bool {
        self.home.visit();
        let (taken, new): (usize, fn(usize) -> usize) = match access {
            Access::Read => (WRITER | QUEUED, |state| state + READER),
            Access::Write => (usize::MAX, |state| state | WRITER),
        };
        let mut state = self.state.load(Ordering::Relaxed);
        while state & taken == 0 {
            assert!(state <= usize::MAX / 2, "too many readers of one lock");
            match self.state.compare_exchange_weak(
                state,
                new(state),
                // Released, so that a thread that sees the lock taken sees our visit.
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.holder.set();
                    return true;
                }
                Err(now) => state = now,
            }
        }
        false
    }

    /// Waits for the lock. Returns whether it was acquired before `deadline`.
    #[inline]
    #[track_caller]
    pub(super) fn lock(&self, access: Access, deadline: Option<Instant>) -> bool {
        park::spend();
        self.try_lock(access) || self.lock_slowly(access, deadline)
    }

    #[cold]
    #[track_caller]
    fn lock_slowly(&self, access: Access, deadline: Option<Instant>) -> bool {
        let queue = self.queue.lock();
        let state = self.state.fetch_or(QUEUED, Ordering::Acquire);
        if !queue.has_waiter(None) && self.enter(access, state) {
            self.state.fetch_and(!QUEUED, Ordering::Relaxed);
            self.holder.set();
            return true;
        }
        // If this waiter gives up, those behind it may be let in.
        let give_up = Defer::new(|| self.grant());
        let why = match (self.home.is_here(), access) {
            (true, Access::Read) => READ_HERE,
            (true, Access::Write) => WRITE_HERE,
            (false, Access::Read) => READ_ELSEWHERE,
            (false, Access::Write) => WRITE_ELSEWHERE,
        };
        let about = |_: &WaitQueue<Access>| About::holder(self.held());
        match wait_unless_cancelled(&self.queue, queue, |q| q, access, why, deadline, (), about) {
            Ok(_) => {
                self.holder.set();
                give_up.disarm();
                true
            }
            Err(unserved) => {
                drop(give_up);
                unserved.into_slot();
                false
            }
        }
    }

    /// The holders, for a report.
    fn held(&self) -> Held {
        let (holder, readers) = (self.holder.get(), self.state.load(Ordering::Relaxed) / READER);
        match holder {
            Held::Coroutine(id) if readers > 1 => Held::Readers(readers, Some(id)),
            Held::Unknown if readers > 0 => Held::Readers(readers, None),
            holder => holder,
        }
    }

    /// Takes the lock, if it is free for that in `state`. The caller holds the lock of the queue,
    /// and `QUEUED` is set.
    fn enter(&self, access: Access, state: usize) -> bool {
        let (taken, add) = match access {
            Access::Read => (WRITER, READER),
            Access::Write => (!QUEUED, WRITER),
        };
        let free = state & taken == 0;
        if free {
            self.state.fetch_add(add, Ordering::Acquire);
        }
        free
    }

    /// Lets in the first waiters, as many as the lock is free for.
    #[cold]
    fn grant(&self) {
        let mut queue = self.queue.lock();
        let mut served = Waiters::default();
        let enter = |access: &mut Access| {
            self.enter(*access, self.state.load(Ordering::Relaxed)).then_some(())
        };
        while let Some(((), waiter)) = queue.serve_if(enter) {
            served.push(waiter);
        }
        if !queue.has_waiter(None) {
            self.state.fetch_and(!QUEUED, Ordering::Relaxed);
        }
        drop(queue);
        park::wake_all(served);
    }

    /// The caller must hold the lock for this access.
    #[inline]
    pub(super) fn unlock(&self, access: Access) {
        let held = match access {
            Access::Read => READER,
            Access::Write => WRITER,
        };
        self.holder.leave();
        // The last holder to leave leaves nothing but `QUEUED`.
        if self.state.fetch_sub(held, Ordering::Release) - held == QUEUED {
            self.grant();
        }
    }

    /// Makes a reader of the writer, which the caller must be.
    pub(super) fn downgrade(&self) {
        if self.state.fetch_add(READER - WRITER, Ordering::Release) & QUEUED != 0 {
            self.grant();
        }
    }
}

/// The one thread that has used a lock so far, while there is only one: then all holders and
/// waiters are coroutines of this thread, and only they can end a wait for the lock.
#[derive(Debug)]
struct Home(AtomicUsize);

impl Home {
    const NONE: usize = 0;
    const SEVERAL: usize = 1;

    const fn new() -> Self {
        Self(AtomicUsize::new(Self::NONE))
    }

    /// To be called before the lock is asked for: a thread that then finds it taken knows of the
    /// holder's visit.
    #[inline]
    fn visit(&self) {
        let home = self.0.load(Ordering::Relaxed);
        if home == Self::NONE || home != Self::SEVERAL && home != ThreadId::current().number() {
            self.visit_first(home);
        }
    }

    #[cold]
    fn visit_first(&self, home: usize) {
        // A thread that has no number yet may have one when it waits.
        let here = match ThreadId::current().number() {
            0 => Self::SEVERAL,
            here => here,
        };
        let first = home == Self::NONE
            && self.0.compare_exchange(home, here, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !first {
            self.0.store(Self::SEVERAL, Ordering::Relaxed);
        }
    }

    fn is_here(&self) -> bool {
        park::in_coroutine() && self.0.load(Ordering::Relaxed) == ThreadId::current().number()
    }
}
