//! `WaitGroup`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::event::Event;
use super::wait::About;
use crate::engine::park;
use crate::engine::task::Wait;

const WAIT: Wait = Wait::new(
    &Wait::for_any_thread("the members of a wait group to be done").of("wait", "WaitGroup"),
);

/// Waits until all its shares have been dropped.
///
/// The shape is crossbeam's and not Go's: a member that is done drops its share, so a panic or a
/// cancellation cannot forget it, and the count cannot go below zero.
///
/// ```
/// use plainsong::sync::WaitGroup;
///
/// plainsong::run(|| {
///     let group = WaitGroup::new();
///     for _ in 0..4 {
///         let share = group.clone();
///         plainsong::spawn(move || {
///             // some work
///             drop(share);
///         });
///     }
///     group.wait();
/// });
/// ```
pub struct WaitGroup {
    shared: Arc<Shared>,
}

/// The state that the members and the waiters share.
struct Shared {
    members: AtomicUsize,
    done: Event,
}

impl Clone for WaitGroup {
    fn clone(&self) -> Self {
        self.shared.members.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for WaitGroup {
    fn drop(&mut self) {
        // The waiters see all that the members have done.
        if self.shared.members.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.done.set();
        }
    }
}

impl WaitGroup {
    /// A group with one member: this.
    #[track_caller]
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared { members: AtomicUsize::new(1), done: Event::new() }) }
    }

    /// Drops this share, and waits until all others have been dropped.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait(self) {
        self.wait_until(None);
    }

    /// Drops this share, and waits until all others have been dropped, for `timeout` at most.
    /// Returns whether they were dropped in time.
    ///
    /// # Cancellation
    ///
    /// As [`wait`](Self::wait).
    #[must_use = "some may not be done"]
    #[track_caller]
    pub fn wait_timeout(self, timeout: Duration) -> bool {
        self.wait_until(park::deadline(timeout))
    }

    #[track_caller]
    fn wait_until(self, deadline: Option<Instant>) -> bool {
        let shared = Arc::clone(&self.shared);
        drop(self);
        shared.done.wait_about(WAIT, deadline, || About::NOTHING.shared(&*shared))
    }
}

impl Default for WaitGroup {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.shared.members.load(Ordering::Relaxed);
        f.debug_struct("WaitGroup").field("count", &count).finish()
    }
}
