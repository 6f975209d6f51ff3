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

use super::error::{RecvError, RecvTimeoutError, TryRecvError};
use crate::engine::park;
use crate::engine::task::Wait;
use crate::engine::waiter::FutureWaiter;
use crate::sync::lock::{Guard, Lock};
use crate::sync::wait::{Enlisted, WaitQueue, wait};

struct State<T> {
    item: Option<T>,
    receiver: WaitQueue<Option<T>>,
    // The sender, should it wait for the receiver to go.
    sender: WaitQueue<()>,
    sender_gone: bool,
    receiver_gone: bool,
}

/// The end of a [`channel`] that sends.
pub struct Sender<T>(Arc<Lock<State<T>>>);

/// The end of a [`channel`] that receives. It is also a future, for `async` code.
pub struct Receiver<T> {
    state: Arc<Lock<State<T>>>,
    polled: Option<Polled<T>>,
}

/// The wait of a task.
struct Polled<T> {
    waiter: FutureWaiter,
    place: Enlisted<Arc<Lock<State<T>>>, State<T>, Option<T>>,
}

/// A channel for one item.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Lock::new(State {
        item: None,
        receiver: WaitQueue::new(),
        sender: WaitQueue::new(),
        sender_gone: false,
        receiver_gone: false,
    }));
    (Sender(state.clone()), Receiver { state, polled: None })
}

/// The item, or `None` if none will come.
fn take<T>(state: &Lock<State<T>>) -> Result<Option<T>, Guard<'_, State<T>>> {
    let mut state = state.lock();
    match state.item.take() {
        None if state.sender_gone || state.receiver_gone => Ok(None),
        None => Err(state),
        item => Ok(item),
    }
}

impl<T> Sender<T> {
    /// Sends the item. Never waits.
    ///
    /// # Errors
    ///
    /// The item itself, when the receiver has gone. One that goes later drops the item.
    pub fn send(self, item: T) -> Result<(), T> {
        let mut item = Some(item);
        let mut state = self.0.lock();
        if state.receiver_gone {
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

    /// Whether the receiver has gone or has closed the channel, so that nobody will take an item.
    pub fn is_closed(&self) -> bool {
        self.0.lock().receiver_gone
    }

    /// Waits until the receiver has gone or has closed the channel.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn closed(&mut self) {
        park::spend();
        let state = self.0.lock();
        if !state.receiver_gone {
            let why = Wait::for_any_thread("the receivers of a channel to close");
            let _ = wait(&self.0, state, |state| &mut state.sender, (), why, None);
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.sender_gone = true;
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
    /// When the sender has gone without having sent one.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
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
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        park::spend();
        self.wait(park::deadline(timeout))
    }

    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        if let Some(item) = self.given() {
            return Ok(item);
        }
        let state = match take(&self.state) {
            Ok(item) => return item.ok_or(RecvTimeoutError::Disconnected),
            Err(state) => state,
        };
        let why = Wait::for_any_thread("an item of a channel");
        match wait(&self.state, state, |state| &mut state.receiver, None, why, deadline) {
            Ok(item) => item.ok_or(RecvTimeoutError::Disconnected),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Whether a task waits, and nothing has come.
    fn is_awaited(&self) -> bool {
        self.polled.as_ref().is_some_and(|polled| !polled.place.is_served())
    }

    /// Ends the wait of a task. Returns what it has been given.
    fn given(&mut self) -> Option<T> {
        self.polled.take()?.place.leave()?
    }

    /// The item, if it is there.
    ///
    /// # Errors
    ///
    /// `Empty` when it has not been sent; `Disconnected` when no item will come any more.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        if self.is_awaited() {
            // The task still waits after this.
            return Err(TryRecvError::Empty);
        }
        if let Some(item) = self.given() {
            return Ok(item);
        }
        match take(&self.state) {
            Ok(item) => item.ok_or(TryRecvError::Disconnected),
            Err(_) => Err(TryRecvError::Empty),
        }
    }

    /// [`try_recv`](Self::try_recv), and has `waker` called when that may give something else.
    pub(super) fn poll_recv(&mut self, waker: &Waker) -> Result<T, TryRecvError> {
        if let Some(polled) = &mut self.polled {
            polled.waiter.set_waker(waker);
        }
        if self.is_awaited() {
            return Err(TryRecvError::Empty);
        }
        if let Some(item) = self.given() {
            return Ok(item);
        }
        let waiter = FutureWaiter::new();
        waiter.set_waker(waker);
        let state = match take(&self.state) {
            Ok(item) => return item.ok_or(TryRecvError::Disconnected),
            Err(state) => state,
        };
        let lock = self.state.clone();
        let listed = waiter.waiter();
        let place = Enlisted::new(lock, state, |state| &mut state.receiver, None, listed, None);
        self.polled = Some(Polled { waiter, place });
        Err(TryRecvError::Empty)
    }

    /// Has the sender fail from now on. An item that was sent before can still be received.
    pub fn close(&mut self) {
        // A task that waits does so no longer, and finds it closed.
        let given = self.given();
        let mut state = self.state.lock();
        state.receiver_gone = true;
        if given.is_some() {
            state.item = given;
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
        // Dropped when the lock is released.
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
