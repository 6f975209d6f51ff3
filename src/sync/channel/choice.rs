//! Channels in a `select!`: each end is an operation.

use std::time::Instant;

use super::core::{Core, Held, Offer, State, Want};
use super::ends::{Flavor, Receiver, Sender};
use super::error::{RecvError, SendError};
use crate::engine::cancel;
use crate::engine::defer::Defer;
use crate::engine::subject::Object;
use crate::engine::waiter::Waiter;
use crate::sync::lock::{Guard, Lock};
use crate::sync::operation::{Choice, Operation, Registration, Ticket};
use crate::sync::wait::{Registered, WaitQueue};

/// Which end of a channel takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Sender,
    Receiver,
}

impl<T> State<T> {
    /// Whether an operation could be done now, even if only to fail. Waiters of the same `choice`
    /// do not count: it must not meet itself.
    fn is_ready(&self, end: End, choice: Option<&Choice>) -> bool {
        match end {
            End::Sender => {
                self.receivers_dropped || self.has_room() || self.receivers.has_waiter(choice)
            }
            End::Receiver => {
                self.senders_dropped || !self.items.is_empty() || self.senders.has_waiter(choice)
            }
        }
    }

    /// Holds an outcome until its operation is completed.
    fn hold(&mut self, held: Held<T>) -> Ticket {
        self.next_ticket += 1;
        self.held.push((self.next_ticket, held));
        self.next_ticket
    }

    /// Returns an outcome that was held.
    fn redeem(&mut self, ticket: Ticket) -> Held<T> {
        let at = self.held.iter().position(|(number, _)| *number == ticket);
        self.held.swap_remove(at.expect("a chosen operation is completed once")).1
    }
}

impl<T> Core<T> {
    /// Begins to receive, if that can be done at once.
    fn choose_recv(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        let (held, waiter) = match state.take() {
            Some((Want::Item(item), waiter)) => (Held::Item(item), waiter),
            Some((Want::Later(item), waiter)) => (Held::Later(item), waiter),
            _ if state.senders_dropped => (Held::Closed, None),
            _ => return None,
        };
        Some(self.hold(state, held, waiter))
    }

    /// Begins to send, if that can be done at once.
    fn choose_send(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        let mut sender = None;
        let met = if state.receivers_dropped {
            None
        } else {
            state.receivers.serve(|want| {
                let (one, two) = super::oneshot::channel();
                sender = Some(one);
                *want = Want::Later(two);
            })
        };
        let held = match sender {
            Some(sender) => Held::Pair(sender),
            None if state.receivers_dropped => Held::Closed,
            None if state.has_room() => {
                state.reserved += 1;
                Held::Room
            }
            None => return None,
        };
        Some(self.hold(state, held, met.map(|((), waiter)| waiter)))
    }

    /// Keeps an outcome for the operation that has been chosen, and wakes the other side.
    fn hold(
        &self,
        mut state: Guard<'_, State<T>>,
        held: Held<T>,
        waiter: Option<Waiter>,
    ) -> Ticket {
        let ticket = state.hold(held);
        // The waker of a future may panic, or be cancelled in a wait. Then nothing is chosen. (It
        // may be called again here, and panic again.)
        let give_back = Defer::new(|| cancel::catch_and_forget(|| self.release(ticket)));
        Self::release_and_wake(state, waiter);
        give_back.disarm();
        ticket
    }

    /// Waits for the item of a receive that has met a `select!`.
    fn settle_recv(&self, ticket: Ticket, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        let mut held = state.redeem(ticket);
        if let Held::Later(item) = held {
            drop(state);
            let Ok(item) = self.pending(item).wait(deadline) else { return false };
            held = Held::Item(item);
            state = self.state.lock();
        }
        state.held.push((ticket, held));
        true
    }

