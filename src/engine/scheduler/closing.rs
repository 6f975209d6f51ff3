//! How a run is closed on one thread, because its main coroutine has ended or because of a
//! deadlock. Also the calls of `time::after`, which a closing run does not make.

use std::io::{self, Write};
use std::panic::Location;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::super::cancel;
use super::super::coroutine::{Coroutine, Lent};
use super::super::current;
use super::super::facts;
use super::super::id::Id;
use super::super::survey::Survey;
use super::super::task::Task;
use super::calls::{Call, CallKey};
use super::core::Scheduler;

/// Nanoseconds until the retry of a call that found no stack.
const RETRY: u64 = 10_000_000;

impl Scheduler {
    /// Cancels every coroutine of the run except `except`, and all that are spawned from now on.
    /// Returns the calls of this thread, which will not be made.
    pub(crate) fn close(&self, except: &Task) -> Vec<Call> {
        self.close_all(Some(except.id));
        self.calls.take_all(&self.alarms)
    }

    /// Says, once and in a debug build, that coroutines of this worker will never begin: the main
    /// coroutine has returned before their first turn.
    pub(crate) fn report_unstarted(&self) {
        static REPORTED: AtomicBool = AtomicBool::new(false);
        if !cfg!(debug_assertions) || self.closing.get() {
            return;
        }
        let mut unstarted = self.with_worker(|worker| worker.workers.pending(worker.number));
        self.tasks.for_each(|task| {
            if !task.coroutine.has_started() && !task.scopes.is_pending() {
                unstarted.push(task.spawned);
            }
        });
        let (count, Some(first)) = (unstarted.len(), unstarted.first()) else { return };
        if REPORTED.swap(true, Ordering::Relaxed) {
            return;
        }
        let (coroutines, one, them) = match count {
            1 => ("a coroutine that has", "It", "it"),
            _ => ("coroutines that have", "One of them", "them"),
        };
        // The spawn succeeded, so there is no caller to return an error to.
        let _ = writeln!(
            io::stderr(),
            "plainsong: `run` has returned, and cancels {coroutines} not begun. {one} was spawned at \
             {first}. Join {them} before the end, or use `run_all`. (A debug build says this once.)"
        );
    }

    fn close_all(&self, except: Option<Id>) {
        self.with_worker(|worker| {
            worker.workers.close(worker.number, || self.cancel_all(except));
        });
    }

    /// Closes the run on this worker, after another worker has called [`close`](Self::close).
    pub(super) fn close_here(&self) {
        self.add_to_report();
        self.cancel_all(None);
        self.mailbox().set_cancelling_all(false);
        self.calls.unmake(&self.alarms);
        self.drop_unmade();
    }

    /// Handles a deadlock: every coroutine that is left, on any worker, waits for another of them.
    /// Cancels them all. `run` panics with the report when they have ended.
    #[cold]
    pub(super) fn report_deadlock(&self) {
        let waits: Vec<_> = self.survey(Survey::default()).coroutines.iter().collect();
        let text = facts::report(&waits);
        if !self.with_worker(|worker| worker.workers.report(waits)) {
            // This is the second deadlock of the run: the cancelled coroutines do not end, because
            // their destructors wait for each other.
            let _ = writeln!(
                io::stderr(),
                "plainsong: while unwinding from a deadlock, every coroutine that is left waits for another \
                 of them:{text}"
            );
            process::abort();
        }
        self.close_all(None);
    }

    /// Adds this worker's coroutines to the report, if another worker closes the run because of a
    /// deadlock.
    fn add_to_report(&self) {
        self.with_worker(|worker| {
            if worker.workers.is_deadlocked() {
                worker.workers.report(self.survey(Survey::default()).coroutines.iter().collect());
            }
        });
    }

    /// Makes `call` from the loop at `deadline`. Without a deadline, it is never made.
    ///
    /// # Errors
    ///
    /// The call, when the run is closing and would never make it. Its destructors are user code.
    pub(crate) fn call_at(&self, deadline: Option<Instant>, call: Call) -> Result<CallKey, Call> {
        if self.closing.get() {
            return Err(call);
        }
        let at = deadline.map_or(u64::MAX, |deadline| self.clock.nanos_at(deadline));
        Ok(self.arming(at, || self.calls.add(&self.alarms, at, call)))
    }

    /// Takes a call back. `None` if it was already made or taken back.
    pub(crate) fn cancel_call(&self, key: CallKey) -> Option<Call> {
        self.calls.cancel(&self.alarms, key)
    }

    /// Makes a coroutine of the call in this slot, whose timer has fired.
    pub(super) fn make_call(&self, slot: u32) {
        // If there is no stack, there is no caller to return the error to, but there may be room
        // later.
        let Ok(stack) = self.take_stack(self.stack_size()) else {
            return self.calls.postpone(&self.alarms, slot, self.clock.update() + RETRY);
        };
        match self.calls.take_due(slot) {
            Some(call) => _ = self.add(call(stack, self.allocate_id(), self.mailbox().thread())),
            None => self.put_stack(stack),
        }
    }

    /// Drops the calls that will not be made, in a coroutine, because their destructors are user
    /// code. If it is abandoned in one, another coroutine drops the others.
    pub(super) fn drop_unmade(&self) {
        let Some(unmade) = self.calls.unmade().cloned() else { return };
        let Ok(stack) = self.take_stack(self.stack_size()) else {
            // There is no room for a coroutine that drops the calls. So each call becomes a
            // coroutine when there is room, and that coroutine is cancelled before it begins.
            let (calls, now) = (unmade.take(), self.clock.update());
            return calls.into_iter().for_each(|call| _ = self.calls.add(&self.alarms, now, call));
        };
        let next = move || unmade.borrow_mut().pop();
        let body = move || {
            while let Some(call) = next() {
                cancel::catch_and_forget(|| drop(call));
            }
            current::with(|task| task.into_iter().for_each(cancel::drop_locals));
        };
        let name = Some("calls of `time::after`".into());
        let coroutine = Coroutine::new(stack, Lent::nothing(body));
        self.add(Task::new(coroutine, self.allocate_id(), name, Location::caller(), None));
    }
}
