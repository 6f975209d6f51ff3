//! Counts and measured times of a scheduler.
//!
//! Counting is free, or next to it. A time needs a clock, so times are measured on request, and
//! then the loop has other code for a turn. Only the turns of some intervals between two ticks
//! or sleeps are measured.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::coroutine::Suspended;
use super::super::current;
use super::super::numbers::{Counts, Measured};
use super::super::recorder::{self, By, Place, Ring, Then};
use super::super::task::{Task, Wake};
use super::super::ticks::{self, Scale};

/// Times are to be measured.
static MEASURES: AtomicBool = AtomicBool::new(false);

/// After a measured interval, so many are skipped, and a random number below [`SPREAD`] more. A
/// fixed number could be in step with the program, and always meet the same of its turns.
const SKIPPED: u32 = 8;
const SPREAD: u32 = 16;

/// Begins or ends to measure times.
pub(crate) fn set_measures(on: bool) {
    Scale::get();
    MEASURES.store(on, Ordering::Relaxed);
}

/// The counts and measured times of one scheduler.
pub(super) struct Observer {
    // Turns are observed now.
    on: Cell<bool>,
    // Of the turns, those that have not been counted yet are subtracted.
    pub(super) turns: Cell<u64>,
    pub(super) spawned: Cell<u64>,
    pub(super) budget_yields: Cell<u64>,
    steals: Cell<u64>,
    remote_wakes: Cell<u64>,
    polls: Cell<u64>,
    events: Cell<u64>,
    // When the last turn ended, or the loop last looked, in ticks.
    stamp: Cell<u64>,
    // Set while times are measured.
    scale: Cell<Option<&'static Scale>>,
    // Set while events are recorded.
    ring: Cell<Option<&'static Ring>>,
    // The messages of other threads are being acted on.
    receives: Cell<bool>,
    // The last task that became ready before that was observed.
    unknown: Cell<*const Task>,
    // How many intervals between two ticks or sleeps are not measured from now on.
    skip: Cell<u32>,
    delays: Measured,
    turn_times: Measured,
    poll_times: Measured,
}

impl Observer {
    pub(super) const fn new() -> Self {
        Self {
            on: Cell::new(false),
            turns: Cell::new(0),
            spawned: Cell::new(0),
            budget_yields: Cell::new(0),
            steals: Cell::new(0),
            remote_wakes: Cell::new(0),
            polls: Cell::new(0),
            events: Cell::new(0),
            stamp: Cell::new(0),
            scale: Cell::new(None),
            ring: Cell::new(None),
            receives: Cell::new(false),
            unknown: Cell::new(std::ptr::null()),
            skip: Cell::new(0),
            delays: Measured::new(),
            turn_times: Measured::new(),
            poll_times: Measured::new(),
        }
    }

    /// A run begins: all counts begin again, those of turns with so many that will be subtracted.
    pub(super) fn start(&self, turns: u64) {
        self.turns.set(turns);
        let Self { spawned, budget_yields, steals, remote_wakes, polls, events, .. } = self;
        let counts = [spawned, budget_yields, steals, remote_wakes, polls, events];
        counts.iter().for_each(|count| count.set(0));
        let times = [&self.delays, &self.turn_times, &self.poll_times];
        times.iter().for_each(|times| times.clear());
    }

    /// The kernel was asked for events, since `began`, and has returned so many.
    #[inline]
    pub(super) fn count_poll(&self, began: Option<u64>, events: u64) {
        self.polls.set(self.polls.get() + 1);
        self.events.set(self.events.get() + events);
        if let (Some(began), Some(scale)) = (began, self.scale.get()) {
            self.poll_times.add(scale.nanos(ticks::now().saturating_sub(began)));
        }
    }

    /// The waiters of a poll's events have been woken. `began` is from [`time`](Self::time).
    #[inline]
    pub(super) fn polled(&self, began: Option<u64>, events: u64) {
        if let (Some(began), Some(ring)) = (began, self.ring.get()) {
            ring.polled(began, ticks::now().saturating_sub(began), events);
        }
    }

    /// A wake of another thread has come.
    pub(super) fn count_remote_wake(&self) {
        self.remote_wakes.set(self.remote_wakes.get() + 1);
    }

