//! The clock: sleeping, time-outs, intervals, and calls for later.

mod sleep;

use std::fmt;
use std::marker::PhantomData;

use crate::engine::blocking_pool as pool;
use crate::engine::context;
use crate::engine::current;
use crate::engine::park;
use crate::engine::scheduler::{Call, CallKey, Scheduler};
use crate::engine::spawn::{self, Spec};
use crate::engine::task::Wait;

pub use sleep::Sleep;
pub use std::time::{Duration, Instant, SystemTime, SystemTimeError, UNIX_EPOCH};

#[doc(inline)]
pub use crate::task::{Elapsed, fail_after, fail_at, timeout, timeout_at};

const WAIT: Wait = Wait::new(&Wait::outside("a timer").of("sleep", ""));

/// The time of this thread's scheduler: [`Instant::now`].
#[must_use]
pub fn now() -> Instant {
    park::now()
}

/// How long the code that calls this still has: until the first of the time-outs and deadlines
/// around it ([`timeout`], [`fail_after`]). Zero if that has passed. `None` if there is none around
/// it, and on a plain thread.
///
/// A time-out outside of a [`shield`](crate::task::shield) does not count inside of it, because it
/// ends no wait there.
///
/// ```
/// use std::time::Duration;
/// use plainsong::time::{remaining, timeout};
///
/// plainsong::run(|| {
///     assert_eq!(remaining(), None);
///     let left = timeout(Duration::from_secs(60), remaining).unwrap().unwrap();
///     assert!(left <= Duration::from_secs(60));
/// });
/// ```
#[must_use]
pub fn remaining() -> Option<Duration> {
    let now = now();
    current::with(|task| task?.scopes.remaining(now))
}

/// Waits for `duration`. Zero lets the other ready coroutines run first. A duration that the clock
/// cannot hold, such as [`Duration::MAX`], waits forever.
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

/// Waits until `deadline`. If it has passed, lets the other ready coroutines run first.
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

#[inline(always)]
fn park_until(deadline: Option<Instant>) {
    park::block(park::waiter(), WAIT, deadline);
}

/// A clock that ticks every `period`. The first tick is due at once.
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

/// How an [`Interval`] catches up when ticks were missed. (The same three ways as tokio's.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MissedTickBehavior {
    /// Ticks without waiting until it has caught up, so that no tick is lost.
    #[default]
    Burst,
    /// Ticks at once, and then a whole period later.
    Delay,
    /// Ticks at once, and then at the next multiple of the period.
    Skip,
}

/// A clock that ticks. Made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    // `None` if the clock cannot hold the time of the next tick.
    next: Option<Instant>,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick and returns the time at which it was due.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled. The tick is not lost: the next call returns it.
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

    /// Makes the next tick due a whole period from now.
    pub fn reset(&mut self) {
        self.next = park::deadline(self.period);
    }

    /// Sets how the interval catches up when ticks were missed.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }
}

/// Calls `f` in a new coroutine after `delay`. The coroutine is made only then, so a pending call
/// takes no stack.
///
/// If the runtime ends first, the call is dropped. If there is no memory for a stack when the time
/// comes, the call is retried until there is.
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

/// [`after`] with a point in time: calls `f` in a new coroutine at `time`.
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
    assert!(
        context::with(Scheduler::is_running),
        "no plainsong runtime runs on this thread to call later; \
         wrap the program in `plainsong::run(|| …)`"
    );
    let call: Call =
        Box::new(move |stack, id, thread| spawn::detached(stack, id, thread, Spec::at(spawned), f));
    // A refused call is dropped here, where the scheduler is not borrowed.
    let key = context::with(|scheduler| scheduler.call_at(time, call)).unwrap_or(CallKey::NONE);
    Timer { key, local: PhantomData }
}

/// A pending call, made by [`after`] and [`at`]. Dropping the timer does not cancel the call.
pub struct Timer {
    key: CallKey,
    // The key is valid only on this thread.
    local: PhantomData<*const ()>,
}

impl Timer {
    /// Cancels the call. Returns `false` if it was already made or cancelled.
    pub fn cancel(&self) -> bool {
        // The call is dropped outside of the closure, where nothing is borrowed, because its
        // destructors are user code.
        let call = context::try_with(|scheduler| scheduler.cancel_call(self.key));
        call.flatten().is_some()
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}
