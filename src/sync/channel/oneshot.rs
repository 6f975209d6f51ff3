//! One item, once, from one to one.
//!
//! ```
//! use plainsong::sync::oneshot;
//!
//! plainsong::run(|| {
//!     let (answer, question) = oneshot::channel();
//!     plainsong::spawn(move || answer.send(6 * 7));
//!     assert_eq!(question.recv(), Ok(42));
//! });
//! ```

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::engine::park;
use crate::engine::task::Wait;
use crate::engine::waiter::FutureWaiter;
use crate::sync::lock::{Guard, Lock};
use crate::sync::wait::{About, Registered, Unserved, WaitQueue, wait, wait_unless_cancelled};

pub use super::error::{RecvError, RecvTimeoutError, TryRecvError};

const WAIT_FOR_ITEM: Wait =
    Wait::new(&Wait::for_any_thread("an item of a channel").of("recv", "oneshot channel"));
const WAIT_FOR_CLOSE: Wait = Wait::new(
    &Wait::for_any_thread("the receivers of a channel to close").of("closed", "oneshot channel"),
);

struct State<T> {
    item: Option<T>,
    receiver: WaitQueue<Option<T>>,
    // The sender, if it waits until the channel is closed.
    sender: WaitQueue<()>,
    sender_dropped: bool,
    closed: bool,
}

/// The end of a [`channel`] that sends.
pub struct Sender<T>(Arc<Lock<State<T>>>);

/// The end of a [`channel`] that receives. It is also a future, for `async` code.
pub struct Receiver<T> {
    state: Arc<Lock<State<T>>>,
    // In a box, to keep the slots of waiting receivers small: few receivers are polled.
    polled: Option<Box<Polled<T>>>,
}

/// The wait of a future's task.
struct Polled<T> {
    waiter: FutureWaiter,
    entry: Registered<Arc<Lock<State<T>>>, State<T>, Option<T>>,
}

/// A channel for one item.
#[must_use]
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Lock::new(State {
        item: None,
        receiver: WaitQueue::new(),
        sender: WaitQueue::new(),
        sender_dropped: false,
        closed: false,
    }));
    (Sender(state.clone()), Receiver { state, polled: None })
}

/// The item, or `None` if none will come any more.
fn take<T>(state: &Lock<State<T>>) -> Result<Option<T>, Guard<'_, State<T>>> {
    let mut state = state.lock();
    match state.item.take() {
        None if state.sender_dropped || state.closed => Ok(None),
        None => Err(state),
        item => Ok(item),
    }
}

impl<T> Sender<T> {
    /// Sends the item. Never waits.
    ///
    /// # Errors
    ///
    /// The item itself, when the receiver has been dropped. A receiver that is dropped later drops
    /// the item.
    pub fn send(self, item: T) -> Result<(), T> {
        let mut item = Some(item);
        let mut state = self.0.lock();
        if state.closed {
            drop(state);
            return item.map_or(Ok(()), Err);
        }
        let served = state.receiver.serve(|slot| mem::swap(slot, &mut item));
        if served.is_none() {
            mem::swap(&mut state.item, &mut item);
        }
        drop(state);
        if let Some(((), waiter)) = served {
            park::wake(waiter);
        }
        Ok(())
    }

    /// Whether the receiver has been dropped or has closed the channel, so that it takes no item.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// Waits until the receiver has been dropped or has closed the channel.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn closed(&mut self) {
        park::spend();
        let state = self.0.lock();
        if !state.closed {
            let _ = wait(
                &self.0,
                state,
                |state| &mut state.sender,
                (),
                WAIT_FOR_CLOSE,
                None,
                |_| About::NOTHING.shared(&*self.0),
            );
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.sender_dropped = true;
        let served = state.receiver.serve(|_| ());
        drop(state);
        if let Some(((), waiter)) = served {
            park::wake(waiter);
        }
    }
}

