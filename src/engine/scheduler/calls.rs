//! Calls scheduled for a point in time, each of which then becomes a coroutine: the core of
//! `time::after`.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::time::Instant;

use slab::Slab;

use super::super::cancel;
use super::super::coroutine::Coroutine;
use super::super::current;
use super::super::stack::Stack;
use super::super::task::Task;
use super::super::timer::TimerKey;
use super::{Alarm, Scheduler};

/// Nanoseconds until the retry of a call that found no stack.
const RETRY: u64 = 10_000_000;

/// Makes the task of a call, on a stack that the caller provides.
pub(crate) type Call = Box<dyn FnOnce(&Scheduler, Stack) -> Task>;

/// A call that has not been made.
struct Pending {
    call: Call,
    serial: u64,
    timer: TimerKey,
}

/// Names one call that [`Scheduler::call_at`] has scheduled.
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
}

impl Scheduler {
    /// Makes `call` from the loop at `deadline`. Without a deadline, it is never made.
    pub(crate) fn call_at(&self, deadline: Option<Instant>, call: Call) -> CallKey {
        let serial = self.calls.serial.get() + 1;
        self.calls.serial.set(serial);
        if self.closing.get() {
            // The call would never be made. Its destructors run here, in a coroutine, where they
            // may wait.
            return CallKey { slot: u32::MAX, serial };
        }
        let mut pending = self.calls.pending.borrow_mut();
        let entry = pending.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer than 2^32 calls");
        let deadline = deadline.map_or(u64::MAX, |deadline| self.clock.nanos_at(deadline));
        let timer = self.timers.borrow_mut().add(deadline, Alarm::Call(slot));
        entry.insert(Pending { call, serial, timer });
        CallKey { slot, serial }
    }

    /// Takes a call back, if it has not been made or taken back already.
    pub(crate) fn cancel_call(&self, key: CallKey) -> Option<Call> {
        let slot = key.slot as usize;
        let mut pending = self.calls.pending.borrow_mut();
        pending.get(slot).filter(|pending| pending.serial == key.serial)?;
        let taken = pending.remove(slot);
        self.timers.borrow_mut().cancel(taken.timer);
        Some(taken.call)
    }

    /// Takes all calls back.
    pub(super) fn cancel_calls(&self) -> Vec<Call> {
        let mut timers = self.timers.borrow_mut();
        let take = |(_, pending): (usize, Pending)| {
            timers.cancel(pending.timer);
            pending.call
        };
        self.calls.pending.take().into_iter().map(take).collect()
    }

    /// Makes all calls due now.
    fn hurry_calls(&self) {
        let (mut timers, now) = (self.timers.borrow_mut(), self.clock.update());
        for (slot, pending) in &mut *self.calls.pending.borrow_mut() {
            timers.cancel(pending.timer);
            pending.timer = timers.add(now, Alarm::Call(slot as u32));
        }
    }

    /// Makes a coroutine of the call in this slot, whose timer has fired.
    pub(super) fn call(&self, slot: u32) {
        let mut pending = self.calls.pending.borrow_mut();
        let Some(due) = pending.get_mut(slot as usize) else { return };
        match self.take_stack(self.stack_size()) {
            Ok(stack) => {
                let call = pending.remove(slot as usize).call;
                drop(pending);
                self.add(call(self, stack));
            }
            // There is no caller to return the error to, but there may be room later.
            Err(_) => {
                let again = self.clock.update() + RETRY;
                due.timer = self.timers.borrow_mut().add(again, Alarm::Call(slot));
            }
        }
    }

    /// Drops all calls, in a coroutine, because their destructors are user code.
    pub(super) fn drop_calls(&self) {
        if self.calls.is_empty() {
            return;
        }
        let Ok(stack) = self.take_stack(self.stack_size()) else {
            // There is no room for a coroutine that drops the calls. So each call becomes a
            // coroutine when there is room, and that coroutine is cancelled before it begins.
            return self.hurry_calls();
        };
        let calls = self.cancel_calls();
        let body = || {
            calls.into_iter().for_each(|call| cancel::catch_and_forget(|| drop(call)));
            current::with(|task| task.into_iter().for_each(cancel::drop_locals));
        };
        let name = Some("calls of `time::after`".into());
        let coroutine = Coroutine::new(stack, body);
        self.add(Task::new(coroutine, self.allocate_id(), name, Location::caller()));
    }
}
