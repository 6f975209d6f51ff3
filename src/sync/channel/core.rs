//! The one core under all channels that carry items from many to many.
//!
//! All of it happens under one lock, under which no code of a user runs: no item is cloned or
//! dropped there. The rules:
//!
//! 1. An item goes to the first waiting receiver; if there is none, into the buffer; if that is
//!    full, its sender waits, with the item in its own entry.
//! 2. A receiver takes the first item of the buffer, and moves the item of the first waiting sender
//!    into the room that this makes. If the buffer is empty, it takes the item of the first waiting
//!    sender. If there is none, it waits.
//! 3. So under the lock never both: a receiver that waits, and an item, or a sender that waits.
//!    (Except for entries of one `select!`, which is not to meet itself, and of waiters that are
//!    being cancelled: those take no part any more.)
//! 4. When the last sender is dropped, the receivers that wait get nothing, and try again: an item
//!    may be given back. When the last receiver is dropped, the senders that wait have their items
//!    back.
//!
//! # A select's hand-over
//!
//! The item of a send in a `select!` is made only when that send has been chosen. So an operation
//! is begun under the lock, and completed later. In between, the channel holds its outcome, under a
//! [`Ticket`]. (An item that is still being made is waited for before a `select!` reports its
//! choice: if its sender gives up, another operation may be chosen.)
//!
//! ```text
//! begun, under the lock                        held         completed by
//! a receive takes an item                      Item         returning the item
//! a send has room, which is reserved           Room         putting the item into the room
//! a send meets a waiting receiver  ---+
//! a receive meets a `select!` that    |        one end of a [`oneshot`] each:
//! waits to send                    ---+        Pair         sending the item through it
//!                                              Later        waiting for the item, then held
//! the other side has been dropped              Closed       returning an error
//! ```
//!
//! The events that may come between the two steps, and why nothing is lost:
//!
//! - The operation is released instead (its item panicked). An item goes back to the front of the
//!   channel, room goes to the next sender, and a dropped end of the oneshot makes the other side
//!   look for another partner.
//! - A receiver that waits for its `Later` is cancelled or times out. It closes the oneshot. An
//!   item that was sent before goes back to the channel. An item that is sent later is refused,
//!   and its sender puts it into the channel, over its capacity if need be. To wait for another
//!   receiver instead would be to wait for ever, if none comes.
//! - The other side is dropped. Room is then worth nothing, and the send fails. A pair is not
//!   affected: each side has its partner.

use std::collections::VecDeque;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::error::{RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError};
use super::oneshot;
use crate::engine::park;
use crate::engine::task::Wait;
use crate::engine::waiter::{Waiter, Waiters};
use crate::sync::lock::{Guard, Lock};
use crate::sync::operation::Ticket;
use crate::sync::wait::{About, Unserved, WaitQueue, wait_unless_cancelled};

const WAIT_FOR_ROOM: Wait =
    Wait::new(&Wait::for_any_thread("room in a channel").of("send", "channel"));
const WAIT_FOR_ITEM: Wait =
    Wait::new(&Wait::for_any_thread("an item of a channel").of("recv", "channel"));

/// The largest buffer, in items, that a channel keeps when it is empty.
const IDLE_CAPACITY_MAX: usize = 4096;

