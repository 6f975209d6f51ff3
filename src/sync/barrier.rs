//! `Barrier`.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::lock::Lock;
use super::wait::{About, WaitQueue, wait};
use crate::engine::park;
use crate::engine::task::Wait;

const WAIT: Wait =
    Wait::new(&Wait::for_any_thread("the others at a barrier").of("wait", "Barrier"));

/// Lets several begin something together, as [`std::sync::Barrier`], and again and again.
///
/// ```
/// use plainsong::sync::Barrier;
///
/// let barrier = Barrier::new(3);
/// plainsong::run(|| {
///     let came = || barrier.wait().is_leader();
///     let leaders = plainsong::task::gather([came, came, came]);
///     assert_eq!(leaders.iter().filter(|leader| **leader).count(), 1);
/// });
/// ```
pub struct Barrier {
    parties: usize,
    state: Lock<State>,
}

struct State {
    // The waiters are the parties that have arrived: a waiter that gives up has never been here.
    waiting: WaitQueue<()>,
    // How many have queued since the last release: no fewer than there are waiters. It saves
    // counting the waiters as long as they cannot be enough.
    queued: usize,
}

// Nothing in here can be left half-done.
impl UnwindSafe for Barrier {}
impl RefUnwindSafe for Barrier {}

/// Distinguishes one of the parties that have waited together: [`std::sync::BarrierWaitResult`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Whether this party came last. That is true for one of those that have waited together.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.is_leader()).finish()
    }
}

impl Barrier {
    /// A barrier for `n`. One for none or for one lets each go on at once.
    #[must_use]
    #[track_caller]
    pub const fn new(n: usize) -> Self {
        Self { parties: n, state: Lock::new(State { waiting: WaitQueue::new(), queued: 0 }) }
    }

    /// Waits until as many wait as the barrier is for. The barrier can then be used again.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits. The others then wait for one more.
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        match self.wait_until(None) {
            Some(result) => result,
            None => unreachable!("a wait without a deadline"),
        }
    }

    /// Waits until as many wait as the barrier is for, for `timeout` at most. `None` when the time
    /// is over first: the others then wait for one more.
    ///
    /// # Cancellation
    ///
    /// As [`wait`](Self::wait).
    #[must_use = "the others may not have come"]
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<BarrierWaitResult> {
        self.wait_until(park::deadline(timeout))
    }

    #[track_caller]
    fn wait_until(&self, deadline: Option<Instant>) -> Option<BarrierWaitResult> {
        park::spend();
        let mut state = self.state.lock();
        // The caller is a party, too.
        let others = self.parties.saturating_sub(1);
        let enough = state.queued >= others;
        if let Some(served) = enough.then(|| state.waiting.serve_all_of(others)).flatten() {
            state.queued = 0;
            drop(state);
            park::wake_all(served);
            return Some(BarrierWaitResult(true));
        }
        state.queued += 1;
        let about = |state: &State| About::count(state.queued, Some(self.parties));
        let released = wait(&self.state, state, |s| &mut s.waiting, (), WAIT, deadline, about);
        released.ok().map(|()| BarrierWaitResult(false))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}
