//! The loop's work between the turns of coroutines: messages, the kernel, timers and jobs. And its
//! sleep, when there is nothing to do.

use std::hint;
use std::time::Duration;

use super::super::job::Job;
use super::super::mailbox::Message;
use super::super::reactor::Reactor;
use super::super::recorder::Place;
use super::super::scopes::Level;
#[cfg(plainsong_model)]
use super::super::shared::thread;
use super::super::stack;
use super::super::task::{Task, Wake};
use super::alarms::Alarm;
use super::core::Scheduler;

/// Nanoseconds between polls while the ready queue is never empty. A poll costs about half a
/// microsecond, so this makes it cost at most one part in a hundred.
const BUSY_POLL: u64 = 50_000;
/// Nanoseconds between two searches of the free stacks for pages to give back.
const TRIM: u64 = 1_000_000_000;
/// Nanoseconds between two batches of such a search while coroutines are ready. A batch takes the
/// kernel up to a hundredth of that. The search may go on for ever, because a busy thread uses
/// stacks faster than it looks at them.
const TRIM_BUSY: u64 = 10_000_000;
/// Jobs that a tick starts if the loop has started none since the last tick because the ready queue
/// was never empty.
const START_MAX: usize = 32;
/// When more timers are due than this, the rest fire at the next look. So what they touch is still
/// in the caches when their coroutines run. It is fewer than the turns between two ticks.
const FIRE_MAX: usize = 96;
/// The timers of this many nanoseconds fire together. It is a whole slot of the wheel, or several,
/// because the timers of a slot that is due in part move to other slots.
const FIRE_SPAN: u64 = 1 << 10;
/// The task of the timer that is this far ahead is prefetched.
const FETCH_AHEAD: usize = 8;
/// Nanoseconds between two jobs that are started because they have waited longest. Most jobs are
/// started newest first, which keeps few stacks in use in a program that branches like a tree; this
/// keeps the oldest from starving.
const OLDEST: u64 = 10_000_000;
/// How long a worker spins for a message before it parks, in nanoseconds.
const SPIN: u64 = 20_000;
/// It spins only if the last message came within this many nanoseconds.
const SOON: u64 = 100_000;
/// After a spin without effect, more than this many messages must come soon before the worker spins
/// again.
const SPIN_SCORE_MAX: i8 = 8;

impl Scheduler {
    /// The periodic work while the ready queue is never empty: messages at each tick, the kernel
    /// and the timers every [`BUSY_POLL`].
    pub(super) fn tick(&self) {
        self.recount_unwinding();
        self.receive();
        self.note_load();
        let now = self.clock.update();
        self.look();
        if !self.pace.job_started.replace(false) {
            (0..START_MAX).take_while(|_| self.start_job(true)).for_each(drop);
        } else if now >= self.pace.next_oldest.get() {
            self.pace.next_oldest.set(now + OLDEST);
            self.start_job(true);
        }
        if now >= self.pace.next_poll.get() {
            self.pace.next_poll.set(now + BUSY_POLL);
            self.trim_stacks(now, TRIM_BUSY);
            let any = self.reactor.get().is_some_and(|reactor| !reactor.is_empty());
            let more = any && self.poll(Some(Duration::ZERO));
            self.fire_timers(more);
        }
    }

    /// Looks whether turns are to be observed from now on.
    #[inline]
    fn look(&self) {
        if self.observer.is_asked() {
            self.observer.next_interval(self.ready.last(), || {
                let place = self.with_worker(|it| Some((it.workers.id().number(), it.number)));
                let (run, worker) = place.unwrap_or_default();
                Place { run, worker }
            });
        }
    }

    fn note_load(&self) {
        let tasks = self.tasks.len();
        self.with_worker(|worker| worker.workers.note_load(worker.number, tasks));
    }

    /// Sleeps until there is something to do. No coroutine is ready.
    pub(super) fn sleep(&self) {
        self.before_sleep();
        let before = self.clock.last_nanos();
        // Messages are taken after the sleep and not before it: a pending message already prevents
        // the sleep.
        let more = self.mailbox().is_pending() || self.sleep_until_something();
        let message = self.mailbox().is_pending();
        self.receive();
        self.fire_timers(more);
        // The time goes back when a host with a clock of its own returns.
        if message && self.clock.last_nanos().saturating_sub(before) < SOON {
            self.pace.spin_score.set((self.pace.spin_score.get() + 1).min(SPIN_SCORE_MAX));
        }
    }

    /// The periodic work before a sleep.
    pub(super) fn before_sleep(&self) {
        self.note_load();
        self.look();
    }

