//! Each item goes to every receiver, as in tokio: a receiver that is too slow loses the oldest
//! items, and learns how many.
//!
//! ```
//! use plainsong::sync::broadcast;
//!
//! plainsong::run(|| {
//!     let (sender, mut one) = broadcast::channel(16);
//!     let mut two = sender.subscribe();
//!     sender.send("news").unwrap();
//!     assert_eq!(one.recv(), Ok("news"));
//!     assert_eq!(two.recv(), Ok("news"));
//! });
//! ```

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::engine::park;
use crate::engine::task::Wait;
use crate::sync::lock::{Guard, Lock};
use crate::sync::wait::{About, WaitQueue, wait};

pub use super::error::SendError;

const WAIT_FOR_CLOSE: Wait = Wait::new(
    &Wait::for_any_thread("the receivers of a channel to close").of("closed", "broadcast channel"),
);
const WAIT: Wait =
    Wait::new(&Wait::for_any_thread("an item of a channel").of("recv", "broadcast channel"));

struct State<T> {
    // The last items, each until every receiver that was there when it was sent has received it.
    items: VecDeque<Slot<T>>,
    // The number of the first of them.
    first: u64,
    capacity: usize,
    senders: usize,
    receivers: usize,
    // Receivers that wait for an item, and senders that wait until there is no receiver.
    waiting: WaitQueue<()>,
    closing: WaitQueue<()>,
}

struct Slot<T> {
    // Shared, so that no clone is made under the lock.
    item: Option<Arc<T>>,
    unread: usize,
}

/// The end of a [`channel`] that sends. Clones send on the same channel.
pub struct Sender<T>(Arc<Lock<State<T>>>);

/// A [`Sender`] that does not keep the channel open; made by [`Sender::downgrade`].
pub struct WeakSender<T>(Weak<Lock<State<T>>>);

/// The end of a [`channel`] that receives every item sent after it was made.
pub struct Receiver<T> {
    shared: Arc<Lock<State<T>>>,
    // The number of the item to receive next.
    next: u64,
}

/// A channel of which each receiver gets each item. It holds the last `capacity` items, each until
/// all receivers have received it.
///
/// The receivers share an item until each has its clone. So its ends are `Send` only when items are
/// `Sync` as well, where tokio's ask for `Send` alone.
///
/// # Panics
///
/// When `capacity` is zero.
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a broadcast channel must hold an item: give it a capacity");
    let shared = Arc::new(Lock::new(State {
        items: VecDeque::new(),
        first: 0,
        capacity,
        senders: 1,
        receivers: 1,
        waiting: WaitQueue::new(),
        closing: WaitQueue::new(),
    }));
    (Sender(shared.clone()), Receiver { shared, next: 0 })
}

impl<T> State<T> {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Takes the item with this number for a receiver. The last one to take it gets it alone.
    fn read(&mut self, number: u64) -> Option<Arc<T>> {
        let slot = self.items.get_mut(usize::try_from(number - self.first).ok()?)?;
        slot.unread -= 1;
        let item = if slot.unread == 0 { slot.item.take() } else { slot.item.clone() };
        while self.items.front().is_some_and(|slot| slot.unread == 0) {
            self.items.pop_front();
            self.first += 1;
        }
        item
    }

    /// Ends all waits: the waiters look again.
    fn wake_all(mut state: Guard<'_, Self>) {
        let woken = state.waiting.serve_all(|()| ());
        drop(state);
        park::wake_all(woken);
    }
}

fn subscribe<T>(shared: &Arc<Lock<State<T>>>) -> Receiver<T> {
    let mut state = shared.lock();
    state.receivers += 1;
    Receiver { next: state.end(), shared: shared.clone() }
}

impl<T> Sender<T> {
    /// The sender of a [`channel`] without a receiver. [`subscribe`](Self::subscribe) makes one.
    ///
    /// # Panics
    ///
    /// When `capacity` is zero.
    pub fn new(capacity: usize) -> Self {
        channel(capacity).0
    }

    /// Sends an item to all receivers; returns their number. Waits for none of them.
    ///
    /// # Errors
    ///
    /// When there is no receiver, with the item. There may be some later.
    ///
    /// # Cancellation
    ///
    /// May let others run first, and unwinds then when the coroutine is cancelled; the item has not
    /// been sent.
    pub fn send(&self, item: T) -> Result<usize, SendError<T>> {
        park::spend();
        let item = Arc::new(item);
        let mut state = self.0.lock();
        let receivers = state.receivers;
        if receivers == 0 {
            drop(state);
            return Err(SendError(Arc::into_inner(item).expect("it has not been shared")));
        }
        let mut lost = None;
        if state.items.len() == state.capacity {
            lost = state.items.pop_front();
            state.first += 1;
        }
        state.items.push_back(Slot { item: Some(item), unread: receivers });
        State::wake_all(state);
        // Dropped when the lock has been released.
        drop(lost);
        Ok(receivers)
    }

