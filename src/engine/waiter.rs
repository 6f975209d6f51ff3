//! Waiters: the entries of waiting lists, through which other coroutines and threads end a wait.

use std::fmt;
use std::mem;
use std::ptr;
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::id::Id;
use super::mailbox::{Mailbox, Message, ThreadId};
use super::shared::{Mutex, MutexGuard};

/// One wait of one coroutine or plain thread, as plain data. A stale copy does no harm: a wake of a
/// wait that is over does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Parker {
    mailbox: &'static Mailbox,
    wait: u64,
    // As wide as its neighbours. A copy then loads exactly what was stored: a load that is wider
    // than an earlier store to its address waits for that store.
    slot: u64,
}

impl Parker {
    /// The next wait, with this number, of the coroutine in `slot`.
    #[inline]
    pub(crate) fn coroutine(mailbox: &'static Mailbox, slot: u32, wait: u64) -> Self {
        Self { mailbox, wait, slot: slot.into() }
    }

    /// The next wait of the calling plain thread.
    #[inline]
    pub(crate) fn thread(mailbox: &'static Mailbox) -> Self {
        Self::coroutine(mailbox, Mailbox::THREAD, mailbox.next_wait())
    }

    #[inline]
    pub(crate) fn is_thread(&self) -> bool {
        self.slot == u64::from(Mailbox::THREAD)
    }

    /// The coroutine's slot and the wait's number, if the waiter is a coroutine of the thread with
    /// this mailbox.
    #[inline]
    pub(crate) fn local_to(&self, mailbox: &'static Mailbox) -> Option<(u32, u64)> {
        let here = ptr::eq(self.mailbox, mailbox) && !self.is_thread();
        here.then_some((self.slot as u32, self.wait))
    }

    /// Ends the wait from another thread.
    #[inline]
    pub(crate) fn send(&self) {
        self.mailbox.send(Message::Wake { slot: self.slot as u32, wait: self.wait });
    }

    /// Blocks the plain thread that this stands for. Returns whether it was woken before
    /// `deadline`.
    #[inline]
    pub(crate) fn block(&self, deadline: Option<Instant>) -> bool {
        debug_assert!(self.is_thread());
        self.mailbox.block(self.wait, deadline)
    }
}

impl PartialEq for Parker {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.mailbox, other.mailbox) && self.wait == other.wait
    }
}

impl fmt::Debug for Parker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parker").field("slot", &self.slot).field("wait", &self.wait).finish()
    }
}

/// A waiting coroutine, plain thread, or task of a future.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Waiter {
    Parked(Parker),
    Future(Arc<WakerCell>),
}

impl From<Parker> for Waiter {
    #[inline]
    fn from(parker: Parker) -> Self {
        Self::Parked(parker)
    }
}

impl Waiter {
    /// The thread that the waiter runs on. `NONE` for a future, which may run on any.
    pub(crate) fn thread(&self) -> ThreadId {
        match self {
            Self::Parked(parker) => parker.mailbox.thread(),
            Self::Future(_) => ThreadId::NONE,
        }
    }

    /// Whether another thread has requested the cancellation of the waiting coroutine `id`, and its
    /// own thread has not acted on that yet.
    #[inline]
    pub(crate) fn is_being_cancelled(&self, id: Option<Id>) -> bool {
        match (self, id) {
            (Self::Parked(parker), Some(id)) => parker.mailbox.is_cancelling(id),
            _ => false,
        }
    }

    /// The slot and the number of the wait, if the waiter is a coroutine.
    #[inline]
    pub(crate) fn coroutine(&self) -> Option<(u32, u64)> {
        match self {
            Self::Parked(parker) if !parker.is_thread() => Some((parker.slot as u32, parker.wait)),
            Self::Parked(_) | Self::Future(_) => None,
        }
    }
}

/// The waker of a waiting future, from its last poll.
///
/// Wakers are user code, so none is cloned, woken or dropped under the lock. The future owns a
/// reference to the cell for as long as it is in any list, and empties the cell when it is dropped.
/// So dropping a [`Waiter`] of some list never drops a waker.
#[derive(Default)]
pub(crate) struct WakerCell(Mutex<Slot>);

