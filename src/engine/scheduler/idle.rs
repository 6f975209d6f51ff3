//! What the loop does between the turns of coroutines: messages, the kernel, timers and jobs; and how it
//! sleeps when there is nothing to do.

use std::cell::{Cell, RefCell};
use std::hint;
use std::time::Duration;

use super::super::blocking_pool;
use super::super::job::Job;
use super::super::mailbox::Message;
use super::super::reactor::Reactor;
use super::super::scopes::Level;
use super::super::stack;
use super::super::task::Wake;
use super::super::waiter::Waiter;
use super::{Alarm, Scheduler};

/// Nanoseconds between polls while the ready queue is never empty. A poll costs about half a
/// microsecond, so this makes it cost at most one part in a hundred.
const BUSY_POLL: u64 = 50_000;
/// Nanoseconds between looks at the free stacks, for pages to give back.
const TRIM: u64 = 1_000_000_000;
/// Nanoseconds between two batches of free stacks while coroutines are ready: a batch takes the kernel
/// up to a twentieth of that.
const TRIM_BUSY: u64 = 2_000_000;
/// Jobs that a tick starts when a ready queue that was never empty has kept the loop from starting any.
const START_MAX: usize = 32;
/// Nanoseconds between jobs that are started because they have waited longest: few enough for a program
/// that branches like a tree to stay deep and narrow.
const OLDEST: u64 = 10_000_000;
/// How long a worker spins for a message before it sleeps, in nanoseconds.
const SPIN: u64 = 20_000;
/// It spins only if the last message came within this many nanoseconds.
const SOON: u64 = 100_000;
/// How many messages must come soon before it spins again after it has spun without effect.
const SPIN_SCORE_MAX: i8 = 8;

/// What only this file's part of the loop keeps.
#[derive(Debug)]
pub(super) struct State {
    // The waiters of one poll; kept for its capacity.
    woken: RefCell<Vec<Waiter>>,
    // A job has been started since the last tick.
    job_started: Cell<bool>,
    // Above zero when messages have come soon recently.
    spin_score: Cell<i8>,
    next_oldest: Cell<u64>,
    next_poll: Cell<u64>,
    next_trim: Cell<u64>,
}

impl State {
    pub(super) const fn new() -> Self {
        Self {
            woken: RefCell::new(Vec::new()),
            job_started: Cell::new(false),
            spin_score: Cell::new(0),
            next_oldest: Cell::new(0),
            next_poll: Cell::new(0),
            next_trim: Cell::new(0),
        }
    }
}

impl Scheduler {
    /// Looks up from a ready queue that is never empty: at messages always, at the kernel and the timers
    /// when it has been long enough.
    pub(super) fn tick(&self) {
        self.recount_unwinding();
        self.receive();
        self.note_load();
        let now = self.clock.update();
        if !self.idle.job_started.replace(false) {
            (0..START_MAX).take_while(|_| self.start_job(true)).for_each(drop);
        } else if now >= self.idle.next_oldest.get() {
            self.idle.next_oldest.set(now + OLDEST);
            self.start_job(true);
        }
        if now >= self.idle.next_poll.get() {
            self.idle.next_poll.set(now + BUSY_POLL);
            self.trim_stacks(now, TRIM_BUSY);
            let any = self.reactor.get().is_some_and(|reactor| !reactor.is_empty());
            let more = any && self.poll(Some(Duration::ZERO));
            self.fire_timers(more);
        }
    }

    fn note_load(&self) {
        let tasks = self.tasks.len();
        self.with_worker(|worker| worker.workers.note_load(worker.number, tasks));
    }

    /// Waits for something to happen: no coroutine is ready.
    pub(super) fn sleep(&self) {
        self.recount_unwinding();
        self.note_load();
        let before = self.clock.last_nanos();
        // A message is reason enough not to sleep, so none is taken before.
        let more = self.mailbox().is_pending() || self.sleep_until_something();
        let message = self.mailbox().is_pending();
        self.receive();
        self.fire_timers(more);
        if message && self.clock.last_nanos() - before < SOON {
            self.idle.spin_score.set((self.idle.spin_score.get() + 1).min(SPIN_SCORE_MAX));
        }
    }

    /// Returns whether the kernel may have more events.
    fn sleep_until_something(&self) -> bool {
        let mailbox = self.mailbox();
        let mut until = self.timers.borrow().next();
        // Only other workers could wake this one, if any.
        let quiescent = until.is_none() && self.outside.is_empty();
        let untrimmed = self.stacks.untrimmed();
        let mut now = 0;
        if until.is_some() || untrimmed {
            now = self.clock.update();
        }
        if untrimmed && self.trim_stacks(now, 0) {
            until = Some(until.unwrap_or(u64::MAX).min(self.idle.next_trim.get()));
        }
        if self.spin_before_sleep(until) || !mailbox.prepare_to_sleep() {
            return true;
        }
        let mut more = true;
        if !self.with_worker(|worker| worker.workers.has_jobs()) {
            let waits = !self.tasks.is_empty();
            let quiesce =
                || self.with_worker(|worker| worker.workers.quiesce(worker.number, waits));
            if quiescent && quiesce() {
                self.report_deadlock();
            } else {
                let timeout = until.map(|until| Duration::from_nanos(until.saturating_sub(now)));
                more = self.poll(timeout);
                if quiescent {
                    self.with_worker(|worker| worker.workers.wake_from_quiescence());
                }
            }
        }
        mailbox.stay_awake();
        more
    }

