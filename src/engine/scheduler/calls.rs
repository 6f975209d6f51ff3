//! Calls scheduled for a point in time, each of which then becomes a coroutine: the core of
//! `time::after`.

use std::cell::{Cell, RefCell};

use slab::Slab;

use super::super::id::Id;
use super::super::mailbox::ThreadId;
use super::super::stack::Stack;
use super::super::task::Task;
use super::super::timer::TimerKey;
use super::alarms::{Alarm, Alarms};

/// Makes the task of a call, with this id, on a stack of this thread.
pub(crate) type Call = Box<dyn FnOnce(Stack, Id, ThreadId) -> Task>;

/// A call that has not been made.
struct Pending {
    call: Call,
    serial: u64,
    timer: TimerKey,
}

/// Names one call that the scheduler's `call_at` has scheduled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallKey {
    slot: u32,
    serial: u64,
}

/// The calls of one scheduler that have not been made.
pub(super) struct Calls {
    pending: RefCell<Slab<Pending>>,
    serial: Cell<u64>,
}

impl Calls {
    pub(super) const fn new() -> Self {
        Self { pending: RefCell::new(Slab::new()), serial: Cell::new(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.borrow().is_empty()
    }

    /// Adds a call that is due at `at`, in nanoseconds of the clock.
    pub(super) fn add(&self, alarms: &Alarms, at: u64, call: Call) -> CallKey {
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        let mut pending = self.pending.borrow_mut();
        let entry = pending.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer than 2^32 calls");
        let timer = alarms.add(at, Alarm::Call(slot));
        entry.insert(Pending { call, serial, timer });
        CallKey { slot, serial }
    }

    /// Takes a call back, if it has been neither made nor taken back.
    pub(super) fn cancel(&self, alarms: &Alarms, key: CallKey) -> Option<Call> {
        let slot = key.slot as usize;
        let mut pending = self.pending.borrow_mut();
        pending.get(slot).filter(|pending| pending.serial == key.serial)?;
        let taken = pending.remove(slot);
        alarms.cancel(taken.timer);
        Some(taken.call)
    }

    /// Takes all calls back.
    pub(super) fn take_all(&self, alarms: &Alarms) -> Vec<Call> {
        let take = |(_, pending): (usize, Pending)| {
            alarms.cancel(pending.timer);
            pending.call
        };
        self.pending.take().into_iter().map(take).collect()
    }

    /// Has all calls made as soon as that can be.
    pub(super) fn hurry(&self, alarms: &Alarms, now: u64) {
        for (slot, pending) in &mut *self.pending.borrow_mut() {
            alarms.cancel(pending.timer);
            pending.timer = alarms.add(now, Alarm::Call(slot as u32));
        }
    }

    /// Takes the call in this slot, whose timer has fired.
    pub(super) fn take_due(&self, slot: u32) -> Option<Call> {
        self.pending.borrow_mut().try_remove(slot as usize).map(|pending| pending.call)
    }

    /// Has the call in this slot, whose timer has fired, made at another time.
    pub(super) fn postpone(&self, alarms: &Alarms, slot: u32, at: u64) {
        if let Some(pending) = self.pending.borrow_mut().get_mut(slot as usize) {
            pending.timer = alarms.add(at, Alarm::Call(slot));
        }
    }
}

impl CallKey {
    /// The key of no call.
    pub(super) const NONE: Self = Self { slot: u32::MAX, serial: 0 };
}
