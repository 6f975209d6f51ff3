//! `WaitGroup`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
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
#[derive(Clone)]
pub struct WaitGroup {
    share: Arc<Share>,
}

/// The state that the members share. Dropping the last reference sets the event.
struct Share {
    done: Arc<Event>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.done.set();
    }
}

impl WaitGroup {
    /// A group with one member: this.
    #[track_caller]
    pub fn new() -> Self {
        Self { share: Arc::new(Share { done: Arc::new(Event::new()) }) }
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
        let done = Arc::clone(&self.share.done);
        drop(self);
        done.wait_for(WAIT, deadline)
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
        f.debug_struct("WaitGroup").field("count", &Arc::strong_count(&self.share)).finish()
    }
}