    /// A further receiver, of what is sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        subscribe(&self.0)
    }

    /// Waits until there is no receiver.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn closed(&self) {
        park::spend();
        loop {
            let state = self.0.lock();
            if state.receivers == 0 {
                return;
            }
            let about = |_: &State<T>| About::NOTHING.shared(&*self.0);
            let why = WAIT_FOR_CLOSE;
            let _ = wait(&self.0, state, |state| &mut state.closing, (), why, None, about);
        }
    }

    /// A sender that does not keep the channel open.
    ///
    /// ```
    /// use plainsong::sync::broadcast;
    ///
    /// let (sender, receiver) = broadcast::channel(1);
    /// let weak = sender.downgrade();
    /// weak.upgrade().unwrap().send(1).unwrap();
    /// drop(sender);
    /// assert!(weak.upgrade().is_none());
    /// # drop::<broadcast::Receiver<i32>>(receiver);
    /// ```
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Arc::downgrade(&self.0))
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.0.lock().receivers
    }

    /// How many items are held that not all receivers have received.
    pub fn len(&self) -> usize {
        self.0.lock().items.len()
    }

    /// Whether all receivers have received everything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both send on the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Receiver<T> {
    /// A further receiver, of what is sent from now on.
    pub fn resubscribe(&self) -> Self {
        subscribe(&self.shared)
    }

    /// How many items wait for this receiver, including those that it has lost.
    pub fn len(&self) -> usize {
        usize::try_from(self.shared.lock().end() - self.next).unwrap_or(usize::MAX)
    }

    /// Whether no item waits for this receiver.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both receive from the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T: Clone> Receiver<T> {
    /// Waits for the next item.
    ///
    /// # Errors
    ///
    /// `Lagged` with the number of items that were lost, as they were not received in time; the
    /// next receive gives the oldest item that is left. `Closed` when all items have been received
    /// and every sender has been dropped.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no item has been taken then.
    #[track_caller]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        park::spend();
        loop {
            let state = match take(&self.shared, &mut self.next) {
                Ok(item) => return Ok(item),
                Err((TryRecvError::Lagged(lost), _)) => return Err(RecvError::Lagged(lost)),
                Err((TryRecvError::Closed, _)) => return Err(RecvError::Closed),
                Err((TryRecvError::Empty, state)) => state,
            };
            let about =
                |state: &State<T>| About::count(0, Some(state.capacity)).shared(&*self.shared);
            let _ = wait(&self.shared, state, |state| &mut state.waiting, (), WAIT, None, about);
        }
    }

    /// The next item, if it is there.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and `Empty` when there is none now.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        take(&self.shared, &mut self.next).map_err(|(error, _)| error)
    }
}

fn take<'a, T: Clone>(
    shared: &'a Lock<State<T>>,
    next: &mut u64,
) -> Result<T, (TryRecvError, Guard<'a, State<T>>)> {
    let mut state = shared.lock();
    if *next < state.first {
        let lost = state.first - *next;
        *next = state.first;
        return Err((TryRecvError::Lagged(lost), state));
    }
    let Some(item) = state.read(*next) else {
        let closed = state.senders == 0;
        return Err((if closed { TryRecvError::Closed } else { TryRecvError::Empty }, state));
    };
    *next += 1;
    drop(state);
    Ok(Arc::try_unwrap(item).unwrap_or_else(|item| T::clone(&item)))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> WeakSender<T> {
    /// A sender, unless all have been dropped.
    pub fn upgrade(&self) -> Option<Sender<T>> {
        let shared = self.0.upgrade()?;
        let mut state = shared.lock();
        if state.senders == 0 {
            return None;
        }
        state.senders += 1;
        drop(state);
        Some(Sender(shared))
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

impl<T> fmt::Debug for WeakSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakSender").finish_non_exhaustive()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            State::wake_all(state);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.receivers -= 1;
        let unread = self.next.max(state.first)..state.end();
        let items: Vec<_> = unread.map(|number| state.read(number)).collect();
        let none_left = state.receivers == 0;
        let closed = none_left.then(|| state.closing.serve_all(|()| ()));
        drop(state);
        if let Some(closed) = closed {
            park::wake_all(closed);
        }
        // Those that no other receiver waits for are dropped when the lock has been released.
        drop(items);
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

/// Returned by [`Receiver::recv`].
#[derive(PartialEq, Eq, Clone, Debug)]
pub enum RecvError {
    /// Everything has been received, and every sender has been dropped.
    Closed,
    /// This many items were not received in time: they are lost to this receiver.
    Lagged(u64),
}

/// Returned by [`Receiver::try_recv`].
#[derive(PartialEq, Eq, Clone, Debug)]
pub enum TryRecvError {
    /// Nothing is there now.
    Empty,
    /// Everything has been received, and every sender has been dropped.
    Closed,
    /// This many items were not received in time: they are lost to this receiver.
    Lagged(u64),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("every sender of the broadcast has been dropped"),
            Self::Lagged(lost) => write!(f, "received too slowly: {lost} items are lost"),
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no item has been broadcast since the last"),
            Self::Closed => RecvError::Closed.fmt(f),
            Self::Lagged(lost) => RecvError::Lagged(*lost).fmt(f),
        }
    }
}

impl Error for RecvError {}
impl Error for TryRecvError {}
