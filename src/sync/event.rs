//! `Event`.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::lock::Lock;
use super::operation::{Choice, Operation, Registration, Ticket};
use super::wait::{About, Registered, WaitQueue, wait};
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicBool, Ordering};
use crate::engine::task::Wait;
use crate::engine::waiter::Waiter;

const WAIT: Wait = Wait::new(&Wait::for_any_thread("an event to be set").of("wait", "Event"));

/// A flag that any number of coroutines and threads wait for, also in a [`select!`](crate::select).
/// (Python's `Event`.)
///
/// ```
/// use plainsong::sync::Event;
///
/// let started = Event::new();
/// plainsong::run(|| {
///     plainsong::scope(|s| {
///         s.spawn(|| started.set());
///         started.wait();
///         assert!(started.is_set());
///     });
/// });
/// ```
pub struct Event {
    set: AtomicBool,
    waiting: Lock<WaitQueue<()>>,
}

// Nothing in here can be left half-done.
impl UnwindSafe for Event {}
impl RefUnwindSafe for Event {}

impl Event {
    /// An event that is not set.
    #[track_caller]
    pub const fn new() -> Self {
        Self { set: AtomicBool::new(false), waiting: Lock::new(WaitQueue::new()) }
    }

    /// Whether the event is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Sets the event: all waiters go on, in the order in which they came, and no call waits until
    /// the event is [cleared](Self::clear).
    pub fn set(&self) {
        let mut waiting = self.waiting.lock();
        self.set.store(true, Ordering::Release);
        let served = waiting.serve_all(|()| ());
        drop(waiting);
        park::wake_all(served);
    }

    /// Makes the event unset again. Waiters that have been let go on do so.
    pub fn clear(&self) {
        let _waiting = self.waiting.lock();
        self.set.store(false, Ordering::Release);
    }

    /// Waits until the event is set.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait(&self) {
        self.wait_for(WAIT, None);
    }

    /// Waits until the event is set, for `timeout` at most. Returns whether it was set in time.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use plainsong::sync::Event;
    ///
    /// plainsong::run(|| assert!(!Event::new().wait_timeout(Duration::from_millis(1))));
    /// ```
    #[must_use = "it may not have been set"]
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_for(WAIT, park::deadline(timeout))
    }

    /// [`wait_timeout`](Self::wait_timeout), for a reason `why`.
    #[track_caller]
    pub(super) fn wait_for(&self, why: Wait, deadline: Option<Instant>) -> bool {
        self.wait_about(why, deadline, || About::NOTHING)
    }

    /// [`wait_for`](Self::wait_for), for a report that `about` tells more.
    #[track_caller]
    pub(super) fn wait_about(
        &self,
        why: Wait,
        deadline: Option<Instant>,
        about: impl Fn() -> About,
    ) -> bool {
        park::spend();
        if self.is_set() {
            return true;
        }
        let waiting = self.waiting.lock();
        if self.is_set() {
            return true;
        }
        wait(&self.waiting, waiting, |queue| queue, (), why, deadline, |_| about()).is_ok()
    }
}

impl Operation for Event {
    fn choose(&self) -> Option<Ticket> {
        self.is_set().then_some(0)
    }

    fn is_ready(&self) -> bool {
        self.is_set()
    }

    fn register<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        let waiting = self.waiting.lock();
        if self.is_set() {
            return None;
        }
        let claim = (choice, number);
        let lock = &self.waiting;
        Some(Box::new(Registered::choice(lock, waiting, |queue| queue, (), waiter, claim)))
    }
}

impl Registration for Registered<&Lock<WaitQueue<()>>, WaitQueue<()>, ()> {
    fn deregister(mut self: Box<Self>, served: bool) -> Option<Ticket> {
        Registered::deregister(&mut self);
        // The event was set for this waiter, even if it has been cleared since.
        served.then_some(0)
    }
}

impl Default for Event {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish_non_exhaustive()
    }
}
