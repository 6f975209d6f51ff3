//! The one core under all channels that carry items from many to many.
//!
//! An item goes straight to the first who waits for one; if nobody does, into the buffer; if that
//! is full, its sender waits with the item in its own place. Whoever takes an item moves that of the first
//! waiting sender into the room it makes. All of it happens under one lock, under which no
//! code of a user runs: no item is cloned or dropped there.
//!
//! An operation chosen by a `select!` is done in two steps, because its item is made only when it
//! has been chosen. Between them the channel holds its outcome, under a [`Ticket`]: the item taken,
//! the room reserved, or one end of a [`oneshot`] through which a chosen sender and its receiver,
//! who meet without a buffer, are linked.

use std::collections::VecDeque;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::error::{RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError};
use super::oneshot;
use crate::engine::park;
use crate::engine::task::Wait;
use crate::engine::waiter::Waiter;
use crate::sync::lock::{Guard, Lock};
use crate::sync::operation::Ticket;
use crate::sync::wait::{WaitQueue, wait};

/// Slots that an empty buffer keeps.
const KEEP: usize = 4096;

/// What is between the senders and the receivers of a channel.
pub(super) struct Core<T> {
    pub(super) state: Lock<State<T>>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

pub(super) struct State<T> {
    pub(super) items: VecDeque<T>,
    // usize::MAX for one without bounds.
    capacity: usize,
    pub(super) senders: WaitQueue<Offer<T>>,
    pub(super) receivers: WaitQueue<Want<T>>,
    // Those who only want to know that something has changed.
    pub(super) lookers: WaitQueue<()>,
    pub(super) senders_gone: bool,
    pub(super) receivers_gone: bool,
    // Room that belongs to senders who have been chosen and have not sent yet.
    pub(super) reserved: usize,
    held: Vec<(Ticket, Held<T>)>,
    next_ticket: Ticket,
}

/// What a waiting sender offers, and what it is given.
pub(super) enum Offer<T> {
    /// An item. Who serves it and leaves it here says that every receiver has gone.
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

/// What a waiting receiver is given.
pub(super) enum Want<T> {
    /// Nothing: every sender has gone.
    Nothing,
    Item(T),
    /// An item that is being made.
    Later(oneshot::Receiver<T>),
}

/// What comes of an operation that was chosen and has not been completed.
pub(super) enum Held<T> {
    /// The other side has gone.
    Gone,
    Item(T),
    Later(oneshot::Receiver<T>),
    Room,
    Pair(oneshot::Sender<T>),
}

/// An item that a chosen sender is making, for one who may give up before it comes: if it has come by
/// then it goes back to the channel, as its sender was told that it has been sent.
pub(super) struct Owed<'a, T> {
    core: &'a Core<T>,
    item: oneshot::Receiver<T>,
}

impl<T> Deref for Owed<'_, T> {
    type Target = oneshot::Receiver<T>;

    fn deref(&self) -> &oneshot::Receiver<T> {
        &self.item
    }
}

impl<T> DerefMut for Owed<'_, T> {
    fn deref_mut(&mut self) -> &mut oneshot::Receiver<T> {
        &mut self.item
    }
}

impl<T> Drop for Owed<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.refuse() {
            self.core.give_back(item);
        }
    }
}

/// Why nothing could be sent.
enum Refused<'a, T> {
    Full(Guard<'a, State<T>>, T),
    Gone(T),
}

/// Why nothing could be received.
enum Lacking<'a, T> {
    Empty(Guard<'a, State<T>>),
    Gone,
}

