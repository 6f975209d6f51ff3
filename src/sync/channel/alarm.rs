//! Receivers to which the clock sends. Nobody runs for them: who receives waits until it is time.

use std::time::{Duration, Instant};

use super::Receiver;
use super::error::{RecvTimeoutError, TryRecvError};
use crate::engine::context;
use crate::engine::task::Wait;
use crate::sync::lock::Lock;

/// A receiver to which one item is sent after `duration`: the time at which it was due.
///
/// ```
/// use std::time::Duration;
/// use plainsong::sync::channel::{after, unbounded};
/// use plainsong::select;
///
/// plainsong::run(|| {
///     let (_sender, receiver) = unbounded::<()>();
///     select! {
///         recv(receiver) -> _ => unreachable!("nobody sends"),
///         recv(after(Duration::from_millis(1))) -> _ => {}
///     }
/// });
/// ```
pub fn after(duration: Duration) -> Receiver<Instant> {
    // A time that the clock cannot hold does not come.
    new(context::now().checked_add(duration), None)
}

/// A receiver to which one item is sent at `time`, that time.
pub fn at(time: Instant) -> Receiver<Instant> {
    new(Some(time), None)
}

/// A receiver to which the time is sent each `period`, first in one period from now. It holds one
/// item at most: ticks that nobody has received in time are left out.
pub fn tick(period: Duration) -> Receiver<Instant> {
    new(context::now().checked_add(period), Some(period))
}

/// A receiver to which nothing is ever sent, as a branch of `select!` that may be switched off.
pub fn never<T>() -> Receiver<T> {
    Receiver::from_alarm(Alarm { due: Lock::new(None), period: None, capacity: 0, item: |_| None })
}

fn new(due: Option<Instant>, period: Option<Duration>) -> Receiver<Instant> {
    Receiver::from_alarm(Alarm { due: Lock::new(due), period, capacity: 1, item: Some })
}

pub(super) struct Alarm<T> {
    // When the next item is due, if one will be.
    due: Lock<Option<Instant>>,
    period: Option<Duration>,
    pub(super) capacity: usize,
    item: fn(Instant) -> Option<T>,
}

impl<T> Alarm<T> {
    /// When there will be something to receive.
    pub(super) fn due(&self) -> Option<Instant> {
        *self.due.lock()
    }

    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= context::now())
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut next = self.due.lock();
        // Read under the lock, or a late reading could undo a tick.
        let now = context::now();
        let due = next.filter(|due| *due <= now).ok_or(TryRecvError::Empty)?;
        *next = self.period.and_then(|period| now.checked_add(period));
        (self.item)(due).ok_or(TryRecvError::Empty)
    }

    pub(super) fn recv(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        context::spend();
        loop {
            if let Ok(item) = self.try_recv() {
                return Ok(item);
            }
            if deadline.is_some_and(|deadline| deadline <= context::now()) {
                return Err(RecvTimeoutError::Timeout);
            }
            let until = [self.due(), deadline].into_iter().flatten().min();
            context::block(context::waiter(), Wait::Sleep, until);
        }
    }
}
