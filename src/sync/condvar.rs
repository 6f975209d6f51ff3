//! `Condvar`.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{LockResult, PoisonError};
use std::time::{Duration, Instant};

use super::lock::Lock;
use super::mutex::MutexGuard;
use super::wait::{About, Unserved, WaitQueue, wait_unless_cancelled};
use crate::engine::defer::Defer;
use crate::engine::park;
use crate::engine::task::Wait;

const WAIT: Wait =
    Wait::new(&Wait::for_any_thread("a condition variable to be notified").of("wait", "Condvar"));

/// Waits for something that others do to the value of a [`Mutex`](super::Mutex), as
/// [`std::sync::Condvar`].
///
/// The waiter that has waited longest is notified first. There are no wake-ups without a
/// notification, but the mutex may have been locked by others in between: use
/// [`wait_while`](Self::wait_while).
///
/// ```
/// use plainsong::sync::{Condvar, Mutex};
///
/// let (ready, changed) = (Mutex::new(false), Condvar::new());
/// plainsong::run(|| {
///     plainsong::scope(|s| {
///         s.spawn(|| {
///             *ready.lock().unwrap() = true;
///             changed.notify_one();
///         });
///         let ready = changed.wait_while(ready.lock().unwrap(), |ready| !*ready).unwrap();
///         assert!(*ready);
///     });
/// });
/// ```
pub struct Condvar {
    waiting: Lock<WaitQueue<Notice>>,
}

// Nothing in here can be left half-done.
impl UnwindSafe for Condvar {}
impl RefUnwindSafe for Condvar {}

/// How a wait was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Notice {
    NotYet,
    ToOne,
    ToAll,
}

/// Whether a wait with a time-out ended because of that: [`std::sync::WaitTimeoutResult`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was over before a notification came.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition variable without waiters.
    #[must_use]
    #[track_caller]
    pub const fn new() -> Self {
        Self { waiting: Lock::new(WaitQueue::new()) }
    }

    /// Unlocks the mutex and waits for a notification; then locks the mutex again.
    ///
    /// A notification that comes after the mutex has been unlocked is not missed.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// Unwinds, with the mutex unlocked, when the coroutine is cancelled while it waits. If it has
    /// been notified by then, and only waits for the mutex, the notification goes to the next
    /// waiter.
    #[track_caller]
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        into_guard(self.wait_for(guard, WAIT, None))
    }

    /// Waits as long as `condition` holds of the value.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_while<'a, T: ?Sized, F>(
        &self,
        guard: MutexGuard<'a, T>,
        condition: F,
    ) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        into_guard(self.wait_while_for(guard, WAIT, None, condition))
    }

    /// Waits for a notification, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.wait_for(guard, WAIT, park::deadline(timeout))
    }

    /// Waits for a notification, for `ms` milliseconds at most. Returns whether one came in time.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// As [`wait`](Self::wait).
    #[deprecated = "use `wait_timeout`"]
    pub fn wait_timeout_ms<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        ms: u32,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let in_time = |(guard, result): (_, WaitTimeoutResult)| (guard, !result.timed_out());
        match self.wait_timeout(guard, Duration::from_millis(ms.into())) {
            Ok(waited) => Ok(in_time(waited)),
            Err(error) => Err(PoisonError::new(in_time(error.into_inner()))),
        }
    }

    /// Waits as long as `condition` holds of the value, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// When the mutex is poisoned, with the guard.
    ///
    /// # Cancellation
    ///
    /// As [`wait`](Self::wait).
    ///
    /// ```
    /// use std::time::Duration;
    /// use plainsong::sync::{Condvar, Mutex};
    ///
    /// plainsong::run(|| {
    ///     let (empty, changed) = (Mutex::new(true), Condvar::new());
    ///     let guard = empty.lock().unwrap();
    ///     let short = Duration::from_millis(1);
    ///     let (guard, result) = changed.wait_timeout_while(guard, short, |empty| *empty).unwrap();
    ///     assert!(*guard && result.timed_out());
    /// });
    /// ```
    #[track_caller]
    pub fn wait_timeout_while<'a, T: ?Sized, F>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
        condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        self.wait_while_for(guard, WAIT, park::deadline(timeout), condition)
    }

    /// Ends the wait of the waiter that has waited longest, if there is one.
    pub fn notify_one(&self) {
        let served = self.waiting.lock().serve(|notice| *notice = Notice::ToOne);
        if let Some(((), waiter)) = served {
            park::wake(waiter);
        }
    }

    /// Ends the waits of all waiters.
    pub fn notify_all(&self) {
        let served = self.waiting.lock().serve_all(|notice| *notice = Notice::ToAll);
        park::wake_all(served);
    }

    /// [`wait_timeout_while`](Self::wait_timeout_while), for a reason `why`.
    #[track_caller]
    pub(crate) fn wait_while_for<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        why: Wait,
        deadline: Option<Instant>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mut timed_out = WaitTimeoutResult(false);
        park::spend();
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            if timed_out.timed_out() {
                return Ok((guard, timed_out));
            }
            (guard, timed_out) = self.wait_for(guard, why, deadline)?;
        }
    }

    #[track_caller]
    fn wait_for<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        why: Wait,
        deadline: Option<Instant>,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mutex = guard.mutex();
        let waiting = self.waiting.lock();
        // It queues before it unlocks: a thread that then changes the value and notifies finds it
        // there.
        let notice = wait_unless_cancelled(
            &self.waiting,
            waiting,
            |queue| queue,
            Notice::NotYet,
            why,
            deadline,
            guard,
            |_| About::NOTHING,
        )
        .map_err(Unserved::into_slot);
        // If this waiter gives up now, nobody has looked at what it was notified of.
        let pass_on = (notice == Ok(Notice::ToOne)).then(|| Defer::new(|| self.notify_one()));
        let Ok(guard) = mutex.lock_unless_cancelled() else {
            // The coroutine may be given up below, without an unwind.
            drop(pass_on);
            park::raise();
        };
        if let Some(pass_on) = pass_on {
            pass_on.disarm();
        }
        let result = WaitTimeoutResult(notice.is_err());
        match guard {
            Ok(guard) => Ok((guard, result)),
            Err(error) => Err(PoisonError::new((error.into_inner(), result))),
        }
    }
}

fn into_guard<G>(result: LockResult<(G, WaitTimeoutResult)>) -> LockResult<G> {
    match result {
        Ok((guard, _)) => Ok(guard),
        Err(error) => Err(PoisonError::new(error.into_inner().0)),
    }
}

impl Default for Condvar {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
