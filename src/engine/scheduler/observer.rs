//! Counts and measured times of a scheduler.
//!
//! Counting is free, or next to it. A time needs a clock, so times are measured on request, and
//! then the loop has other code for a turn. While there are many turns, only those of some
//! intervals between two ticks are measured.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::coroutine::Suspended;
use super::super::numbers::{Counts, Measured};
use super::super::task::Task;
use super::super::ticks::{self, Scale};

/// Times are to be measured.
static MEASURES: AtomicBool = AtomicBool::new(false);

/// While there are many turns, one interval of so many is measured.
const SAMPLED: u32 = 4;
/// All intervals are measured while each takes at least this long, in nanoseconds: the cost is then
/// a thousandth.
const LONG: u64 = 5_000_000;

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
    pub(super) steals: Cell<u64>,
    remote_wakes: Cell<u64>,
    polls: Cell<u64>,
    events: Cell<u64>,
    // When the last turn ended, or the loop last looked, in ticks.
    stamp: Cell<u64>,
    scale: Cell<Option<&'static Scale>>,
    // The last task that became ready before that was observed.
    unknown: Cell<*const Task>,
    // When the current interval between two ticks began, in nanoseconds of the clock, and how many
    // of the last ones were not measured.
    interval: Cell<u64>,
    skipped: Cell<u32>,
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
            unknown: Cell::new(std::ptr::null()),
            interval: Cell::new(0),
            skipped: Cell::new(0),
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

    /// The kernel was asked for events, and has returned so many.
    #[inline]
    pub(super) fn count_poll(&self, events: u64) {
        self.polls.set(self.polls.get() + 1);
        self.events.set(self.events.get() + events);
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

    /// Looks whether turns are to be observed from now on. `now` is the time in nanoseconds.
    /// `last` is the task at the end of the ready queue.
    #[inline]
    pub(super) fn look(&self, now: u64, last: *const Task) {
        if MEASURES.load(Ordering::Relaxed) || self.on.get() {
            self.next_interval(now, last);
        }
    }

    #[cold]
    fn next_interval(&self, now: u64, last: *const Task) {
        let long = now.saturating_sub(self.interval.replace(now)) >= LONG;
        let skipped = self.skipped.get() + 1;
        let wanted = MEASURES.load(Ordering::Relaxed);
        let on = wanted && (long || skipped >= SAMPLED);
        self.skipped.set(if on { 0 } else { skipped });
        self.scale.set(wanted.then(Scale::get));
        if on && !self.on.replace(on) {
            self.unknown.set(last);
        }
        self.on.set(on);
    }

    /// The loop begins to run coroutines again.
    #[inline]
    pub(super) fn refresh(&self) {
        self.stamp.set(ticks::now());
    }

    /// A task becomes ready.
    #[inline]
    pub(super) fn ready(&self, task: &Task) {
        task.since.set(ticks::short(ticks::now()));
    }

    /// The turn of a task begins.
    #[inline]
    pub(super) fn turn_begins(&self, task: &Task) {
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
        let took = now - self.stamp.replace(now);
        if let Some(scale) = self.scale.get() {
            self.turn_times.add(scale.nanos(took));
        }
        if suspended == Some(Suspended::Ready) {
            task.since.set(ticks::short(now));
        }
    }

    /// Calls `poll`, a call that asks the kernel for events.
    #[inline]
    pub(super) fn time_poll<R>(&self, poll: impl FnOnce() -> R) -> R {
        let Some(scale) = self.scale.get() else { return poll() };
        let before = ticks::now();
        let result = poll();
        let took = ticks::now() - before;
        self.poll_times.add(scale.nanos(took));
        result
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
