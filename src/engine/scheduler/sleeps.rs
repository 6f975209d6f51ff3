//! Futures that sleep: the core of `time::Sleep`.

use std::cell::RefCell;

use slab::Slab;

use super::super::mailbox::ThreadId;
use super::super::timer::TimerKey;
use super::super::waiter::Waiter;
use super::alarms::{Alarm, Alarms};

/// A future whose time has not come.
struct Sleeper {
    waiter: Waiter,
    timer: TimerKey,
    number: u64,
}

/// Names one armed sleep of one thread, by a number that is never used again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SleepKey {
    thread: ThreadId,
    slot: u32,
    number: u64,
}

impl SleepKey {
    pub(super) fn thread(self) -> ThreadId {
        self.thread
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

    /// Wakes `waiter` at `at`, in nanoseconds of the clock. `number` is the next one of the
    /// thread's mailbox.
    pub(super) fn add(
        &self,
        alarms: &Alarms,
        at: u64,
        waiter: Waiter,
        (thread, number): (ThreadId, u64),
    ) -> SleepKey {
        let mut sleepers = self.0.borrow_mut();
        let entry = sleepers.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer than 2^32 sleeps");
        let timer = alarms.add(at, Alarm::Sleep(slot));
        entry.insert(Sleeper { waiter, timer, number });
        SleepKey { thread, slot, number }
    }

    /// Whether a sleep is armed still.
    pub(super) fn has(&self, key: SleepKey) -> bool {
        let sleepers = self.0.borrow();
        sleepers.get(key.slot as usize).is_some_and(|sleeper| sleeper.number == key.number)
    }

    /// Takes back a sleep that is armed.
    pub(super) fn cancel(&self, alarms: &Alarms, key: SleepKey) {
        let sleeper = self.0.borrow_mut().remove(key.slot as usize);
        alarms.cancel(sleeper.timer);
    }

    /// Takes the future in this slot, whose timer has fired.
    pub(super) fn take_due(&self, slot: u32) -> Option<Waiter> {
        self.0.borrow_mut().try_remove(slot as usize).map(|sleeper| sleeper.waiter)
    }

    /// Takes all sleeps back.
    pub(super) fn take_all(&self, alarms: &Alarms) -> Vec<Waiter> {
        let take = |(_, sleeper): (usize, Sleeper)| {
            alarms.cancel(sleeper.timer);
            sleeper.waiter
        };
        self.0.take().into_iter().map(take).collect()
    }
}
