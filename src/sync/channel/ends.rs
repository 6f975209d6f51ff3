//! The two ends of a channel, and how they are made.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarm::Alarm;
use super::core::Core;
use super::error::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::engine::park;

/// A channel that holds any number of items, so that a send never waits for room.
///
/// ```
/// let (sender, receiver) = plainsong::sync::channel::unbounded();
/// sender.send("hello").unwrap();
/// assert_eq!(receiver.recv(), Ok("hello"));
/// ```
#[track_caller]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    new(None)
}

/// A channel that holds `capacity` items. With a capacity of zero it holds none: a send waits for a
/// receive (a rendezvous).
///
/// ```
/// use plainsong::sync::channel::{TrySendError, bounded};
///
/// let (sender, receiver) = bounded(1);
/// sender.send(1).unwrap();
/// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
/// assert_eq!(receiver.recv(), Ok(1));
/// ```
#[track_caller]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    new(Some(capacity))
}

#[track_caller]
fn new<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let core = Arc::new(Core::new(capacity));
    (Sender { core: core.clone() }, Receiver { flavor: Flavor::Items(core) })
}

/// The end of a channel that sends. Clones send on the same channel.
pub struct Sender<T> {
    pub(super) core: Arc<Core<T>>,
}

/// The end of a channel that receives. Clones receive from the same channel; each item goes to one
/// of them.
pub struct Receiver<T> {
    pub(super) flavor: Flavor<T>,
}

/// Where a receiver's items come from.
pub(super) enum Flavor<T> {
    Items(Arc<Core<T>>),
    Clock(Arc<Alarm<T>>),
}

// No item can be seen half-moved: no code that could panic runs meanwhile.
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Sender<T> {
    /// Sends an item; waits while there is no room.
    ///
    /// # Errors
    ///
    /// When every receiver has been dropped, with the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been sent then.
    #[inline]
    #[track_caller]
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.core.send(item, None).map_err(|error| SendError(error.into_inner()))
    }

    /// Sends an item if it can be done without waiting.
    ///
    /// # Errors
    ///
    /// `Full` when there is no room and no waiting receiver; `Disconnected` when every receiver has
    /// been dropped; with the item.
    #[inline]
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.core.try_send(item)
    }

    /// Sends an item; waits for `timeout` at most while there is no room.
    ///
    /// # Errors
    ///
    /// `Timeout` when the time is over; `Disconnected` when every receiver has been dropped; with
    /// the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been sent then.
    #[track_caller]
    pub fn send_timeout(&self, item: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.core.send(item, park::deadline(timeout))
    }

    /// Sends an item; waits until `deadline` at most while there is no room.
    ///
    /// # Errors
    ///
    /// `Timeout` when the time has come; `Disconnected` when every receiver has been dropped; with
    /// the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been sent then.
    #[track_caller]
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
        self.core.capacity
    }

    /// Whether both send on the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl<T> Receiver<T> {
    fn from_alarm(alarm: Alarm<T>) -> Self {
        Self { flavor: Flavor::Clock(Arc::new(alarm)) }
    }

    #[inline]
    #[track_caller]
    fn recv_until(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        match &self.flavor {
            Flavor::Items(core) => core.recv(deadline),
            Flavor::Clock(alarm) => alarm.recv(deadline),
        }
    }

    /// Waits for an item.
    ///
    /// # Errors
    ///
    /// When the channel is empty and every sender has been dropped.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no item has been taken then.
    #[inline]
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|_| RecvError)
    }

    /// Takes an item if one is there, or a sender waits with one. (If that sender has been chosen
    /// in a `select!`, on a channel without room, and is making its item, this waits for it.)
    ///
    /// # Errors
    ///
    /// `Empty` when there is none; `Disconnected` when there will be none either.
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match &self.flavor {
            Flavor::Items(core) => core.try_recv(),
            Flavor::Clock(alarm) => alarm.try_recv(),
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
    #[track_caller]
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
    #[track_caller]
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_until(Some(deadline))
    }

    /// How many items wait to be received.
    pub fn len(&self) -> usize {
        match &self.flavor {
            Flavor::Items(core) => core.len(),
            Flavor::Clock(alarm) => usize::from(alarm.is_due()),
        }
    }

    /// Whether no item waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room for a further item.
    pub fn is_full(&self) -> bool {
        match &self.flavor {
            Flavor::Items(core) => core.is_full(),
            Flavor::Clock(alarm) => self.len() == alarm.capacity,
        }
    }

    /// How many items the channel holds; `None` when it is [`unbounded`].
    pub fn capacity(&self) -> Option<usize> {
        match &self.flavor {
            Flavor::Items(core) => core.capacity,
            Flavor::Clock(alarm) => Some(alarm.capacity),
        }
    }

    /// Whether both receive from the same channel. Those of [`never()`] all do.
    pub fn same_channel(&self, other: &Self) -> bool {
        match (&self.flavor, &other.flavor) {
            (Flavor::Items(one), Flavor::Items(two)) => Arc::ptr_eq(one, two),
            (Flavor::Clock(one), Flavor::Clock(two)) => {
                Arc::ptr_eq(one, two) || one.is_never() && two.is_never()
            }
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
        let flavor = match &self.flavor {
            Flavor::Items(core) => {
                core.add_receiver();
                Flavor::Items(core.clone())
            }
            Flavor::Clock(alarm) => Flavor::Clock(alarm.clone()),
        };
        Self { flavor }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Flavor::Items(core) = &self.flavor {
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

/// A receiver to which one item is sent after `duration`: the time at which it was due.
///
/// ```
/// use std::time::Duration;
/// use plainsong::sync::channel::{after, unbounded};
/// use plainsong::select;
///
/// plainsong::run(|| {
///     let (_sender, receiver) = unbounded::<()>();
///     select! {
///         recv(receiver) -> _ => unreachable!("nobody sends"),
///         recv(after(Duration::from_millis(1))) -> _ => {}
///     }
/// });
/// ```
pub fn after(duration: Duration) -> Receiver<Instant> {
    of_clock(park::deadline(duration), None)
}

/// A receiver to which one item is sent at `time`, that time.
pub fn at(time: Instant) -> Receiver<Instant> {
    of_clock(Some(time), None)
}

/// A receiver to which the time is sent each `period`, first in one period from now. It holds one
/// item at most: an item that has not been received when the next is due stands for both, and the
/// rest follow one period after the late receive.
pub fn tick(period: Duration) -> Receiver<Instant> {
    of_clock(park::deadline(period), Some(period))
}

/// A receiver to which nothing is ever sent, as a branch of `select!` that may be switched off.
pub fn never<T>() -> Receiver<T> {
    Receiver::from_alarm(Alarm::new(None, None, 0, |_| None))
}

fn of_clock(due: Option<Instant>, period: Option<Duration>) -> Receiver<Instant> {
    Receiver::from_alarm(Alarm::new(due, period, 1, Some))
}
