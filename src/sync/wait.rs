//! The one queue in which coroutines and threads wait for each other.
//!
//! A queue links entries that live on the waiters' own stacks, so waiting allocates nothing and
//! giving up is one unlinking. Each entry has a slot for the waiter's offer or request, and then
//! for the answer. A wait ends in one of two ways, and always under the primitive's lock:
//!
//! ```text
//! Queued -- serve --------------------> Served   the slot is filled: the wait has happened
//! Queued -- deadline, cancellation ---> Left     it has not happened, and never will
//! ```
//!
//! The first of the two decides. A time-out or a cancellation that finds the entry served changes
//! nothing: the call returns what is in the slot. So nothing that is handed over is ever lost, and
//! nothing is handed to two.
//!
//! A cancellation takes the entry out at the request, before the coroutine runs again. If the
//! request comes from another thread, it first marks the coroutine in the mailbox of its thread:
//! from then on [`serve`](WaitQueue::serve) passes over the entry. The entry stays linked for a
//! moment, until the coroutine's own thread takes it out. A primitive that asks whether anybody
//! waits must therefore ask for a waiter that can be served, and not for a linked entry.

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::lock::{Guard, Lock};
use crate::engine::abort::AbortOnUnwind;
use crate::engine::id::Id;
use crate::engine::park::{self, Running};
use crate::engine::shared::atomic::{AtomicUsize, Ordering};
use crate::engine::subject::{Count, Held, Object, Subject};
use crate::engine::task::{CancelWait, Wait, Wake};
use crate::engine::waiter::{Waiter, Waiters};

/// Waiters, first come, first served. It is part of the state in a primitive's [`Lock`].
pub(crate) struct WaitQueue<T> {
    first: Link<T>,
    last: Link<T>,
}

// SAFETY: a queue uses its entries only when it is borrowed mutably or, to read, shared; its owner
// keeps it in a `Lock`, and what moves between threads through the slots is `T`.
unsafe impl<T: Send> Send for WaitQueue<T> {}

/// One waiter's entry in a [`WaitQueue`].
///
/// While it is queued, only the holder of the queue's lock may touch anything but `waiter`. After
/// that it belongs to its waiter alone.
pub(super) struct Entry<T> {
    previous: Link<T>,
    next: Link<T>,
    state: Cell<State>,
    waiter: Waiter,
    // The coroutine that waits, if a cancellation of the whole of it would end the wait.
    owner: Option<Id>,
    // Of a wait in several queues: the choice between them, and the number of this one.
    claim: Option<(Arc<Claim>, usize)>,
    slot: UnsafeCell<T>,
}

/// Leads from a queue, or from an entry in it, to an entry in it, or to none. The links of an entry
/// that was taken out are not followed any more.
struct Link<T>(Cell<*const Entry<T>>);

impl<T> Link<T> {
    const fn new() -> Self {
        Self(Cell::new(ptr::null()))
    }

    #[inline]
    fn get(&self) -> Option<&Entry<T>> {
        // SAFETY: a link that is not null belongs to a queue or to a queued entry, and its borrower
        // has borrowed the queue, whose lock is held for that. The entry that it leads to has been
        // queued during that time, and so is alive for all of it: its owner ends it only after it
        // has been taken out, and then, to learn of that, has got the lock or been woken.
        unsafe { self.0.get().as_ref() }
    }

    #[inline]
    fn set(&self, entry: Option<&Entry<T>>) {
        self.0.set(entry.map_or(ptr::null(), ptr::from_ref));
    }
}

/// How far the wait of an [`Entry`] has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Queued,
    Served,
    Left,
}

/// Which of several entries was served: at most one ever is.
#[derive(Debug)]
pub(crate) struct Claim(AtomicUsize);

impl Claim {
    const OPEN: usize = usize::MAX;
    const WITHDRAWN: usize = usize::MAX - 1;

    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(Self::OPEN))
    }

    /// Whether no entry has been served yet, and one still may be.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OPEN
    }

    fn take(&self, number: usize) -> bool {
        self.0.compare_exchange(Self::OPEN, number, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// From now on no entry is served. Returns the one that was served before, if one was.
    pub(super) fn withdraw(&self) -> Option<usize> {
        match self.0.compare_exchange(
            Self::OPEN,
            Self::WITHDRAWN,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) | Err(Self::WITHDRAWN) => None,
            Err(number) => Some(number),
        }
    }
}

impl<T> WaitQueue<T> {
    pub(crate) const fn new() -> Self {
        Self { first: Link::new(), last: Link::new() }
    }

