//! Waiting for many coroutines.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::time::Duration;

use super::join::{JoinError, JoinHandle};
use crate::engine::defer::Defer;
use crate::engine::park;
use crate::engine::task::Wait;

pub(crate) const WAIT_ANY: Wait = Wait::new(&Wait::for_run("one of several coroutines to end"));
const WAIT_ANY_ELSEWHERE: Wait =
    Wait::new(&Wait::outside("one of several coroutines, some of other runtimes, to end"));

/// Waits for all the coroutines, and returns their results in the order of the handles.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled. The others are detached.
///
/// ```
/// plainsong::run(|| {
///     let results = plainsong::task::join_all((0..3).map(|n| plainsong::spawn(move || n)));
///     assert!(results.into_iter().map(Result::unwrap).eq(0..3));
/// });
/// ```
pub fn join_all<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    // The iterator may spawn, so it runs to its end before the first join: otherwise each coroutine
    // would end before the next is spawned.
    let handles: Vec<_> = handles.into_iter().collect();
    handles.into_iter().map(JoinHandle::join).collect()
}

/// Waits for all the coroutines, for `timeout` at most. Returns the handles of those that have
/// ended and of those that have not, each in the given order. (asyncio's `wait`.)
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled. The others are detached.
///
/// ```
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let handles = [0, 3600].map(|seconds| {
///         plainsong::spawn(move || plainsong::time::sleep(Duration::from_secs(seconds)))
///     });
///     let (done, pending) = plainsong::task::wait(handles, Some(Duration::from_millis(1)));
///     assert_eq!((done.len(), pending.len()), (1, 1));
/// });
/// ```
pub fn wait<T>(
    handles: impl IntoIterator<Item = JoinHandle<T>>,
    timeout: Option<Duration>,
) -> (Vec<JoinHandle<T>>, Vec<JoinHandle<T>>) {
    let handles: Vec<_> = handles.into_iter().collect();
    let deadline = timeout.and_then(park::deadline).map(park::limited);
    for handle in &handles {
        if !handle.wait(deadline) {
            break;
        }
    }
    handles.into_iter().partition(JoinHandle::is_finished)
}

/// The results of coroutines in the order in which they end. The order of those that end on
/// different workers between two steps is not defined.
///
/// Each step waits for one coroutine. Dropping the iterator detaches the rest. Each step looks at
/// all coroutines that are left, so use it for some thousands at most.
///
/// ```
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let handles = [2, 0, 1].map(|n| {
///         plainsong::spawn(move || {
///             plainsong::time::sleep(Duration::from_millis(20 * n));
///             n
///         })
///     });
///     let order: Vec<_> = plainsong::task::as_completed(handles).map(Result::unwrap).collect();
///     assert_eq!(order, [0, 1, 2]);
/// });
/// ```
pub fn as_completed<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> AsCompleted<T> {
    AsCompleted { pending: handles.into_iter().collect(), ended: VecDeque::new() }
}

/// Made by [`as_completed`].
#[must_use = "an iterator does nothing unless it is used"]
pub struct AsCompleted<T> {
    pending: Vec<JoinHandle<T>>,
    // Handles of coroutines that have ended, in that order.
    ended: VecDeque<JoinHandle<T>>,
}

impl<T> AsCompleted<T> {
    /// Moves the handles of ended coroutines from `pending` to `ended`.
    fn collect_ended(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let (mut ended, pending): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(JoinHandle::is_finished);
        ended.sort_by_key(|handle| handle.receiver.ended_at());
        self.pending = pending;
        self.ended.extend(ended);
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Result<T, JoinError>;

    /// The next result.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled. No result is lost.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.ended.is_empty() {
                self.collect_ended();
            }
            if let Some(handle) = self.ended.pop_front() {
                return Some(handle.join());
            }
            if self.pending.is_empty() {
                return None;
            }
            wait_any(&self.pending);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.pending.len() + self.ended.len();
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for AsCompleted<T> {}
impl<T> FusedIterator for AsCompleted<T> {}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.len()).finish_non_exhaustive()
    }
}

/// Waits until one of the coroutines has ended. May return early.
fn wait_any<T>(handles: &[JoinHandle<T>]) {
    let here = handles.iter().all(|handle| handle.receiver.is_of_this_run());
    let why = if here { WAIT_ANY } else { WAIT_ANY_ELSEWHERE };
    park::until(why, None, |waiter| {
        let pending = handles.iter().all(|handle| handle.receiver.register(waiter.clone()));
        let registered = Defer::new(move || {
            handles.iter().for_each(|handle| handle.receiver.unregister(&waiter));
        });
        pending.then_some(registered)
    });
}