    /// Spins for a message instead of sleeping, where messages have come soon recently: waking a thread
    /// takes the kernel many times as long as sending one. Returns whether one has come.
    #[inline]
    fn spin_before_sleep(&self, until: Option<u64>) -> bool {
        self.idle.spin_score.get() > 0 && self.spin(until)
    }

    #[cold]
    fn spin(&self, until: Option<u64>) -> bool {
        let end = self.clock.update().saturating_add(SPIN).min(until.unwrap_or(u64::MAX));
        while self.clock.update() < end {
            for _ in 0..32 {
                if self.mailbox().is_pending() {
                    return true;
                }
                hint::spin_loop();
            }
        }
        // Without effect: that many messages must come soon before it is tried again.
        self.idle.spin_score.set(-SPIN_SCORE_MAX);
        false
    }

    /// Gives pages back if the time has come. Returns whether there will be more to give.
    fn trim_stacks(&self, now: u64, pause: u64) -> bool {
        if now < self.idle.next_trim.get() {
            return true;
        }
        let more = self.stacks.trim();
        // A long list is worked off batch by batch; a short one waits to fill again.
        self.idle.next_trim.set(now + if more { pause } else { TRIM });
        more
    }

    /// Polls the kernel, and wakes the waiters of its events. Returns whether it may have more of them.
    fn poll(&self, timeout: Option<Duration>) -> bool {
        let Some(reactor) = self.reactor.get() else { return false };
        let mut woken = self.idle.woken.take();
        // epoll_wait fails only for arguments that are not valid: a bug here.
        let more =
            reactor.poll(timeout, &mut woken).expect("the kernel refused to wait for events");
        for waiter in woken.drain(..) {
            self.wake(waiter);
        }
        self.idle.woken.replace(woken);
        more
    }

    /// Fires the timers that are due; `more` says whether the kernel may have events.
    fn fire_timers(&self, mut more: bool) {
        let now = self.clock.update();
        // A wait whose event has come must not time out, so all events of the kernel come first. It reports
        // each descriptor once before it reports one again.
        let mut batches = self.reactor.get().map_or(0, Reactor::batches);
        while more && batches > 0 && self.timers.borrow().next().is_some_and(|next| next <= now) {
            more = self.poll(Some(Duration::ZERO));
            batches -= 1;
        }
        let mut due = Vec::new();
        self.timers.borrow_mut().expire(now, &mut due);
        // All of these timers are gone, so first no task knows of them any more: one alarm must not take
        // back the timer of another.
        for alarm in &due {
            match *alarm {
                Alarm::Wake(slot) => self.tasks.with(slot, |task| task.timer.set(None)),
                Alarm::Cancel(slot, scope) => {
                    self.tasks.with(slot, |task| task.scopes.forget_timer(scope))
                }
                Alarm::Call(_) => None,
            };
        }
        for alarm in due {
            match alarm {
                Alarm::Wake(slot) => {
                    self.tasks.with(slot, |task| {
                        if task.wait.get() != 0 {
                            self.wake_task(task, Wake::TimedOut);
                        }
                    });
                }
                Alarm::Cancel(slot, scope) => {
                    self.tasks.with(slot, |task| self.request(task, Level::Scope(scope)));
                }
                Alarm::Call(slot) => self.call(slot),
            }
        }
    }

    /// Does what other threads have asked for.
    pub(super) fn receive(&self) {
        let mailbox = self.mailbox();
        if !mailbox.is_pending() {
            return;
        }
        let mut messages = Vec::new();
        mailbox.receive(&mut messages);
        // What the coroutines of another worker send while they are cancelled comes after the close: it must
        // find ours as they were, and a report of theirs must list them.
        if !self.closing.get() && self.with_worker(|worker| worker.workers.is_closing()) {
            self.close_here();
        }
        for message in messages {
            match message {
                Message::Wake { slot, wait } => self.unpark(slot, wait),
                Message::Unpark { slot, id } => self.give_park_token(slot, id),
                Message::Cancel { slot, id, level } => {
                    self.cancel(slot, id, level);
                    if level == Level::Root {
                        mailbox.has_cancelled(id);
                    }
                }
                Message::Deregister { reactor, token } => self.deregister(reactor, token),
                Message::Check => {}
            }
        }
    }

    /// Starts a job of this worker: it is then a coroutine, and ready.
    #[inline]
    pub(super) fn start_job(&self, oldest: bool) -> bool {
        let Some(job) = self.with_worker(|worker| worker.workers.take(worker.number, oldest))
        else {
            return false;
        };
        self.idle.job_started.set(true);
        self.start_coroutine(job);
        true
    }

    /// Starts a job of another worker.
    pub(super) fn steal(&self) -> bool {
        let Some(job) = self.with_worker(|worker| worker.workers.steal(worker.number)) else {
            return false;
        };
        self.start_coroutine(job);
        true
    }

    /// Makes a coroutine of this thread of a job.
    #[inline]
    fn start_coroutine(&self, mut job: Job) {
        let size = match job.stack_size() {
            None => Ok(self.stack_size()),
            Some(size) => stack::check_size(size),
        };
        let stack = match size.and_then(|size| self.take_stack(size)) {
            Ok(stack) => stack,
            Err(error) => {
                // To end it is code of users, which must not run in the loop.
                let _ = blocking_pool::submit(Box::new(move || job.fail(error)));
                return;
            }
        };
        let Some(task) = job.make_task(stack) else { return };
        let id = task.id;
        let slot = self.add(task);
        let asked = job.started(self.mailbox(), slot);
        if asked.cancelled {
            self.cancel(slot, id, Level::Root);
        }
        if asked.unparked {
            self.give_park_token(slot, id);
        }
    }
}