    /// Whether no entry is linked. (One that is linked may be of a wait that has ended.)
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    /// Whether there is a waiter that can be served and does not share the claim `other_than`.
    #[inline]
    pub(super) fn has_waiter(&self, other_than: Option<&Arc<Claim>>) -> bool {
        let mut at = self.first.get();
        while let Some(entry) = at {
            let open = entry.claim.as_ref().is_none_or(|(claim, _)| {
                claim.is_open() && other_than.is_none_or(|other| !Arc::ptr_eq(claim, other))
            });
            if open && !entry.is_being_cancelled() {
                return true;
            }
            at = entry.next.get();
        }
        false
    }

    /// The first entry that can be served. Takes out those before it of which another entry of the
    /// same wait was served.
    #[inline(always)]
    fn first_to_serve(&self) -> Option<&Entry<T>> {
        let mut at = self.first.get();
        loop {
            let entry = at?;
            at = entry.next.get();
            if entry.is_being_cancelled() {
                continue;
            }
            if entry.claim.as_ref().is_none_or(|(claim, number)| claim.take(*number)) {
                return Some(entry);
            }
            self.unlink(entry, State::Left);
        }
    }

    /// Ends the wait of the first waiter that can be served, and lets `f` fill its slot. Wake the
    /// waiter when the lock has been released.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn serve<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> Option<(R, Waiter)> {
        let entry = self.first_to_serve()?;
        self.unlink(entry, State::Served);
        // SAFETY: the entry has just been taken out, under the lock. Its owner looks at it only
        // when it has been woken, or has got the lock that we hold.
        let result = f(unsafe { &mut *entry.slot.get() });
        Some((result, entry.waiter.clone()))
    }

    /// [`serve`](Self::serve), if `f` returns a value for the slot of that waiter: only then may it
    /// have changed the slot. Not for entries that share a claim.
    #[inline]
    pub(super) fn serve_if<R>(
        &mut self,
        f: impl FnOnce(&mut T) -> Option<R>,
    ) -> Option<(R, Waiter)> {
        let entry = self.first_to_serve()?;
        debug_assert!(entry.claim.is_none());
        // SAFETY: the entry is queued, and the lock of its queue is held.
        let result = f(unsafe { &mut *entry.slot.get() })?;
        self.unlink(entry, State::Served);
        Some((result, entry.waiter.clone()))
    }

    /// [`serve`](Self::serve) for all waiters.
    pub(crate) fn serve_all(&mut self, mut f: impl FnMut(&mut T)) -> Waiters {
        let mut served = Waiters::default();
        while let Some(((), waiter)) = self.serve(&mut f) {
            served.push(waiter);
        }
        served
    }

    /// [`serve_all`](Self::serve_all), if there are `count` waiters or more; the entries share no
    /// claims. All that are counted are served, also if one is cancelled at this moment.
    pub(super) fn serve_all_of(&mut self, count: usize) -> Option<Waiters> {
        let mut entries = Vec::with_capacity(count);
        let mut at = self.first.get();
        while let Some(entry) = at {
            at = entry.next.get();
            if !entry.is_being_cancelled() {
                entries.push(entry);
            }
        }
        if entries.len() < count {
            return None;
        }
        let mut served = Waiters::default();
        for entry in entries {
            self.unlink(entry, State::Served);
            served.push(entry.waiter.clone());
        }
        Some(served)
    }

    /// # Safety
    ///
    /// The entry must stay where it is, and be unlinked before it ends.
    #[inline]
    unsafe fn link(&mut self, entry: &Entry<T>) {
        let last = self.last.get();
        entry.previous.set(last);
        match last {
            Some(last) => last.next.set(Some(entry)),
            None => self.first.set(Some(entry)),
        }
        self.last.set(Some(entry));
    }

    #[inline]
    fn unlink(&self, entry: &Entry<T>, state: State) {
        let (previous, next) = (entry.previous.get(), entry.next.get());
        match previous {
            Some(previous) => previous.next.set(next),
            None => self.first.set(next),
        }
        match next {
            Some(next) => next.previous.set(previous),
            None => self.last.set(previous),
        }
        entry.state.set(state);
    }

    /// Takes an entry out whose wait has not happened, if it is still queued. Returns whether it
    /// was.
    fn leave(&mut self, entry: &Entry<T>) -> bool {
        let queued = entry.state.get() == State::Queued;
        if queued {
            self.unlink(entry, State::Left);
        }
        queued
    }
}

impl<T> fmt::Debug for WaitQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").field("is_empty", &self.is_empty()).finish_non_exhaustive()
    }
}

