//! A value that many receivers watch, as in tokio: they see the last value, and not each.
//!
//! ```
//! use plainsong::sync::watch;
//!
//! plainsong::run(|| {
//!     let (sender, mut receiver) = watch::channel("starting");
//!     plainsong::spawn(move || sender.send("running"));
//!     receiver.changed().unwrap();
//!     assert_eq!(*receiver.borrow(), "running");
//! });
//! ```

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};

use crate::engine::park;
use crate::engine::task::Wait;
use crate::sync::lock::Lock;
use crate::sync::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::sync::wait::{About, WaitQueue, wait};

pub use super::error::{RecvError, SendError};

const WAIT_FOR_CHANGE: Wait =
    Wait::new(&Wait::for_any_thread("an item of a channel").of("changed", "watch channel"));
const WAIT_FOR_CLOSE: Wait = Wait::new(
    &Wait::for_any_thread("the receivers of a channel to close").of("closed", "watch channel"),
);

struct Shared<T> {
    // Its holder may wait, so it is a lock that parks.
    value: RwLock<T>,
    state: Lock<State>,
}

struct State {
    // Counts the changes.
    version: u64,
    senders: usize,
    receivers: usize,
    // Receivers that wait for a change, and senders that wait until there is no receiver.
    watching: WaitQueue<()>,
    closing: WaitQueue<()>,
}

/// The end of a [`channel`] that sets the value. Clones set the same value.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end of a [`channel`] that sees the value. Clones have seen what this one has.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    // The last version that this receiver has seen.
    seen: u64,
}

/// The value, borrowed. A sender that sets it waits meanwhile, and all later borrows wait behind
/// that sender. So hold it for a short time only, and do not borrow again: that could be a
/// deadlock.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct Ref<'a, T> {
    value: RwLockReadGuard<'a, T>,
    has_changed: bool,
}

/// A channel that holds one value, at first `value`, which the receiver has seen.
#[track_caller]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(value),
        state: Lock::new(State {
            version: 0,
            senders: 1,
            receivers: 1,
            watching: WaitQueue::new(),
            closing: WaitQueue::new(),
        }),
    });
    (Sender(shared.clone()), Receiver { shared, seen: 0 })
}

impl<T> Shared<T> {
    // A panic in `send_modify` leaves the value as it is then.

    #[track_caller]
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn changed(&self, seen: &mut u64) -> Result<(), RecvError> {
        park::spend();
        loop {
            let state = self.state.lock();
            if state.version != *seen {
                *seen = state.version;
                return Ok(());
            }
            if state.senders == 0 {
                return Err(RecvError);
            }
            let _ = wait(
                &self.state,
                state,
                |s| &mut s.watching,
                (),
                WAIT_FOR_CHANGE,
                None,
                |_| About::NOTHING.shared(self),
            );
        }
    }

    /// Ends all waits in a queue: the waiters look again.
    fn wake_all(&self, queue: fn(&mut State) -> &mut WaitQueue<()>) {
        let woken = queue(&mut self.state.lock()).serve_all(|()| ());
        park::wake_all(woken);
    }
}

impl<T> Sender<T> {
    /// The sender of a [`channel`] without a receiver. [`subscribe`](Self::subscribe) makes one.
    pub fn new(value: T) -> Self {
        channel(value).0
    }

    /// Sets the value and notifies the receivers. The previous value is dropped.
    ///
    /// # Errors
    ///
    /// When there is no receiver, with the value, which is not set then.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits until the value is not borrowed.
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Sets the value, also without receivers. Returns the previous value.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits until the value is not borrowed.
    #[track_caller]
    pub fn send_replace(&self, value: T) -> T {
        let mut value = value;
        self.send_modify(|before| mem::swap(before, &mut value));
        value
    }

    /// Changes the value in place and notifies the receivers.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits until the value is not borrowed.
    #[track_caller]
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value in place, and notifies the receivers if `modify` returns `true`. Returns
    /// the same.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits until the value is not borrowed.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.write();
        let modified = modify(&mut value);
        if modified {
            // With the value still locked, so that a version belongs to one value.
            self.0.state.lock().version += 1;
        }
        drop(value);
        if modified {
            self.0.wake_all(|state| &mut state.watching);
        }
        modified
    }

    /// The value.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits for a sender that sets the value.
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { value: self.0.read(), has_changed: false }
    }

    /// A further receiver, which has seen the value.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.0.state.lock();
        state.receivers += 1;
        Receiver { shared: self.0.clone(), seen: state.version }
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.0.state.lock().receivers
    }

    /// Whether there is no receiver.
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    /// Waits until there is no receiver.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn closed(&self) {
        park::spend();
        loop {
            let state = self.0.state.lock();
            if state.receivers == 0 {
                return;
            }
            let _ = wait(
                &self.0.state,
                state,
                |s| &mut s.closing,
                (),
                WAIT_FOR_CLOSE,
                None,
                |_| About::NOTHING.shared(&*self.0),
            );
        }
    }

    /// Whether both set the same value.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Receiver<T> {
    /// The value. It does not count as seen.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits for a sender that sets the value.
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        let value = self.shared.read();
        let has_changed = self.shared.state.lock().version != self.seen;
        Ref { value, has_changed }
    }

    /// The value, which counts as seen.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits for a sender that sets the value.
    #[track_caller]
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        let version = self.shared.state.lock().version;
        let has_changed = mem::replace(&mut self.seen, version) != version;
        Ref { value, has_changed }
    }

    /// Whether the value has changed since it was last seen.
    ///
    /// # Errors
    ///
    /// When every sender has been dropped.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        let state = self.shared.state.lock();
        if state.senders == 0 { Err(RecvError) } else { Ok(state.version != self.seen) }
    }

    /// Waits until the value has changed since it was last seen. It then counts as seen.
    ///
    /// # Errors
    ///
    /// When every sender has been dropped, and the last value has been seen.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn changed(&mut self) -> Result<(), RecvError> {
        self.shared.changed(&mut self.seen)
    }

    /// Waits for a value for which `wanted` holds, and borrows it. It then counts as seen.
    ///
    /// # Errors
    ///
    /// When every sender has been dropped, and it does not hold for the last value.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, RecvError> {
        loop {
            let value = self.shared.read();
            let version = self.shared.state.lock().version;
            let has_changed = mem::replace(&mut self.seen, version) != version;
            if wanted(&value) {
                return Ok(Ref { value, has_changed });
            }
            drop(value);
            self.shared.changed(&mut self.seen)?;
        }
    }

    /// Makes the value count as changed.
    pub fn mark_changed(&mut self) {
        self.seen = self.shared.state.lock().version.wrapping_sub(1);
    }

    /// Makes the value count as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state.lock().version;
    }

    /// Whether both see the same value.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Ref<'_, T> {
    /// Whether the value had changed since the receiver had last seen it.
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.state.lock().receivers += 1;
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let senders = {
            let mut state = self.0.state.lock();
            state.senders -= 1;
            state.senders
        };
        if senders == 0 {
            self.0.wake_all(|state| &mut state.watching);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let receivers = {
            let mut state = self.shared.state.lock();
            state.receivers -= 1;
            state.receivers
        };
        if receivers == 0 {
            self.shared.wake_all(|state| &mut state.closing);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
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