/// The part of a channel that its senders and receivers share.
pub(super) struct Core<T> {
    pub(super) state: Lock<State<T>>,
    // `None` without bounds.
    pub(super) capacity: Option<usize>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

pub(super) struct State<T> {
    pub(super) items: VecDeque<T>,
    capacity: usize,
    pub(super) senders: WaitQueue<Offer<T>>,
    pub(super) receivers: WaitQueue<Want<T>>,
    // They only want to know that something has changed.
    pub(super) watchers: WaitQueue<()>,
    pub(super) senders_dropped: bool,
    pub(super) receivers_dropped: bool,
    // Room for sends that have been chosen and not completed yet.
    pub(super) reserved: usize,
    // Outcomes of operations that have not been completed.
    pub(super) held: Vec<(Ticket, Held<T>)>,
    pub(super) next_ticket: Ticket,
}

/// The offer of a waiting sender, and then the answer to it.
pub(super) enum Offer<T> {
    /// An item. If it is still here when the sender is served, every receiver has been dropped.
    Item(T),
    /// The item has been taken.
    Taken,
    /// An item that is still to be made: of a `select!`.
    Open,
    /// Room is reserved for it.
    Room,
    /// A receiver waits for it here.
    Pair(oneshot::Sender<T>),
}

/// The answer to a waiting receiver.
pub(super) enum Want<T> {
    /// Nothing: every sender has been dropped.
    Nothing,
    Item(T),
    /// An item that is being made.
    Later(oneshot::Receiver<T>),
}

/// The outcome of an operation that was chosen and has not been completed.
pub(super) enum Held<T> {
    /// The other side has been dropped.
    Closed,
    Item(T),
    Later(oneshot::Receiver<T>),
    Room,
    Pair(oneshot::Sender<T>),
}

/// An item that a chosen sender is making, for a receiver that may give up before it comes. If the
/// item has been sent by then, it goes back to the channel: the sender has seen its send succeed.
pub(super) struct Pending<'a, T> {
    core: &'a Core<T>,
    item: oneshot::Receiver<T>,
}

impl<T> Pending<'_, T> {
    /// Waits for the item.
    #[track_caller]
    pub(super) fn wait(mut self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        self.item.wait_unless_cancelled(deadline).unwrap_or_else(|unserved| {
            // The coroutine may be given up below, without an unwind.
            drop(self);
            unserved.into_slot();
            Err(RecvTimeoutError::Timeout)
        })
    }
}

impl<T> Deref for Pending<'_, T> {
    type Target = oneshot::Receiver<T>;

    fn deref(&self) -> &oneshot::Receiver<T> {
        &self.item
    }
}

impl<T> DerefMut for Pending<'_, T> {
    fn deref_mut(&mut self) -> &mut oneshot::Receiver<T> {
        &mut self.item
    }
}

impl<T> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.refuse() {
            self.core.give_back(item);
        }
    }
}

/// Why nothing could be sent.
enum Refused<'a, T> {
    Full(Guard<'a, State<T>>, T),
    Closed(T),
}

/// Why nothing could be received.
enum Lacking<'a, T> {
    Empty(Guard<'a, State<T>>),
    Closed,
}

impl<T> State<T> {
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.items.len() + self.reserved < self.capacity
    }

    /// Gives an item to the first waiting receiver. Returns the item if there is none.
    #[inline(always)]
    pub(super) fn hand_over(&mut self, item: T) -> Result<Waiter, T> {
        let mut item = Some(item);
        let served = self.receivers.serve(|want| {
            if let Some(item) = item.take() {
                *want = Want::Item(item);
            }
        });
        match (served, item) {
            (_, Some(item)) => Err(item),
            (Some(((), waiter)), None) => Ok(waiter),
            (None, None) => unreachable!("only a receiver that is served takes the item"),
        }
    }

    /// Takes an item from the buffer, or else from the first waiting sender.
    #[inline]
    pub(super) fn take(&mut self) -> Option<(Want<T>, Option<Waiter>)> {
        if let Some(item) = self.items.pop_front() {
            if self.items.is_empty() && self.items.capacity() > IDLE_CAPACITY_MAX {
                // It is empty, so this frees memory and drops no item.
                self.items = VecDeque::new();
            }
            return Some((Want::Item(item), self.admit_sender()));
        }
        let (want, waiter) =
            self.senders.serve(|offer| match mem::replace(offer, Offer::Taken) {
                Offer::Item(item) => Want::Item(item),
                _ => {
                    let (sender, receiver) = oneshot::channel();
                    *offer = Offer::Pair(sender);
                    Want::Later(receiver)
                }
            })?;
        Some((want, Some(waiter)))
    }

    /// Lets the first waiting sender use the room, if there is some.
    #[inline]
    pub(super) fn admit_sender(&mut self) -> Option<Waiter> {
        if self.senders.is_empty() || !self.has_room() {
            return None;
        }
        let Self { senders, items, reserved, .. } = self;
        let served = senders.serve(|offer| match mem::replace(offer, Offer::Taken) {
            Offer::Item(item) => items.push_back(item),
            _ => {
                *offer = Offer::Room;
                *reserved += 1;
            }
        });
        served.map(|((), waiter)| waiter)
    }

    /// Ends the waits of the watchers, as something has changed. Drop the result when the lock has
    /// been released.
    #[inline]
    pub(super) fn take_watchers(&mut self) -> Woken {
        if self.watchers.is_empty() { Woken(None) } else { self.take_watchers_slowly() }
    }

    #[cold]
    fn take_watchers_slowly(&mut self) -> Woken {
        Woken(Some(Box::new(self.watchers.serve_all(|()| ()))))
    }
}

