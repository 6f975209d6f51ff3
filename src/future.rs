//! The bridge to `async`: a coroutine waits for a future, and a future for a coroutine.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::engine::mutex::{Mutex, MutexGuard};
use crate::engine::park;
use crate::engine::task::Wait;
use crate::engine::waiter::{FutureWaiter, Parker};
use crate::task::{JoinError, JoinHandle};

const WAIT: Wait = Wait::outside("a future");

/// Runs a future and returns its output. In a coroutine this parks the coroutine while the future
/// is pending, so the others go on; on a plain thread it blocks the thread.
///
/// The future is polled here and nowhere else, so it need not be `Send`. One that belongs to
/// another runtime, such as tokio's sockets and timers, must find that: poll it with a runtime of
/// its kind entered, or let that run it and wait here for its handle.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while the future is pending; the future is dropped.
///
/// ```
/// plainsong::run(|| {
///     let worker = plainsong::spawn(|| 6 * 7);
///     let answer = plainsong::block_on(async { worker.await.unwrap() });
///     assert_eq!(answer, 42);
/// });
/// ```
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        park::spend();
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        signal.wait();
    }
}

/// What a waker wakes: whoever waits here, or who will next.
#[derive(Default)]
struct Signal(Mutex<Called>);

#[derive(Default)]
struct Called {
    woken: bool,
    waiter: Option<Parker>,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Called> {
        self.0.lock()
    }

    /// Waits until it is called, or has been since the last wait.
    fn wait(&self) {
        let mut called = self.lock();
        if !mem::take(&mut called.woken) {
            let waiter = park::waiter();
            called.waiter = Some(waiter);
            drop(called);
            park::block(waiter, WAIT, None);
            self.lock().woken = false;
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiter = {
            let mut called = self.lock();
            called.woken = true;
            called.waiter.take()
        };
        if let Some(waiter) = waiter {
            park::wake(waiter.into());
        }
    }
}

/// A coroutine's end as a future, for any executor; made by [`JoinHandle::into_future`]. Dropping
/// it detaches the coroutine.
pub struct JoinFuture<T> {
    // `None` when it is done.
    handle: Option<JoinHandle<T>>,
    waiter: FutureWaiter,
    registered: bool,
}

impl<T> Future for JoinFuture<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let handle = this.handle.as_ref().expect("a future was polled after it had ended");
        this.waiter.set_waker(cx.waker());
        if !this.registered {
            this.registered = true;
            handle.receiver.register(this.waiter.waiter());
        }
        // Asked last: an end before this is seen here, and one after it wakes the task.
        if !handle.is_finished() {
            return Poll::Pending;
        }
        this.handle.take().map_or(Poll::Pending, |handle| Poll::Ready(handle.join()))
    }
}

impl<T> Unpin for JoinFuture<T> {}

impl<T> Drop for JoinFuture<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.as_ref().filter(|_| self.registered) {
            handle.receiver.unregister(&self.waiter.waiter());
        }
    }
}

impl<T> fmt::Debug for JoinFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFuture").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Waits for the coroutine to end, in `async` code of whatever executor. Dropping the future
/// detaches the coroutine.
impl<T> IntoFuture for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = JoinFuture<T>;

    fn into_future(self) -> JoinFuture<T> {
        JoinFuture { handle: Some(self), waiter: FutureWaiter::new(), registered: false }
    }
}
