//! Where a scheduler looks when it is not running coroutines: at messages, the kernel, the timers, and
//! jobs; and how it sleeps when there is nothing.

use std::hint;
use std::time::Duration;

use super::context::{self, Context};
use super::job::Job;
use super::reactor::Reactor;
use super::remote::{Door, Message};
use super::scheduler::{Alarm, Scheduler};
use super::stack::StackPool;
use super::task::{Task, Wake};

/// Nanoseconds for which a full ready queue keeps the loop from polling: a poll costs about
/// half a microsecond, so this makes it cost at most one part in a hundred.
const BUSY_POLL: u64 = 50_000;
/// Nanoseconds between looks at the stacks that came home, for pages to give back.
const TRIM: u64 = 1_000_000_000;
/// Nanoseconds between two batches of them while coroutines are ready: a batch takes the kernel up to a
/// twentieth of that.
const TRIM_BUSY: u64 = 2_000_000;
/// Jobs that are started when the loop looks up from a ready queue that has kept it from starting any.
const START_MAX: usize = 32;
/// Nanoseconds between jobs that are started because they have waited longest: few enough for a program
/// that branches like a tree to stay deep and narrow.
const OLDEST: u64 = 10_000_000;
/// Nanoseconds for which the loop waits for a message before it sleeps, if it does, and within which one
/// must come after the loop last looked for that to be worth trying.
const LINGER: u64 = 20_000;
const SOON: u64 = 100_000;
/// How many messages that came soon it takes to try again after it was in vain.
const HASTE_MAX: i8 = 8;

impl Scheduler {
    /// Looks up from a full ready queue: at messages always, at the kernel and the timers when it
    /// has been long enough.
    pub(super) fn glance(&self, cx: &Context) {
        context::leave();
        self.settle_unwinding();
        self.receive(cx.door());
        self.note_load();
        let now = self.elapsed();
        if !self.started.replace(false) {
            // The ready queue has not been empty for long.
            (0..START_MAX).take_while(|_| self.start_job(true)).for_each(drop);
        } else if now >= self.next_oldest.get() {
            self.next_oldest.set(now + OLDEST);
            self.start_job(true);
        }
        if now >= self.next_poll.get() {
            self.next_poll.set(now + BUSY_POLL);
            self.trim(&cx.stacks, now, TRIM_BUSY);
            let more = self.reactor.get().is_some_and(|reactor| !reactor.is_empty())
                && self.poll(Some(Duration::ZERO));
            self.expire(more);
        }
    }

    fn note_load(&self) {
        let tasks = self.tasks.borrow().len();
        self.at_post(|post| post.workers.note(post.number, tasks));
    }

    /// Waits for something to happen: nobody is ready.
    pub(super) fn sleep(&self, cx: &Context) {
        self.settle_unwinding();
        self.note_load();
        let before = self.time.get();
        // A message may be there to keep it from sleeping, so none is taken before.
        let more = cx.door().is_pending() || self.sleep_until_something(cx);
        let rung = cx.door().is_pending();
        self.receive(cx.door());
        self.expire(more);
        if rung && self.time.get() - before < SOON {
            self.haste.set((self.haste.get() + 1).min(HASTE_MAX));
        }
    }

    /// Returns whether the kernel may have more to tell.
    fn sleep_until_something(&self, cx: &Context) -> bool {
        let mut until = self.timers.borrow().next();
        // Only other workers could wake this one, if anybody.
        let still = until.is_none() && self.outside.get() == 0;
        let untrimmed = cx.stacks.untrimmed();
        let mut now = 0;
        if until.is_some() || untrimmed {
            now = self.elapsed();
        }
        if untrimmed && self.trim(&cx.stacks, now, 0) {
            until = Some(until.unwrap_or(u64::MAX).min(self.next_trim.get()));
        }
        if self.linger(cx.door(), until) || !cx.door().fall_asleep() {
            return true;
        }
        let mut more = true;
        if !self.at_post(|post| post.workers.has_jobs()) {
            let waits = !self.tasks.borrow().is_empty();
            if still && self.at_post(|post| post.workers.settle(post.number, waits)) {
                self.report_deadlock();
            } else {
                let timeout = until.map(|until| Duration::from_nanos(until.saturating_sub(now)));
                more = self.poll(timeout);
                if still {
                    self.at_post(|post| post.workers.stir());
                }
            }
        }
        cx.door().wake_up();
        more
    }

    /// Waits a moment for a message instead of sleeping, where messages have come soon of late: waking
    /// a thread takes the kernel many times as long as sending one. Returns whether one has come.
    #[inline]
    fn linger(&self, door: &Door, until: Option<u64>) -> bool {
        self.haste.get() > 0 && self.linger_on(door, until)
    }

