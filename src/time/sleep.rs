//! Sleeping in a future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::engine::context;
use crate::engine::park::now;
use crate::engine::scheduler::SleepKey;
use crate::engine::waiter::FutureWaiter;

/// A deadline that no program lives to see, for durations that the clock cannot hold.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A future that is ready when its time has come: [`sleep`](super::sleep) for `async` code that a
/// runtime of this library polls. It waits on the timers of the thread that polls it.
///
/// It may be reset at any time, which costs no allocation.
///
/// # Panics
///
/// Polling it panics on a thread on which no runtime runs, because nothing would wake it. That is
/// also so after the run in which it began to wait has ended.
///
/// ```
/// use plainsong::time::Sleep;
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let mut sleep = Sleep::new(Duration::from_secs(60));
///     sleep.reset(plainsong::time::now() + Duration::from_millis(1));
///     plainsong::block_on(&mut sleep);
///     assert!(sleep.is_elapsed());
/// });
/// ```
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Sleep {
    deadline: Instant,
    armed: Option<SleepKey>,
    waiter: FutureWaiter,
}

impl Sleep {
    /// Sleeps for `duration`, from now on. A duration that the clock cannot hold is 30 years.
    pub fn new(duration: Duration) -> Self {
        let now = now();
        Self::until(now.checked_add(duration).unwrap_or(now + FAR))
    }

    /// Sleeps until `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, armed: None, waiter: FutureWaiter::new() }
    }

    /// When it is ready.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether its time has come.
    pub fn is_elapsed(&self) -> bool {
        self.deadline <= now()
    }

    /// Sets another deadline, also after the first one has passed. A task that waits for this
    /// future is woken at the new one. It may be reset on any thread.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        let elsewhere = self.armed.is_some_and(|key| !key.is_here());
        if self.disarm() {
            self.arm();
        } else if elsewhere {
            // The task polls again, which arms the timer of its thread.
            self.waiter.wake();
        }
    }

    /// Arms the timer of this thread, and returns whether a run is under way that fires it.
    fn arm(&mut self) -> bool {
        let (deadline, waiter) = (self.deadline, self.waiter.waiter());
        self.armed = context::try_with(|scheduler| scheduler.arm_sleep(deadline, waiter)).flatten();
        self.armed.is_some()
    }

    /// Takes the timer back. Returns whether this thread has armed it, and it has not fired.
    fn disarm(&mut self) -> bool {
        let Some(key) = self.armed.take() else { return false };
        if !key.is_here() {
            key.disarm_elsewhere();
            return false;
        }
        context::try_with(|scheduler| scheduler.disarm_sleep(key)).unwrap_or(false)
    }

    fn is_armed_here(&self) -> bool {
        let Some(key) = self.armed.filter(|key| key.is_here()) else { return false };
        context::try_with(|scheduler| scheduler.is_sleep_armed(key)).unwrap_or(false)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_elapsed() {
            self.disarm();
            return Poll::Ready(());
        }
        self.waiter.set_waker(cx.waker());
        if !self.is_armed_here() {
            self.disarm();
            assert!(
                self.arm(),
                "no plainsong runtime runs on this thread, so nothing would wake the sleeping \
                 future: poll it inside of `plainsong::run`"
            );
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}
