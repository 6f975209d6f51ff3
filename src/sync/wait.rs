//! The one queue in which coroutines and threads wait for each other.
//!
//! A queue is linked through places on the stacks of those who wait, so waiting allocates nothing
//! and giving up is one unlinking. Each place has a slot: what the waiter offers or wants, and
//! what it is given. Who ends a wait takes the place out of the queue and fills the slot under the
//! primitive's lock; from then on that wait has happened, whatever else comes: a time-out or a
//! cancellation that arrives later finds the place gone, and the call returns what it was given.
//! So nothing that is handed over is ever lost, and nothing is handed to two.

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Instant;

use super::lock::{Guard, Lock};
use crate::engine::abort::AbortOnUnwind;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::task::{Wait, Wake};
use crate::engine::waiter::{Waiter, Waiters};

/// Who waits, first come first served. Part of the state in a primitive's [`Lock`].
pub(super) struct WaitQueue<T> {
    first: *const Place<T>,
    last: *const Place<T>,
    len: usize,
}

// SAFETY: a queue uses its places only when it is borrowed mutably or, to read, shared; its owner
// keeps it in a `Lock`, and what moves between threads through the slots is `T`.
unsafe impl<T: Send> Send for WaitQueue<T> {}

/// A place in a [`WaitQueue`], on the stack of who waits.
///
/// While it is linked, only who holds the lock of its queue may touch anything but `waiter`.
/// Once it is not, it is its owner's again.
pub(super) struct Place<T> {
    previous: Cell<*const Place<T>>,
    next: Cell<*const Place<T>>,
    linked: Cell<bool>,
    waiter: Waiter,
    // Of a wait at several places: the first who claims it ends it.
    claim: Option<(Arc<Claim>, usize)>,
    slot: UnsafeCell<T>,
}

/// Which of several places was served: at most one ever is.
#[derive(Debug)]
pub(crate) struct Claim(AtomicUsize);

impl Claim {
    const OPEN: usize = usize::MAX;
    const WITHDRAWN: usize = usize::MAX - 1;

    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(Self::OPEN))
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OPEN
    }

    fn take(&self, with: usize) -> bool {
        self.0.compare_exchange(Self::OPEN, with, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Has nobody serve any place from now on. Returns the place that was served before, if one was.
    pub(super) fn withdraw(&self) -> Option<usize> {
        match self.0.compare_exchange(
            Self::OPEN,
            Self::WITHDRAWN,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) | Err(Self::WITHDRAWN) => None,
            Err(place) => Some(place),
        }
    }
}

impl<T> WaitQueue<T> {
    pub(super) const fn new() -> Self {
        Self { first: ptr::null(), last: ptr::null(), len: 0 }
    }

    /// Whether nobody waits. Somebody may be here whose wait has been ended at another place.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// How many wait, and are here though their wait has been ended at another place.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The slot of the first.
    pub(super) fn first(&self) -> Option<&T> {
        // SAFETY: a linked place is alive: its owner unlinks it, under the lock that whoever borrows the
        // queue holds, before it goes. Nobody writes a slot while the queue is borrowed.
        unsafe { self.first.as_ref().map(|place| &*place.slot.get()) }
    }

    /// Whether somebody waits who has not been served elsewhere, and does not share `claim`.
    pub(super) fn has_other(&self, claim: Option<&Arc<Claim>>) -> bool {
        let mut next = self.first;
        // SAFETY: as in `first`, for each place on the way.
        while let Some(place) = unsafe { next.as_ref() } {
            if place.claim.as_ref().is_none_or(|(other, _)| {
                other.is_open() && claim.is_none_or(|claim| !Arc::ptr_eq(other, claim))
            }) {
                return true;
            }
            next = place.next.get();
        }
        false
    }

    /// Ends the wait of the first who still waits, and lets `f` fill its slot. Wake the waiter when
    /// the lock has been released.
    #[inline]
    pub(super) fn serve<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> Option<(R, Waiter)> {
        loop {
            // SAFETY: as in `first`.
            let place = unsafe { self.first.as_ref() }?;
            self.unlink(place);
            if place.claim.as_ref().is_none_or(|(claim, number)| claim.take(*number)) {
                // SAFETY: the place has just been taken out, under the lock: its owner looks at it
                // only when it has been woken, or has got the lock that we hold.
                let result = f(unsafe { &mut *place.slot.get() });
                return Some((result, place.waiter.clone()));
            }
        }
    }

    /// [`serve`](Self::serve) for everybody who still waits.
    pub(super) fn serve_all(&mut self, mut f: impl FnMut(&mut T)) -> Waiters {
        let mut served = Waiters::default();
        while let Some(((), waiter)) = self.serve(&mut f) {
            served.push(waiter);
        }
        served
    }

    /// # Safety
    ///
    /// The place must stay where it is, and be unlinked before it goes.
    unsafe fn link(&mut self, place: &Place<T>) {
        place.previous.set(self.last);
        place.linked.set(true);
        // SAFETY: as in `first`.
        match unsafe { self.last.as_ref() } {
            Some(last) => last.next.set(place),
            None => self.first = place,
        }
        self.last = place;
        self.len += 1;
    }

    fn unlink(&mut self, place: &Place<T>) {
        let (previous, next) = (place.previous.get(), place.next.get());
        // SAFETY: as in `first`, for both neighbours.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.first = next,
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            Some(next) => next.previous.set(previous),
            None => self.last = previous,
        }
        place.linked.set(false);
        self.len -= 1;
    }
}

