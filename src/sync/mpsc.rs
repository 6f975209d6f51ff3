//! Channels in the shape of [`std::sync::mpsc`], over those of
//! [`sync::channel`](mod@super::channel).
//!
//! ```
//! use plainsong::sync::mpsc;
//!
//! plainsong::run(|| {
//!     let (sender, receiver) = mpsc::channel();
//!     for n in 0..3 {
//!         let sender = sender.clone();
//!         plainsong::spawn(move || sender.send(n).unwrap());
//!     }
//!     drop(sender);
//!     assert_eq!(receiver.iter().sum::<i32>(), 3);
//! });
//! ```

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::RefUnwindSafe;
use std::time::{Duration, Instant};

use super::channel;

pub use super::channel::{IntoIter, Iter, TryIter};
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

/// A channel that holds any number of items: [`std::sync::mpsc::channel`].
#[must_use]
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::unbounded();
    (Sender(sender), Receiver { inner: receiver, not_sync: PhantomData })
}

/// A channel that holds `bound` items; with a bound of zero, a send waits until the item is
/// received: [`std::sync::mpsc::sync_channel`].
///
/// ```
/// use plainsong::sync::mpsc::sync_channel;
///
/// plainsong::run(|| {
///     let (sender, receiver) = sync_channel(0);
///     plainsong::spawn(move || sender.send("met").unwrap());
///     assert_eq!(receiver.recv(), Ok("met"));
/// });
/// ```
#[must_use]
#[track_caller]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = channel::bounded(bound);
    (SyncSender(sender), Receiver { inner: receiver, not_sync: PhantomData })
}

/// The end of a [`channel()`] that sends, without ever waiting for a receiver.
pub struct Sender<T>(channel::Sender<T>);

/// The end of a [`sync_channel`] that sends.
pub struct SyncSender<T>(channel::Sender<T>);

/// The end that receives. There is only one.
pub struct Receiver<T> {
    inner: channel::Receiver<T>,
    // As std's: one thread uses it at a time.
    not_sync: PhantomData<Cell<()>>,
}

// The cell is a marker that makes it not `Sync`, as std's.
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sends an item. Never waits for the receiver.
    ///
    /// # Errors
    ///
    /// When the receiver has been dropped, with the item.
    ///
    /// # Cancellation
    ///
    /// May let others run first, and unwinds then when the coroutine is cancelled; the item has not
    /// been sent.
    #[track_caller]
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.0.send(item).map_err(|error| SendError(error.0))
    }
}

impl<T> SyncSender<T> {
    /// Sends an item; waits while there is no room.
    ///
    /// # Errors
    ///
    /// When the receiver has been dropped, with the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been sent then.
    #[track_caller]
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.0.send(item).map_err(|error| SendError(error.0))
    }

    /// Sends an item if it can be done without waiting.
    ///
    /// # Errors
    ///
    /// `Full` when there is no room; `Disconnected` when the receiver has been dropped; with the
    /// item.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(item).map_err(|error| match error {
            channel::TrySendError::Full(item) => TrySendError::Full(item),
            channel::TrySendError::Disconnected(item) => TrySendError::Disconnected(item),
        })
    }
}

impl<T> Receiver<T> {
    /// Waits for an item.
    ///
    /// # Errors
    ///
    /// When the channel is empty and every sender has been dropped.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no item has been taken then.
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.inner.recv().map_err(|_| RecvError)
    }

    /// Takes an item if one is there.
    ///
    /// # Errors
    ///
    /// `Empty` when there is none; `Disconnected` when there will be none either.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.inner.try_recv().map_err(|error| match error {
            channel::TryRecvError::Empty => TryRecvError::Empty,
            channel::TryRecvError::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// Waits for an item, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `Timeout` when the time is over; `Disconnected` when no item will come any more.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no item has been taken then.
    #[track_caller]
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.inner.recv_timeout(timeout).map_err(timed)
    }

    /// Waits for an item, until `deadline` at most.
    ///
    /// # Errors
    ///
    /// `Timeout` when the time has come; `Disconnected` when no item will come any more.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no item has been taken then.
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.inner.recv_deadline(deadline).map_err(timed)
    }

    /// The items as they come, until every sender has been dropped; waits for each.
    pub fn iter(&self) -> Iter<'_, T> {
        self.inner.iter()
    }

    /// The items that are there now; waits for none.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        self.inner.try_iter()
    }
}

fn timed(error: channel::RecvTimeoutError) -> RecvTimeoutError {
    match error {
        channel::RecvTimeoutError::Timeout => RecvTimeoutError::Timeout,
        channel::RecvTimeoutError::Disconnected => RecvTimeoutError::Disconnected,
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        self.inner.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