impl<T> Entry<T> {
    #[inline]
    fn new(waiter: Waiter, owner: Option<Id>, claim: Option<(Arc<Claim>, usize)>, slot: T) -> Self {
        Self {
            previous: Link::new(),
            next: Link::new(),
            state: Cell::new(State::Queued),
            waiter,
            owner,
            claim,
            slot: UnsafeCell::new(slot),
        }
    }

    /// Whether another thread has cancelled the waiter, and the waiter's thread will take it out.
    #[inline]
    fn is_being_cancelled(&self) -> bool {
        self.waiter.is_being_cancelled(self.owner)
    }
}

/// A queued entry, and the way to take it out.
struct Queued<'a, S, T, Q, A> {
    lock: &'a Lock<S>,
    queue: Q,
    entry: &'a Entry<T>,
    waited_at: &'static Location<'static>,
    about: A,
}

impl<S, T, Q, A> CancelWait for Queued<'_, S, T, Q, A>
where
    Q: Fn(&mut S) -> &mut WaitQueue<T>,
    A: Fn(&S) -> About,
{
    fn cancel(&self) -> bool {
        (self.queue)(&mut self.lock.lock()).leave(self.entry)
    }

    fn subject(&self) -> Option<Subject> {
        let about = self.lock.try_lock().map_or(About::NOTHING, |state| (self.about)(&state));
        Some(Subject {
            created: self.lock.created(),
            waited_at: self.waited_at,
            holder: about.holder,
            count: about.count,
            identity: !ptr::from_ref(self.lock).addr(),
            shared: about.shared,
        })
    }
}

/// Facts for a report about the object that is waited for.
pub(crate) struct About {
    holder: Held,
    count: Option<Count>,
    shared: Option<Object>,
}

impl About {
    pub(crate) const NOTHING: Self = Self { holder: Held::Unknown, count: None, shared: None };

    pub(super) fn holder(holder: Held) -> Self {
        Self { holder, ..Self::NOTHING }
    }

    pub(super) fn count(len: usize, of: Option<usize>) -> Self {
        Self { count: Some(Count { len, of }), ..Self::NOTHING }
    }

    /// `content` is the whole content of an `Arc` that all handles of the object share.
    pub(super) fn shared<T>(self, content: &T) -> Self {
        Self { shared: Some(Object::in_arc(content)), ..self }
    }
}

/// Waits in the queue that `queue` finds in the state, until this waiter is served or `deadline`
/// has passed. `guard` is `lock`'s, and is released meanwhile.
///
/// Unwinds when the coroutine is cancelled and has not been served. `about` tells a report more; it
/// may be called in a signal handler.
///
/// # Errors
///
/// The content of the slot, when the deadline has passed first.
#[inline]
#[track_caller]
pub(crate) fn wait<S, T>(
    lock: &Lock<S>,
    guard: Guard<'_, S>,
    queue: impl Fn(&mut S) -> &mut WaitQueue<T>,
    slot: T,
    why: Wait,
    deadline: Option<Instant>,
    about: impl Fn(&S) -> About,
) -> Result<T, T> {
    wait_unless_cancelled(lock, guard, queue, slot, why, deadline, (), about)
        .map_err(Unserved::into_slot)
}

/// A wait that has not happened, and never will.
#[must_use = "the coroutine may have to unwind"]
pub(super) struct Unserved<T> {
    slot: T,
    is_cancelled: bool,
}

impl<T> Unserved<T> {
    /// The content of the slot, when the deadline has passed. Unwinds when the coroutine was
    /// cancelled.
    #[inline]
    pub(super) fn into_slot(self) -> T {
        if self.is_cancelled {
            // The unwind drops the slot, whose destructors may wait like any others then.
            park::raise();
        }
        self.slot
    }
}

