//! Channels in a `select!`: each end is an operation.

use std::time::Instant;

use super::core::{Core, Held, Offer, State, Want};
use super::error::{RecvError, SendError};
use super::{Receiver, Sender, Source};
use crate::engine::waiter::Waiter;
use crate::sync::lock::Lock;
use crate::sync::operation::{Choice, Enlistment, Operation, Ticket};
use crate::sync::wait::{Enlisted, WaitQueue};

/// Which end of a channel takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Sender,
    Receiver,
}

impl<T> State<T> {
    /// Whether an operation could be done now, be it that it fails. `choice` is not met by itself.
    fn is_ready(&self, end: End, choice: Option<&Choice>) -> bool {
        match end {
            End::Sender => {
                self.receivers_gone || self.has_room() || self.receivers.has_other(choice)
            }
            End::Receiver => {
                self.senders_gone || !self.items.is_empty() || self.senders.has_other(choice)
            }
        }
    }
}

impl<T> Core<T> {
    /// Begins to receive, if that can be done at once.
    fn choose_recv(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        let (held, waiter) = match state.take() {
            Some((Want::Item(item), waiter)) => (Held::Item(item), waiter),
            Some((Want::Later(item), waiter)) => (Held::Later(item), waiter),
            _ if state.senders_gone => (Held::Gone, None),
            _ => return None,
        };
        let ticket = state.hold(held);
        Self::settle(state, waiter);
        Some(ticket)
    }

    /// Begins to send, if that can be done at once.
    fn choose_send(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        let mut sender = None;
        let met = if state.receivers_gone {
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
            None if state.receivers_gone => Held::Gone,
            None if state.has_room() => {
                state.reserved += 1;
                Held::Room
            }
            None => return None,
        };
        let ticket = state.hold(held);
        Self::settle(state, met.map(|((), waiter)| waiter));
        Some(ticket)
    }

    fn finish_recv(&self, ticket: Ticket) -> Result<T, RecvError> {
        let held = self.state.lock().fetch(ticket);
        match held {
            Held::Item(item) => return Ok(item),
            Held::Later(item) => {
                if let Ok(item) = self.owed(item).wait(None) {
                    return Ok(item);
                }
            }
            _ => {}
        }
        // Its sender has made none after all, or every sender has gone: the next one that comes, be it
        // that it is given back.
        self.recv(None).map_err(|_| RecvError)
    }

    fn finish_send(&self, ticket: Ticket, item: T) -> Result<(), SendError<T>> {
        let mut state = self.state.lock();
        match state.fetch(ticket) {
            Held::Room => {
                state.reserved -= 1;
                if state.receivers_gone {
                    drop(state);
                    return Err(SendError(item));
                }
                self.place(state, item);
                Ok(())
            }
            Held::Pair(receiver) => {
                drop(state);
                match receiver.send(item) {
                    Ok(()) => Ok(()),
                    // Its receiver was cancelled or timed out meanwhile: the next one that comes.
                    Err(item) => self.send(item, None).map_err(|e| SendError(e.into_inner())),
                }
            }
            _ => {
                drop(state);
                Err(SendError(item))
            }
        }
    }

    /// Gives back what is held for an operation that will not be completed.
    fn release(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        match state.fetch(ticket) {
            Held::Item(item) => {
                drop(state);
                self.give_back(item);
            }
            Held::Room => {
                state.reserved -= 1;
                // What a sender put there would be seen by nobody: it is told so.
                let waiter = if state.receivers_gone { None } else { state.let_in() };
                Self::settle(state, waiter);
            }
            Held::Later(item) => {
                drop(state);
                drop(self.owed(item));
            }
            held => {
                drop(state);
                // The other one of a pair learns of it, and looks for another.
                drop(held);
            }
        }
    }

    /// Puts back an item that was taken and not received.
    pub(super) fn give_back(&self, item: T) {
        let mut state = self.state.lock();
        if state.receivers_gone {
            drop(state);
            drop(item);
            return;
        }
        match state.hand_over(item) {
            Ok(waiter) => Self::settle(state, Some(waiter)),
            Err(item) => {
                // It was the oldest.
                state.items.push_front(item);
                Self::settle(state, None);
            }
        }
    }
}

/// A place in a channel's queue, of a `select!`.
struct Standing<'a, T, S> {
    core: &'a Core<T>,
    place: Enlisted<&'a Lock<State<T>>, State<T>, S>,
}