/// Watchers whose waits have ended. The drop wakes them. All are coroutines and threads, so it runs
/// no code of users. The type is one word, as there are seldom any watchers.
#[must_use]
pub(super) struct Woken(Option<Box<Waiters>>);

impl Woken {
    #[cold]
    fn wake(watchers: Waiters) {
        park::wake_all(watchers);
    }
}

impl Drop for Woken {
    #[inline]
    fn drop(&mut self) {
        if let Some(watchers) = self.0.take() {
            Self::wake(*watchers);
        }
    }
}

impl<T> Core<T> {
    #[track_caller]
    pub(super) fn new(capacity: Option<usize>) -> Self {
        Self {
            state: Lock::new(State {
                items: VecDeque::new(),
                capacity: capacity.unwrap_or(usize::MAX),
                senders: WaitQueue::new(),
                receivers: WaitQueue::new(),
                watchers: WaitQueue::new(),
                senders_dropped: false,
                receivers_dropped: false,
                reserved: 0,
                held: Vec::new(),
                next_ticket: 0,
            }),
            capacity,
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        }
    }

    /// How full it is, and its memory, for a report.
    fn about(&self, state: &State<T>) -> About {
        About::count(state.items.len(), self.capacity).shared(self)
    }

    /// Releases the lock, and wakes `waiter` and the watchers.
    #[inline(always)]
    pub(super) fn release_and_wake(mut state: Guard<'_, State<T>>, waiter: Option<Waiter>) {
        let watchers = state.take_watchers();
        drop(state);
        // These first, as the waker of a future may panic.
        drop(watchers);
        if let Some(waiter) = waiter {
            park::wake(waiter);
        }
    }