impl<T> fmt::Debug for WaitQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").field("len", &self.len).finish()
    }
}

impl<T> Place<T> {
    fn new(waiter: Waiter, claim: Option<(Arc<Claim>, usize)>, slot: T) -> Self {
        Self {
            previous: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            linked: Cell::new(false),
            waiter,
            claim,
            slot: UnsafeCell::new(slot),
        }
    }
}

/// Waits in the queue that `queue` finds in the state, until somebody serves this place or
/// `deadline` has passed. `guard` is `lock`'s, and is released meanwhile.
///
/// Unwinds when the coroutine is cancelled and has not been served.
///
/// # Errors
///
/// What was in the slot, when the deadline has passed first.
#[inline]
pub(super) fn wait<S, T>(
    lock: &Lock<S>,
    guard: Guard<'_, S>,
    queue: impl Fn(&mut S) -> &mut WaitQueue<T>,
    slot: T,
    why: Wait,
    deadline: Option<Instant>,
) -> Result<T, T> {
    release_and_wait(lock, guard, queue, slot, why, deadline, ())
}

/// [`wait`], and drops `held` when the place is in the queue and `guard` has been released: who gets it
/// finds the waiter there. That drop must neither wait nor panic.
#[inline]
pub(super) fn release_and_wait<S, T>(
    lock: &Lock<S>,
    mut guard: Guard<'_, S>,
    queue: impl Fn(&mut S) -> &mut WaitQueue<T>,
    slot: T,
    why: Wait,
    deadline: Option<Instant>,
    held: impl Sized,
) -> Result<T, T> {
    if park::is_cancel_pending() {
        drop(guard);
        park::raise();
    }
    let parker = park::waiter();
    let place = Place::new(parker.into(), None, slot);
    // A place would be left in the queue.
    let abort = AbortOnUnwind::new();
    // SAFETY: `place` stays where it is until it is taken apart below, and is not in the queue then.
    unsafe { queue(&mut guard).link(&place) };
    drop(guard);
    drop(held);
    let wake = park::block_unless_cancelled(parker, why, deadline);
    let mut served = true;
    if wake != Wake::Ready {
        let mut guard = lock.lock();
        served = !place.linked.get();
        if !served {
            queue(&mut guard).unlink(&place);
        }
    }
    abort.disarm();
    let slot = place.slot.into_inner();
    match wake {
        _ if served => Ok(slot),
        // The unwind drops what is in the slot, so that this is let wait as in any destructor then.
        Wake::Cancelled => park::raise(),
        _ => Err(slot),
    }
}

/// A place that is not on the waiter's stack: of a wait at several queues at once, of which one at
/// most is served, or of a future.
pub(super) struct Enlisted<L: Deref<Target = Lock<S>>, S, T> {
    // Leads to the lock of the queue, and always to the same.
    lock: L,
    queue: fn(&mut S) -> &mut WaitQueue<T>,
    // Leaked from a box, which must not be moved while the queue has a pointer into it. Should
    // this be forgotten, the place is leaked with it and stays good.
    place: Option<NonNull<Place<T>>>,
}

// SAFETY: what is done with a place elsewhere is done under the lock of its queue, and what moves
// with it is `T`.
unsafe impl<L: Deref<Target = Lock<S>> + Send, S: Send, T: Send> Send for Enlisted<L, S, T> {}
// SAFETY: a shared one gives out whether it is served, which it looks up under the lock.
unsafe impl<L: Deref<Target = Lock<S>> + Sync, S: Send, T: Send> Sync for Enlisted<L, S, T> {}

impl<L: Deref<Target = Lock<S>>, S, T> Enlisted<L, S, T> {
    /// Enlists in a queue of the state in `lock`, whose guard is `guard`, perhaps as one of those
    /// who share a claim, and by which number.
    pub(super) fn new(
        lock: L,
        mut guard: Guard<'_, S>,
        queue: fn(&mut S) -> &mut WaitQueue<T>,
        slot: T,
        waiter: Waiter,
        claim: Option<(Arc<Claim>, usize)>,
    ) -> Self {
        let place = NonNull::from(Box::leak(Box::new(Place::new(waiter, claim, slot))));
        // SAFETY: it was leaked, and is freed only after `unlink` below.
        unsafe { queue(&mut guard).link(place.as_ref()) };
        Self { lock, queue, place: Some(place) }
    }

    /// Whether somebody has served this place.
    pub(super) fn is_served(&self) -> bool {
        let _guard = self.lock.lock();
        // SAFETY: it is alive until it is taken out of its option, and the lock of its queue is held.
        self.place.is_none_or(|place| !unsafe { place.as_ref() }.linked.get())
    }

    /// Leaves the queue. Returns what is in the slot, unless it did so before.
    pub(super) fn leave(&mut self) -> Option<T> {
        let place = self.place.take()?;
        {
            let mut guard = self.lock.lock();
            // SAFETY: it is alive until the box made below goes, and the lock of its queue is held.
            let place = unsafe { place.as_ref() };
            if place.linked.get() {
                (self.queue)(&mut guard).unlink(place);
            }
        }
        // SAFETY: it was leaked from a box, no queue has a pointer to it any more, and whoever took
        // it out of one has released the lock. This is done once: it was taken out of its option.
        Some(unsafe { Box::from_raw(place.as_ptr()) }.slot.into_inner())
    }
}

impl<L: Deref<Target = Lock<S>>, S, T> Drop for Enlisted<L, S, T> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}
