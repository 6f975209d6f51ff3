//! The loop of one thread, and its turns.

use std::io;

use super::super::current;
use super::super::debugger;
use super::super::error::explained;
use super::super::reactor::Reactor;
use super::super::settings::Settings;
use super::super::stack;
use super::super::workers::{Idle, WorkerHandle};
use super::core::Scheduler;

/// The next step of the loop, when it has run what was ready.
pub(super) enum Next {
    /// The run is over.
    Over,
    /// It runs what is left.
    Later,
    /// It waits. `idle`: the worker has nothing left, and is not counted as busy.
    Wait { idle: bool },
}

/// Why no further turns were taken.
enum Turns {
    NoneReady,
    Stopped,
    /// Turns may have to be observed from now on, or no longer.
    Look,
}

impl Scheduler {
    /// Prepares to run coroutines, as one worker of a run. Dropping the guard ends that.
    ///
    /// # Errors
    ///
    /// When this thread already runs a scheduler, or the kernel refuses the reactor.
    pub(in super::super) fn start(
        &self,
        settings: &Settings,
        worker: WorkerHandle,
    ) -> io::Result<impl Drop + '_> {
        struct Stop<'a>(&'a Scheduler);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.running.set(false);
                self.0.observer.stop();
                self.0.refused.clear().into_iter().for_each(|stack| self.0.stacks.put(stack));
                self.0.mailbox().set_running(false);
                self.0.with_worker(|worker| worker.workers.leave(worker.number));
                debugger::leave(self.0.tasks.address());
                drop(self.0.worker.take());
                drop(self.0.hooks.take());
                // Their wakers are user code. This thread must no longer be in the run, and they
                // may begin another.
                self.0.wake_futures();
                // A thread that runs no coroutines keeps no pages of deep calls.
                while self.0.stacks.trim() || self.0.lent.trim() {}
            }
        }
        if self.running.get() {
            return Err(explained(
                io::ErrorKind::ResourceBusy,
                "a plainsong runtime runs on this thread already: call `spawn` instead, or \
                 start the other runtime on a thread of its own",
            ));
        }
        let mailbox = self.mailbox();
        if self.reactor.get().is_none() {
            let reactor = Reactor::new()?;
            mailbox.attach(reactor.waker());
            let _ = self.reactor.set(reactor);
        }
        self.refused.fill(self.take_stack(settings.stack_size.min(stack::DEFAULT_SIZE))?);
        self.observer.start(self.turns_left.get().into());
        self.clock.start();
        self.stack_size.set(settings.stack_size);
        self.outside.set_strict(settings.strict);
        self.hooked.set(settings.hooks.is_some());
        self.hooks.replace(settings.hooks.clone());
        // Messages for an earlier run have no meaning any more.
        self.receive();
        mailbox.set_running(true);
        mailbox.set_cancelling_all(false);
        self.closing.set(worker.workers.enter(worker.number, mailbox));
        self.worker.replace(Some(worker));
        self.with_worker(|worker| {
            worker.workers.arrive(worker.number);
            let thread = worker.workers.thread(worker.number);
            debugger::enter(self.tasks.address(), thread.unwrap_or_default());
        });
        self.unwinding.start();
        self.running.set(true);
        Ok(Stop(self))
    }

    /// The loop. Runs until no worker of the run has a coroutine, a call or a job left.
    pub(in super::super) fn run(&self) {
        loop {
            match self.run_ready(|| false) {
                Next::Over => break,
                Next::Later => {}
                Next::Wait { idle } => {
                    self.sleep();
                    if idle && self.leave_idle() {
                        break;
                    }
                }
            }
        }
        let sleeping = self.sleeps.len();
        debug_assert_eq!(self.alarms.len(), sleeping, "each wait and scope takes its timer back");
    }

    /// Runs coroutines until none is ready, or until `stop`, which each tick calls.
    #[inline]
    pub(super) fn run_ready(&self, stop: impl Fn() -> bool) -> Next {
        loop {
            let turns = match self.observer.is_on() {
                false => self.take_turns::<false>(&stop),
                true => self.take_turns::<true>(&stop),
            };
            match turns {
                Turns::Stopped => return Next::Later,
                Turns::Look => continue,
                Turns::NoneReady => {}
            }
            if self.recount_unwinding() || self.start_job(false) || self.steal() {
                continue;
            }
            // A pending call counts, because it will become a coroutine.
            let idle = self.tasks.is_empty() && self.calls.is_empty();
            match self.with_worker(|worker| idle.then(|| worker.workers.idle(worker.number))) {
                Some(Idle::HasJobs) => {}
                Some(Idle::Over) => return Next::Over,
                Some(Idle::Counted) | None => return Next::Wait { idle },
            }
        }
    }

    /// Gives the ready coroutines their turns, and does the work of the ticks. Observed turns have
    /// code of their own, so that the others pay nothing for it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn take_turns<const OBSERVED: bool>(&self, stop: &impl Fn() -> bool) -> Turns {
        if OBSERVED {
            self.observer.refresh();
        }
        while self.run_next::<OBSERVED>() {
            let left = self.turns_left.get() - 1;
            self.turns_left.set(left);
            if left == 0 {
                self.set_turns_left(self.tick_after.get());
                current::leave();
                self.tick();
                if stop() {
                    return Turns::Stopped;
                }
                if OBSERVED || self.observer.is_on() {
                    return Turns::Look;
                }
            }
        }
        current::leave();
        Turns::NoneReady
    }

    /// An idle worker has waited. Returns whether the run is over.
    pub(super) fn leave_idle(&self) -> bool {
        self.with_worker(|worker| worker.workers.leave_idle(worker.number))
    }
}