    #[inline]
    fn put(&self, item: T) -> Result<(), Refused<'_, T>> {
        let mut state = self.state.lock();
        if state.receivers_dropped {
            return Err(Refused::Closed(item));
        }
        match state.hand_over(item) {
            Ok(waiter) => Self::release_and_wake(state, Some(waiter)),
            Err(item) if state.has_room() => {
                state.items.push_back(item);
                Self::release_and_wake(state, None);
            }
            Err(item) => return Err(Refused::Full(state, item)),
        }
        Ok(())
    }

    /// Puts an item into room that was reserved for it.
    pub(super) fn put_reserved(&self, mut state: Guard<'_, State<T>>, item: T) {
        match state.hand_over(item) {
            Ok(waiter) => {
                // The room was not used.
                let sender = state.admit_sender();
                Self::release_and_wake(state, sender);
                park::wake(waiter);
            }
            Err(item) => {
                state.items.push_back(item);
                Self::release_and_wake(state, None);
            }
        }
    }

    #[inline]
    fn take(&self) -> Result<Want<T>, Lacking<'_, T>> {
        let mut state = self.state.lock();
        match state.take() {
            Some((want, waiter)) => {
                Self::release_and_wake(state, waiter);
                Ok(want)
            }
            None if state.senders_dropped => Err(Lacking::Closed),
            None => Err(Lacking::Empty(state)),
        }
    }

    #[inline]
    #[track_caller]
    pub(super) fn send(
        &self,
        item: T,
        deadline: Option<Instant>,
    ) -> Result<(), SendTimeoutError<T>> {
        park::spend();
        match self.put(item) {
            Ok(()) => Ok(()),
            Err(Refused::Closed(item)) => Err(SendTimeoutError::Disconnected(item)),
            Err(Refused::Full(state, item)) => self.send_slowly(state, item, deadline),
        }
    }

    #[inline]
    #[track_caller]
    fn send_slowly(
        &self,
        mut state: Guard<'_, State<T>>,
        item: T,
        deadline: Option<Instant>,
    ) -> Result<(), SendTimeoutError<T>> {
        // A watcher of the receiving end will find this sender.
        let watchers = state.take_watchers();
        let (lock, item) = (&self.state, Offer::Item(item));
        match wait_unless_cancelled(
            lock,
            state,
            |state| &mut state.senders,
            item,
            WAIT_FOR_ROOM,
            deadline,
            watchers,
            |state| self.about(state),
        )
        .map_err(Unserved::into_slot)
        {
            Ok(Offer::Item(item)) => Err(SendTimeoutError::Disconnected(item)),
            Err(Offer::Item(item)) => Err(SendTimeoutError::Timeout(item)),
            _ => Ok(()),
        }
    }

    pub(super) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        match self.put(item) {
            Ok(()) => Ok(()),
            Err(Refused::Closed(item)) => Err(TrySendError::Disconnected(item)),
            Err(Refused::Full(_, item)) => Err(TrySendError::Full(item)),
        }
    }

    #[inline]
    #[track_caller]
    pub(super) fn recv(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        park::spend();
        loop {
            let want = match self.take() {
                Ok(want) => want,
                Err(Lacking::Closed) => return Err(RecvTimeoutError::Disconnected),
                Err(Lacking::Empty(state)) => match self.wait_for_item(state, deadline) {
                    Some(want) => want,
                    None => return Err(RecvTimeoutError::Timeout),
                },
            };
            match want {
                Want::Item(item) => return Ok(item),
                // Every sender has been dropped, but an item may have been given back since.
                Want::Nothing => {}
                Want::Later(item) => match self.pending(item).wait(deadline) {
                    // The sender was chosen, and has made no item. There may be another sender.
                    Err(RecvTimeoutError::Disconnected) => {}
                    result => return result,
                },
            }
        }
    }

    #[inline]
    #[track_caller]
    fn wait_for_item(
        &self,
        mut state: Guard<'_, State<T>>,
        deadline: Option<Instant>,
    ) -> Option<Want<T>> {
        let watchers = state.take_watchers();
        wait_unless_cancelled(
            &self.state,
            state,
            |state| &mut state.receivers,
            Want::Nothing,
            WAIT_FOR_ITEM,
            deadline,
            watchers,
            |state| self.about(state),
        )
        .map_err(Unserved::into_slot)
        .ok()
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        loop {
            match self.take() {
                Ok(Want::Item(item)) => return Ok(item),
                Ok(Want::Later(item)) => {
                    if let Ok(item) = self.pending(item).wait(None) {
                        return Ok(item);
                    }
                }
                Ok(Want::Nothing) | Err(Lacking::Closed) => return Err(TryRecvError::Disconnected),
                Err(Lacking::Empty(_)) => return Err(TryRecvError::Empty),
            }
        }
    }

    /// The item that a receiver waits for which was given this.
    pub(super) fn pending(&self, item: oneshot::Receiver<T>) -> Pending<'_, T> {
        Pending { core: self, item }
    }

    // ---- the two ends ----

    pub(super) fn add_sender(&self) {
        self.senders.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_receiver(&self) {
        self.receivers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = self.state.lock();
            // From now on no receiver queues.
            state.senders_dropped = true;
            let receivers = state.receivers.serve_all(|_| ());
            Self::release_and_wake(state, None);
            park::wake_all(receivers);
        }
    }

    pub(super) fn remove_receiver(&self) {
        if self.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = self.state.lock();
            // From now on no sender queues.
            state.receivers_dropped = true;
            let senders = state.senders.serve_all(|_| ());
            // To be dropped when the lock has been released.
            let items = mem::take(&mut state.items);
            Self::release_and_wake(state, None);
            park::wake_all(senders);
            drop(items);
        }
    }

    // ---- what is asked of it ----

    pub(super) fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    pub(super) fn is_full(&self) -> bool {
        !self.state.lock().has_room()
    }
}