impl<T> Receiver<T> {
    /// Waits for the item.
    ///
    /// # Errors
    ///
    /// When the sender has been dropped without having sent one.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn recv(mut self) -> Result<T, RecvError> {
        park::spend();
        self.wait(None).map_err(|_| RecvError)
    }

    /// Waits for the item, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `Timeout` when the time is over; `Disconnected` when no item will come any more.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        park::spend();
        self.wait(park::deadline(timeout))
    }

    /// [`recv_timeout`](Self::recv_timeout), until `deadline`.
    #[track_caller]
    fn wait(&mut self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        self.wait_unless_cancelled(deadline).unwrap_or_else(|unserved| {
            unserved.into_slot();
            Err(RecvTimeoutError::Timeout)
        })
    }

    /// [`wait`](Self::wait), for a caller that owes something to others when its wait ends.
    #[track_caller]
    pub(super) fn wait_unless_cancelled(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Result<T, RecvTimeoutError>, Unserved<Option<T>>> {
        if let Some(item) = self.stop_polling() {
            return Ok(Ok(item));
        }
        let state = match take(&self.state) {
            Ok(item) => return Ok(item.ok_or(RecvTimeoutError::Disconnected)),
            Err(state) => state,
        };
        let waited = wait_unless_cancelled(
            &self.state,
            state,
            |state| &mut state.receiver,
            None,
            WAIT_FOR_ITEM,
            deadline,
            (),
            |_| About::NOTHING.shared(&*self.state),
        );
        waited.map(|item| item.ok_or(RecvTimeoutError::Disconnected))
    }

    /// Whether a future's task waits, and has not been served.
    fn is_awaited(&self) -> bool {
        self.polled.as_ref().is_some_and(|polled| !polled.entry.is_served())
    }

    /// Ends the wait of a future's task. Returns the item if it has been served one.
    fn stop_polling(&mut self) -> Option<T> {
        self.polled.take()?.entry.deregister()?
    }

    /// The item, if it is there.
    ///
    /// # Errors
    ///
    /// `Empty` when it has not been sent; `Disconnected` when no item will come any more.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        if self.is_awaited() {
            // The task goes on waiting.
            return Err(TryRecvError::Empty);
        }
        if let Some(item) = self.stop_polling() {
            return Ok(item);
        }
        match take(&self.state) {
            Ok(item) => item.ok_or(TryRecvError::Disconnected),
            Err(_) => Err(TryRecvError::Empty),
        }
    }

    /// [`try_recv`](Self::try_recv), and has `waker` called when its result may change.
    pub(super) fn poll_recv(&mut self, waker: &Waker) -> Result<T, TryRecvError> {
        if let Some(polled) = &mut self.polled {
            polled.waiter.set_waker(waker);
        }
        if self.is_awaited() {
            return Err(TryRecvError::Empty);
        }
        if let Some(item) = self.stop_polling() {
            return Ok(item);
        }
        let waiter = FutureWaiter::new();
        waiter.set_waker(waker);
        let state = match take(&self.state) {
            Ok(item) => return item.ok_or(TryRecvError::Disconnected),
            Err(state) => state,
        };
        let lock = Arc::clone(&self.state);
        let listed = waiter.waiter();
        let entry = Registered::future(lock, state, |s| &mut s.receiver, None, listed);
        self.polled = Some(Box::new(Polled { waiter, entry }));
        Err(TryRecvError::Empty)
    }

    /// Makes a send fail from now on. An item that was sent before can still be received.
    pub fn close(&mut self) {
        // A task that waits is no longer registered: at its next poll it finds the channel closed.
        let item = self.stop_polling();
        let mut state = self.state.lock();
        state.closed = true;
        if item.is_some() {
            state.item = item;
        }
        let served = state.sender.serve(|()| ());
        drop(state);
        if let Some(((), waiter)) = served {
            park::wake(waiter);
        }
    }

    /// Closes it. Returns the item, if it was sent before that.
    pub(super) fn refuse(&mut self) -> Option<T> {
        self.close();
        self.state.lock().item.take()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // The item is dropped when the lock has been released.
        drop(self.refuse());
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