impl<T, S: Into<Held<T>>> Enlistment for Standing<'_, T, S> {
    fn leave(mut self: Box<Self>, served: bool) -> Option<Ticket> {
        let slot = self.place.leave()?;
        served.then(|| self.core.state.lock().hold(slot.into()))
    }
}

impl<T> From<Offer<T>> for Held<T> {
    fn from(offer: Offer<T>) -> Self {
        match offer {
            Offer::Room => Self::Room,
            Offer::Pair(sender) => Self::Pair(sender),
            Offer::Open | Offer::Item(_) | Offer::Taken => Self::Gone,
        }
    }
}

impl<T> From<Want<T>> for Held<T> {
    fn from(want: Want<T>) -> Self {
        match want {
            Want::Item(item) => Self::Item(item),
            Want::Later(item) => Self::Later(item),
            Want::Nothing => Self::Gone,
        }
    }
}

/// A place among those who look.
struct Looking<'a, T>(Enlisted<&'a Lock<State<T>>, State<T>, ()>);

impl<T> Enlistment for Looking<'_, T> {
    fn leave(mut self: Box<Self>, _: bool) -> Option<Ticket> {
        self.0.leave();
        None
    }
}

impl<T> Core<T> {
    fn stand<'a, S: Into<Held<T>> + 'a>(
        &'a self,
        end: End,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
        queue: fn(&mut State<T>) -> &mut WaitQueue<S>,
        slot: S,
    ) -> Option<Box<dyn Enlistment + 'a>> {
        let mut state = self.state.lock();
        if state.is_ready(end, Some(choice)) {
            return None;
        }
        // Who looks for the other end will find this one.
        state.show();
        let claim = Some((choice.clone(), number));
        let place = Enlisted::new(&self.state, state, queue, slot, waiter, claim);
        Some(Box::new(Standing { core: self, place }))
    }

    fn look<'a>(
        &'a self,
        end: End,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Enlistment + 'a>> {
        let state = self.state.lock();
        if state.is_ready(end, None) {
            return None;
        }
        let claim = Some((choice.clone(), number));
        let place = Enlisted::new(&self.state, state, |s| &mut s.lookers, (), waiter, claim);
        Some(Box::new(Looking(place)))
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
        match &self.source {
            Source::Core(core) => core.finish_recv(ticket),
            Source::Alarm(alarm) => alarm.finish(ticket).ok_or(RecvError),
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

    fn stand<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Enlistment + 'a>> {
        self.core.stand(End::Sender, waiter, choice, number, |s| &mut s.senders, Offer::Open)
    }

    fn look<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Enlistment + 'a>> {
        self.core.look(End::Sender, waiter, choice, number)
    }

    fn gives(&self) -> bool {
        true
    }

    fn release(&self, ticket: Ticket) {
        self.core.release(ticket);
    }
}

impl<T> Operation for Receiver<T> {
    fn choose(&self) -> Option<Ticket> {
        match &self.source {
            Source::Core(core) => core.choose_recv(),
            Source::Alarm(alarm) => alarm.choose(),
        }
    }

    fn is_ready(&self) -> bool {
        match &self.source {
            Source::Core(core) => core.state.lock().is_ready(End::Receiver, None),
            Source::Alarm(alarm) => alarm.is_due(),
        }
    }

    fn stand<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Enlistment + 'a>> {
        match &self.source {
            Source::Core(core) => core.stand(
                End::Receiver,
                waiter,
                choice,
                number,
                |s| &mut s.receivers,
                Want::Nothing,
            ),
            Source::Alarm(alarm) => alarm.stand(),
        }
    }

    fn look<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Enlistment + 'a>> {
        match &self.source {
            Source::Core(core) => core.look(End::Receiver, waiter, choice, number),
            Source::Alarm(alarm) => alarm.stand(),
        }
    }

    fn due(&self) -> Option<Instant> {
        match &self.source {
            Source::Core(_) => None,
            Source::Alarm(alarm) => alarm.due(),
        }
    }

    fn gives(&self) -> bool {
        true
    }

    fn release(&self, ticket: Ticket) {
        match &self.source {
            Source::Core(core) => core.release(ticket),
            Source::Alarm(alarm) => drop(alarm.finish(ticket)),
        }
    }
}
