//! The handle of a coroutine, and what joining it can fail with.

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
use crate::engine::scopes::Level;
use crate::engine::spawn::Spawned;

/// Waits for a coroutine to end and takes its result.
///
/// Dropping the handle detaches the coroutine: it runs on, and drops its result at its end. The
/// result of one that has ended is dropped with the handle. A handle is `Send` when its result is;
/// a plain thread that joins blocks.
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

    /// Waits for the end. Returns `false` if `deadline` passes first.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        self.receiver.wait(self.id, deadline)
    }

    /// Where the coroutine is.
    pub(super) fn address(&self) -> &Address {
        self.thread.address()
    }

    /// Waits for the coroutine to end and returns its result.
    ///
    /// # Errors
    ///
    /// [`JoinError`] when it panicked or was cancelled.
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
    /// The handle itself, when the time is over and the coroutine has not ended. The inner result
    /// is that of [`join`](Self::join).
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
        let deadline = park::deadline(timeout);
        if self.wait(deadline) {
            Ok(self.receiver.take().map_err(JoinError::from))
        } else {
            Err(self)
        }
    }

    /// Cancels the coroutine: its wait unwinds, or its next one does, and its destructors run. One
    /// that has not begun never does. Returns at once; [`join`](Self::join) waits for the end.
    ///
    /// A coroutine that does not wait is not cancelled, nor one that has ended; it keeps its
    /// result.
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
        self.address().cancel(Level::Root);
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

    /// The coroutine, to [`unpark`](Thread::unpark) it.
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
            // What it waits for is known on its own thread only.
            let state = self
                .address()
                .inspect(|task| (task.parked.get(), task.waiting.get().to_string(), task.spawned));
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
    Cancelled,
    // The lock makes the error `Sync`, so that it fits into any other error.
    Panicked(Mutex<Box<dyn Any + Send>>),
}

impl JoinError {
    /// Whether the coroutine was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Kind::Cancelled)
    }

    /// Whether the coroutine panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panicked(_))
    }

    /// What the coroutine panicked with, to look at or to
    /// [`resume_unwind`](std::panic::resume_unwind).
    ///
    /// # Panics
    ///
    /// When it was cancelled and did not panic.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.0 {
            Kind::Panicked(payload) => payload.into_inner(),
            Kind::Cancelled => panic!("the coroutine did not panic: it was cancelled"),
        }
    }
}

/// What a panic says, if that is a text.
pub(crate) fn message(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref().cloned())
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = match &self.0 {
            Kind::Cancelled => return f.write_str("the coroutine was cancelled"),
            Kind::Panicked(payload) => payload.lock(),
        };
        let message = message(&**payload);
        // What it is written to may wait.
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
            Failure::Cancelled => Kind::Cancelled,
            Failure::Panicked(payload) => Kind::Panicked(Mutex::new(*payload)),
        })
    }
}
