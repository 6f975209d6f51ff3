//! Receivers to which the clock sends. They need no timer of their own: a coroutine or thread that
//! receives waits until the time has come.

use std::time::{Duration, Instant};

use super::error::{RecvTimeoutError, TryRecvError};
use crate::engine::park;
use crate::engine::task::Wait;
use crate::sync::lock::Lock;
use crate::sync::operation::{Nothing, Registration, Ticket};

const WAIT: Wait = Wait::new(&Wait::outside("a timer").of("recv from a clock", ""));

pub(super) struct Alarm<T> {
    state: Lock<State>,
    period: Option<Duration>,
    pub(super) capacity: usize,
    // The item for a time: only a channel of times has one, and `never` has items of any type.
    item: fn(Instant) -> Option<T>,
}

struct State {
    // When the next item is due, if there will be one.
    due: Option<Instant>,
    // Items that were chosen in a `select!` and not received yet.
    held: Vec<(Ticket, Instant)>,
    next_ticket: Ticket,
}

impl<T> Alarm<T> {
    pub(super) fn new(
        due: Option<Instant>,
        period: Option<Duration>,
        capacity: usize,
        item: fn(Instant) -> Option<T>,
    ) -> Self {
        let state = Lock::new(State { due, held: Vec::new(), next_ticket: 0 });
        Self { state, period, capacity, item }
    }

    /// Whether nothing is ever sent: two such channels are the same.
    pub(super) fn is_never(&self) -> bool {
        self.capacity == 0
    }

    /// When the next item is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.state.lock().due
    }

    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= park::now())
    }

    /// Takes the time that was due, if it has come by `now`. That was read before the lock was
    /// taken, because the clock of a host is user code. A late reading undoes no tick: the due time
    /// only grows.
    fn take(&self, state: &mut State, now: Instant) -> Option<Instant> {
        let due = state.due.filter(|due| *due <= now)?;
        state.due = self.period.and_then(|period| {
            let next = due.checked_add(period)?;
            if next > now { Some(next) } else { now.checked_add(period) }
        });
        Some(due)
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        let now = park::now();
        let due = self.take(&mut self.state.lock(), now);
        due.and_then(self.item).ok_or(TryRecvError::Empty)
    }

    pub(super) fn recv(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        park::spend();
        let deadline = deadline.map(park::limited);
        loop {
            if let Ok(item) = self.try_recv() {
                return Ok(item);
            }
            if deadline.is_some_and(|deadline| deadline <= park::now()) {
                return Err(RecvTimeoutError::Timeout);
            }
            let until = [self.due(), deadline].into_iter().flatten().min();
            park::block(park::waiter(), WAIT, until);
        }
    }

    pub(super) fn choose(&self) -> Option<Ticket> {
        let now = park::now();
        let mut state = self.state.lock();
        let due = self.take(&mut state, now)?;
        state.next_ticket += 1;
        let ticket = state.next_ticket;
        state.held.push((ticket, due));
        Some(ticket)
    }

    /// Takes the item of a chosen operation. The clock has sent it, whether it is received or not.
    pub(super) fn finish(&self, ticket: Ticket) -> Option<T> {
        let mut state = self.state.lock();
        let at = state.held.iter().position(|(number, _)| *number == ticket)?;
        let (_, due) = state.held.swap_remove(at);
        (self.item)(due)
    }

    /// A waiter waits until the alarm is due, so it need not be woken.
    pub(super) fn register<'a>(&self) -> Option<Box<dyn Registration + 'a>> {
        if self.is_due() { None } else { Some(Box::new(Nothing)) }
    }
}