    fn finish_recv(&self, ticket: Ticket) -> Result<T, RecvError> {
        let held = self.state.lock().redeem(ticket);
        match held {
            Held::Item(item) => Ok(item),
            // All senders are gone, but an item may have been given back since.
            _ => self.try_recv().map_err(|_| RecvError),
        }
    }

    fn finish_send(&self, ticket: Ticket, item: T) -> Result<(), SendError<T>> {
        let mut state = self.state.lock();
        match state.redeem(ticket) {
            Held::Room => {
                state.reserved -= 1;
                if state.receivers_dropped {
                    drop(state);
                    return Err(SendError(item));
                }
                self.put_reserved(state, item);
                Ok(())
            }
            Held::Pair(receiver) => {
                drop(state);
                match receiver.send(item) {
                    Ok(()) => Ok(()),
                    // The paired receiver was cancelled or timed out. A plain send could wait for
                    // ever, whatever limit the `select!` has.
                    Err(item) => self.put_back(item).map_err(SendError),
                }
            }
            _ => {
                drop(state);
                Err(SendError(item))
            }
        }
    }

    /// Gives back the outcome of an operation that will not be completed.
    fn release(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        match state.redeem(ticket) {
            Held::Item(item) => {
                drop(state);
                self.give_back(item);
            }
            Held::Room => {
                state.reserved -= 1;
                // No receiver would take an item that a sender puts there now.
                let waiter = if state.receivers_dropped { None } else { state.admit_sender() };
                Self::release_and_wake(state, waiter);
            }
            held => {
                drop(state);
                // The other side of a pair then looks for another partner.
                drop(held);
            }
        }
    }

    /// Puts back an item that was taken and not received.
    pub(super) fn give_back(&self, item: T) {
        drop(self.put_back(item));
    }

    /// [`give_back`](Self::give_back), which returns the item when every receiver has been dropped.
    fn put_back(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.receivers_dropped {
            return Err(item);
        }
        match state.hand_over(item) {
            Ok(waiter) => Self::release_and_wake(state, Some(waiter)),
            Err(item) => {
                // It was the oldest.
                state.items.push_front(item);
                Self::release_and_wake(state, None);
            }
        }
        Ok(())
    }
}

/// A select's registration in a channel's queue.
struct Chooser<'a, T, S> {
    core: &'a Core<T>,
    entry: Registered<&'a Lock<State<T>>, State<T>, S>,
}

impl<T, S: Into<Held<T>>> Registration for Chooser<'_, T, S> {
    fn shared(&self) -> Option<Object> {
        Some(Object::in_arc(self.core))
    }

    fn deregister(mut self: Box<Self>, served: bool) -> Option<Ticket> {
        let slot = self.entry.deregister()?;
        served.then(|| self.core.state.lock().hold(slot.into()))
    }
}

impl<T> From<Offer<T>> for Held<T> {
    fn from(offer: Offer<T>) -> Self {
        match offer {
            Offer::Room => Self::Room,
            Offer::Pair(sender) => Self::Pair(sender),
            Offer::Open | Offer::Item(_) | Offer::Taken => Self::Closed,
        }
    }
}

impl<T> From<Want<T>> for Held<T> {
    fn from(want: Want<T>) -> Self {
        match want {
            Want::Item(item) => Self::Item(item),
            Want::Later(item) => Self::Later(item),
            Want::Nothing => Self::Closed,
        }
    }
}

/// A select's registration among the watchers of a channel.
struct Watcher<'a, T>(Registered<&'a Lock<State<T>>, State<T>, ()>);

impl<T> Registration for Watcher<'_, T> {
    fn deregister(mut self: Box<Self>, _: bool) -> Option<Ticket> {
        self.0.deregister();
        None
    }
}

