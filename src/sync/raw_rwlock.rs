//! `RawRwLock`: the lock without a value that `RwLock` is made of.

use std::time::Instant;

use super::lock::Lock;
use super::raw_mutex::{WAIT_ELSEWHERE, WAIT_HERE};
use super::wait::{WaitQueue, wait};
use crate::engine::defer::Defer;
use crate::engine::mailbox::ThreadId;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::waiter::Waiters;

/// How one wants the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    Write,
}

/// One writer or any number of readers, in the order in which they came: once somebody waits, all
/// who come wait behind, so neither readers nor writers starve.
#[derive(Debug)]
pub(super) struct RawRwLock {
    // `WRITER` and `QUEUED`, and how many times `READER` there are readers.
    state: AtomicUsize,
    home: Home,
    queue: Lock<WaitQueue<Access>>,
}

const WRITER: usize = 1;
/// Somebody may wait: who comes must queue, and the last who leaves must look.
const QUEUED: usize = 2;
const READER: usize = 4;

impl RawRwLock {
    pub(super) const fn new() -> Self {
        Self { state: AtomicUsize::new(0), home: Home::new(), queue: Lock::new(WaitQueue::new()) }
    }

    /// Takes the lock if it is free for that and nobody waits.
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
                // Released, so that who sees the lock taken sees that we have been here.
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Waits for the lock. Returns whether it was got before `deadline`.
    #[inline]
    pub(super) fn lock(&self, access: Access, deadline: Option<Instant>) -> bool {
        park::spend();
        self.try_lock(access) || self.lock_slowly(access, deadline)
    }

    #[cold]
    fn lock_slowly(&self, access: Access, deadline: Option<Instant>) -> bool {
        let queue = self.queue.lock();
        // From here on nobody gets in without this queue, and the last who leaves comes to it.
        let state = self.state.fetch_or(QUEUED, Ordering::Acquire);
        if queue.is_empty() && self.enter(access, state) {
            self.state.fetch_and(!QUEUED, Ordering::Relaxed);
            return true;
        }
        // Should we give up, those behind us may want less.
        let give_up = Defer::new(|| self.grant());
        let why = if self.home.is_here() { WAIT_HERE } else { WAIT_ELSEWHERE };
        let locked = wait(&self.queue, queue, |queue| queue, access, why, deadline).is_ok();
        if locked {
            give_up.disarm();
        }
        locked
    }

    /// Takes the lock, if it is free for that in `state`. The caller has set `QUEUED`, and has the queue.
    fn enter(&self, access: Access, state: usize) -> bool {
        // Others can only leave meanwhile, which makes it no less free.
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

    /// Lets those in who are first in the queue, as far as it goes.
    #[cold]
    fn grant(&self) {
        let mut queue = self.queue.lock();
        let mut served = Waiters::default();
        while let Some(&access) = queue.first()
            && self.enter(access, self.state.load(Ordering::Relaxed))
            && let Some(((), waiter)) = queue.serve(|_| ())
        {
            served.push(waiter);
        }
        if queue.is_empty() {
            self.state.fetch_and(!QUEUED, Ordering::Relaxed);
        }
        drop(queue);
        park::wake_all(served);
    }

    /// The caller must hold the lock for this.
    #[inline]
    pub(super) fn unlock(&self, access: Access) {
        let held = match access {
            Access::Read => READER,
            Access::Write => WRITER,
        };
        // The last who leaves leaves nothing else.
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

/// The one thread that has used a lock so far, while there is only one: all who hold the lock and all
/// who wait for it are then coroutines of this thread, and only they can end a wait for it.
#[derive(Debug)]
struct Home(AtomicUsize);

impl Home {
    const NOBODY: usize = 0;
    const SEVERAL: usize = 1;

    const fn new() -> Self {
        Self(AtomicUsize::new(Self::NOBODY))
    }

    /// To be called before the lock is asked for: who then finds it taken sees who has been here.
    #[inline]
    fn visit(&self) {
        let home = self.0.load(Ordering::Relaxed);
        if home == Self::NOBODY || home != Self::SEVERAL && home != ThreadId::current().number() {
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
        let first = home == Self::NOBODY
            && self.0.compare_exchange(home, here, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !first {
            self.0.store(Self::SEVERAL, Ordering::Relaxed);
        }
    }

    fn is_here(&self) -> bool {
        park::in_coroutine() && self.0.load(Ordering::Relaxed) == ThreadId::current().number()
    }
}
