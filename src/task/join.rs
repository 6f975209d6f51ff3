//! `JoinHandle`, and the error of a join.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use super::thread::Thread;
use crate::engine::address::Address;
use crate::engine::cancel::Failure;
use crate::engine::id::Id;
use crate::engine::mutex::Mutex;
use crate::engine::packet::Receiver;
use crate::engine::park;
use crate::engine::scopes::{CancelReason, Level};
use crate::engine::spawn::Spawned;

/// Waits for a coroutine to end and takes its result.
///
/// Dropping the handle detaches the coroutine: it runs on, and drops its result at its end, even an
/// error. If the coroutine has already ended, the result is dropped with the handle. A handle is
/// `Send` if its result is. A plain thread that joins blocks.
pub struct JoinHandle<T> {
    pub(crate) receiver: Receiver<T>,
    thread: Thread,
    id: Id,
}

impl<T> JoinHandle<T> {
    #[inline]
    pub(super) fn new(spawned: Spawned<T>) -> Self {
        let Spawned { receiver, address, name } = spawned;
        let id = address.id();
        Self { receiver, thread: Thread::coroutine(address, name), id }
    }

    /// Waits for the coroutine to end. Returns `false` if `deadline` passes first.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        self.receiver.wait(self.id, deadline)
    }

    /// Has `f` called if the coroutine is abandoned. Does nothing on another thread.
    pub(crate) fn on_abandon(&self, f: impl FnOnce() + 'static) {
        self.address().inspect(|task| task.on_abandon(Box::new(f)));
    }

    /// Where the coroutine is.
    pub(super) fn address(&self) -> &Address {
        self.thread.address()
    }

    /// Waits for the coroutine to end and returns its result.
    ///
    /// # Errors
    ///
    /// [`JoinError`] when the coroutine panicked or was cancelled.
    ///
    /// # Cancellation
    ///
    /// A caller that is cancelled while it waits detaches the coroutine.
    ///
    /// ```
    /// plainsong::run(|| {
    ///     let answer = plainsong::spawn(|| 6 * 7);
    ///     assert_eq!(answer.join().unwrap(), 42);
    /// });
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        self.wait(None);
        self.receiver.take().map_err(JoinError::from)
    }

    /// Waits for the coroutine to end, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// The handle itself, if the time is up before the coroutine has ended. The inner result is
    /// that of [`join`](Self::join).
    ///
    /// # Cancellation
    ///
    /// A caller that is cancelled while it waits detaches the coroutine.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// plainsong::run(|| {
    ///     let slow = plainsong::spawn(|| plainsong::time::sleep(Duration::from_secs(3600)));
    ///     let slow = slow.join_timeout(Duration::from_millis(1)).unwrap_err();
    ///     assert!(!slow.is_finished());
    /// });
    /// ```
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        let deadline = park::deadline(timeout).map(park::limited);
        if self.wait(deadline) {
            Ok(self.receiver.take().map_err(JoinError::from))
        } else {
            Err(self)
        }
    }

    /// Cancels the coroutine: its current or next wait unwinds, and its destructors run. A
    /// coroutine that has not begun never begins. This returns at once, and [`join`](Self::join)
    /// waits for the end.
    ///
    /// A coroutine that never waits again is not cancelled. A coroutine that has ended keeps its
    /// result.
    ///
    /// Do not use what the coroutine was reading and others share, as after a
    /// [`timeout`](crate::time::timeout) that has elapsed: its documentation says why.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// plainsong::run(|| {
    ///     let sleeper = plainsong::spawn(|| plainsong::time::sleep(Duration::from_secs(3600)));
    ///     sleeper.cancel();
    ///     assert!(sleeper.join().unwrap_err().is_cancelled());
    /// });
    /// ```
    pub fn cancel(&self) {
        self.address().cancel(Level::Root, None);
    }

    /// [`cancel`](Self::cancel), with a reason for people. [`JoinError::reason`] has it, and so
    /// have dumps and reports. The first request to cancel a coroutine gives the reason.
    ///
    /// ```
    /// plainsong::run(|| {
    ///     let sleeper = plainsong::spawn(plainsong::thread::park);
    ///     sleeper.cancel_with("the peer has gone");
    ///     let error = sleeper.join().unwrap_err();
    ///     assert_eq!(error.to_string(), "the coroutine was cancelled: the peer has gone");
    /// });
    /// ```
    pub fn cancel_with(&self, reason: impl Into<Box<str>>) {
        self.address().cancel(Level::Root, Some(&CancelReason::new(reason.into())));
    }

    /// Whether the coroutine has ended, so that [`join`](Self::join) returns at once.
    pub fn is_finished(&self) -> bool {
        self.receiver.is_ended()
    }

    /// The coroutine's id.
    pub fn id(&self) -> Id {
        self.id
    }

    /// The name given with [`Builder::name`](super::Builder::name).
    pub fn name(&self) -> Option<&str> {
        self.thread.name()
    }

    /// The coroutine's handle, to [`unpark`](Thread::unpark) it.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("JoinHandle");
        out.field("id", &self.id).field("name", &self.name());
        if self.is_finished() {
            out.field("state", &"finished");
        } else {
            // Only its own thread knows what it waits for.
            let state = self
                .address()
                .inspect(|task| (task.parked.get(), task.waiting().to_string(), task.spawned));
            match state {
                Some((true, ref wait, _)) => out.field("state", &format_args!("waits for {wait}")),
                Some((false, ..)) => out.field("state", &"ready"),
                None => out.field("state", &"running on another thread"),
            };
            if let Some((.., spawned)) = state {
                out.field("spawned", &format_args!("{spawned}"));
            }
        }
        out.finish()
    }
}

