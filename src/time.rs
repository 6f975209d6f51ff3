//! The clock, and waiting for it.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::engine::blocking_pool as pool;
use crate::engine::context;
use crate::engine::park;
use crate::engine::scheduler::{Call, CallKey};
use crate::engine::spawn::{self, Spec};
use crate::engine::task::Wait;

pub use crate::task::{Elapsed, timeout, timeout_at};

const WAIT: Wait = Wait::outside("a timer");

/// The time, as this thread's scheduler tells it: [`Instant::now`].
pub fn now() -> Instant {
    park::now()
}

/// Waits for `duration`. A duration of zero lets the other coroutines that are ready run first; one
/// that the clock cannot hold, such as [`Duration::MAX`], waits for ever.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
///
/// ```
/// use std::time::Duration;
///
/// plainsong::run(|| plainsong::time::sleep(Duration::from_millis(1)));
/// ```
pub fn sleep(duration: Duration) {
    if !park::in_coroutine() {
        return pool::while_blocked(|| std::thread::sleep(duration));
    }
    if duration.is_zero() {
        return crate::yield_now();
    }
    park_until(park::deadline(duration));
}

/// Waits until `deadline`; one that has passed lets the other coroutines that are ready run first.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
pub fn sleep_until(deadline: Instant) {
    if park::in_coroutine() && deadline > now() {
        park_until(Some(deadline));
    } else {
        sleep(deadline.saturating_duration_since(now()));
    }
}

fn park_until(deadline: Option<Instant>) {
    park::block(park::waiter(), WAIT, deadline);
}

/// A clock that ticks every `period`, from now on: the first tick comes at once.
///
/// # Panics
///
/// When `period` is zero.
///
/// ```
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let mut ticks = plainsong::time::interval(Duration::from_millis(1));
///     let first = ticks.tick();
///     assert_eq!(ticks.tick() - first, Duration::from_millis(1));
/// });
/// ```
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval of zero would tick without end: give it a period");
    Interval { period, next: Some(now()), missed: MissedTickBehavior::default() }
}

/// What an [`Interval`] does when its user comes too late for a tick. (tokio's three.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MissedTickBehavior {
    /// Ticks without waiting until it has caught up, so that the number of ticks is right.
    #[default]
    Burst,
    /// Ticks at once, then a whole period later.
    Delay,
    /// Ticks at once, then at the next multiple of the period.
    Skip,
}

/// Made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    // None when the clock cannot hold the time of the next tick.
    next: Option<Instant>,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick and returns the time at which it was due.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; the tick is then still to come.
    pub fn tick(&mut self) -> Instant {
        let Some(due) = self.next else {
            sleep(Duration::MAX);
            unreachable!("an endless sleep ended");
        };
        if due > now() {
            sleep_until(due);
        } else {
            park::yield_to_loop();
        }
        let now = now();
        let late = now.saturating_duration_since(due);
        let from = match self.missed {
            _ if late < self.period => Some(due),
            MissedTickBehavior::Burst => Some(due),
            MissedTickBehavior::Delay => Some(now),
            MissedTickBehavior::Skip => {
                let nanos = late.as_nanos() % self.period.as_nanos();
                u64::try_from(nanos).ok().map(|nanos| now - Duration::from_nanos(nanos))
            }
        };
        self.next = from.and_then(|from| from.checked_add(self.period));
        due
    }

    /// The time between ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Makes the next tick come a whole period from now.
    pub fn reset(&mut self) {
        self.next = park::deadline(self.period);
    }

    /// Sets what happens when a tick is asked for too late.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }
}

/// Calls `f` in a coroutine of its own after `delay`: no coroutine waits until then.
///
/// The call is dropped unmade when the runtime ends first. Where there is no memory for its stack
/// when the time comes, it is made when there is.
///
/// # Panics
///
/// Outside of a runtime.
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
///
/// plainsong::run(|| {
///     let rung = Rc::new(Cell::new(false));
///     let bell = rung.clone();
///     plainsong::time::after(Duration::from_millis(1), move || bell.set(true));
///     plainsong::time::sleep(Duration::from_millis(5));
///     assert!(rung.get());
/// });
/// ```
#[track_caller]
pub fn after<F: FnOnce() + 'static>(delay: Duration, f: F) -> Timer {
    schedule(park::deadline(delay), f)
}

/// Calls `f` in a coroutine of its own at `time`: [`after`], for a point in time.
///
/// # Panics
///
/// Outside of a runtime.
#[track_caller]
pub fn at<F: FnOnce() + 'static>(time: Instant, f: F) -> Timer {
    schedule(Some(time), f)
}

#[track_caller]
fn schedule<F: FnOnce() + 'static>(time: Option<Instant>, f: F) -> Timer {
    let spawned = std::panic::Location::caller();
    context::with(|scheduler| {
        assert!(
            scheduler.is_running(),
            "no plainsong runtime runs on this thread to call later; \
             wrap the program in `plainsong::run(|| …)`"
        );
        let call: Call = Box::new(move |stack, id, thread| {
            spawn::detached(stack, id, thread, Spec::at(spawned), f)
        });
        Timer { key: scheduler.call_at(time, call), local: PhantomData }
    })
}

/// A call that is still to come; made by [`after`] and [`at`]. Dropping it changes nothing.
pub struct Timer {
    key: CallKey,
    // The key means something on this thread only.
    local: PhantomData<*const ()>,
}

impl Timer {
    /// Takes the call back. Returns `false` when it has been made or taken back already.
    pub fn cancel(&self) -> bool {
        // Dropped with nothing borrowed: it may be any code.
        let call = context::with(|scheduler| scheduler.cancel_call(self.key));
        call.is_some()
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}