impl<T> Core<T> {
    fn register<'a, S: Into<Held<T>> + 'a>(
        &'a self,
        end: End,
        waiter: Waiter,
        claim: (&Choice, usize),
        queue: fn(&mut State<T>) -> &mut WaitQueue<S>,
        slot: S,
    ) -> Option<Box<dyn Registration + 'a>> {
        let mut state = self.state.lock();
        if state.is_ready(end, Some(claim.0)) {
            return None;
        }
        // Watchers of the other end will find this one.
        let watchers = state.take_watchers();
        let entry = Registered::choice(&self.state, state, queue, slot, waiter, claim);
        drop(watchers);
        Some(Box::new(Chooser { core: self, entry }))
    }

    fn watch<'a>(
        &'a self,
        end: End,
        waiter: Waiter,
        claim: (&Choice, usize),
    ) -> Option<Box<dyn Registration + 'a>> {
        let state = self.state.lock();
        if state.is_ready(end, None) {
            return None;
        }
        let lock = &self.state;
        Some(Box::new(Watcher(Registered::choice(
            lock,
            state,
            |state| &mut state.watchers,
            (),
            waiter,
            claim,
        ))))
    }
}

impl<T> Sender<T> {
    /// Completes a send that was chosen.
    pub(in crate::sync) fn finish(&self, ticket: Ticket, item: T) -> Result<(), SendError<T>> {
        self.core.finish_send(ticket, item)
    }
}

impl<T> Receiver<T> {
    /// Completes a receive that was chosen.
    pub(in crate::sync) fn finish(&self, ticket: Ticket) -> Result<T, RecvError> {
        match &self.flavor {
            Flavor::Items(core) => core.finish_recv(ticket),
            Flavor::Clock(alarm) => alarm.finish(ticket).ok_or(RecvError),
        }
    }
}

impl<T> Operation for Sender<T> {
    fn choose(&self) -> Option<Ticket> {
        self.core.choose_send()
    }

    fn is_ready(&self) -> bool {
        self.core.state.lock().is_ready(End::Sender, None)
    }

    fn register<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        let claim = (choice, number);
        self.core.register(End::Sender, waiter, claim, |s| &mut s.senders, Offer::Open)
    }

    fn watch<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        self.core.watch(End::Sender, waiter, (choice, number))
    }

    fn moves_item(&self) -> bool {
        true
    }

    fn release(&self, ticket: Ticket) {
        self.core.release(ticket);
    }
}

impl<T> Operation for Receiver<T> {
    fn choose(&self) -> Option<Ticket> {
        match &self.flavor {
            Flavor::Items(core) => core.choose_recv(),
            Flavor::Clock(alarm) => alarm.choose(),
        }
    }

    fn settle(&self, ticket: Ticket, deadline: Option<Instant>) -> bool {
        match &self.flavor {
            Flavor::Items(core) => core.settle_recv(ticket, deadline),
            Flavor::Clock(_) => true,
        }
    }

    fn is_ready(&self) -> bool {
        match &self.flavor {
            Flavor::Items(core) => core.state.lock().is_ready(End::Receiver, None),
            Flavor::Clock(alarm) => alarm.is_due(),
        }
    }

    fn register<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        let claim = (choice, number);
        match &self.flavor {
            Flavor::Items(core) => {
                core.register(End::Receiver, waiter, claim, |s| &mut s.receivers, Want::Nothing)
            }
            Flavor::Clock(alarm) => alarm.register(),
        }
    }

    fn watch<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        match &self.flavor {
            Flavor::Items(core) => core.watch(End::Receiver, waiter, (choice, number)),
            Flavor::Clock(alarm) => alarm.register(),
        }
    }

    fn claims(&self) -> bool {
        matches!(self.flavor, Flavor::Items(_))
    }

    fn due(&self) -> Option<Instant> {
        match &self.flavor {
            Flavor::Items(_) => None,
            Flavor::Clock(alarm) => alarm.due(),
        }
    }

    fn moves_item(&self) -> bool {
        true
    }

    fn release(&self, ticket: Ticket) {
        match &self.flavor {
            Flavor::Items(core) => core.release(ticket),
            Flavor::Clock(alarm) => drop(alarm.finish(ticket)),
        }
    }
}
