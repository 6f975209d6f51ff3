//! Calls scheduled for a point in time, each of which then becomes a coroutine: the core of
//! `time::after`.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

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
    // `None` when it has fired, and its turn in the batch of the timers has not come.
    timer: Option<TimerKey>,
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
    // Taken back when the run was closed, and to be dropped.
    unmade: OnceCell<Rc<RefCell<Vec<Call>>>>,
}

impl Calls {
    pub(super) const fn new() -> Self {
        Self { pending: RefCell::new(Slab::new()), serial: Cell::new(0), unmade: OnceCell::new() }
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
        entry.insert(Pending { call, serial, timer: Some(timer) });
        CallKey { slot, serial }
    }

    /// Takes a call back. `None` if it was already made or taken back.
    pub(super) fn cancel(&self, alarms: &Alarms, key: CallKey) -> Option<Call> {
        let slot = key.slot as usize;
        let mut pending = self.pending.borrow_mut();
        pending.get(slot).filter(|pending| pending.serial == key.serial)?;
        let taken = pending.remove(slot);
        taken.timer.into_iter().for_each(|timer| alarms.cancel(timer));
        Some(taken.call)
    }

    /// The calls that will not be made and are to be dropped, if there are any.
    pub(super) fn unmade(&self) -> Option<&Rc<RefCell<Vec<Call>>>> {
        self.unmade.get().filter(|calls| !calls.borrow().is_empty())
    }

    /// Takes all calls back, to be dropped.
    pub(super) fn unmake(&self, alarms: &Alarms) {
        if !self.is_empty() {
            self.unmade.get_or_init(Rc::default).borrow_mut().extend(self.take_all(alarms));
        }
    }

    /// Takes all calls back.
    pub(super) fn take_all(&self, alarms: &Alarms) -> Vec<Call> {
        let take = |(_, pending): (usize, Pending)| {
            pending.timer.into_iter().for_each(|timer| alarms.cancel(timer));
            pending.call
        };
        self.pending.take().into_iter().map(take).collect()
    }

    /// Forgets the timer of the call in this slot, which has fired.
    pub(super) fn forget_timer(&self, slot: u32) -> Option<()> {
        self.pending.borrow_mut().get_mut(slot as usize).map(|pending| pending.timer = None)
    }

    /// Takes the call in this slot, if its timer has fired. Otherwise the call that was here was
    /// taken back, and another has its slot.
    pub(super) fn take_due(&self, slot: u32) -> Option<Call> {
        let (mut pending, slot) = (self.pending.borrow_mut(), slot as usize);
        pending.get(slot).filter(|pending| pending.timer.is_none())?;
        Some(pending.remove(slot).call)
    }

    /// Schedules the call in this slot for another time, if its timer has fired.
    pub(super) fn postpone(&self, alarms: &Alarms, slot: u32, at: u64) {
        let mut pending = self.pending.borrow_mut();
        if let Some(due) = pending.get_mut(slot as usize).filter(|it| it.timer.is_none()) {
            due.timer = Some(alarms.add(at, Alarm::Call(slot)));
        }
    }
}

impl CallKey {
    /// The key of no call.
    pub(crate) const NONE: Self = Self { slot: u32::MAX, serial: 0 };
}