    /// Whether turns are observed now.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Whether turns may have to be observed from now on, or no longer.
    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        let measures = MEASURES.load(Ordering::Relaxed) || self.scale.get().is_some();
        measures || recorder::capacity() > 0 || self.ring.get().is_some()
    }

    /// Decides whether turns are observed from now on. `last` is the task at the end of the ready
    /// queue.
    #[cold]
    pub(super) fn next_interval(&self, last: *const Task, place: impl FnOnce() -> Place) {
        let measures = MEASURES.load(Ordering::Relaxed);
        let skip = self.skip.get();
        let sampled = measures && skip == 0;
        self.scale.set(measures.then(Scale::get));
        self.skip.set(match sampled {
            true => SKIPPED + (ticks::now() >> 4) as u32 % SPREAD,
            false => skip.saturating_sub(1),
        });
        if self.ring.get().is_some_and(|ring| !ring.fits()) {
            self.stop();
        }
        let records = recorder::capacity() > 0;
        if records && self.ring.get().is_none() {
            self.ring.set(Some(Ring::acquire(place())));
        }
        let on = sampled || records;
        if !self.on.replace(on) {
            self.unknown.set(last);
        }
    }

    /// Nothing is recorded any more.
    pub(super) fn stop(&self) {
        if let Some(ring) = self.ring.take() {
            ring.release();
        }
    }

    /// The loop begins to run coroutines again.
    #[inline]
    pub(super) fn refresh(&self) {
        self.stamp.set(ticks::now());
    }

    /// A task was added, and becomes ready.
    #[cold]
    pub(super) fn spawned(&self, task: &Task) {
        let now = ticks::now();
        task.since.set(ticks::short(now));
        if let Some(ring) = self.ring.get() {
            ring.spawned(now, task.id, task.spawned, task.parent);
        }
    }

    /// The wait of a task was ended, and it becomes ready.
    #[cold]
    pub(super) fn woken(&self, task: &Task) {
        let now = ticks::now();
        task.since.set(ticks::short(now));
        if let Some(ring) = self.ring.get() {
            let running = current::with(|running| running.map(|running| running.id));
            let by = match (task.wake.get(), running) {
                (Wake::TimedOut, _) => By::Timer,
                (Wake::Cancelled, _) => By::Cancellation,
                (Wake::Ready, Some(id)) => By::Coroutine(id),
                (Wake::Ready, None) if self.receives.get() => By::Thread,
                (Wake::Ready, None) => By::Loop,
            };
            ring.woken(now, task.id, by);
        }
    }

    /// A level of a task is cancelled.
    pub(super) fn cancelled(&self, task: &Task) {
        if let Some(ring) = self.ring.get() {
            let running = current::with(|running| running.map(|running| running.id));
            ring.cancelled(ticks::now(), task.id, running);
        }
    }

    /// Coroutines that had not started were taken from another worker.
    pub(super) fn count_steal(&self) {
        self.steals.set(self.steals.get() + 1);
        if let Some(ring) = self.ring.get() {
            ring.stolen(ticks::now());
        }
    }

    /// Calls `act`, which acts on the messages of other threads.
    pub(super) fn receive(&self, act: impl FnOnce()) {
        self.receives.set(true);
        act();
        self.receives.set(false);
    }

    /// The turn of a task begins.
    #[inline]
    pub(super) fn turn_begins(&self, task: &Task) {
        if let Some(ring) = self.ring.get() {
            ring.turn_begins(self.stamp.get(), task.id);
        }
        let Some(scale) = self.scale.get() else { return };
        if !self.unknown.get().is_null() {
            if std::ptr::eq(self.unknown.get(), task) {
                self.unknown.set(std::ptr::null());
            }
            return;
        }
        let waited = ticks::short(self.stamp.get()).wrapping_sub(task.since.get());
        self.delays.add(scale.nanos(ticks::long(waited)));
    }

    /// The turn of a task has ended, in this way.
    #[inline]
    pub(super) fn turn_ends(&self, task: &Task, suspended: Option<Suspended>) {
        let now = ticks::now();
        let began = self.stamp.replace(now);
        let took = now.saturating_sub(began);
        if suspended == Some(Suspended::Ready) {
            task.since.set(ticks::short(now));
        }
        if let Some(scale) = self.scale.get() {
            self.turn_times.add(scale.nanos(took));
        }
        if let Some(ring) = self.ring.get() {
            let then = match suspended {
                Some(Suspended::Ready) => Then::Yielded,
                Some(Suspended::Parked) => Then::Parked(task.waiting()),
                Some(Suspended::Abandoned) | None => Then::Ended(task.spawned),
            };
            ring.turn_ends(began, took, task.id, then);
        }
    }

    /// The time in ticks, if it is needed for a poll.
    #[inline]
    pub(super) fn time(&self) -> Option<u64> {
        (self.scale.get().is_some() || self.ring.get().is_some()).then(ticks::now)
    }

    /// Writes what was counted and measured into `counts`. Async-signal-safe.
    pub(super) fn count(&self, counts: &mut Counts) {
        counts.spawned = self.spawned.get();
        counts.budget_yields = self.budget_yields.get();
        counts.steals = self.steals.get();
        counts.remote_wakes = self.remote_wakes.get();
        counts.polls = self.polls.get();
        counts.events = self.events.get();
        counts.delays = self.delays.get();
        counts.turn_times = self.turn_times.get();
        counts.poll_times = self.poll_times.get();
    }
}
