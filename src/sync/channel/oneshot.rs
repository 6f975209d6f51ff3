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
use std::time::{Duration, Instant};

use super::error::{RecvError, RecvTimeoutError, TryRecvError};
use crate::engine::context;
use crate::engine::task::{Given, Wait};
use crate::sync::lock::Lock;
use crate::sync::wait::{WaitQueue, wait};

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

/// The end of a [`channel`] that receives.
pub struct Receiver<T>(Arc<Lock<State<T>>>);

/// A channel for one item.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Lock::new(State {
        item: None,
        receiver: WaitQueue::new(),
        sender: WaitQueue::new(),
        sender_gone: false,
        receiver_gone: false,
    }));
    (Sender(state.clone()), Receiver(state))
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
            context::wake(waiter);
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
        context::spend();
        let state = self.0.lock();
        if !state.receiver_gone {
            let why = Wait::Sync(Given::Room);
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
            context::wake(waiter);
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
    pub fn recv(self) -> Result<T, RecvError> {
        context::spend();
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
        context::spend();
        self.wait(context::now().checked_add(timeout))
    }

    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let mut state = self.0.lock();
        let item = match state.item.take() {
            None if state.sender_gone || state.receiver_gone => None,
            None => {
                let why = Wait::Sync(Given::Item);
                match wait(&self.0, state, |state| &mut state.receiver, None, why, deadline) {
                    Ok(item) => item,
                    Err(_) => return Err(RecvTimeoutError::Timeout),
                }
            }
            item => item,
        };
        item.ok_or(RecvTimeoutError::Disconnected)
    }

    /// The item, if it is there.
    ///
    /// # Errors
    ///
    /// `Empty` when it has not been sent; `Disconnected` when no item will come any more.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        match state.item.take() {
            Some(item) => Ok(item),
            None if state.sender_gone || state.receiver_gone => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Has the sender fail from now on. An item that was sent before can still be received.
    pub fn close(&mut self) {
        let mut state = self.0.lock();
        state.receiver_gone = true;
        let served = state.sender.serve(|()| ());
        drop(state);
        if let Some(((), waiter)) = served {
            context::wake(waiter);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        // Dropped when the lock is released.
        let item = self.0.lock().item.take();
        drop(item);
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