/// Why a coroutine has no result: it panicked, or it was cancelled.
pub struct JoinError(Kind);

enum Kind {
    Cancelled(Option<CancelReason>),
    // The lock makes the error `Sync`, so that it fits into any other error.
    Panicked(Mutex<Box<dyn Any + Send>>),
}

impl JoinError {
    /// Whether the coroutine was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Kind::Cancelled(_))
    }

    /// Why the coroutine was cancelled, if it was with [`JoinHandle::cancel_with`] or
    /// [`Scope::cancel_with`](super::Scope::cancel_with). `None` of an abandoned coroutine.
    pub fn reason(&self) -> Option<&str> {
        match &self.0 {
            Kind::Cancelled(reason) => reason.as_deref().map(|reason| &**reason),
            Kind::Panicked(_) => None,
        }
    }

    /// Whether the coroutine panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panicked(_))
    }

    /// The payload of the coroutine's panic, to inspect it or to
    /// [`resume_unwind`](std::panic::resume_unwind).
    ///
    /// # Panics
    ///
    /// When the coroutine did not panic but was cancelled.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.0 {
            Kind::Panicked(payload) => payload.into_inner(),
            Kind::Cancelled(_) => panic!("the coroutine did not panic: it was cancelled"),
        }
    }
}

/// The message of a panic, if its payload is text.
pub(crate) fn message(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref().cloned())
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = match &self.0 {
            Kind::Cancelled(None) => return f.write_str("the coroutine was cancelled"),
            Kind::Cancelled(Some(reason)) => {
                return write!(f, "the coroutine was cancelled: {reason}");
            }
            Kind::Panicked(payload) => payload.lock(),
        };
        let message = message(&**payload);
        // Writing to the formatter may wait, so the lock is released first.
        drop(payload);
        match message {
            Some(message) => write!(f, "the coroutine panicked: {message}"),
            None => f.write_str("the coroutine panicked"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl Error for JoinError {}

impl From<Failure> for JoinError {
    fn from(failure: Failure) -> Self {
        Self(match failure {
            Failure::Cancelled(reason) => Kind::Cancelled(reason),
            Failure::Panicked(payload) => Kind::Panicked(Mutex::new(*payload)),
        })
    }
}
