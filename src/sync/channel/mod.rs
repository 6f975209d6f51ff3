//! Channels: queues that carry items between coroutines and threads, with many at each end.
//!
//! They have the names and the behaviour of crossbeam's. [`unbounded`] takes any number of items,
//! [`bounded`] as many as it was made for, and with none at all each sender waits for its receiver.
//! An item is handed over to the one that has waited longest. When all senders have gone, the receivers
//! get what is left and then an error; when all receivers have gone, what is left is dropped and
//! the senders get an error.
//!
//! ```
//! use plainsong::sync::channel;
//!
//! plainsong::run(|| {
//!     let (sender, receiver) = channel::bounded(8);
//!     plainsong::spawn(move || {
//!         for n in 0..100 {
//!             sender.send(n).unwrap(); // waits when eight are on their way
//!         }
//!     });
//!     assert_eq!(receiver.iter().sum::<i32>(), 4950);
//! });
//! ```
//!
//! The ends may be in coroutines and in threads. An item that is sent by a coroutine whose thread
//! is busy does not wait for it: only whoever *waits* is bound to its thread.

mod alarm;
pub mod broadcast;
mod choice;
mod core;
mod error;
mod future;
mod iter;
pub mod oneshot;
pub mod watch;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::alarm::Alarm;
use self::core::Core;
use crate::engine::park;

pub use self::alarm::{after, at, never, tick};
pub use self::error::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
pub use self::future::RecvFuture;
pub use self::iter::{IntoIter, Iter, TryIter};

/// A channel that holds any number of items, so that who sends waits for no room.
///
/// ```
/// let (sender, receiver) = plainsong::sync::channel::unbounded();
/// sender.send("hello").unwrap();
/// assert_eq!(receiver.recv(), Ok("hello"));
/// ```
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    new(None)
}

/// A channel that holds `capacity` items. With a capacity of zero it holds none: whoever sends waits until
/// somebody receives (a rendezvous).
///
/// ```
/// use plainsong::sync::channel::{TrySendError, bounded};
///
/// let (sender, receiver) = bounded(1);
/// sender.send(1).unwrap();
/// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
/// assert_eq!(receiver.recv(), Ok(1));
/// ```
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    new(Some(capacity))
}

fn new<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let core = Arc::new(Core::new(capacity));
    (Sender { core: core.clone() }, Receiver { source: Source::Core(core) })
}

/// The end of a channel that sends. Clones send on the same channel.
pub struct Sender<T> {
    core: Arc<Core<T>>,
}

/// The end of a channel that receives. Clones receive from the same channel; each item goes to one
/// of them.
pub struct Receiver<T> {
    source: Source<T>,
}

enum Source<T> {
    Core(Arc<Core<T>>),
    Alarm(Arc<Alarm<T>>),
}

// Nobody can see an item half-way: no code that could panic runs while one is moved.
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sends an item; waits while there is no room.
    ///
    /// # Errors
    ///
    /// When every receiver has gone, with the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been sent then.
    #[inline]
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.core.send(item, None).map_err(|error| SendError(error.into_inner()))
    }

    /// Sends an item if it can be done without waiting.
    ///
    /// # Errors
    ///
    /// `Full` when there is no room and nobody waits for an item; `Disconnected` when every receiver
    /// has gone; with the item.
    #[inline]
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.core.try_send(item)
    }

    /// Sends an item; waits for `timeout` at most while there is no room.
    ///
    /// # Errors
    ///
    /// `Timeout` when the time is over; `Disconnected` when every receiver has gone; with the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been sent then.
    pub fn send_timeout(&self, item: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.core.send(item, park::deadline(timeout))
    }

    /// Sends an item; waits until `deadline` at most while there is no room.
    ///
    /// # Errors
    ///
    /// `Timeout` when the time has come; `Disconnected` when every receiver has gone; with the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been sent then.
    pub fn send_deadline(&self, item: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.core.send(item, Some(deadline))
    }

    /// How many items wait to be received.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether no item waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room; always so with a capacity of zero.
    pub fn is_full(&self) -> bool {
        self.core.is_full()
    }

    /// How many items the channel holds; `None` when it is [`unbounded`].
    pub fn capacity(&self) -> Option<usize> {
        self.core.capacity()
    }

    /// Whether both send on the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl<T> Receiver<T> {
    fn from_alarm(alarm: Alarm<T>) -> Self {
        Self { source: Source::Alarm(Arc::new(alarm)) }
    }

    #[inline]
    fn recv_until(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        match &self.source {
            Source::Core(core) => core.recv(deadline),
            Source::Alarm(alarm) => alarm.recv(deadline),
        }
    }

    /// Waits for an item.
    ///
    /// # Errors
    ///
    /// When the channel is empty and every sender has gone.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no item has been taken then.
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|_| RecvError)
    }

    /// Takes an item if one is there, or somebody waits to send one. (One that has been chosen in a
    /// `select!`, on a channel without room, may be in the making: it is waited for.)
    ///
    /// # Errors
    ///
    /// `Empty` when there is none; `Disconnected` when there will be none either.
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match &self.source {
            Source::Core(core) => core.try_recv(),
            Source::Alarm(alarm) => alarm.try_recv(),
        }
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
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(park::deadline(timeout))
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
        self.recv_until(Some(deadline))
    }

    /// The items as they come, until every sender has gone; waits for each.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// The items that are there now; waits for none.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// How many items wait to be received.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Core(core) => core.len(),
            Source::Alarm(alarm) => usize::from(alarm.is_due()),
        }
    }

    /// Whether no item waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room for a further item.
    pub fn is_full(&self) -> bool {
        match &self.source {
            Source::Core(core) => core.is_full(),
            Source::Alarm(alarm) => self.len() == alarm.capacity,
        }
    }

    /// How many items the channel holds; `None` when it is [`unbounded`].
    pub fn capacity(&self) -> Option<usize> {
        match &self.source {
            Source::Core(core) => core.capacity(),
            Source::Alarm(alarm) => Some(alarm.capacity),
        }
    }

    /// Whether both receive from the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        match (&self.source, &other.source) {
            (Source::Core(one), Source::Core(two)) => Arc::ptr_eq(one, two),
            (Source::Alarm(one), Source::Alarm(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.core.add_sender();
        Self { core: self.core.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.core.remove_sender();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            Source::Core(core) => {
                core.add_receiver();
                Source::Core(core.clone())
            }
            Source::Alarm(alarm) => Source::Alarm(alarm.clone()),
        };
        Self { source }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Source::Core(core) = &self.source {
            core.remove_receiver();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}