    /// Announces that the loop waits, if there is nothing to do. Then other threads wake it through
    /// the reactor, and this returns when it must go on at the latest, in nanoseconds.
    pub(super) fn prepare_to_wait(&self) -> Option<Option<u64>> {
        let until = self.wake_time();
        if !self.mailbox().prepare_to_sleep() {
            return None;
        }
        if self.with_worker(|worker| worker.workers.has_jobs()) {
            self.mailbox().stay_awake();
            return None;
        }
        Some(until)
    }

    /// When the loop must go on at the latest, in nanoseconds: at the next timer, or to give back
    /// pages of free stacks, which this does if it is time. Updates the clock if there is either.
    fn wake_time(&self) -> Option<u64> {
        let until = self.alarms.next();
        let untrimmed = self.stacks.untrimmed();
        if until.is_none() && !untrimmed {
            return None;
        }
        let now = self.clock.update();
        if untrimmed && self.trim_stacks(now, 0) {
            return Some(until.unwrap_or(u64::MAX).min(self.pace.next_trim.get()));
        }
        until
    }

    /// Sleeps in the kernel, if there is nothing to do. Returns whether the kernel may have more
    /// events.
    fn sleep_until_something(&self) -> bool {
        let mailbox = self.mailbox();
        // With neither a timer nor a wait that ends from outside, only other workers could wake
        // this one.
        let quiescent = self.alarms.next().is_none() && self.outside.is_empty();
        let until = self.wake_time();
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
                let now = self.clock.last_nanos();
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

    /// Spins for a message before sleeping, if messages have come soon recently: waking a thread
    /// takes the kernel many times as long as sending a message takes us. Returns whether one has
    /// come.
    #[inline]
    fn spin_before_sleep(&self, until: Option<u64>) -> bool {
        self.pace.spin_score.get() > 0 && self.spin(until)
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
        // The spin was without effect, so messages must come soon again before the next one.
        self.pace.spin_score.set(-SPIN_SCORE_MAX);
        false
    }

    /// Gives pages back if the time has come. Returns whether there will be more to give.
    fn trim_stacks(&self, now: u64, pause: u64) -> bool {
        if now < self.pace.next_trim.get() {
            return true;
        }
        let more = self.stacks.trim();
        // A long list is trimmed batch by batch. After that, the list gets time to fill again.
        self.pace.next_trim.set(now + if more { pause } else { TRIM });
        more
    }

    /// Polls the kernel and wakes the waiters of its events. Returns whether there may be more
    /// events.
    pub(super) fn poll(&self, timeout: Option<Duration>) -> bool {
        // In the model no event comes, and the kernel's sleep would be the sleep of all threads.
        #[cfg(plainsong_model)]
        let timeout = {
            while timeout != Some(Duration::ZERO) && self.mailbox().is_asleep() {
                thread::yield_now();
            }
            Some(Duration::ZERO)
        };
        let Some(reactor) = self.reactor.get() else { return false };
        let mut woken = self.pace.woken.take();
        // epoll_wait fails only for invalid arguments, which would be a bug here.
        let began = self.observer.time();
        let (more, events) =
            reactor.poll(timeout, &mut woken).expect("the kernel refused to wait for events");
        self.observer.count_poll(began, events);
        for waiter in woken.drain(..) {
            self.wake(waiter);
        }
        self.pace.woken.replace(woken);
        if events > 0 || timeout != Some(Duration::ZERO) {
            self.observer.polled(began, events);
        }
        more
    }

    /// Fires the timers that are due; `more` says whether the kernel may have events.
    pub(super) fn fire_timers(&self, mut more: bool) {
        let now = self.clock.update();
        // A wait whose event has come must not time out, so all events of the kernel come before
        // the timers. The kernel reports each ready descriptor once before it reports one again,
        // which bounds the number of polls.
        let mut batches = self.reactor.get().map_or(0, Reactor::batches);
        while more && batches > 0 && self.alarms.next().is_some_and(|next| next <= now) {
            more = self.poll(Some(Duration::ZERO));
            batches -= 1;
        }
        let mut fired = 0;
        while let Some(next) = self.alarms.next().filter(|next| *next <= now && fired < FIRE_MAX) {
            fired += self.fire(now.min(next | (FIRE_SPAN - 1)));
        }
    }

    /// Acts on all timers that are due at `now`. Returns how many there were.
    fn fire(&self, now: u64) -> usize {
        let due = self.alarms.expire(now);
        // These timers are no longer in the wheel, so their keys are forgotten before the first
        // alarm acts: otherwise one alarm, or the waker that it calls, could cancel the timer of
        // another, by a key that is no longer valid.
        for (at, alarm) in due.iter().enumerate() {
            if let Some(Alarm::Wake(slot)) = due.get(at + FETCH_AHEAD) {
                self.tasks.fetch(*slot);
            }
            match *alarm {
                Alarm::Wake(slot) => self.tasks.with(slot, |task| task.timer.set(None)),
                Alarm::Cancel(slot, scope) => {
                    self.tasks.with(slot, |task| task.scopes.forget_timer(scope))
                }
                Alarm::Call(slot) => self.calls.forget_timer(slot),
                Alarm::Sleep(slot) => self.sleeps.forget_timer(slot),
            };
        }
        let fired = due.len();
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
                    self.tasks.with(slot, |task| self.request(task, Level::Scope(scope), None));
                }
                Alarm::Call(slot) => self.make_call(slot),
                Alarm::Sleep(slot) => {
                    let waiter = self.sleeps.take_due(slot);
                    waiter.into_iter().for_each(|waiter| self.wake(waiter));
                }
            }
        }
        fired
    }

    /// Takes the messages of other threads and acts on them.
    pub(super) fn receive(&self) {
        let mailbox = self.mailbox();
        if !mailbox.is_pending() {
            return;
        }
        let mut messages = Vec::new();
        mailbox.receive(&mut messages);
        // If another worker has closed the run, close here before acting on the messages.
        // Coroutines that unwind there may have sent some of them. Such a message must not end a
        // wait that the close cancels, and a deadlock's report must list our waits as they were.
        if !self.closing.get() && self.with_worker(|worker| worker.workers.is_closing()) {
            self.close_here();
        }
        self.observer.receive(|| messages.into_iter().for_each(|message| self.act_on(message)));
    }

    /// Acts on a message of another thread.
    fn act_on(&self, message: Message) {
        match message {
            Message::Wake { slot, wait } => {
                self.observer.count_remote_wake();
                self.unpark(slot, wait);
            }
            Message::Unpark { slot, id } => {
                self.observer.count_remote_wake();
                self.give_park_token(slot, id);
            }
            Message::Cancel { slot, id, level, reason } => {
                self.cancel(slot, id, level, reason.as_ref());
                if level == Level::Root {
                    self.mailbox().has_cancelled(id);
                }
            }
            Message::Deregister { reactor, token } => {
                self.wake_all(self.deregister(reactor, token))
            }
            Message::Recheck { reactor, token } => self.wake_all(self.recheck(reactor, token)),
            Message::Disarm { slot, number } => _ = self.sleeps.cancel(&self.alarms, slot, number),
            Message::Check => {}
            Message::Asked => {
                // The loop may have slept for a long time, and an answer calls no clock of a host.
                self.clock.update();
                self.answer();
            }
        }
    }

    /// Starts a job of this worker: it becomes a ready coroutine.
    #[inline]
    pub(super) fn start_job(&self, oldest: bool) -> bool {
        let Some(job) = self.with_worker(|worker| worker.workers.take(worker.number, oldest))
        else {
            return false;
        };
        self.pace.job_started.set(true);
        self.start_coroutine(job);
        true
    }

    /// Starts a job of another worker.
    pub(super) fn steal(&self) -> bool {
        let Some(job) = self.with_worker(|worker| worker.workers.steal(worker.number)) else {
            return false;
        };
        self.observer.count_steal();
        self.start_coroutine(job);
        true
    }

    /// Turns a job into a coroutine of this thread.
    #[inline]
    fn start_coroutine(&self, mut job: Job) {
        let size = match job.stack_size() {
            None => Ok(self.stack_size()),
            Some(size) => stack::check_size(size),
        };
        match size.and_then(|size| self.take_stack(size)) {
            Ok(stack) => {
                let Some(task) = job.make_task(stack) else { return };
                self.begin(job, task);
            }
            Err(error) => {
                self.refused.push(job, error);
                self.end_refused();
            }
        }
    }

    /// Makes coroutines of refused jobs, which only end there, while there is a stack in reserve.
    #[cold]
    pub(super) fn end_refused(&self) {
        while let Some((stack, mut job, error)) = self.refused.next() {
            let Some(task) = job.make_end(stack, &error) else { return };
            self.begin(job, task);
        }
    }

    /// Adds the task of a job, with the requests to it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn begin(&self, job: Job, task: Task) {
        let id = task.id;
        let slot = self.add(task);
        let asked = job.started(self.mailbox(), slot);
        if asked.cancelled {
            self.cancel(slot, id, Level::Root, asked.reason.as_ref());
        }
        if asked.unparked {
            self.give_park_token(slot, id);
        }
    }
}