/// [`wait`], for a caller that owes something to others when its wait ends. It pays that first, and
/// calls [`Unserved::into_slot`] then: the coroutine may be given up there, without an unwind.
///
/// Drops `held` when the entry is in the queue and `guard` has been released. So a party that goes
/// on after that drop finds the waiter in the queue. The drop must neither wait nor panic.
#[inline]
#[track_caller]
#[expect(clippy::too_many_arguments)]
pub(super) fn wait_unless_cancelled<S, T>(
    lock: &Lock<S>,
    mut guard: Guard<'_, S>,
    queue: impl Fn(&mut S) -> &mut WaitQueue<T>,
    slot: T,
    why: Wait,
    deadline: Option<Instant>,
    held: impl Sized,
    about: impl Fn(&S) -> About,
) -> Result<T, Unserved<T>> {
    let waited_at = Location::caller();
    // The running coroutine is looked up only once.
    park::running(
        #[cfg_attr(not(debug_assertions), inline(always))]
        move |running| {
            if let Some(Running { scheduler, task }) = running {
                if scheduler.is_cancel_pending(task) {
                    drop(guard);
                    return Err(Unserved { slot, is_cancelled: true });
                }
            }
            let parker = park::waiter_of(running);
            let entry = Entry::new(parker.into(), park::cancellable_id(running), None, slot);
            // An unwind would leave the entry in the queue.
            let abort = AbortOnUnwind::new();
            // SAFETY: `entry` stays where it is until it is taken apart below, and is in no queue
            // then: the wait ends when it has been served or cancelled, or else the entry is taken
            // out here.
            unsafe { queue(&mut guard).link(&entry) };
            drop(guard);
            drop(held);
            let queued = Queued { lock, queue, entry: &entry, waited_at, about };
            let wake = park::block_in_queue(running, parker, why, deadline, &queued);
            if wake == Wake::TimedOut {
                queued.cancel();
            }
            abort.disarm();
            let served = entry.state.get() == State::Served;
            let slot = entry.slot.into_inner();
            if served {
                return Ok(slot);
            }
            Err(Unserved { slot, is_cancelled: wake == Wake::Cancelled })
        },
    )
}

/// A registration in a queue whose entry is not on the waiter's stack: that of a future, or of a
/// wait in several queues at once, of which at most one serves it.
pub(super) struct Registered<L: Deref<Target = Lock<S>>, S, T> {
    // Leads to the lock of the queue, and always to the same.
    lock: L,
    queue: fn(&mut S) -> &mut WaitQueue<T>,
    // Not a box, which must not be moved while the queue has a pointer into it. Should this be
    // forgotten, the entry is leaked with it and stays good.
    entry: Option<Rc<Entry<T>>>,
}

// SAFETY: other threads use an entry only under the lock of its queue, and the value that moves
// with it is a `T`. The `Rc` is never cloned.
unsafe impl<L: Deref<Target = Lock<S>> + Send, S: Send, T: Send> Send for Registered<L, S, T> {}
// SAFETY: a shared one only says whether it is served, which it looks up under the lock.
unsafe impl<L: Deref<Target = Lock<S>> + Sync, S: Send, T: Send> Sync for Registered<L, S, T> {}

impl<L: Deref<Target = Lock<S>>, S, T> Registered<L, S, T> {
    /// Registers the waiter of a future in a queue of the state in `lock`, whose guard is `guard`.
    pub(super) fn future(
        lock: L,
        guard: Guard<'_, S>,
        queue: fn(&mut S) -> &mut WaitQueue<T>,
        slot: T,
        waiter: Waiter,
    ) -> Self {
        Self::new(lock, guard, queue, Entry::new(waiter, None, None, slot))
    }

    /// Registers the calling coroutine or thread, whose next wait is `waiter`, as number `number`
    /// of the registrations that share `claim`.
    pub(super) fn choice(
        lock: L,
        guard: Guard<'_, S>,
        queue: fn(&mut S) -> &mut WaitQueue<T>,
        slot: T,
        waiter: Waiter,
        (claim, number): (&Arc<Claim>, usize),
    ) -> Self {
        let claim = Some((Arc::clone(claim), number));
        Self::new(
            lock,
            guard,
            queue,
            Entry::new(waiter, park::running(park::cancellable_id), claim, slot),
        )
    }

    fn new(
        lock: L,
        mut guard: Guard<'_, S>,
        queue: fn(&mut S) -> &mut WaitQueue<T>,
        entry: Entry<T>,
    ) -> Self {
        let entry = Rc::new(entry);
        // SAFETY: it stays in its allocation, and is freed only after `leave` below.
        unsafe { queue(&mut guard).link(&entry) };
        Self { lock, queue, entry: Some(entry) }
    }

    /// Whether this waiter has been served.
    pub(super) fn is_served(&self) -> bool {
        let _guard = self.lock.lock();
        self.entry.as_ref().is_none_or(|entry| entry.state.get() != State::Queued)
    }

    /// Leaves the queue. Returns what is in the slot, unless it did so before.
    pub(super) fn deregister(&mut self) -> Option<T> {
        let entry = self.entry.take()?;
        (self.queue)(&mut self.lock.lock()).leave(&entry);
        // No queue has a pointer to it any more, and the thread that took it out has released the
        // lock.
        Rc::into_inner(entry).map(|entry| entry.slot.into_inner())
    }
}

impl<L: Deref<Target = Lock<S>>, S, T> Drop for Registered<L, S, T> {
    fn drop(&mut self) {
        drop(self.deregister());
    }
}
