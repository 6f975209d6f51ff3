//! The armed timers of one scheduler, and their actions.

use std::cell::RefCell;

use super::super::scopes::ScopeId;
use super::super::timer::{TimerKey, Timers};

/// The action of a timer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// Ends the wait of the task in this slot.
    Wake(u32),
    /// Cancels a scope of the task in this slot.
    Cancel(u32, ScopeId),
    /// Makes a coroutine of the call in this slot.
    Call(u32),
    /// Wakes the future in this slot.
    Sleep(u32),
}

/// The armed timers. Times are in nanoseconds of the scheduler's clock.
#[derive(Debug)]
pub(super) struct Alarms(RefCell<Timers<Alarm>>);

impl Alarms {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(Timers::new()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// [`len`](Self::len), unless the timers are being changed at this moment. Async-signal-safe.
    pub(super) fn try_len(&self) -> Option<usize> {
        self.0.try_borrow().ok().map(|timers| timers.len())
    }

    #[inline]
    pub(super) fn add(&self, at: u64, alarm: Alarm) -> TimerKey {
        self.0.borrow_mut().add(at, alarm)
    }

    /// Takes back a timer that has not fired.
    #[inline]
    pub(super) fn cancel(&self, key: TimerKey) {
        self.0.borrow_mut().cancel(key);
    }

    /// The time of a timer that has not fired.
    pub(super) fn time_of(&self, key: TimerKey) -> Option<u64> {
        self.0.borrow().deadline(key)
    }

    /// When the next timer fires, exactly or a little early.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.borrow().next()
    }

    /// Has the time be `now`, which may be earlier than it was.
    pub(super) fn set_time(&self, now: u64) {
        self.0.borrow_mut().set_time(now);
    }

    /// Takes the alarms that are due.
    pub(super) fn expire(&self, now: u64) -> Vec<Alarm> {
        let mut due = Vec::new();
        self.0.borrow_mut().expire(now, &mut due);
        due
    }
}
