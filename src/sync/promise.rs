//! `Promise`.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lock::Lock;
use super::once::OnceLock;
use crate::engine::park;
use crate::engine::task::Wait;

const WAIT: Wait =
    Wait::new(&Wait::for_any_thread("a promise to be fulfilled").of("wait", "Promise"));

/// A value that is set later, once, for all its waiters. (Python's `concurrent.futures.Future`.)
///
/// A clone is the same promise. If it is never set, its waiters wait for ever.
///
/// ```
/// use plainsong::sync::Promise;
///
/// plainsong::run(|| {
///     let answer = Promise::new();
///     let theirs = answer.clone();
///     plainsong::spawn(move || theirs.set(42));
///     assert_eq!(answer.wait().unwrap(), &42);
/// });
/// ```
pub struct Promise<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    outcome: OnceLock<Result<T, PromiseError>>,
    // `None` when it is done and all of them have been called.
    callbacks: Lock<Option<VecDeque<Callback<T>>>>,
}

type Callback<T> = Box<dyn FnOnce(&Promise<T>) + Send>;

/// Why a promise has no value.
#[derive(Debug)]
pub enum PromiseError {
    /// This error was set in place of a value.
    Failed(Box<dyn Error + Send + Sync>),
    /// The job that should have set it has panicked, with this message.
    Panicked(String),
    /// It was cancelled.
    Cancelled,
}

impl fmt::Display for PromiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Panicked(message) => write!(f, "the job panicked: {message}"),
            Self::Cancelled => f.write_str("the promise was cancelled"),
        }
    }
}

impl Error for PromiseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => error.source(),
            _ => None,
        }
    }
}

/// A promise, whatever its value is.
pub(crate) trait Cancel: Send + Sync {
    /// As [`Promise::cancel`].
    fn cancel(self: Arc<Self>) -> bool;
}

impl<T: Send + Sync> Cancel for Inner<T> {
    fn cancel(self: Arc<Self>) -> bool {
        Promise { inner: self }.cancel()
    }
}

impl<T> Promise<T> {
    /// A promise that is not done.
    #[track_caller]
    pub fn new() -> Self {
        let callbacks = Lock::new(Some(VecDeque::new()));
        Self { inner: Arc::new(Inner { outcome: OnceLock::new(), callbacks }) }
    }

    /// Sets the value, lets all waiters go on, and makes the calls that were asked for.
    ///
    /// # Errors
    ///
    /// When the promise is done already, with the value.
    ///
    /// # Panics
    ///
    /// When one of the calls does; the others have been made by then.
    pub fn set(&self, value: T) -> Result<(), T> {
        self.finish(Ok(value)).map_err(|value| match value {
            Ok(value) => value,
            Err(_) => unreachable!("it was a value"),
        })
    }

    /// Sets an error in place of the value. Returns whether it was the first.
    ///
    /// # Panics
    ///
    /// As [`set`](Self::set).
    pub fn set_error(&self, error: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        self.finish(Err(PromiseError::Failed(error.into()))).is_ok()
    }

    /// Says that there will be no value. Returns `false` when the promise is done already.
    ///
    /// This does not stop the work on a value: a value that is set later is refused.
    ///
    /// # Panics
    ///
    /// As [`set`](Self::set).
    pub fn cancel(&self) -> bool {
        self.finish(Err(PromiseError::Cancelled)).is_ok()
    }

    /// Whether there is a value or an error.
    pub fn is_done(&self) -> bool {
        self.inner.outcome.get().is_some()
    }

    /// Whether the promise was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.get(), Some(Err(PromiseError::Cancelled)))
    }

    /// The value or error, if it is there.
    pub fn get(&self) -> Option<Result<&T, &PromiseError>> {
        self.inner.outcome.get().map(Result::as_ref)
    }

    /// Waits for the value.
    ///
    /// # Errors
    ///
    /// The error that was set in its place.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait(&self) -> Result<&T, &PromiseError> {
        match self.wait_until(None) {
            Some(outcome) => outcome,
            None => unreachable!("a wait without a deadline"),
        }
    }

    /// Waits for the value, for `timeout` at most. `None` when the time is over.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<&T, &PromiseError>> {
        self.wait_until(park::deadline(timeout))
    }

    /// [`wait_timeout`](Self::wait_timeout), for a point in time, if there is one.
    #[track_caller]
    pub(crate) fn wait_until(
        &self,
        deadline: Option<Instant>,
    ) -> Option<Result<&T, &PromiseError>> {
        self.inner.outcome.wait_for(WAIT, deadline).map(Result::as_ref)
    }

    /// Calls `f` when the promise is done, on the thread that sets it; or now, if it is done
    /// already and no earlier calls are left to make. Calls are made in the order in which they
    /// were asked for.
    ///
    /// ```
    /// use plainsong::sync::Promise;
    ///
    /// let answer = Promise::new();
    /// answer.on_done(|answer| println!("it is {}", answer.get().unwrap().unwrap()));
    /// answer.set(42).unwrap();
    /// ```
    pub fn on_done(&self, f: impl FnOnce(&Self) + Send + 'static) {
        let mut callbacks = self.inner.callbacks.lock();
        match &mut *callbacks {
            Some(list) => list.push_back(Box::new(f)),
            None => {
                drop(callbacks);
                f(self);
            }
        }
    }

    pub(crate) fn to_cancel(&self) -> Arc<dyn Cancel>
    where
        T: Send + Sync + 'static,
    {
        Arc::clone(&self.inner) as _
    }

    pub(crate) fn finish(
        &self,
        outcome: Result<T, PromiseError>,
    ) -> Result<(), Result<T, PromiseError>> {
        // This wakes futures. Their wakers are user code, which may wait. The calls below must be
        // made all the same.
        park::shield(|| self.inner.outcome.put(outcome))?;
        let mut panicked = None;
        while let Some(callback) = self.next_callback() {
            match (panic::catch_unwind(AssertUnwindSafe(|| callback(self))), &panicked) {
                (Ok(()), _) => {}
                (Err(payload), None) => panicked = Some(payload),
                // Its drop may panic, and the other calls are still to be made.
                (Err(payload), Some(_)) => mem::forget(payload),
            }
        }
        match panicked {
            Some(payload) => park::resume_unwind(payload),
            None => Ok(()),
        }
    }

    /// The call that was asked for first. When none is left, later ones are made at once.
    fn next_callback(&self) -> Option<Callback<T>> {
        let mut callbacks = self.inner.callbacks.lock();
        let next = callbacks.as_mut().and_then(VecDeque::pop_front);
        if next.is_none() {
            *callbacks = None;
        }
        next
    }
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Default for Promise<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple("Promise");
        match self.get() {
            Some(outcome) => out.field(&outcome),
            None => out.field(&format_args!("<pending>")),
        };
        out.finish()
    }
}
