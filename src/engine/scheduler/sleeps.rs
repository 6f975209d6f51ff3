//! Futures that sleep: the core of `time::Sleep`.

use std::cell::RefCell;
use std::fmt;

use slab::Slab;

use super::super::mailbox::{Mailbox, Message, ThreadId};
use super::super::timer::TimerKey;
use super::super::waiter::Waiter;
use super::alarms::{Alarm, Alarms};

/// A future whose time has not come.
struct Sleeper {
    waiter: Waiter,
    // `None` when it has fired, and its turn in the batch of the timers has not come.
    timer: Option<TimerKey>,
    number: u64,
}

/// Names one armed sleep of one thread, by a number that is never used again.
#[derive(Clone, Copy)]
pub(crate) struct SleepKey {
    mailbox: &'static Mailbox,
    slot: u32,
    number: u64,
}

impl SleepKey {
    /// Whether the calling thread has armed the sleep.
    pub(crate) fn is_here(self) -> bool {
        self.mailbox.thread() == ThreadId::current()
    }

    /// Has the thread that has armed the sleep take it back.
    pub(crate) fn disarm_elsewhere(self) {
        self.mailbox.send(Message::Disarm { slot: self.slot, number: self.number });
    }
}

impl fmt::Debug for SleepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SleepKey").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The armed sleeps of one scheduler.
pub(super) struct Sleeps(RefCell<Slab<Sleeper>>);

impl Sleeps {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(Slab::new()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Wakes `waiter` at `at`, in nanoseconds of the clock. `mailbox` is that of this thread.
    pub(super) fn add(
        &self,
        alarms: &Alarms,
        at: u64,
        waiter: Waiter,
        mailbox: &'static Mailbox,
    ) -> SleepKey {
        let mut sleepers = self.0.borrow_mut();
        let entry = sleepers.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer than 2^32 sleeps");
        let (timer, number) = (alarms.add(at, Alarm::Sleep(slot)), mailbox.next_wait());
        entry.insert(Sleeper { waiter, timer: Some(timer), number });
        SleepKey { mailbox, slot, number }
    }

    /// Whether a sleep of this thread is armed still.
    pub(super) fn has(&self, SleepKey { slot, number, .. }: SleepKey) -> bool {
        self.0.borrow().get(slot as usize).is_some_and(|sleeper| sleeper.number == number)
    }

    /// Takes back the sleep with this number. Returns whether it was armed still.
    pub(super) fn cancel(&self, alarms: &Alarms, slot: u32, number: u64) -> bool {
        let (mut sleepers, slot) = (self.0.borrow_mut(), slot as usize);
        let armed = sleepers.get(slot).is_some_and(|sleeper| sleeper.number == number);
        if armed {
            let sleeper = sleepers.remove(slot);
            sleeper.timer.into_iter().for_each(|timer| alarms.cancel(timer));
        }
        armed
    }

    /// Takes back a sleep of this thread. Returns whether it was armed still.
    pub(super) fn disarm(&self, alarms: &Alarms, key: SleepKey) -> bool {
        self.cancel(alarms, key.slot, key.number)
    }

    /// Forgets the timer of the sleep in this slot, which has fired.
    pub(super) fn forget_timer(&self, slot: u32) -> Option<()> {
        self.0.borrow_mut().get_mut(slot as usize).map(|sleeper| sleeper.timer = None)
    }

    /// Takes the future in this slot, if its timer has fired. Otherwise the sleep that was here was
    /// taken back, and another has its slot.
    pub(super) fn take_due(&self, slot: u32) -> Option<Waiter> {
        let (mut sleepers, slot) = (self.0.borrow_mut(), slot as usize);
        sleepers.get(slot).filter(|sleeper| sleeper.timer.is_none())?;
        Some(sleepers.remove(slot).waiter)
    }

    /// Takes all sleeps back.
    pub(super) fn take_all(&self, alarms: &Alarms) -> Vec<Waiter> {
        let take = |(_, sleeper): (usize, Sleeper)| {
            sleeper.timer.into_iter().for_each(|timer| alarms.cancel(timer));
            sleeper.waiter
        };
        self.0.take().into_iter().map(take).collect()
    }
}
