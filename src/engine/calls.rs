//! Calls that are to be made at a time: the part of the scheduler that is behind `time::after`.

use std::panic::Location;
use std::time::Instant;

use super::cancel;
use super::context;
use super::coroutine::Coroutine;
use super::scheduler::{Alarm, Scheduler};
use super::stack::Stack;
use super::task::Task;
use super::timer::TimerKey;

/// Nanoseconds after which a call is tried again for which there was no room.
const ROOM: u64 = 10_000_000;

/// What spawns a coroutine later, on a stack that is there already.
pub(crate) type Call = Box<dyn FnOnce(Stack)>;

/// A call that has not been made.
pub(super) struct Later {
    call: Call,
    serial: u64,
    timer: TimerKey,
}

/// Names one call that was asked for with [`Scheduler::call_at`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallKey {
    slot: u32,
    serial: u64,
}

impl Scheduler {
    /// Calls `call` from the loop at `deadline`; never, without one.
    pub(crate) fn call_at(&self, deadline: Option<Instant>, call: Call) -> CallKey {
        let serial = self.call_serial.get() + 1;
        self.call_serial.set(serial);
        if self.closing.get() {
            // It would be dropped unmade: let that be here, where its destructors may wait.
            return CallKey { slot: u32::MAX, serial };
        }
        let mut calls = self.calls.borrow_mut();
        let entry = calls.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer than 2^32 calls");
        let deadline = deadline.map_or(u64::MAX, |deadline| self.nanos(deadline));
        let timer = self.timers.borrow_mut().add(deadline, Alarm::Call(slot));
        entry.insert(Later { call, serial, timer });
        CallKey { slot, serial }
    }

    /// Takes a call back, if it has not been made or taken back already.
    pub(crate) fn cancel_call(&self, key: CallKey) -> Option<Call> {
        let slot = key.slot as usize;
        let mut calls = self.calls.borrow_mut();
        calls.get(slot).filter(|later| later.serial == key.serial)?;
        let later = calls.remove(slot);
        self.timers.borrow_mut().cancel(later.timer);
        Some(later.call)
    }

    /// Takes all calls back.
    pub(super) fn cancel_calls(&self) -> Vec<Call> {
        let mut timers = self.timers.borrow_mut();
        let take = |(_, later): (usize, Later)| {
            timers.cancel(later.timer);
            later.call
        };
        self.calls.take().into_iter().map(take).collect()
    }

    /// Has all calls made as soon as that can be.
    fn hurry_calls(&self) {
        let (mut timers, now) = (self.timers.borrow_mut(), self.elapsed());
        for (slot, later) in &mut *self.calls.borrow_mut() {
            timers.cancel(later.timer);
            later.timer = timers.add(now, Alarm::Call(slot as u32));
        }
    }

    /// Makes a coroutine of the call in this slot, whose timer has gone.
    pub(super) fn call(&self, slot: u32) {
        let mut calls = self.calls.borrow_mut();
        let Some(later) = calls.get_mut(slot as usize) else { return };
        match context::with(|cx| cx.take_stack(self.stack_size())) {
            Ok(stack) => {
                let call = calls.remove(slot as usize).call;
                drop(calls);
                call(stack);
            }
            // Nobody can be told, but there may be room later.
            Err(_) => {
                let again = self.elapsed() + ROOM;
                later.timer = self.timers.borrow_mut().add(again, Alarm::Call(slot));
            }
        }
    }

    /// Drops all calls, in a coroutine.
    pub(super) fn drop_calls(&self) {
        if self.calls.borrow().is_empty() {
            return;
        }
        let Ok(stack) = context::with(|cx| cx.take_stack(self.stack_size())) else {
            // Without room for a coroutine that drops them, each becomes one when there is some, and is
            // cancelled before it begins.
            return self.hurry_calls();
        };
        let calls = self.cancel_calls();
        let body = || {
            calls.into_iter().for_each(|call| cancel::quietly(|| drop(call)));
            context::with_current(|task| task.into_iter().for_each(cancel::drop_locals));
        };
        let id = context::with(|cx| cx.allocate_id());
        let name = Some("calls of `time::after`".into());
        self.add(Task::new(Coroutine::new(stack, body), id, name, Location::caller()));
    }
}