    #[cold]
    fn linger_on(&self, door: &Door, until: Option<u64>) -> bool {
        let end = self.elapsed().saturating_add(LINGER).min(until.unwrap_or(u64::MAX));
        while self.elapsed() < end {
            for _ in 0..32 {
                if door.is_pending() {
                    return true;
                }
                hint::spin_loop();
            }
        }
        // In vain: that much must speak for it before it is tried again.
        self.haste.set(-HASTE_MAX);
        false
    }

    /// Gives pages back if the time has come. Returns whether there will be more to give.
    fn trim(&self, stacks: &StackPool, now: u64, pause: u64) -> bool {
        if now < self.next_trim.get() {
            return true;
        }
        let more = stacks.trim();
        // A long list is worked off batch by batch; a short one waits to fill again.
        self.next_trim.set(now + if more { pause } else { TRIM });
        more
    }

    /// Asks the kernel, and wakes whom it names. Returns whether it may have more to tell.
    fn poll(&self, timeout: Option<Duration>) -> bool {
        let Some(reactor) = self.reactor.get() else { return false };
        let mut woken = self.woken.take();
        // epoll_wait fails only for arguments that are not valid: a bug here.
        let more =
            reactor.poll(timeout, &mut woken).expect("the kernel refused to wait for events");
        for waiter in woken.drain(..) {
            context::wake(waiter);
        }
        self.woken.replace(woken);
        more
    }

    /// Does what is due; `more` says whether the kernel may have something to tell.
    fn expire(&self, mut more: bool) {
        let now = self.elapsed();
        // Who has what he waits for must not be told that the time for it is over, so first comes all that the
        // kernel has: it tells of each descriptor once before it tells of one again.
        let mut batches = self.reactor.get().map_or(0, Reactor::batches);
        while more && batches > 0 && self.timers.borrow().next().is_some_and(|next| next <= now) {
            more = self.poll(Some(Duration::ZERO));
            batches -= 1;
        }
        let mut due = Vec::new();
        self.timers.borrow_mut().expire(now, &mut due);
        // All of these timers are gone: nobody may take one of them back because of another.
        for alarm in &due {
            match *alarm {
                Alarm::Wake(slot) => self.with_slot(slot, |task| task.timer.set(None)),
                Alarm::Cancel(slot, scope) => {
                    self.with_slot(slot, |task| task.forget_timer(scope));
                }
                Alarm::Call(_) => {}
            }
        }
        for alarm in due {
            match alarm {
                Alarm::Wake(slot) => self.with_slot(slot, |task| {
                    if task.wait.get() != 0 {
                        self.wake_task(task, Wake::TimedOut);
                    }
                }),
                Alarm::Cancel(slot, scope) => self.with_slot(slot, |task| {
                    task.request(Some(scope));
                    self.interrupt(task);
                }),
                Alarm::Call(slot) => self.call(slot),
            }
        }
    }

    fn with_slot(&self, slot: u32, f: impl FnOnce(&Task)) {
        if let Some(task) = self.tasks.borrow().get(slot as usize) {
            f(task);
        }
    }

    pub(super) fn receive(&self, door: &Door) {
        if !door.is_pending() {
            return;
        }
        let mut messages = Vec::new();
        door.receive(&mut messages);
        // What coroutines of another worker send as they are cancelled comes after that: it must find ours as
        // they were, and a report of theirs must list them.
        if !self.closing.get() && self.at_post(|post| post.workers.is_closing()) {
            self.close_all();
        }
        for message in messages {
            match message {
                Message::Wake { slot, wait } => {
                    self.unpark(slot, wait, Wake::Ready);
                }
                Message::Unpark { slot, id } => self.give_park_token(slot, id),
                Message::Cancel { slot, id, scope } => self.cancel(slot, id, scope),
                Message::Deregister { port, key } => self.deregister(&port, key),
                Message::Look => {}
            }
        }
    }

    /// Starts a job of this worker: it is then a coroutine, and ready.
    #[inline]
    pub(super) fn start_job(&self, oldest: bool) -> bool {
        let job = self.at_post(|post| post.workers.take(post.number, oldest));
        let any = job.is_some();
        if let Some(job) = job {
            self.started.set(true);
            job.start();
        }
        any
    }

    /// Starts a job of another worker.
    pub(super) fn steal(&self) -> bool {
        let job = self.at_post(|post| post.workers.steal(post.number));
        job.map(Job::start).is_some()
    }
}