#[derive(Default)]
struct Slot {
    waker: Option<Waker>,
    // The future is gone: lists may forget the cell.
    closed: bool,
}

impl WakerCell {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the waker. The future checks what it waits for after this, not before.
    pub(crate) fn set(&self, waker: &Waker) {
        let known = |slot: &Slot| slot.waker.as_ref().is_some_and(|it| it.will_wake(waker));
        if known(&self.lock()) {
            return;
        }
        let waker = waker.clone();
        let before = self.lock().waker.replace(waker);
        drop(before);
    }

    /// Wakes the future, unless it was already woken since the last [`set`](Self::set).
    pub(crate) fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Empties the cell for good.
    fn close(&self) {
        let waker = {
            let mut slot = self.lock();
            slot.closed = true;
            slot.waker.take()
        };
        drop(waker);
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl PartialEq for WakerCell {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

impl fmt::Debug for WakerCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakerCell").finish_non_exhaustive()
    }
}

/// The waiters for one event, in order of arrival. Almost always there is at most one.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    first: Option<Waiter>,
    // One word while there is no second waiter.
    #[expect(clippy::box_collection)]
    rest: Option<Box<Vec<Waiter>>>,
}

impl Waiters {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(crate) fn push(&mut self, waiter: impl Into<Waiter>) {
        if self.first.is_none() {
            self.first = Some(waiter.into());
        } else {
            self.rest.get_or_insert_default().push(waiter.into());
        }
    }

    /// [`push`](Self::push) for a future, which may be in the list already. The cells of futures
    /// that were dropped leave the list.
    pub(crate) fn push_future(&mut self, future: &FutureWaiter) {
        self.retain(|other| match other {
            Waiter::Future(cell) => !cell.is_closed() && !Arc::ptr_eq(cell, &future.0),
            Waiter::Parked(_) => true,
        });
        self.push(future.waiter());
    }

    /// Removes a waiter that gave up. Does nothing if the waiter was already taken.
    pub(crate) fn remove(&mut self, waiter: &Waiter) {
        self.retain(|other| other != waiter);
    }

    /// Takes the futures out, and appends them to `to`.
    pub(crate) fn take_futures(&mut self, to: &mut Vec<Waiter>) {
        self.retain(|waiter| {
            let is_future = matches!(waiter, Waiter::Future(_));
            to.extend(is_future.then(|| waiter.clone()));
            !is_future
        });
    }

    fn retain(&mut self, mut keep: impl FnMut(&Waiter) -> bool) {
        if let Some(rest) = &mut self.rest {
            rest.retain(&mut keep);
        }
        if self.first.as_ref().is_some_and(|first| !keep(first)) {
            let next = self.rest.as_mut().filter(|rest| !rest.is_empty());
            self.first = next.map(|rest| rest.remove(0));
        }
    }

    /// Moves all of them to the end of `to`.
    #[inline]
    pub(crate) fn append_to(&mut self, to: &mut Vec<Waiter>) {
        if let Some(first) = self.first.take() {
            to.push(first);
            if let Some(rest) = &mut self.rest {
                to.append(rest);
            }
        }
    }

    /// Takes all of them.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        mem::take(self)
    }
}

impl IntoIterator for Waiters {
    type Item = Waiter;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Waiter>, std::vec::IntoIter<Waiter>>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        let rest = self.rest.map_or_else(Vec::new, |rest| *rest);
        self.first.into_iter().chain(rest)
    }
}

/// The waiter of a future, for as long as the future lives.
#[derive(Debug, Default)]
pub(crate) struct FutureWaiter(Arc<WakerCell>);

impl FutureWaiter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Sets the waker that a wake calls. The future checks what it waits for after this, not
    /// before.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.0.set(waker);
    }

    /// Wakes the future, unless it was already woken since its last poll.
    pub(crate) fn wake(&self) {
        self.0.wake();
    }

    pub(crate) fn waiter(&self) -> Waiter {
        Waiter::Future(Arc::clone(&self.0))
    }
}

impl Drop for FutureWaiter {
    fn drop(&mut self) {
        self.0.close();
    }
}