impl<T> State<T> {
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.items.len() + self.reserved < self.capacity
    }

    /// Gives an item to the first who waits for one. Returns the item if nobody does.
    #[inline]
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
            (None, None) => unreachable!("only who is served takes the item"),
        }
    }

    /// Takes an item from the buffer, or else from the first who waits to send one.
    #[inline]
    pub(super) fn take(&mut self) -> Option<(Want<T>, Option<Waiter>)> {
        if let Some(item) = self.items.pop_front() {
            if self.items.is_empty() && self.items.capacity() > KEEP {
                // It is empty, so this frees memory and drops no item.
                self.items = VecDeque::new();
            }
            return Some((Want::Item(item), self.let_in()));
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

    /// Lets the first who waits to send use the room, if there is some.
    #[inline]
    pub(super) fn let_in(&mut self) -> Option<Waiter> {
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

    pub(super) fn hold(&mut self, held: Held<T>) -> Ticket {
        self.next_ticket += 1;
        self.held.push((self.next_ticket, held));
        self.next_ticket
    }

    pub(super) fn fetch(&mut self, ticket: Ticket) -> Held<T> {
        let at = self.held.iter().position(|(number, _)| *number == ticket);
        self.held.swap_remove(at.expect("a chosen operation is completed once")).1
    }

    /// Has those who look for any change look again.
    #[inline]
    pub(super) fn show(&mut self) {
        while let Some(((), looker)) = self.lookers.serve(|()| ()) {
            // They are coroutines and threads and no futures, so this runs nobody's code.
            park::wake(looker);
        }
    }
}

impl<T> Core<T> {
    pub(super) fn new(capacity: Option<usize>) -> Self {
        Self {
            state: Lock::new(State {
                items: VecDeque::new(),
                capacity: capacity.unwrap_or(usize::MAX),
                senders: WaitQueue::new(),
                receivers: WaitQueue::new(),
                lookers: WaitQueue::new(),
                senders_gone: false,
                receivers_gone: false,
                reserved: 0,
                held: Vec::new(),
                next_ticket: 0,
            }),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        }
    }

    /// Releases the lock and wakes those for whom something has changed.
    #[inline]
    pub(super) fn settle(mut state: Guard<'_, State<T>>, waiter: Option<Waiter>) {
        state.show();
        drop(state);
        if let Some(waiter) = waiter {
            park::wake(waiter);
        }
    }

    #[inline]
    fn put(&self, item: T) -> Result<(), Refused<'_, T>> {
        let mut state = self.state.lock();
        if state.receivers_gone {
            return Err(Refused::Gone(item));
        }
        match state.hand_over(item) {
            Ok(waiter) => Self::settle(state, Some(waiter)),
            Err(item) if state.has_room() => {
                state.items.push_back(item);
                Self::settle(state, None);
            }
            Err(item) => return Err(Refused::Full(state, item)),
        }
        Ok(())
    }

    /// Gives an item into room that was reserved for it.
    pub(super) fn place(&self, mut state: Guard<'_, State<T>>, item: T) {
        match state.hand_over(item) {
            Ok(waiter) => {
                // Nobody has used the room.
                let sender = state.let_in();
                Self::settle(state, Some(waiter));
                sender.into_iter().for_each(park::wake);
            }
            Err(item) => {
                state.items.push_back(item);
                Self::settle(state, None);
            }
        }
    }

    #[inline]
    fn take(&self) -> Result<Want<T>, Lacking<'_, T>> {
        let mut state = self.state.lock();
        match state.take() {
            Some((want, waiter)) => {
                Self::settle(state, waiter);
                Ok(want)
            }
            None if state.senders_gone => Err(Lacking::Gone),
            None => Err(Lacking::Empty(state)),
        }
    }

    #[inline]
    pub(super) fn send(
        &self,
        item: T,
        deadline: Option<Instant>,
    ) -> Result<(), SendTimeoutError<T>> {
        park::spend();
        match self.put(item) {
            Ok(()) => Ok(()),
            Err(Refused::Gone(item)) => Err(SendTimeoutError::Disconnected(item)),
            Err(Refused::Full(state, item)) => self.send_slowly(state, item, deadline),
        }
    }

    #[inline]
    fn send_slowly(
        &self,
        mut state: Guard<'_, State<T>>,
        item: T,
        deadline: Option<Instant>,
    ) -> Result<(), SendTimeoutError<T>> {
        // Who looks for something to receive will find this sender.
        state.show();
        let why = Wait::for_any_thread("room in a channel");
        let item = Offer::Item(item);
        match wait(&self.state, state, |state| &mut state.senders, item, why, deadline) {
            Ok(Offer::Item(item)) => Err(SendTimeoutError::Disconnected(item)),
            Err(Offer::Item(item)) => Err(SendTimeoutError::Timeout(item)),
            _ => Ok(()),
        }
    }

    pub(super) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        match self.put(item) {
            Ok(()) => Ok(()),
            Err(Refused::Gone(item)) => Err(TrySendError::Disconnected(item)),
            Err(Refused::Full(_, item)) => Err(TrySendError::Full(item)),
        }
    }

    #[inline]
    pub(super) fn recv(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        park::spend();
        loop {
            let want = match self.take() {
                Ok(want) => want,
                Err(Lacking::Gone) => return Err(RecvTimeoutError::Disconnected),
                Err(Lacking::Empty(state)) => match self.wait_for_item(state, deadline) {
                    Some(want) => want,
                    None => return Err(RecvTimeoutError::Timeout),
                },
            };
            match want {
                Want::Item(item) => return Ok(item),
                // Every sender has gone. An item may have been given back since.
                Want::Nothing => {}
                Want::Later(item) => match self.owed(item).wait(deadline) {
                    // The sender was chosen, and has made no item: there is another, perhaps.
                    Err(RecvTimeoutError::Disconnected) => {}
                    result => return result,
                },
            }
        }
    }

    #[inline]
    fn wait_for_item(
        &self,
        mut state: Guard<'_, State<T>>,
        deadline: Option<Instant>,
    ) -> Option<Want<T>> {
        state.show();
        let why = Wait::for_any_thread("an item of a channel");
        wait(&self.state, state, |state| &mut state.receivers, Want::Nothing, why, deadline).ok()
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        loop {
            match self.take() {
                Ok(Want::Item(item)) => return Ok(item),
                Ok(Want::Later(item)) => {
                    if let Ok(item) = self.owed(item).wait(None) {
                        return Ok(item);
                    }
                }
                Ok(Want::Nothing) | Err(Lacking::Gone) => return Err(TryRecvError::Disconnected),
                Err(Lacking::Empty(_)) => return Err(TryRecvError::Empty),
            }
        }
    }

    /// What a receiver that was given this waits for.
    pub(super) fn owed(&self, item: oneshot::Receiver<T>) -> Owed<'_, T> {
        Owed { core: self, item }
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
            self.state.lock().senders_gone = true;
            // Nobody enlists from now on.
            while let Some(waiter) = self.dismiss(|state| &mut state.receivers) {
                park::wake(waiter);
            }
        }
    }

    pub(super) fn remove_receiver(&self) {
        if self.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut state = self.state.lock();
            state.receivers_gone = true;
            // To be dropped when the lock is released.
            let items = mem::take(&mut state.items);
            drop(state);
            while let Some(waiter) = self.dismiss(|state| &mut state.senders) {
                park::wake(waiter);
            }
            drop(items);
        }
    }

    /// Ends the wait of the first in a queue with nothing given.
    fn dismiss<S>(&self, queue: fn(&mut State<T>) -> &mut WaitQueue<S>) -> Option<Waiter> {
        let mut state = self.state.lock();
        state.show();
        queue(&mut state).serve(|_| ()).map(|((), waiter)| waiter)
    }

    // ---- what is asked of it ----

    pub(super) fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    pub(super) fn is_full(&self) -> bool {
        !self.state.lock().has_room()
    }

    pub(super) fn capacity(&self) -> Option<usize> {
        Some(self.state.lock().capacity).filter(|&capacity| capacity != usize::MAX)
    }
}
